"""LangChain and LlamaIndex by either protocol, each running its script once against the real model."""

from typing import Any

import pytest

from tests.runtime.api.server import ServeProcess
from tests.runtime.clients.environments import tell_framework

pytestmark = pytest.mark.runtime

PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def langchain(smol: ServeProcess) -> Any:
    return tell_framework("langchain_clients.py", smol)


@pytest.fixture(scope="module")
def llama_index(smol: ServeProcess) -> Any:
    return tell_framework("llama_index_clients.py", smol)


def test_langchain_by_openais_protocol(langchain: Any) -> None:
    answer = langchain["openai_invoke"]
    assert (answer["text"], answer["finish"]) == (PARIS, "stop")
    assert answer["usage"]["total_tokens"] == answer["usage"]["input_tokens"] + 8
    streamed = langchain["openai_stream"]
    assert streamed["text"] == PARIS
    assert streamed["usage"]["total_tokens"] == answer["usage"]["total_tokens"]
    assert langchain["openai_async_batch"] == [PARIS] * 3
    assert langchain["openai_responses_api"] == {"text": PARIS, "streamed": PARIS}


def test_langchain_by_ollamas_protocol(langchain: Any) -> None:
    answer = langchain["ollama_invoke"]
    assert (answer["text"], answer["finish"]) == (PARIS, "stop")
    assert answer["usage"]["output_tokens"] == 8
    assert langchain["ollama_stream"] == PARIS


def test_langchain_gets_structure(langchain: Any) -> None:
    assert langchain["openai_structured"] == [{"city": "Paris"}] * 2
    assert langchain["ollama_structured"] == {"city": "Paris"}


def test_langchain_calls_tools(langchain: Any) -> None:
    """Its schemas of tools are open: a small model must come to an end of their properties all the same."""
    (call,) = langchain["openai_tool_round_trip"]["calls"]
    assert call["name"] == "capital"
    assert call["args"].keys() == {"country"}
    assert langchain["openai_tool_round_trip"]["after"] == "ai"
    (streamed,) = langchain["openai_streamed_tool_call"]
    assert (streamed["name"], streamed["args"].keys()) == ("capital", {"country"})


@pytest.mark.parametrize(
    "step", ["openai_unforced_tool_call", "ollama_tool_call", "ollama_streamed_tool_call"]
)
def test_langchain_gets_calls_that_were_not_forced(langchain: Any, step: str) -> None:
    (call,) = langchain[step]
    assert (call["name"], call["args"]) == ("capital", {"country": "France"})


def test_langchain_embeds(langchain: Any) -> None:
    assert langchain["openai_embeddings"] == langchain["ollama_embeddings"] == [576, 576]


@pytest.mark.parametrize(
    ("step", "kind", "status"),
    [
        ("openai_unknown_model", "OpenAIModelNotFoundError", 404),
        ("openai_wrong_key", "OpenAIAuthenticationError", 401),
        ("openai_too_long", "OpenAIContextOverflowError", 400),
        ("ollama_unknown_model", "ResponseError", 404),
        ("ollama_wrong_key", "ResponseError", 401),
    ],
)
def test_langchains_errors(langchain: Any, step: str, kind: str, status: int) -> None:
    assert (langchain[step]["raised"], langchain[step]["status"]) == (kind, status)


@pytest.mark.parametrize("client", ["like", "ollama"])
def test_llama_index_by_either_protocol(llama_index: Any, client: str) -> None:
    for way in ("chat", "stream", "async"):
        assert llama_index[f"{client}_{way}"] == PARIS
    assert "Paris" in llama_index[f"{client}_complete"]
    assert llama_index[f"{client}_structured"] == {"city": "Paris"}


def test_llama_index_calls_tools(llama_index: Any) -> None:
    ((name, arguments),) = llama_index["like_tools"]
    assert (name, arguments.keys()) == ("capital", {"country"})
    assert llama_index["ollama_tools"] == [["capital", {"country": "France"}]]


@pytest.mark.parametrize(("client", "kind"), [("like", "NotFoundError"), ("ollama", "ResponseError")])
def test_llama_indexs_errors(llama_index: Any, client: str, kind: str) -> None:
    told = llama_index[f"{client}_unknown_model"]
    assert (told["raised"], told["status"]) == (kind, 404)
