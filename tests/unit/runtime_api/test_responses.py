import json
from typing import Any

import httpx
import msgspec
import openai
import pytest
from jsonschema import Draft202012Validator

from tests.unit.runtime_api.scripted import LOADED, MODEL, Running, Script, ScriptedEngine, running
from tests.unit.runtime_api.test_tools import CALL

TOOL: dict[str, Any] = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}

SPECIFIED = set(
    "id object created_at completed_at status error incomplete_details instructions model output tools tool_choice "
    "parallel_tool_calls previous_response_id reasoning text truncation usage metadata temperature top_p top_logprobs "
    "presence_penalty frequency_penalty max_output_tokens max_tool_calls store background service_tier "
    "safety_identifier prompt_cache_key".split()
)
"""What strict clients of this protocol want to find, null or not."""


async def test_text(client: openai.AsyncOpenAI, api: Running) -> None:
    answer = await client.responses.create(model=MODEL, input="Hi", instructions="Be brief.", temperature=0)
    assert answer.output_text == "Hello, world!"
    assert answer.status == "completed"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 4)
    assert answer.usage.input_tokens_details.cached_tokens == 3
    assert "system\nBe brief." in str(api.engine.requests[0].prompt[0])


async def test_events(client: openai.AsyncOpenAI) -> None:
    events = [event async for event in await client.responses.create(model=MODEL, input="Hi", stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 4,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == text == "Hello, world!"


async def test_the_clients_own_stream_reader_agrees(client: openai.AsyncOpenAI) -> None:
    async with client.responses.stream(model=MODEL, input="Hi") as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()
    assert final.output_text == "Hello, world!"


async def test_tools_and_reasoning_are_items() -> None:
    template = "{{ messages[0].content }}{% for t in tools or [] %}<tool_call>{{ t.function.name }}{% endfor %}{#</think>#}"
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    pieces = list(f"<think>Hm.</think>Look. {CALL}{CALL}")
    async with (
        running(ScriptedEngine(Script(pieces=pieces), info)) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        whole = await client.responses.create(model=MODEL, input="Hi", tools=[TOOL])  # type: ignore[list-item]
        kinds = ["reasoning", "message", "function_call", "function_call"]
        assert [item.type for item in whole.output] == kinds
        async with client.responses.stream(model=MODEL, input="Hi", tools=[TOOL]) as stream:  # type: ignore[list-item]
            async for _ in stream:
                pass
            streamed = await stream.get_final_response()
        assert [item.type for item in streamed.output] == kinds
        call = streamed.output[2]
        assert call.type == "function_call"
        assert json.loads(call.arguments) == {"city": "Paris"}
        history = [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            *[item.model_dump(exclude_none=True) for item in streamed.output],
            {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
        ]
        assert (await client.responses.create(model=MODEL, input=history, tools=[TOOL])).status == "completed"  # type: ignore[arg-type,list-item]


async def test_text_and_the_calls_after_it_are_one_turn() -> None:
    engine = ScriptedEngine()
    call = {"type": "function_call", "call_id": "a", "name": "weather", "arguments": "{}"}
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Look."},
        call,
        {**call, "call_id": "b"},
        {"type": "function_call_output", "call_id": "a", "output": "rain"},
    ]
    async with running(engine) as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        answer = await http.post("/v1/responses", json={"model": MODEL, "input": history})
    assert answer.status_code == 200, answer.text
    _, turn, rest = str(engine.requests[0].prompt[0]).split("<|im_start|>assistant\n")
    assert turn.startswith("Look.\n<tool_call>")
    assert turn.count("<tool_call>") == 2
    assert rest == ""


async def test_a_schema_and_a_limit(client: openai.AsyncOpenAI, api: Running) -> None:
    api.engine.script = Script(reason="length")
    schema: Any = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
    answer = await client.responses.create(model=MODEL, input="Hi", text=schema, max_output_tokens=4)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    constraint = api.engine.requests[0].constraint
    assert constraint is not None
    assert constraint.text == '{"type":"object"}'


async def test_a_response_has_every_field(http: httpx.AsyncClient) -> None:
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    body = {"model": MODEL, "input": "Hi", "tool_choice": "auto", "top_logprobs": 0}
    told = [
        (await http.post("/v1/responses", json={**body, "text": {"format": wanted}})).json()
        for wanted in ({"type": "text"}, schema)
    ]
    assert [one["text"]["format"] for one in told] == [{"type": "text"}, {**schema, "description": None}]
    assert told[0]["completed_at"] >= told[0]["created_at"]
    assert told[0].keys() >= SPECIFIED


async def test_of_the_tools_some_are_allowed(client: openai.AsyncOpenAI, api: Running) -> None:
    other = {"type": "function", "name": "clock", "parameters": {}, "strict": False}
    choice: Any = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "weather"}],
    }
    answer = await client.responses.create(model=MODEL, input="Hi", tools=[TOOL, other], tool_choice=choice)  # type: ignore[list-item]
    assert answer.tool_choice.model_dump() == choice  # type: ignore[union-attr]
    assert "weather" in str(api.engine.requests[0].prompt)
    assert "clock" not in str(api.engine.requests[0].prompt)


async def test_what_a_benchmark_adds_is_honoured(client: openai.AsyncOpenAI, api: Running) -> None:
    await client.responses.create(model=MODEL, input="x", extra_body={"ignore_eos": True})
    assert api.engine.requests[-1].ignore_eos


async def test_a_reference_to_what_is_not_stored_says_what_to_do(client: openai.AsyncOpenAI) -> None:
    reference: Any = [{"type": "item_reference", "id": "msg_1"}]
    with pytest.raises(openai.BadRequestError, match="`store` to false"):
        await client.responses.create(model=MODEL, input=reference)


async def test_a_bad_item_is_named(http: httpx.AsyncClient) -> None:
    for item, param in (({"role": "king", "content": "x"}, "role"), ({"role": "user"}, "content")):
        answer = await http.post("/v1/responses", json={"model": MODEL, "input": [item]})
        assert answer.json()["error"]["param"] == f"input[0].{param}"


async def test_a_crash_is_a_failed_response(client: openai.AsyncOpenAI, api: Running) -> None:
    api.engine.script = Script(reason="error", message="died")
    with pytest.raises(openai.InternalServerError, match="died"):
        await client.responses.create(model=MODEL, input="Hi")
    events = [event async for event in await client.responses.create(model=MODEL, input="Hi", stream=True)]
    assert events[-1].type == "response.failed"


@pytest.mark.parametrize(
    "bad",
    [
        {"input": []},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        {"input": "x", "previous_response_id": "resp_1"},
        {"input": "x", "tools": [{"type": "web_search"}]},
        {"input": "x", "tool_choice": "required"},
        {"input": "x", "include": ["message.output_text.logprobs"]},
    ],
)
async def test_what_cannot_be(client: openai.AsyncOpenAI, bad: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.responses.create(model=MODEL, **bad)


async def test_the_openapi_document_tells_of_every_route(http: httpx.AsyncClient, api: Running) -> None:
    from slm_runtime.api.routes import routes

    document = (await http.get("/openapi.json")).json()
    described = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
    assert described == {(m, path.replace("{rest}", "{name}")) for m, path in routes(api.serving).routes()}
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert document["paths"]["/api/version"]["get"]["security"] == []
    assert "role" in document["components"]["schemas"]["Message"]["properties"]
