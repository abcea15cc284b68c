"""What real clients send that OpenAI's schema doesn't have: honoured, or ignored and named."""

from typing import Any

import httpx
import msgspec
import pytest

from slm_contract.config import PromptConfig
from slm_runtime.engine.messages import Constraint, GenerateRequest
from tests.unit.runtime_api.scripted import LOADED, MODEL, Running, ScriptedEngine, running

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": ASK,
    "/v1/completions": {"model": MODEL, "prompt": "Hi"},
    "/v1/responses": {"model": MODEL, "input": "Hi"},
    "/v1/embeddings": {"model": MODEL, "input": "Hi"},
}
IGNORED = {
    "min_tokens": 3,
    "priority": 1,
    "keep_alive": "5m",
    "options": {"num_ctx": 1},
    "frequencypenalty": 1,
    "bad\r\nname: é": 1,
}


def client(api: Running) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=api.base, trust_env=False)


async def test_unknown_fields_are_ignored_and_named() -> None:
    async with running() as api, client(api) as http:
        for path, body in BODIES.items():
            answer = await http.post(path, json={**body, **IGNORED})
            assert answer.status_code == 200, answer.text
            named = answer.headers["x-slm-ignored-fields"].split(", ")
            assert named == [
                "min_tokens",
                "priority",
                "keep_alive",
                "options",
                "frequencypenalty",
                "bad__name___",
            ]
            assert "x-slm-ignored-fields" not in (await http.post(path, json=body)).headers
        many = {"x" * 1000 + str(number): number for number in range(1000)}
        answer = await http.post("/v1/chat/completions", json={**ASK, **many, "stream": True})
        assert answer.status_code == 200
        assert len(answer.headers["x-slm-ignored-fields"]) < 2000
        refused = await http.post("/v1/chat/completions", json={**ASK, "min_tokens": 3, "n": 0})
        assert (refused.status_code, refused.headers["x-slm-ignored-fields"]) == (400, "min_tokens")


async def test_a_deployment_may_refuse_them() -> None:
    async with running(unknown_fields="Refuse") as api, client(api) as http:
        for path, body in BODIES.items():
            error = (await http.post(path, json={**body, "temprature": 1})).json()["error"]
            assert (error["param"], error["code"]) == ("temprature", "unknown_parameter")


async def requested(path: str, body: dict[str, Any], template: str | None = None) -> GenerateRequest:
    prompt = None if template is None else PromptConfig(template=template)
    async with running(prompt=prompt) as api, client(api) as http:
        answer = await http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert "x-slm-ignored-fields" not in answer.headers
        return api.engine.requests[-1]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"guided_json": {"type": "integer"}}, "json_schema", '{"type":"integer"}'),
        ({"guided_json": '{"type": "integer"}'}, "json_schema", '{"type":"integer"}'),
        ({"json_schema": {"type": "integer"}}, "json_schema", '{"type":"integer"}'),
        ({"structured_outputs": {"json": {"type": "integer"}}}, "json_schema", '{"type":"integer"}'),
        ({"structured_outputs": {"regex": "a+"}}, "regex", "a+"),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_choice": ["a", 'b"c']}, "lark", 'start: "a" | "b\\"c"'),
        ({"grammar": 'root ::= "a"'}, "gbnf", 'root ::= "a"'),
        ({"guided_grammar": 'start: "a"'}, "lark", 'start: "a"'),
        ({"structured_outputs": {"json_object": True}}, "json_object", ""),
    ],
)
async def test_a_form_in_the_words_of_other_servers(
    path: str, fields: dict[str, Any], kind: str, text: str
) -> None:
    request = await requested(path, {**BODIES[path], **fields})
    assert request.constraint == Constraint(kind, text)  # type: ignore[arg-type]


async def test_sampling_in_the_words_of_other_servers() -> None:
    words = {
        "stop_token_ids": [7],
        "repeat_last_n": 32,
        "repetition_penalty": 1.2,
        "skip_special_tokens": False,
    }
    for path in ("/v1/chat/completions", "/v1/completions"):
        request = await requested(path, {**BODIES[path], **words})
        assert (request.stop_tokens, request.show_special) == ([7], True)
        assert (request.sampling.penalty_window, request.sampling.repeat_penalty) == (32, 1.2)
        assert request.sampling.repeat_in_prompt
    request = await requested("/v1/completions", {**BODIES["/v1/completions"], "repeat_penalty": 1.2})
    assert not request.sampling.repeat_in_prompt


THINKING = "{% for m in messages %}{{ m.content }}{% endfor %} [{{ enable_thinking }} {{ thinking }} {{ reasoning_effort }}]"


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({}, "[  ]"),
        ({"enable_thinking": False}, "[False False ]"),
        ({"thinking": True}, "[True True ]"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "[True True ]"),
        ({"thinking": {"type": "disabled"}}, "[False False ]"),
        ({"think": "low"}, "[True True low]"),
        ({"think": False}, "[False False ]"),
        ({"reasoning": {"effort": "high"}}, "[True True high]"),
        ({"reasoning": {"enabled": False}}, "[False False ]"),
        ({"reasoning_effort": "none"}, "[False False none]"),
        ({"chat_template_kwargs": {"thinking": True}}, "[True True ]"),
        ({"add_generation_prompt": True}, "[  ]"),
    ],
)
async def test_thinking_is_switched_in_any_words(fields: dict[str, Any], seen: str) -> None:
    request = await requested("/v1/chat/completions", {**ASK, **fields}, THINKING)
    assert str(request.prompt[0]).endswith(seen)


async def test_the_last_message_goes_on() -> None:
    talk = [*ASK["messages"], {"role": "assistant", "content": "Once up"}]
    body = {"model": MODEL, "messages": talk, "continue_final_message": True, "add_generation_prompt": False}
    request = await requested("/v1/chat/completions", body)
    assert str(request.prompt[0]).endswith("<|im_start|>assistant\nOnce up")


@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}, '{"a": ', None, "", "[1]"])
async def test_history_is_read_as_far_as_it_can_be(arguments: Any) -> None:
    call = {"id": None, "type": "function", "function": {"name": "f", "arguments": arguments}}
    talk = [
        {"role": "system", "content": None},
        {"role": "user", "content": [{"type": "input_text", "text": "asked"}]},
        {"role": "assistant", "content": None, "reasoning": "thought", "tool_calls": [call]},
        {"role": "tool", "content": None},
        {"role": "tool", "tool_call_id": None, "content": "found"},
        {"role": "function", "name": "f", "content": "seen"},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "told"}],
        },
    ]
    request = await requested("/v1/chat/completions", {"model": MODEL, "messages": talk})
    prompt = str(request.prompt[0])
    assert all(word in prompt for word in ("asked", '"name":"f"', "found", "seen", "told"))
    items = [
        {"role": "user", "content": "asked"},
        {"type": "function_call", "name": "f", "arguments": arguments, "call_id": None},
        {"type": "function_call_output", "output": None},
    ]
    await requested("/v1/responses", {"model": MODEL, "input": items})


async def test_an_automatic_choice_needs_no_tools() -> None:
    await requested("/v1/chat/completions", {**ASK, "tool_choice": "auto", "tools": []})


FORWARDED = {"x-forwarded-for": "6.6.6.6, 203.0.113.7, 127.0.0.1"}


@pytest.mark.parametrize(
    ("proxies", "headers", "user", "caller"),
    [
        (None, {**FORWARDED, "x-openwebui-user-id": "ann"}, "bob", "anonymous@127.0.0.1"),
        (("10.0.0.0/8", ":::::/32"), FORWARDED, "bob", "anonymous@127.0.0.1"),
        (("127.0.0.0/8",), FORWARDED, "", "anonymous@203.0.113.7"),
        (("127.0.0.0/8",), {"x-openwebui-user-id": "ann"}, "bob", "anonymous@127.0.0.1#ann"),
        (("127.0.0.0/8", "::1/128"), FORWARDED, "bob", "anonymous@203.0.113.7#bob"),
        (("127.0.0.0/8",), {"x-forwarded-for": "unknown, ,"}, "", "anonymous@unknown"),
    ],
)
async def test_whose_turn_it_is_behind_a_proxy(
    proxies: tuple[str, ...] | None, headers: dict[str, str], user: str, caller: str
) -> None:
    async with running(trusted_proxies=proxies) as api, client(api) as http:
        more = {"user": user} if user else {}
        answer = await http.post("/v1/chat/completions", json={**ASK, **more}, headers=headers)
        assert answer.status_code == 200
        assert api.engine.requests[-1].client == caller


async def test_what_is_told_is_what_is_served() -> None:
    served = msgspec.structs.replace(LOADED, context_length=512)
    async with running(ScriptedEngine(info=served)) as api, client(api) as http:
        (model,) = (await http.get("/v1/models")).json()["data"]
        assert model["max_model_len"] == 512
        told = (await http.post("/api/show", json={"model": MODEL})).json()
        assert told["model_info"]["llama.context_length"] == 512
        assert told["capabilities"] == ["completion", "tools"]
        (tagged,) = (await http.get("/api/tags")).json()["models"]
        assert len(tagged["digest"]) == 64
        assert "securitySchemes" not in (document := (await http.get("/openapi.json")).json())["components"]
        assert document["security"] == []
        declined = (await http.post("/api/pull", json={"model": "other"})).json()["error"]
        assert "Kubernetes" in declined
        api.serving.local = True
        declined = (await http.post("/api/pull", json={"model": "other"})).json()["error"]
        assert "Kubernetes" not in declined
        assert "--model" in declined
    async with running(ready=False) as api, client(api) as http:
        (model,) = (await http.get("/v1/models")).json()["data"]
        assert "max_model_len" not in model


async def test_calls_that_cannot_be_told_from_text_are_not_claimed() -> None:
    template = (
        "{% for t in tools or [] %}{{ t }}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    async with running(prompt=PromptConfig(template=template)) as api, client(api) as http:
        told = (await http.post("/api/show", json={"model": MODEL})).json()
        assert told["capabilities"] == ["completion"]


UNIQUE = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/chat/completions",
            {
                "messages": ASK["messages"],
                "response_format": {"type": "json_schema", "json_schema": {"schema": UNIQUE}},
            },
        ),
        ("/v1/responses", {"input": "Hi", "text": {"format": {"type": "json_schema", "schema": UNIQUE}}}),
        ("/api/chat", {"messages": ASK["messages"], "format": UNIQUE, "stream": False}),
    ],
)
async def test_what_a_schema_says_in_vain_is_told(path: str, body: dict[str, Any]) -> None:
    async with running() as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        answer = await http.post(path, json={"model": MODEL, **body})
        assert answer.status_code == 200
        assert answer.headers["x-slm-ignored-fields"] == "schema.uniqueItems"
        assert not api.engine.requests[0].constraint.strict  # type: ignore[union-attr]


async def test_a_strict_schema_is_followed_or_refused() -> None:
    form = {"type": "json_schema", "json_schema": {"schema": UNIQUE, "strict": True}}
    body = {"model": MODEL, "messages": ASK["messages"], "response_format": form}
    async with running() as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        answer = await http.post("/v1/chat/completions", json=body)
        assert "x-slm-ignored-fields" not in answer.headers
        assert api.engine.requests[0].constraint.strict  # type: ignore[union-attr]
