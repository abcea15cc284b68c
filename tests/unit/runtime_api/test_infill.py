"""Filling in the middle: llama-server's `/infill`, and `suffix` in the other protocols."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from slm_runtime.engine.loading import InfillTokens
from tests.unit.runtime_api.scripted import LOADED, MODEL, Running, Script, ScriptedEngine, running

MARKS = InfillTokens(prefix=1001, suffix=1002, middle=1003, repository=1004, file=1005)
BOS = 1
BODY: dict[str, Any] = {"input_prefix": "def f():\n", "input_suffix": "\nend", "prompt": "    "}


def engine(script: Script | None = None, marks: InfillTokens = MARKS, context: int = 2048) -> ScriptedEngine:
    return ScriptedEngine(script, msgspec.structs.replace(LOADED, infill=marks, context_length=context))


@pytest.fixture
async def coder() -> AsyncIterator[tuple[ScriptedEngine, httpx.AsyncClient]]:
    scripted = engine()
    async with (
        running(scripted) as api,
        httpx.AsyncClient(base_url=api.base, timeout=10, trust_env=False) as client,
    ):
        yield scripted, client


def prompt(scripted: ScriptedEngine) -> list[int]:
    """A scripted engine's tokens are a text's bytes."""
    (part,) = scripted.requests[-1].prompt
    assert isinstance(part, list)
    return part


def gap(before: str, after: str) -> list[int]:
    return [BOS, MARKS.prefix, *before.encode(), MARKS.suffix, *after.encode(), MARKS.middle]


Coder = tuple[ScriptedEngine, httpx.AsyncClient]


async def test_a_gap_is_filled_as_llama_server_fills_it(coder: Coder) -> None:
    scripted, http = coder
    answer = (await http.post("/infill", json=BODY)).json()
    assert prompt(scripted) == gap("def f():\n    ", "\nend")
    assert not scripted.requests[0].add_special
    assert (answer["content"], answer["stop"], answer["stop_type"]) == ("Hello, world!", True, "eos")
    assert (answer["tokens_evaluated"], answer["tokens_predicted"]) == (7, 4)
    assert answer["timings"]["prompt_n"] == 4
    assert answer["timings"]["predicted_per_second"] == 20


async def test_the_fields_that_an_editor_names_are_told(coder: Coder) -> None:
    """As llama.vim sends it."""
    _, http = coder
    body = {
        **BODY,
        "id_slot": 0,
        "n_predict": 2,
        "stop": ["\n\n"],
        "n_indent": 4,
        "top_k": 40,
        "top_p": 0.9,
        "samplers": ["top_k", "top_p", "infill"],
        "stream": False,
        "cache_prompt": True,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 1000,
        "model": "whatever",
        "response_fields": ["content", "timings/prompt_n", "timings/none", "none"],
    }
    answer = await http.post("/infill", json=body)
    assert answer.json() == {"content": "Hello, ", "timings/prompt_n": 4}


async def test_a_prompt_is_read_ahead(coder: Coder) -> None:
    scripted, http = coder
    answer = (await http.post("/infill", json={**BODY, "n_predict": 0})).json()
    assert (answer["content"], answer["tokens_predicted"]) == ("", 0)
    assert scripted.requests[0].max_tokens == 1


async def test_a_stream_of_llama_servers(coder: Coder) -> None:
    _, http = coder
    answer = await http.post("/infill", json={**BODY, "stream": True})
    events = [msgspec.json.decode(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert "".join(event["content"] for event in events) == "Hello, world!"
    assert [event["stop"] for event in events] == [False] * 4 + [True]


async def test_other_files_stand_before_it(coder: Coder) -> None:
    scripted, http = coder
    extra = [{"filename": "a.py", "text": "import b"}, {"text": "x"}]
    await http.post("/infill", json={**BODY, "input_extra": extra})
    others = [
        MARKS.repository,
        *b"repository\n",
        MARKS.file,
        *b"a.py\nimport b",
        MARKS.file,
        *b"file\nx",
        MARKS.file,
        *b"file\n",
    ]
    assert prompt(scripted) == [BOS, *others, *gap("def f():\n    ", "\nend")[1:]]


async def test_what_does_not_fit_is_cut_from_its_far_ends() -> None:
    scripted = engine(marks=InfillTokens(1001, 1002, 1003), context=104)
    extra = [{"text": "far" * 200}, {"text": "near"}]
    body = {"input_prefix": "a" * 500 + "b", "input_suffix": "c" + "d" * 500, "n_predict": 20}
    async with (
        running(scripted) as api,
        httpx.AsyncClient(base_url=api.base, trust_env=False) as http,
    ):
        await http.post("/infill", json=body)
        assert prompt(scripted) == gap("a" * 59 + "b", "c" + "d" * 19)
        await http.post("/infill", json={**body, "input_suffix": "", "input_extra": extra})
        assert prompt(scripted) == gap("a" * 79 + "b", "")
        await http.post("/infill", json={**body, "input_prefix": "b", "input_extra": extra})
        assert prompt(scripted) == gap("b", "c" + "d" * 78)
        short = {"input_prefix": "b", "input_suffix": "c", "input_extra": extra}
        await http.post("/infill", json=short)
        assert prompt(scripted) == [BOS, *b"\n\n--- snippet ---\n\nnear", *gap("b", "c")[1:]]


async def test_a_suffix_in_the_other_protocols(coder: Coder) -> None:
    scripted, http = coder
    body = {"model": MODEL, "prompt": "x", "suffix": "y"}
    completed = (await http.post("/v1/completions", json=body)).json()
    assert completed["choices"][0]["text"] == "Hello, world!"
    assert prompt(scripted) == gap("x", "y")
    generated = (await http.post("/api/generate", json={**body, "stream": False})).json()
    assert generated["response"] == "Hello, world!"
    assert prompt(scripted) == gap("x", "y")
    refused = await http.post("/v1/completions", json={**body, "echo": True})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "suffix")
    shown = (await http.post("/api/show", json={"model": MODEL})).json()
    assert "insert" in shown["capabilities"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/infill", BODY),
        ("/v1/completions", {"model": MODEL, "prompt": "x", "suffix": "y"}),
        ("/api/generate", {"model": MODEL, "prompt": "x", "suffix": "y"}),
    ],
)
async def test_a_model_without_such_tokens_says_so(
    http: httpx.AsyncClient, api: Running, path: str, body: dict[str, Any]
) -> None:
    answer = await http.post(path, json=body)
    assert answer.status_code == 400
    assert "does not support insert" in answer.text
    assert "insert" not in (await http.post("/api/show", json={"model": MODEL})).json()["capabilities"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input_prefix": "x"}, "input_suffix"),
        ({**BODY, "prompt": 5}, "prompt"),
        ({**BODY, "input_extra": [{"filename": "x"}]}, "text"),
        ({**BODY, "temperature": -1}, "temperature"),
    ],
)
async def test_what_is_wrong_is_named(coder: Coder, body: dict[str, Any], param: str) -> None:
    answer = await coder[1].post("/infill", json=body)
    assert answer.status_code == 400
    assert param in answer.json()["error"]["message"]
