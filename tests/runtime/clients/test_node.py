"""The vendors' JavaScript clients, each running its script once against the real model."""

import json
from typing import Any

import pytest

from tests.runtime.api.server import ServeProcess
from tests.runtime.clients.environments import tell_node

pytestmark = pytest.mark.runtime

PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def openai(node: None, smol: ServeProcess) -> Any:
    return tell_node("openai.mjs", smol)


@pytest.fixture(scope="module")
def ollama(node: None, smol: ServeProcess) -> Any:
    return tell_node("ollama.mjs", smol)


def test_openai_answers_whole_and_as_a_stream(openai: Any, smol: ServeProcess) -> None:
    assert openai["models"] == [smol.name]
    assert openai["chat"]["text"] == PARIS
    assert openai["stream"] == openai["chat"]
    assert openai["response"] == {"text": PARIS, "status": "completed"}


def test_openais_reader_of_response_events_is_content(openai: Any) -> None:
    assert openai["responseStream"]["text"] == PARIS
    assert openai["responseStream"]["kinds"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_openai_calls_tools(openai: Any) -> None:
    call = openai["streamedCall"]
    assert (call["name"], call["finish"]) == ("capital", "tool_calls")
    assert "".join(call["pieces"]) == call["arguments"]
    assert json.loads(call["arguments"]) == {"city": "Paris"}
    assert openai["toolsRun"] == {"called": [{"city": "Paris"}], "roles": ["user", "assistant", "tool"]}


def test_openai_parses_structured_output(openai: Any) -> None:
    assert openai["structured"] == {"city": "Paris"}


@pytest.mark.parametrize(
    ("step", "kind", "status", "code", "param"),
    [
        ("unknownModel", "NotFoundError", 404, "model_not_found", "model"),
        ("badValue", "BadRequestError", 400, "invalid_type", "temperature"),
        ("wrongKey", "AuthenticationError", 401, "invalid_api_key", None),
    ],
)
def test_openais_errors(openai: Any, step: str, kind: str, status: int, code: str, param: str | None) -> None:
    told = openai[step]
    assert (told["raised"], told["status"], told["code"], told["param"]) == (kind, status, code, param)


def test_ollama_answers_whole_and_as_a_stream(ollama: Any) -> None:
    assert ollama["chat"] == {"text": PARIS, "tokens": 8, "done": "stop"}
    assert ollama["chatStream"] == ollama["generateStream"] == ollama["chat"]


def test_ollama_sees_what_is_served(ollama: Any, smol: ServeProcess) -> None:
    assert ollama["list"] == ollama["ps"] == [f"{smol.name}:latest"]
    assert ollama["show"]["details"]["quantization_level"] == "Q4_1"
    assert "tools" in ollama["show"]["capabilities"]
    assert ollama["pull"] == "success"


def test_ollama_gets_the_format_and_calls_tools(ollama: Any) -> None:
    assert ollama["structured"] == {"city": "Paris"}
    (call,) = ollama["called"]
    assert (call["name"], call["arguments"]) == ("capital", {"city": "France"})


@pytest.mark.parametrize(
    ("step", "status", "words"),
    [
        ("pullOther", 501, "SLMDeployment"),
        ("remove", 501, "SLMDeployment"),
        ("unknownModel", 404, "not found"),
        ("unknownModelStream", 404, "not found"),
        ("wrongKey", 401, "API key"),
    ],
)
def test_ollamas_errors(ollama: Any, step: str, status: int, words: str) -> None:
    assert ollama[step]["raised"] == "ResponseError"
    assert ollama[step]["status"] == status
    assert words in ollama[step]["message"]


def test_a_stream_that_is_left_frees_its_sequence(openai: Any, ollama: Any) -> None:
    assert openai["left"] == "freed"
    assert ollama["aborted"] == ["AbortError", "freed"]
