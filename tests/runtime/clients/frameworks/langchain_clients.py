"""What people write with langchain-openai and langchain-ollama; runs in the frameworks' own environment."""

import asyncio
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field
from telling import BASE, CALL_FOR, KEY, MODEL, QUESTION, tell


def openai(**more: Any) -> ChatOpenAI:
    given = {"model": MODEL, "api_key": KEY, "temperature": 0, "max_tokens": 60, "max_retries": 0, **more}
    return ChatOpenAI(base_url=f"{BASE}/v1", **given)


def ollama(**more: Any) -> ChatOllama:
    headers = {"headers": {"Authorization": f"Bearer {KEY}"}, "trust_env": False}
    given = {"model": MODEL, "temperature": 0, "num_predict": 60, "client_kwargs": headers, **more}
    return ChatOllama(base_url=BASE, **given)


class City(BaseModel):
    """A city."""

    city: str = Field(max_length=20)


@tool
def capital(country: str) -> str:
    """The capital of a country."""
    return country


def called_before() -> list[Any]:
    messages: list[Any] = []
    for country in ("Italy", "Spain"):
        call = {"name": "capital", "args": {"country": country}, "id": country}
        messages += [HumanMessage(CALL_FOR.format(country)), AIMessage("", tool_calls=[call])]
    return [*messages, HumanMessage(CALL_FOR.format("France"))]


def openai_invoke() -> Any:
    answer = openai().invoke(QUESTION)
    return {
        "text": answer.content,
        "usage": answer.usage_metadata,
        "finish": answer.response_metadata["finish_reason"],
    }


def openai_stream() -> Any:
    whole = None
    for chunk in openai(stream_usage=True).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    return {"text": whole.content, "usage": whole.usage_metadata}


def openai_async_batch() -> Any:
    return [answer.content for answer in asyncio.run(openai().abatch([QUESTION] * 3))]


def openai_tool_round_trip() -> Any:
    model = openai().bind_tools([capital], tool_choice="capital")
    call = model.invoke(QUESTION)
    result = ToolMessage("Paris", tool_call_id=call.tool_calls[0]["id"])
    after = openai().bind_tools([capital]).invoke([HumanMessage(QUESTION), call, result])
    return {"calls": call.tool_calls, "after": after.type}


def openai_streamed_tool_call() -> Any:
    whole = None
    for chunk in openai().bind_tools([capital], tool_choice="any").stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    return whole.tool_calls


def openai_structured() -> Any:
    methods = ("json_schema", "function_calling")
    return [
        openai().with_structured_output(City, method=method).invoke(QUESTION).model_dump()
        for method in methods
    ]


def openai_responses_api() -> Any:
    answer = openai(use_responses_api=True).invoke(QUESTION)
    streamed = "".join(chunk.text for chunk in openai(use_responses_api=True).stream(QUESTION))
    return {"text": answer.text, "streamed": streamed}


def openai_embeddings() -> Any:
    # Otherwise it fetches OpenAI's tokenizer, and sends that one's tokens.
    model = OpenAIEmbeddings(
        model=MODEL, base_url=f"{BASE}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    return [len(vector) for vector in model.embed_documents(["a cat", "a dog"])]


def openai_unknown_model() -> Any:
    return openai(model="gpt-4o").invoke(QUESTION).content


def openai_wrong_key() -> Any:
    return openai(api_key="wrong").invoke(QUESTION).content


def openai_too_long() -> Any:
    return openai().invoke("word " * 5000).content


def ollama_invoke() -> Any:
    answer = ollama().invoke(QUESTION)
    return {
        "text": answer.content,
        "usage": answer.usage_metadata,
        "finish": answer.response_metadata["done_reason"],
    }


def ollama_stream() -> Any:
    return "".join(chunk.content for chunk in ollama().stream(QUESTION))


def ollama_structured() -> Any:
    return ollama().with_structured_output(City).invoke(QUESTION).model_dump()


def openai_unforced_tool_call() -> Any:
    return openai().bind_tools([capital]).invoke(called_before()).tool_calls


def ollama_tool_call() -> Any:
    return ollama().bind_tools([capital]).invoke(called_before()).tool_calls


def ollama_streamed_tool_call() -> Any:
    whole = None
    for chunk in ollama().bind_tools([capital]).stream(called_before()):
        whole = chunk if whole is None else whole + chunk
    return whole.tool_calls


def ollama_embeddings() -> Any:
    headers = {"headers": {"Authorization": f"Bearer {KEY}"}, "trust_env": False}
    model = OllamaEmbeddings(model=MODEL, base_url=BASE, client_kwargs=headers)
    return [len(vector) for vector in model.embed_documents(["a cat", "a dog"])]


def ollama_unknown_model() -> Any:
    return ollama(model="other").invoke(QUESTION).content


def ollama_wrong_key() -> Any:
    return ollama(client_kwargs={"trust_env": False}).invoke(QUESTION).content


tell(*[step for name, step in list(globals().items()) if name.startswith(("openai_", "ollama_"))])
