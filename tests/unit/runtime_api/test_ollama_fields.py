"""Ollama's fields one by one: names, types, bounds, what is left out where it is empty."""

import json
from typing import Any

import httpx
import msgspec
import ollama
import pytest

from slm_contract.config import ModelConfig
from slm_runtime.api.ollama.options import parse_keep_alive
from slm_runtime.engine.messages import Constraint, FinishReason
from tests.unit.runtime_api.scripted import LOADED, MODEL, Running, Script, ScriptedEngine, running

HI = [{"role": "user", "content": "Hi"}]
DIGEST = "sha256:" + "0" * 64


async def ask(http: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await http.post(f"/api/{path}", json={"model": MODEL, "stream": False, **body})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def refused(http: httpx.AsyncClient, path: str, **body: Any) -> str:
    answer = await http.post(f"/api/{path}", json={"model": MODEL, **body})
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"])


@pytest.mark.parametrize(
    "name",
    [
        MODEL,
        "tiny:latest",
        "TINY",
        "Tiny:Latest",
        "library/tiny",
        "registry.ollama.ai/library/tiny",
        "registry.ollama.ai/library/tiny:latest",
    ],
)
async def test_a_model_has_many_names_and_is_called_as_it_was_asked_for(
    http: httpx.AsyncClient, name: str
) -> None:
    assert (await ask(http, "chat", model=name, messages=HI))["model"] == name
    assert (await ask(http, "generate", model=name))["model"] == name
    assert (await ask(http, "chat", model=name, messages=[], keep_alive=0))["model"] == name
    assert (await ask(http, "embed", model=name, input="x"))["model"] == name
    assert (await ask(http, "show", model=name))["details"]["format"] == "gguf"


@pytest.mark.parametrize(
    "name", ["tiny:1b", "someone/tiny", "example.org/library/tiny", "tin", "tiny:", ":latest"]
)
async def test_what_merely_looks_like_it_is_not_found(http: httpx.AsyncClient, name: str) -> None:
    for path in ("chat", "generate", "embed", "embeddings", "show"):
        answer = await http.post(f"/api/{path}", json={"model": name, "input": "x", "messages": HI})
        assert answer.status_code == 404
        assert name in answer.json()["error"]
        assert "not found" in answer.json()["error"]


async def test_it_is_listed_with_its_tag(http: httpx.AsyncClient) -> None:
    """Open WebUI and others put `:latest` to a name without a tag before they look for it in the list."""
    for path in ("/api/tags", "/api/ps"):
        (listed,) = (await http.get(path)).json()["models"]
        assert listed["name"] == listed["model"] == f"{MODEL}:latest"
    assert (await http.get("/v1/models")).json()["data"][0]["id"] == MODEL


async def test_a_name_that_has_a_tag_gets_no_other() -> None:
    named = ModelConfig(name="tiny:135m", source="https://example.org/tiny.gguf")
    async with running(model=named) as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        assert (await http.get("/api/tags")).json()["models"][0]["name"] == "tiny:135m"
        assert (await ask(http, "chat", model="Tiny:135M", messages=HI))["done"]
        assert (await http.post("/api/show", json={"model": "tiny"})).status_code == 404


@pytest.mark.parametrize("path", ["chat", "generate", "embed", "embeddings", "show", "pull"])
async def test_what_is_missing_is_said(http: httpx.AsyncClient, path: str) -> None:
    for body in ({}, {"model": ""}, {"model": None}):
        answer = await http.post(f"/api/{path}", json=body)
        assert (answer.status_code, answer.json()["error"]) == (400, "model is required")
    assert "body" in (await http.post(f"/api/{path}")).json()["error"]


async def test_older_clients_say_name(http: httpx.AsyncClient) -> None:
    for body in ({"name": MODEL}, {"name": MODEL, "model": ""}):
        assert (await http.post("/api/show", json=body)).status_code == 200
        assert (await http.post("/api/pull", json={**body, "stream": False})).json() == {"status": "success"}


async def test_an_empty_prompt_loads_whatever_else_is_said(http: httpx.AsyncClient, api: Running) -> None:
    answer = await ask(http, "generate", system="Be brief.", options={"temperature": 0})
    assert (answer["done"], answer["done_reason"], answer["response"]) == (True, "load", "")
    assert not api.engine.requests


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"top_p": True}, 'option "top_p" must be of type float32'),
        ({"top_k": "40"}, 'option "top_k" must be of type integer'),
        ({"seed": [1]}, 'option "seed" must be of type integer'),
        ({"num_ctx": "2048"}, 'option "num_ctx" must be of type integer'),
        ({"num_thread": {}}, 'option "num_thread" must be of type integer'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": 5}, 'option "stop" must be of type array'),
        ({"stop": ["a", 5]}, 'option "stop" must be of an array of strings'),
    ],
)
async def test_an_option_of_a_wrong_type_is_refused_in_ollamas_words(
    http: httpx.AsyncClient, options: dict[str, Any], sentence: str
) -> None:
    for path, body in (("chat", {"messages": HI}), ("generate", {"prompt": "x"}), ("embed", {"input": "x"})):
        assert await refused(http, path, options=options, **body) == sentence


async def test_whole_numbers_lose_their_fraction_and_null_is_the_default(
    http: httpx.AsyncClient, api: Running
) -> None:
    options = {"top_k": 7.9, "seed": 3.0, "num_predict": 2.5, "temperature": 1, "top_p": None, "stop": None}
    await ask(http, "chat", messages=HI, options=options)
    request = api.engine.requests[-1]
    sampling = request.sampling
    assert (sampling.top_k, sampling.seed, request.max_tokens, sampling.temperature) == (7, 3, 2, 1.0)
    assert (sampling.top_p, request.stop) == (0.9, [])


@pytest.mark.parametrize("number", [2**63 - 1, 2**64, 10**30, -(10**30), 1e300, -1e300])
async def test_numbers_beyond_all_bounds_do_no_harm(
    http: httpx.AsyncClient, api: Running, number: float
) -> None:
    names = ("seed", "top_k", "num_predict", "num_keep", "repeat_last_n", "num_ctx")
    await ask(http, "chat", messages=HI, options=dict.fromkeys(names, number))
    request = api.engine.requests[-1]
    msgspec.msgpack.encode(request)
    sampling = request.sampling
    for value in (sampling.seed, sampling.top_k, sampling.penalty_window, request.keep_on_overflow):
        assert value is None or -1 <= value < 2**63


async def test_every_value_of_a_known_type_is_one_that_the_engine_takes(
    http: httpx.AsyncClient, api: Running
) -> None:
    for number in (-1, 0, 1, 2):
        names = ("top_p", "min_p", "typical_p", "top_k", "repeat_last_n", "num_keep", "num_predict", "seed")
        await ask(http, "chat", messages=HI, options=dict.fromkeys(names, number))
        sampling = api.engine.requests[-1].sampling
        assert 0 <= sampling.top_p <= 1
        assert 0 <= sampling.min_p <= 1
        assert 0 < sampling.typical_p <= 1
        assert sampling.top_k >= 0


async def test_how_much_of_the_model_is_on_the_accelerator() -> None:
    for offloaded, total in ((0, 0), (1, 3), (2, 6)):
        info = msgspec.structs.replace(LOADED, layers_offloaded=offloaded)
        async with (
            running(ScriptedEngine(info=info)) as api,
            httpx.AsyncClient(base_url=api.base, trust_env=False) as http,
        ):
            (loaded,) = (await http.get("/api/ps")).json()["models"]
        assert (loaded["size"], loaded["size_vram"]) == (6, total)


@pytest.mark.parametrize("think", ["", "banana", "HIGH"])
async def test_only_known_levels_of_thinking(http: httpx.AsyncClient, think: str) -> None:
    for path, body in (("chat", {"messages": HI}), ("generate", {"prompt": "x"})):
        assert "invalid think value" in await refused(http, path, think=think, **body)
    assert "think" in await refused(http, "chat", think=5, messages=HI)


@pytest.mark.parametrize("keep", [1e300, 10**400, "9" * 400 + "h", "1000000h", 10**12])
async def test_keeping_longer_than_for_ever_is_for_ever(http: httpx.AsyncClient, keep: Any) -> None:
    if keep == 10**400:
        answer = await http.post("/api/generate", json={"model": MODEL, "keep_alive": keep})
        assert answer.status_code in {200, 400}
        for name in ("temperature", "seed"):
            body = {"model": MODEL, "prompt": "x", "options": {name: keep}}
            assert (await http.post("/api/generate", json=body)).status_code in {200, 400}
    else:
        await ask(http, "generate", keep_alive=keep)
    (loaded,) = (await http.get("/api/ps")).json()["models"]
    assert loaded["expires_at"] > "2026"


async def test_a_duration_without_end_is_refused(http: httpx.AsyncClient) -> None:
    for path, body in (("chat", {"messages": HI}), ("generate", {"prompt": "x"}), ("embed", {"input": "x"})):
        assert "invalid duration" in await refused(http, path, **body, keep_alive="9" * 250_000)


async def test_what_was_unloaded_is_not_listed_until_somebody_asks(http: httpx.AsyncClient) -> None:
    for path, body in (("generate", {}), ("chat", {"messages": HI}), ("embed", {"input": "x"})):
        await ask(http, path, **body, keep_alive=0)
        assert (await http.get("/api/ps")).json()["models"] == []
        await ask(http, path, **body)
        (loaded,) = (await http.get("/api/ps")).json()["models"]
        assert loaded["expires_at"] > "2100"
    await ask(http, "generate", keep_alive="5m")
    await ask(http, "generate")
    (loaded,) = (await http.get("/api/ps")).json()["models"]
    assert loaded["expires_at"] < "2100"


@pytest.mark.parametrize(("given", "seconds"), [("+5m", 300), ("1.5h", 5400), ("-0", 0), ("0s", 0)])
def test_gos_durations(given: str, seconds: float) -> None:
    assert parse_keep_alive(given) == seconds


async def test_messages_as_clients_send_them(http: httpx.AsyncClient) -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}:{{ m.content }}"
        "{% if m.reasoning_content %}|{{ m.reasoning_content }}{% endif %}"
        "{% for c in m.tool_calls or [] %}<{{ c.function.name }}{{ c.function.arguments | tojson }}>{% endfor %}"
        "{% if m.name %}={{ m.name }}{% endif %}]{% endfor %}{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
    )
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    call = {"function": {"index": 0, "name": "f", "arguments": None}}
    messages = [
        {"role": "USER", "content": "Hi", "images": None, "tool_calls": None, "thinking": ""},
        {"role": "assistant", "content": None, "thinking": "Hm.", "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_name": "f"},
    ]
    tools = [{"type": "function", "items": None, "function": {"name": "f", "parameters": None}}]
    async with running(ScriptedEngine(info=info)) as api:
        async with httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
            await ask(http, "chat", messages=messages, tools=tools, template="ignored")
        assert api.engine.requests[0].prompt == [
            "[USER:Hi][assistant:|Hm.<f{}>][tool:2=f]f".replace("USER", "user")
        ]


async def test_a_role_that_there_is_not(http: httpx.AsyncClient) -> None:
    assert "role" in await refused(http, "chat", messages=[{"role": "owner", "content": "x"}])


async def test_an_empty_schema_is_any_json(http: httpx.AsyncClient, api: Running) -> None:
    await ask(http, "chat", messages=HI, format={})
    await ask(http, "chat", messages=HI, format="")
    await ask(http, "chat", messages=HI, format=None)
    assert [request.constraint for request in api.engine.requests] == [
        Constraint("json_schema", "{}"),
        None,
        None,
    ]


async def test_logprobs_have_alternatives_only_where_asked_for(http: httpx.AsyncClient) -> None:
    for path, body in (("chat", {"messages": HI}), ("generate", {"prompt": "x"})):
        alone = (await ask(http, path, logprobs=True, **body))["logprobs"]
        assert alone[0] == {"token": "Hello", "logprob": -0.5, "bytes": list(b"Hello")}
        among = (await ask(http, path, logprobs=True, top_logprobs=2, **body))["logprobs"]
        assert len(among[0]["top_logprobs"]) == 2
        assert "logprobs" not in await ask(http, path, top_logprobs=2, **body)
        for count in (-1, 21):
            sentence = await refused(http, path, logprobs=True, top_logprobs=count, **body)
            assert "top_logprobs must be between 0 and 20" in sentence


async def test_an_answer_tells_of_every_duration(http: httpx.AsyncClient) -> None:
    durations = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
    for path, body in (("chat", {"messages": HI}), ("generate", {"prompt": "x"})):
        whole = await ask(http, path, **body)
        streamed = await http.post(f"/api/{path}", json={"model": MODEL, **body})
        assert streamed.headers["content-type"] == "application/x-ndjson"
        *parts, last = [json.loads(line) for line in streamed.text.splitlines()]
        for answer in (whole, last):
            # A client in Go leaves out what is zero, and takes it for missing.
            assert all(type(answer[name]) is int and answer[name] > 0 for name in durations)
            assert (answer["prompt_eval_count"], answer["eval_count"], answer["done_reason"]) == (
                7,
                4,
                "stop",
            )
        assert all(
            not part["done"] and "done_reason" not in part and durations[0] not in part for part in parts
        )
    embedded = await ask(http, "embed", input="x")
    assert min(embedded["total_duration"], embedded["load_duration"]) > 0


async def test_calls_of_a_stream_are_numbered_through() -> None:
    template = (
        "{{ messages[0].content }}{% for t in tools or [] %}<tool_call>{{ t.function.name }}{% endfor %}"
    )
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with running(ScriptedEngine(Script(pieces=[call, call]), info)) as api:
        client = ollama.AsyncClient(host=api.base, trust_env=False)
        async with httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
            body = {"model": MODEL, "messages": HI, "tools": tools}
            lines = (await http.post("/api/chat", json=body)).text.splitlines()
            whole = await ask(http, "chat", messages=HI, tools=tools)
        await client._client.aclose()
    streamed = [call for line in lines for call in json.loads(line)["message"].get("tool_calls", [])]
    for calls in (streamed, whole["message"]["tool_calls"]):
        assert [call["function"]["index"] for call in calls] == [0, 1]


@pytest.mark.parametrize("reason", ["error", "deadline", "constraint"])
async def test_what_breaks_off_ends_with_a_line_that_says_why(
    http: httpx.AsyncClient, api: Running, reason: FinishReason
) -> None:
    for path, body in (("chat", {"messages": HI}), ("generate", {"prompt": "x"})):
        for pieces in ([], ["Hello"]):
            api.engine.script = Script(pieces=pieces, reason=reason, message="died")
            answer = await http.post(f"/api/{path}", json={"model": MODEL, **body})
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
            assert "died" in json.loads(answer.text.splitlines()[-1])["error"]


async def test_embed(http: httpx.AsyncClient) -> None:
    assert (await ask(http, "embed"))["embeddings"] == []
    assert (await ask(http, "embed", input=None))["embeddings"] == []
    assert (await ask(http, "embed", input=[]))["embeddings"] == []
    assert len((await ask(http, "embed", input=["a", ""]))["embeddings"]) == 2
    assert len((await ask(http, "embed", input=[""]))["embeddings"]) == 1
    for dimensions in (0, -1, 2, 99, None):
        assert (await ask(http, "embed", input="x", dimensions=dimensions))["embeddings"] == [
            pytest.approx([0.6, 0.8])
        ]
    assert (await ask(http, "embed", input="x", dimensions=1))["embeddings"] == [[1.0]]
    assert "input" in await refused(http, "embed", input=["a", 5])
    assert (await ask(http, "embeddings", prompt=None))["embedding"] == []


async def test_a_blob_is_not_there_and_can_not_be_put_there(http: httpx.AsyncClient) -> None:
    """Clients ask first, and send it only where the answer is 404."""
    assert (await http.head(f"/api/blobs/{DIGEST}")).status_code == 404
    answer = await http.post(f"/api/blobs/{DIGEST}", content=b"GGUF")
    assert answer.status_code == 501
    assert "does not take blobs" in answer.json()["error"]
    assert "SLMDeployment" in answer.json()["error"]


async def test_pull_tells_of_its_steps(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/pull", json={"model": MODEL, "insecure": True, "username": ""})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0] == {"status": "pulling manifest"}
    assert lines[-3:] == [
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
        {"status": "success"},
    ]


async def test_show_says_what_the_server_gives(http: httpx.AsyncClient) -> None:
    shown = await ask(http, "show", verbose=True, system="x", options={})
    parameters = dict(line.split(maxsplit=1) for line in shown["parameters"].splitlines())
    assert parameters["num_ctx"] == str(LOADED.context_length)
    assert shown["model_info"]["general.basename"] == MODEL
    assert None not in shown["model_info"].values()
