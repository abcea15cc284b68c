import asyncio
import importlib.metadata
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import ollama
import pytest

from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.ollama.options import parse_keep_alive
from slm_runtime.engine.client import EngineBusy
from tests.unit.runtime_api.scripted import LOADED, MODEL, Running, Script, ScriptedEngine, running

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def client(api: Running) -> AsyncIterator[ollama.AsyncClient]:
    it = ollama.AsyncClient(host=api.base, trust_env=False)
    yield it
    await it._client.aclose()


async def test_chat(client: ollama.AsyncClient, api: Running) -> None:
    answer = await client.chat(MODEL, HI)
    assert answer.message.content == "Hello, world!"
    assert answer.done
    assert answer.done_reason == "stop"
    assert (answer.prompt_eval_count, answer.eval_count) == (7, 4)
    assert answer.prompt_eval_duration == 100_000_000
    assert answer.eval_duration == 200_000_000
    assert api.engine.requests[0].prompt == ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"]


async def test_the_model_goes_on_with_what_the_assistant_began(
    client: ollama.AsyncClient, api: Running
) -> None:
    await client.chat(MODEL, [*HI, {"role": "assistant", "content": "It is "}])
    (prompt,) = api.engine.requests[0].prompt
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nIt is "
    await client.chat(MODEL, [*HI, {"role": "assistant", "content": ""}])
    (prompt,) = api.engine.requests[1].prompt
    assert str(prompt).endswith("<|im_start|>assistant\n<|im_end|>\n<|im_start|>assistant\n")


async def test_what_the_assistant_began_comes_after_its_thoughts() -> None:
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}<think>\n{#</think>#}"
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    async with running(ScriptedEngine(Script(pieces=["41"]), info)) as api:
        client = ollama.AsyncClient(host=api.base, trust_env=False)
        answer = await client.chat(MODEL, [*HI, {"role": "assistant", "content": "It is "}], think=True)
        assert api.engine.requests[0].prompt == ["[Hi]<think>\n\n</think>\n\nIt is "]
        assert answer.message.content == "41"
        await client._client.aclose()


async def test_chat_streams(client: ollama.AsyncClient) -> None:
    parts = [part async for part in await client.chat(f"{MODEL}:latest", HI, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "Hello, world!"
    assert [part.done for part in parts] == [False] * 4 + [True]
    assert parts[-1].eval_count == 4
    assert parts[0].model == f"{MODEL}:latest"


async def test_the_defaults_and_options_are_ollamas(client: ollama.AsyncClient, api: Running) -> None:
    await client.chat(MODEL, HI)
    sampling = api.engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.penalty_window) == (
        0.8,
        40,
        0.9,
        64,
    )
    assert sampling.temperature_last
    assert sampling.penalize_prompt
    assert sampling.seed is None
    assert api.engine.requests[0].keep_on_overflow == 4
    await client.chat(
        MODEL,
        HI,
        options={
            "temperature": 0,
            "num_predict": 3,
            "stop": ["x"],
            "seed": 5,
            "num_ctx": 99999,
            "unknown": 1,
        },
    )
    request = api.engine.requests[1]
    assert (request.sampling.temperature, request.max_tokens, request.stop, request.sampling.seed) == (
        0,
        3,
        ["x"],
        5,
    )


async def test_generate(client: ollama.AsyncClient, api: Running) -> None:
    answer = await client.generate(MODEL, "Hi", system="Be brief.")
    assert answer.response == "Hello, world!"
    prompt = (
        b"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert api.engine.requests[0].prompt == [list(prompt)]
    assert answer.context == [*prompt, 0, 1, 2, 3]
    again = [
        p async for p in await client.generate(MODEL, "x", raw=False, context=answer.context, stream=True)
    ]
    assert again[-1].context is not None
    assert list(again[-1].context[: len(answer.context)]) == answer.context
    assert "".join(part.response or "" for part in again) == "Hello, world!"


async def test_generate_raw_and_with_a_template(client: ollama.AsyncClient, api: Running) -> None:
    await client.generate(MODEL, "as it is", raw=True)
    await client.generate(
        MODEL, "Hi", system="S", template="[{{ .System }}] {{ .Prompt }} ->{{ .Response }}!"
    )
    assert [bytes(r.prompt[0]) for r in api.engine.requests] == [b"as it is", b"[S] Hi ->"]


async def test_formats(client: ollama.AsyncClient, api: Running) -> None:
    await client.generate(MODEL, "x", format="json")
    await client.chat(MODEL, HI, format={"type": "object"})
    kinds = [request.constraint and request.constraint.kind for request in api.engine.requests]
    assert kinds == ["json_object", "json_schema"]


async def test_tools_and_thinking() -> None:
    template = (
        "{% for m in messages %}[{{ m.content }}{{ m.reasoning_content }}]{% endfor %}"
        "{% if enable_thinking is false %}off{% endif %}"
        "{% for t in tools or [] %}<tool_call>{{ t.function.name }}{% endfor %}{#</think>#}"
    )
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    pieces = list('<think>Hm.</think>Look: <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>')
    async with running(ScriptedEngine(Script(pieces=pieces), info)) as api:
        client = ollama.AsyncClient(host=api.base, trust_env=False)
        tool = {
            "type": "function",
            "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
        }
        again = [*HI, {"role": "assistant", "content": "Ho", "thinking": "Hum"}, *HI]
        answer = await client.chat(MODEL, again, tools=[tool], think=True)
        assert answer.message.thinking == "Hm."
        assert "[HoHum]" in str(api.engine.requests[0].prompt[0])
        assert answer.message.content == "Look: "
        assert answer.message.tool_calls is not None
        assert answer.message.tool_calls[0].function.arguments == {"x": 1}
        parts = [part async for part in await client.chat(MODEL, HI, tools=[tool], stream=True, think=False)]
        assert not any(part.message.thinking for part in parts)
        assert [call.function.name for part in parts for call in part.message.tool_calls or []] == ["f"]
        assert "off" in str(api.engine.requests[1].prompt)
        # What was called goes back with its result.
        history = [*HI, answer.message, {"role": "tool", "content": "2", "tool_name": "f"}]
        assert (await client.chat(MODEL, history, tools=[tool])).done
        await client._client.aclose()


async def test_an_empty_prompt_loads(client: ollama.AsyncClient) -> None:
    assert (await client.generate(MODEL, keep_alive="10m")).done_reason == "load"
    assert (await client.chat(MODEL, [])).done_reason == "load"
    assert (await client.generate(MODEL, keep_alive=0)).done_reason == "unload"
    # Unloaded is only what `ps` says: everybody is served on.
    assert (await client.generate(MODEL, "x")).response


async def test_embeddings(client: ollama.AsyncClient) -> None:
    answer = await client.embed(MODEL, ["a", "b"])
    assert [list(vector) for vector in answer.embeddings] == [pytest.approx([0.6, 0.8])] * 2
    assert answer.prompt_eval_count == 6
    assert (await client.embed(MODEL, "")).embeddings == []
    assert list((await client.embeddings(MODEL, "a")).embedding) == pytest.approx([0.6, 0.8])


async def test_the_catalogue(client: ollama.AsyncClient, http: httpx.AsyncClient) -> None:
    (listed,) = (await client.list()).models
    assert listed.model == f"{MODEL}:latest"
    (loaded,) = (await client.ps()).models
    assert loaded.context_length == 2048
    shown = await client.show(MODEL)
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.details is not None
    assert shown.details.format == "gguf"
    version = (await http.get("/api/version")).json()
    # Clients refuse a server that is older than the fields they send; logprobs are the latest of ours.
    assert tuple(map(int, version["version"].split("."))) >= (0, 12, 11)
    assert version["runtime"] == importlib.metadata.version("slm-operator")
    assert "slm_runtime_ready 1.0" in (await http.get("/api/metrics")).text


async def test_pull_of_what_is_served_succeeds_and_the_rest_names_the_slmdeployment(
    client: ollama.AsyncClient,
) -> None:
    assert (await client.pull(MODEL)).status == "success"
    assert [part.status async for part in await client.pull(MODEL, stream=True)][-1] == "success"
    for call in (
        client.pull("other"),
        client.push(MODEL),
        client.delete(MODEL),
        client.copy(MODEL, "x"),
        client.create("x", from_=MODEL),
    ):
        with pytest.raises(ollama.ResponseError, match="SLMDeployment"):
            await call


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/chat", {"model": "other", "messages": HI}, 404, "not found"),
        ("/api/chat", {"messages": HI}, 400, "model"),
        ("/api/chat", {"model": MODEL, "messages": "x"}, 400, "messages"),
        (
            "/api/chat",
            {"model": MODEL, "messages": HI, "options": {"temperature": "hot"}},
            400,
            "temperature",
        ),
        ("/api/chat", {"model": MODEL, "messages": HI, "format": "xml"}, 400, "format"),
        ("/api/chat", {"model": MODEL, "messages": HI, "think": True}, 400, "does not support thinking"),
        (
            "/api/chat",
            {"model": MODEL, "messages": [{"role": "user", "content": "x", "images": ["x"]}]},
            400,
            "text",
        ),
        ("/api/generate", {"model": MODEL, "prompt": "x", "suffix": "y"}, 400, "insert"),
        (
            "/api/generate",
            {"model": MODEL, "prompt": "x", "template": "{{ range .Messages }}"},
            400,
            "spec.model.prompt",
        ),
        ("/api/generate", {"model": MODEL, "prompt": "x", "raw": True, "system": "y"}, 400, "raw"),
        ("/api/generate", {"model": MODEL, "prompt": "x", "keep_alive": "soon"}, 400, "duration"),
        ("/api/embed", {"model": MODEL, "input": 5}, 400, "input"),
    ],
)
async def test_errors_are_a_sentence(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    answer = await http.post(path, json=body)
    assert answer.status_code == status
    assert words in answer.json()["error"]


async def test_busy_and_broken(client: ollama.AsyncClient, api: Running) -> None:
    api.engine.script = Script(refuse=EngineBusy("full", retry_after=1, waiting=3))
    with pytest.raises(ollama.ResponseError) as caught:
        await client.chat(MODEL, HI)
    assert caught.value.status_code == 429
    api.engine.script = Script(reason="error", message="died")
    with pytest.raises(ollama.ResponseError, match="died"):
        await client.chat(MODEL, HI)
    with pytest.raises(ollama.ResponseError, match="died"):
        async for _ in await client.generate(MODEL, "x", stream=True):
            pass


async def test_logprobs(http: httpx.AsyncClient) -> None:
    asked = {"model": MODEL, "messages": HI, "logprobs": True, "top_logprobs": 1}
    lines = [json.loads(line) for line in (await http.post("/api/chat", json=asked)).text.splitlines()]
    assert "".join(part["logprobs"][0]["token"] for part in lines[:-1]) == "Hello, world!"
    whole = (await http.post("/api/chat", json={**asked, "stream": False})).json()
    assert len(whole["logprobs"]) == 4


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{ .Prompt }}", "P"),
        ("{{ if .System }}<{{ .System }}>{{ else }}none{{ end }}{{ .Prompt }}", "<S>P"),
        ("{{ if .Prompt }}a{{ if .System }}b{{ end }}c{{ end }}", "abc"),
        ("  {{- .Prompt -}}  x", "Px"),
        ("{{/* note */}}{{ .Prompt }}{{ .Response }} after", "P"),
        ("{{ .Prompt }}{{ if .Response }}{{ .Response }}{{ end }}", "P"),
        ("plain", "plain"),
        (
            "{{ range .Messages }}[{{ .Role }}]{{ .Content }}{{ end }}[assistant]",
            "[system]S[user]P[assistant]",
        ),
    ],
)
async def test_a_requests_own_template(
    http: httpx.AsyncClient, api: Running, template: str, rendered: str
) -> None:
    asked = {"model": MODEL, "prompt": "P", "system": "S", "template": template, "stream": False}
    assert (await http.post("/api/generate", json=asked)).status_code == 200
    assert bytes(api.engine.requests[-1].prompt[0]).decode() == rendered


@pytest.mark.parametrize(
    "template",
    [
        "{{ range .Messages }}",
        "{{ if .System }}",
        "{{ end }}",
        "{{ .Prompt",
        "{{ yesterdayDate }}",
        "x" * 70_000,
        "{{" * 30_000,
    ],
)
async def test_another_template_is_refused_by_line(http: httpx.AsyncClient, template: str) -> None:
    answer = await http.post("/api/generate", json={"model": MODEL, "prompt": "P", "template": template})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("template, line 1: ")
    assert "spec.model.prompt.template" in answer.json()["error"]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None),
        (5, 5),
        ("5m", 300),
        ("1h30m", 5400),
        ("-1", None),
        ("-1s", -1),
        ("0", 0),
        (-1, -1),
        ("500ms", 0.5),
    ],
)
def test_keep_alive(given: Any, seconds: float | None) -> None:
    if given == "-1":
        with pytest.raises(BadRequest):
            parse_keep_alive(given)
    else:
        assert parse_keep_alive(given) == seconds


async def test_a_client_that_goes_away_frees_its_sequence(api: Running) -> None:
    api.engine.script = Script(gate=asyncio.Event())
    client = ollama.AsyncClient(host=api.base, trust_env=False)
    stream = await client.chat(MODEL, HI, stream=True)
    async for _ in stream:
        break
    await client._client.aclose()
    await stream.aclose()
    from tests.unit.runtime_api.scripted import until

    await until(lambda: api.engine.generations[0].cancelled)
