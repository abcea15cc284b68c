"""What people write with LlamaIndex' two clients for servers like this one; runs in the frameworks' own environment."""

import asyncio
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.ollama import Ollama
from llama_index.llms.openai_like import OpenAILike
from ollama import AsyncClient, Client
from pydantic import BaseModel, Field
from telling import BASE, CALL_FOR, KEY, MODEL, QUESTION, tell

MESSAGES = [ChatMessage(role="user", content=QUESTION)]


def like(**more: Any) -> OpenAILike:
    given = {
        "model": MODEL,
        "api_key": KEY,
        "temperature": 0,
        "max_tokens": 60,
        "max_retries": 0,
        "context_window": 2048,
    }
    kinds = {"is_chat_model": True, "is_function_calling_model": True}
    return OpenAILike(api_base=f"{BASE}/v1", **{**given, **kinds, **more})


def ollama(**more: Any) -> Ollama:
    headers = {"Authorization": f"Bearer {KEY}"}
    clients = {
        "client": Client(host=BASE, headers=headers, trust_env=False),
        "async_client": AsyncClient(host=BASE, headers=headers, trust_env=False),
    }
    given = {
        "model": MODEL,
        "temperature": 0,
        "context_window": 2048,
        "additional_kwargs": {"num_predict": 60},
    }
    return Ollama(base_url=BASE, **{**given, **clients, **more})


class City(BaseModel):
    """A city."""

    city: str = Field(max_length=20)


def capital(country: str) -> str:
    """Tell the capital of a country."""
    return country


TOOL = FunctionTool.from_defaults(capital)


def like_chat() -> Any:
    return like().chat(MESSAGES).message.content


def like_stream() -> Any:
    return "".join(part.delta or "" for part in like().stream_chat(MESSAGES))


def like_async() -> Any:
    return asyncio.run(like().achat(MESSAGES)).message.content


def like_complete() -> Any:
    return like(is_chat_model=False).complete("The capital of France is").text


def like_tools() -> Any:
    model = like()
    answer = model.chat_with_tools([TOOL], user_msg=QUESTION, tool_required=True)
    return [[call.tool_name, call.tool_kwargs] for call in model.get_tool_calls_from_response(answer)]


def like_structured() -> Any:
    return like().structured_predict(City, PromptTemplate(QUESTION)).model_dump()


def like_unknown_model() -> Any:
    return like(model="gpt-4o").chat(MESSAGES).message.content


def ollama_chat() -> Any:
    return ollama().chat(MESSAGES).message.content


def ollama_stream() -> Any:
    return "".join(part.delta or "" for part in ollama().stream_chat(MESSAGES))


def ollama_async() -> Any:
    return asyncio.run(ollama().achat(MESSAGES)).message.content


def ollama_complete() -> Any:
    return ollama().complete(QUESTION).text


def ollama_tools() -> Any:
    history = []
    for country in ("Italy", "Spain"):
        call = {"function": {"name": "capital", "arguments": {"country": country}}}
        history += [
            ChatMessage(role="user", content=CALL_FOR.format(country)),
            ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [call]}),
        ]
    model = ollama()
    answer = model.chat_with_tools([TOOL], user_msg=CALL_FOR.format("France"), chat_history=history)
    calls = model.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    return [[call.tool_name, call.tool_kwargs] for call in calls]


def ollama_structured() -> Any:
    return ollama().structured_predict(City, PromptTemplate(QUESTION)).model_dump()


def ollama_unknown_model() -> Any:
    return ollama(model="other").chat(MESSAGES).message.content


tell(*[step for name, step in list(globals().items()) if name.startswith(("like_", "ollama_"))])
