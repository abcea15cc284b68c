import json
from typing import Any

import httpx
import msgspec
import openai
import pytest

from slm_runtime.api.conversation.parsing import OutputParser
from slm_runtime.engine.client import RequestRefused
from slm_runtime.engine.messages import FinishReason
from slm_runtime.templates.tools import teach
from tests.unit.runtime_api.scripted import LOADED, MODEL, Script, ScriptedEngine, running

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
MESSAGES = [{"role": "user", "content": "Weather in Paris?"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'


async def ask(pieces: list[str], reason: FinishReason = "stop", **more: Any) -> tuple[Any, ScriptedEngine]:
    engine = ScriptedEngine(Script(pieces=pieces, reason=reason))
    async with (
        running(engine) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            tools=[TOOL],
            **more,  # type: ignore[arg-type]
        )
        if more.get("stream"):
            answer = [chunk async for chunk in answer]  # type: ignore[union-attr]
    return answer, engine


async def test_a_call() -> None:
    answer, engine = await ask(list("I look. " + CALL))
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look. "
    (call,) = choice.message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    prompt = engine.requests[0].prompt[0]
    assert isinstance(prompt, str)
    assert '"description":"The weather in a city."' in prompt
    assert engine.requests[0].show_special


async def test_a_streamed_call() -> None:
    chunks, _ = await ask([*CALL, "\n", *CALL], stream=True)
    pieces = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    heads = [call for call in pieces if call.id]
    assert [(call.index, call.function.name) for call in heads] == [(0, "weather"), (1, "weather")]
    assert len({call.id for call in heads}) == 2
    assert len(pieces) > 20
    for index in (0, 1):
        told = "".join(call.function.arguments for call in pieces if call.index == index)
        assert json.loads(told) == {"city": "Paris"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(choice.delta.content for chunk in chunks for choice in chunk.choices)


async def test_text_instead_of_a_call() -> None:
    answer, _ = await ask(["It ", "rains."])
    assert answer.choices[0].message.content == "It rains."
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_demanded_call_is_constrained(choice: Any) -> None:
    answer, engine = await ask(['{"name":"weather",', '"arguments":{"city":"Rome"}}'], tool_choice=choice)
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    assert answer.choices[0].message.content is None
    constraint = engine.requests[0].constraint
    assert constraint is not None
    assert json.loads(constraint.text)["properties"]["name"] == {"const": "weather"}


CUT_OFF = [
    ({"tool_choice": "required"}, '{"name":"weather","arguments":{"city":"R'),
    ({"tool_choice": "required"}, "{"),
    ({}, '<tool_call>\n{"name": "weather", "arguments": {"ci'),
]


@pytest.mark.parametrize(("wish", "text"), CUT_OFF)
async def test_a_call_that_is_cut_off_is_no_answer(wish: dict[str, Any], text: str) -> None:
    answer, _ = await ask(list(text), "length", **wish)
    assert not answer.choices[0].message.content
    assert not answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "length"
    chunks, _ = await ask(list(text), "length", stream=True, **wish)
    assert not any(choice.delta.content for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("wish", "text"), CUT_OFF)
async def test_a_call_that_is_cut_off_is_no_output(wish: dict[str, Any], text: str, stream: bool) -> None:
    engine = ScriptedEngine(Script(pieces=list(text), reason="length"))
    body = {"model": MODEL, "input": "Hi", "tools": [{"type": "function", **TOOL["function"]}], **wish}
    async with running(engine) as api, httpx.AsyncClient(base_url=api.base) as http:
        answer = await http.post("/v1/responses", json={**body, "stream": stream})
    assert answer.status_code == 200
    assert "output_text.delta" not in answer.text
    if not stream:
        assert answer.json()["status"] == "incomplete"
        assert not [part for item in answer.json()["output"] for part in item["content"] if part["text"]]


async def test_an_ollama_call_that_is_cut_off_is_no_answer() -> None:
    engine = ScriptedEngine(Script(pieces=list('<tool_call>{"name": "wea'), reason="length"))
    body = {"model": MODEL, "messages": MESSAGES, "tools": [TOOL]}
    async with running(engine) as api, httpx.AsyncClient(base_url=api.base) as http:
        for stream in (False, True):
            answer = await http.post("/api/chat", json={**body, "stream": stream})
            lines = [json.loads(line) for line in answer.text.splitlines()]
            assert "".join(line["message"]["content"] for line in lines) == ""
            assert lines[-1]["done_reason"] == "length"


async def test_the_form_of_an_answer_leaves_room_for_a_call() -> None:
    """A form is that of the text; an agent with tools and a typed answer still calls its tools."""
    schema = {"type": "object", "properties": {"rain": {"type": "boolean"}}, "required": ["rain"]}
    wish = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer, engine = await ask(['{"name":"weather",', '"arguments":{"city":"Rome"}}'], response_format=wish)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    constraint = engine.requests[0].constraint
    assert constraint is not None
    assert constraint.kind == "json_schema_or"
    form, called = json.loads(constraint.text)
    assert "rain" in form["properties"]
    assert called["properties"]["name"] == {"const": "weather"}
    assert called["properties"]["arguments"]["required"] == ["city"]
    marked = '{"rain": "<tool_call><function=weather></function></tool_call>"}'
    for text in ('{"rain": true}', '{"name": "weather", "rain": true}', marked):
        answer, _ = await ask([text], response_format=wish)
        assert answer.choices[0].message.content == text
        assert not answer.choices[0].message.tool_calls


async def test_what_is_wrong_with_a_demanded_tool_is_told_of_the_tools() -> None:
    engine = ScriptedEngine(Script(refuse=RequestRefused("no", param="constraint", code="invalid")))
    async with (
        running(engine) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        for wish, param in (
            ({"tool_choice": "required"}, "tools"),
            ({"response_format": {"type": "json_object"}}, "response_format"),
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                await client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=[TOOL], **wish)  # type: ignore[arg-type]
            assert refused.value.param == param


async def test_tools_are_bounded_together_where_they_are_demanded() -> None:
    large = {"type": "object", "description": "x" * 200_000}
    tools = [{"type": "function", "function": {"name": name, "parameters": large}} for name in "ab"]
    with pytest.raises(openai.BadRequestError, match="'tools' is longer than"):
        await ask([], tool_choice="required", extra_body={"tools": tools})
    form = {"type": "json_object", "schema": {"type": "object"}}
    _, engine = await ask(["{}"], response_format=form, extra_body={"tools": tools})
    constraint = engine.requests[0].constraint
    assert constraint is not None
    assert json.loads(constraint.text)[1]["properties"]["name"] == {"enum": ["a", "b"]}


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_of_the_tools_some_are_allowed(mode: str) -> None:
    other = {"type": "function", "function": {"name": "clock"}}
    named = {"type": "function", "function": {"name": "weather"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named]}}
    _, engine = await ask([CALL], extra_body={"tools": [TOOL, other]}, tool_choice=choice)
    assert "weather" in str(engine.requests[0].prompt)
    assert "clock" not in str(engine.requests[0].prompt)
    assert (engine.requests[0].constraint is not None) == (mode == "required")


async def test_a_tool_that_is_not_there_is_not_allowed() -> None:
    choice = {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "other"}}]},
    }
    with pytest.raises(openai.BadRequestError, match="not among 'tools'"):
        await ask([], tool_choice=choice)


async def test_no_tools_by_choice() -> None:
    answer, engine = await ask([CALL], tool_choice="none")
    assert answer.choices[0].message.content == CALL
    assert "weather" not in str(engine.requests[0].prompt)


async def test_a_choice_that_is_no_tool_is_refused() -> None:
    with pytest.raises(openai.BadRequestError, match="not among 'tools'"):
        await ask([], tool_choice={"type": "function", "function": {"name": "other"}})


async def test_one_call_where_parallel_ones_are_not_wanted() -> None:
    answer, _ = await ask([CALL, CALL], parallel_tool_calls=False)
    assert len(answer.choices[0].message.tool_calls) == 1
    chunks, _ = await ask([*CALL, *CALL], parallel_tool_calls=False, stream=True)
    pieces = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert {call.index for call in pieces} == {0}
    assert json.loads("".join(call.function.arguments for call in pieces)) == {"city": "Paris"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    # Calls side by side in one mark, as some families write them.
    both = (
        '<tool_call>[{"name": "weather", "arguments": {}}, {"name": "weather", "arguments": {}}]</tool_call>'
    )
    answer, _ = await ask([both], parallel_tool_calls=False)
    assert len(answer.choices[0].message.tool_calls) == 1


async def test_reasoning_goes_beside_the_text() -> None:
    template = "{{ messages[0].content }}<think>\n{#</think>#}"
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    engine = ScriptedEngine(Script(pieces=["Hm", ".\n</thi", "nk>", "\n\n", "Paris."]), info)
    async with (
        running(engine) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)  # type: ignore[arg-type]
        message = answer.choices[0].message
        assert message.content == "Paris."
        assert message.reasoning_content == "Hm."  # type: ignore[attr-defined]
        assert answer.usage.completion_tokens_details.reasoning_tokens == 3  # type: ignore[union-attr]
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 3  # type: ignore[union-attr]
        deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
        response = await client.responses.create(model=MODEL, input="Weather?")
        assert response.usage.output_tokens_details.reasoning_tokens == 3  # type: ignore[union-attr]
        assert "".join(delta.content or "" for delta in deltas) == "Paris."
        assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas).strip() == "Hm."


async def answered(template: str, pieces: list[str], **more: Any) -> tuple[Any, ScriptedEngine]:
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    engine = ScriptedEngine(Script(pieces=pieces), info)
    async with (
        running(engine) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        answer = await client.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, **more})
    return answer.choices[0].message, engine


THINKER = (
    "{% for m in messages %}[{{ m.content }}{{ m.reasoning_content }}]{% endfor %}"
    "{% if enable_thinking is defined and enable_thinking is false %}off{% endif %}<think>\n{# </think> #}"
)


@pytest.mark.parametrize(
    "wish",
    [
        {"response_format": {"type": "json_object"}},
        {"tools": [TOOL], "tool_choice": "required"},
    ],
)
async def test_a_form_leaves_no_room_for_reasoning(wish: dict[str, Any]) -> None:
    message, engine = await answered(THINKER, ['{"name":"weather","arguments":{}}'], **wish)
    assert str(engine.requests[0].prompt[0]).endswith("off<think>\n\n</think>\n\n")
    assert message.tool_calls or message.content == '{"name":"weather","arguments":{}}'
    assert not hasattr(message, "reasoning_content")
    kept = {**wish, "extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
    _, engine = await answered(THINKER, ["{}"], **kept)
    assert "off" not in str(engine.requests[0].prompt[0])


async def test_earlier_reasoning_is_the_templates_to_show() -> None:
    talk = [*MESSAGES, {"role": "assistant", "content": "Rain.", "reasoning_content": "Hm."}, *MESSAGES]
    _, engine = await answered(THINKER, [], messages=talk)
    assert "[Rain.Hm.]" in str(engine.requests[0].prompt[0])


async def test_mistral_marks_its_reasoning_with_special_tokens() -> None:
    template = "{{ messages[0].content }}{# [THINK] [/THINK] #}"
    message, engine = await answered(template, ["[THINK]", "Hm", ".", "[/THINK]", "Rain."])
    assert (message.content, message.reasoning_content) == ("Rain.", "Hm.")
    assert engine.requests[0].show_special
    async with running(engine) as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
        body = {"model": MODEL, "prompt": "Weather?", "stream": False}
        generated = (await http.post("/api/generate", json=body)).json()
    assert (generated["response"], generated["thinking"]) == ("Rain.", "Hm.")
    assert engine.requests[1].show_special


async def test_an_argument_is_what_the_tool_declares() -> None:
    element = "<tool_call>\n<function=weather>\n<parameter=city>\n12\n</parameter>\n</function>\n</tool_call>"
    (call,) = (await ask([element]))[0].choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "12"}


def test_teaching_keeps_turns_alternating() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
    taught = teach(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": [call, call]},
            {"role": "tool", "content": "rain", "tool_call_id": "1"},
            {"role": "tool", "content": "sun", "tool_call_id": "2"},
            {"role": "user", "content": "And?"},
        ],
        [TOOL],
    )
    assert [message["role"] for message in taught] == ["system", "user", "assistant", "user"]
    assert taught[0]["content"].startswith("Be brief.\n\n")
    assert taught[3]["content"].count("<tool_response>") == 2
    assert taught[3]["content"].endswith("And?")
    # What was taught is what is read: the model's own earlier calls parse as calls.
    from slm_runtime.api.conversation.tool_formats import GENERIC

    assert len(OutputParser((GENERIC,)).read([(taught[2]["content"], 1)])) == 2
