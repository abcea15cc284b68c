import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from slm_runtime.engine.client import EngineBusy, EngineDied, EngineUnavailable, RequestRefused
from slm_runtime.engine.messages import FinishReason
from tests.unit.runtime_api.scripted import MODEL, Running, Script, ScriptedEngine, post, running, until

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


async def test_answers(client: openai.AsyncOpenAI, api: Running) -> None:
    answer = await client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Hello, world!"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == MODEL
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 7
    assert answer.usage.completion_tokens == 4
    assert answer.usage.total_tokens == 11
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert api.engine.requests[-1].prompt == ["<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"]


async def test_streams(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        **ASK, stream=True, n=2, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    texts = ["", ""]
    finished = {}
    for chunk in chunks[:-1]:
        assert chunk.usage is None
        assert chunk.object == "chat.completion.chunk"
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished[choice.index] = choice.finish_reason
    assert texts == ["Hello, world!"] * 2
    assert finished == {0: "stop", 1: "stop"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert len({chunk.id for chunk in chunks}) == 1


async def test_nothing_is_written_before_there_is_something_to_tell(
    http: httpx.AsyncClient, api: Running
) -> None:
    """Clients measure their wait by the first chunk, whatever is in it."""
    api.engine.script = Script(pieces=[], reason="error", message="died")
    answer = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert '"role"' not in answer.text
    assert "died" in answer.text


async def test_a_stream_without_usage_has_none_and_ends_with_done(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    assert "usage" not in answer.text


async def test_text_survives_the_encoding() -> None:
    pieces = ['"quoted"\n', "\x00text\x00", "é€😀", "</script>\\"]
    async with (
        running(ScriptedEngine(Script(pieces=pieces))) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none") as client,
    ):
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "".join(pieces)


async def test_parameters_reach_the_engine(client: openai.AsyncOpenAI, api: Running) -> None:
    await client.chat.completions.create(
        **ASK,
        temperature=0.3,
        top_p=0.9,
        seed=42,
        max_tokens=2,
        stop=["\n", "END"],
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"17": -100},
        logprobs=True,
        top_logprobs=3,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {"type": "object"}},
        },
        extra_body={"top_k": 5, "min_p": 0.1},
    )
    request = api.engine.requests[-1]
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.3, 0.9, 42)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.5, -0.5)
    assert (sampling.top_k, sampling.min_p, sampling.logit_bias) == (5, 0.1, {17: -100})
    assert request.max_tokens == 2
    assert request.stop == ["\n", "END"]
    assert request.logprobs == 3
    assert request.constraint is not None
    assert request.constraint.kind == "json_schema"
    assert request.constraint.text == '{"type":"object"}'


async def test_the_defaults_are_openais(client: openai.AsyncOpenAI, api: Running) -> None:
    await client.chat.completions.create(**ASK)
    sampling = api.engine.requests[-1].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (1.0, 1.0, 0, None)
    assert api.engine.requests[-1].max_tokens is None


async def test_logprobs(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**ASK, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == "Hello, world!"
    assert bytes(logprobs.content[0].bytes or []) == b"Hello"
    assert [len(token.top_logprobs) for token in logprobs.content] == [2] * 4


async def test_other_servers_names_for_what_there_is(client: openai.AsyncOpenAI, api: Running) -> None:
    vendors = {"repetition_penalty": 1.2, "top_k": -1, "cache_prompt": True}
    usage: Any = {"include_usage": True, "continuous_usage_stats": True}
    async for _ in await client.chat.completions.create(
        **ASK, stream=True, stream_options=usage, extra_body=vendors
    ):
        pass
    sampling = api.engine.requests[-1].sampling
    assert (sampling.repeat_penalty, sampling.top_k) == (1.2, 0)


async def test_a_schema_beside_json_object_is_followed(client: openai.AsyncOpenAI, api: Running) -> None:
    wanted: Any = {"type": "json_object", "schema": {"const": "42"}}
    await client.chat.completions.create(**ASK, response_format=wanted)
    constraint = api.engine.requests[-1].constraint
    assert constraint is not None
    assert (constraint.kind, constraint.text) == ("json_schema", '{"const":"42"}')


@pytest.mark.parametrize(("value", "code"), [("hot", "invalid_type"), (2.5, "invalid_value")])
async def test_a_wrong_type_is_told_from_a_wrong_value(
    http: httpx.AsyncClient, value: object, code: str
) -> None:
    answer = await http.post("/v1/chat/completions", json={**ASK, "temperature": value})
    assert answer.json()["error"]["code"] == code


async def test_an_integer_may_be_written_with_a_point(http: httpx.AsyncClient, api: Running) -> None:
    answer = await http.post("/v1/chat/completions", json={**ASK, "max_tokens": 2.0, "temperature": 0.5})
    assert answer.status_code == 200
    assert (api.engine.requests[-1].max_tokens, api.engine.requests[-1].sampling.temperature) == (2, 0.5)
    assert (await http.post("/v1/chat/completions", json={**ASK, "max_tokens": 2.5})).status_code == 400


async def test_max_completion_tokens_wins(client: openai.AsyncOpenAI, api: Running) -> None:
    await client.chat.completions.create(**ASK, max_tokens=9, max_completion_tokens=1)
    assert api.engine.requests[-1].max_tokens == 1


async def test_messages_of_all_kinds(client: openai.AsyncOpenAI, api: Running) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    await client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ],
    )
    prompt = api.engine.requests[-1].prompt[0]
    assert isinstance(prompt, str)
    assert "<|im_start|>system\nBe brief." in prompt
    assert "user\na\nb<|im_end|>" in prompt
    assert "<|im_start|>tool\n2" in prompt


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "model", "Missing"),
        ({"model": MODEL}, "messages", "Missing"),
        ({**ASK, "messages": []}, "messages", "at least one"),
        ({**ASK, "messages": "hi"}, "messages", "Expected `array`"),
        ({**ASK, "messages": [{"role": "user"}]}, "messages[0].content", "must be text"),
        ({**ASK, "messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "king"),
        ({**ASK, "temperature": "hot"}, "temperature", "Expected"),
        ({**ASK, "temperature": 2.5}, "temperature", "<= 2"),
        ({**ASK, "top_p": -1}, "top_p", ">= 0"),
        ({**ASK, "n": 0}, "n", ">= 1"),
        ({**ASK, "max_tokens": 0}, "max_tokens", ">= 1"),
        ({**ASK, "max_tokens": True}, "max_tokens", "bool"),
        ({**ASK, "logit_bias": {"hello": 1}}, "logit_bias", "token ids"),
        ({**ASK, "top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({**ASK, "response_format": {"type": "json_schema"}}, "response_format.json_schema", "Missing"),
        ({**ASK, "response_format": {"type": "xml"}}, "response_format.type", "xml"),
        ({**ASK, "audio": {"voice": "x", "format": "wav"}}, "audio", "not supported"),
        ({**ASK, "modalities": ["audio"]}, "modalities[...]", "audio"),
    ],
)
async def test_bad_requests_name_the_field(
    http: httpx.AsyncClient, body: dict[str, object], param: str, words: str
) -> None:
    answer = await http.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert answer.status_code == 400, error
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    if "..." not in param:
        assert error["param"] == param


async def test_images_are_refused_by_name(client: openai.AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    with pytest.raises(openai.BadRequestError, match=r"sees no images.*content\[0\]"):
        await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": [image]}],  # type: ignore[list-item]
        )


async def test_no_effect_and_null_fields_are_let_pass(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        **ASK,
        user="me",
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        temperature=None,
        audio=None,
        functions=[],
    )
    assert answer.choices[0].message.content


async def test_another_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="gpt-4o", messages=ASK["messages"])  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found"
    assert MODEL in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "kind", "code"),
    [
        (EngineBusy("full", retry_after=3.2, waiting=9), openai.RateLimitError, "rate_limit_exceeded"),
        (
            RequestRefused("5000 tokens of 2048", param="prompt", code="context_length_exceeded"),
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        (EngineUnavailable("restarting"), openai.InternalServerError, "engine_unavailable"),
        (EngineDied("killed by SIGSEGV"), openai.InternalServerError, "engine_failed"),
    ],
)
async def test_the_engines_refusals(
    stream: bool, refusal: Exception, kind: type[openai.APIStatusError], code: str
) -> None:
    async with (
        running(ScriptedEngine(Script(refuse=refusal))) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(**ASK, stream=stream)
    assert caught.value.code == code
    if isinstance(refusal, EngineBusy):
        assert caught.value.response.headers["retry-after"] == "4"
    if isinstance(refusal, RequestRefused):
        assert caught.value.param == "messages"


UNSAID = {"stop": "", "seed": -1, "max_tokens": -1, "stream_options": {"include_usage": True}}


async def test_what_clients_write_for_nothing_is_nothing() -> None:
    async with running(ScriptedEngine()) as api, httpx.AsyncClient(base_url=api.base) as http:
        for more in (UNSAID, {**UNSAID, "stop": ["", "END"]}):
            answer = await http.post("/v1/chat/completions", json={**ASK, **more})
            assert answer.status_code == 200, answer.text
            assert answer.json()["usage"]
        without, with_one = api.engine.requests
        assert (without.stop, without.sampling.seed, without.max_tokens) == ([], None, None)
        assert with_one.stop == ["END"]
        answer = await http.post("/v1/completions", json={"model": MODEL, "prompt": "x", **UNSAID})
        assert answer.status_code == 200, answer.text


async def test_a_form_needs_no_name_and_may_stand_beside_its_type() -> None:
    schema = {
        "type": "object",
        "properties": {"id": {"type": "string", "format": "guid"}, "none": {"properties": []}},
    }
    async with running(ScriptedEngine()) as api, httpx.AsyncClient(base_url=api.base) as http:
        for form in ({"json_schema": {"schema": schema}}, {"schema": schema}):
            wish = {"type": "json_schema", **form}
            answer = await http.post("/v1/chat/completions", json={**ASK, "response_format": wish})
            assert answer.status_code == 200, answer.text
        for request in api.engine.requests:
            assert request.constraint is not None
            constraint = json.loads(request.constraint.text)["properties"]
            assert constraint["id"] == {"type": "string"}
            assert constraint["none"]["properties"] == {}


@pytest.mark.parametrize(
    "script", [Script(refuse=EngineDied("it died")), Script(reason="error", message="it died")]
)
async def test_client_libraries_are_told_not_to_repeat_what_an_engine_may_have_died_of(
    script: Script,
) -> None:
    async with (
        running(ScriptedEngine(script)) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="it died") as caught:
            await client.chat.completions.create(**ASK)
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_a_crash_is_an_error_not_half_an_answer() -> None:
    script = Script(reason="error", message="The engine died.")
    async with (
        running(ScriptedEngine(script)) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="The engine died"):
            await client.chat.completions.create(**ASK)
        stream = await client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match="The engine died"):
            async for _ in stream:
                pass


@pytest.mark.parametrize(
    ("reason", "code"), [("unavailable", "engine_unavailable"), ("deadline", "deadline_exceeded")]
)
async def test_what_never_had_its_turn_may_be_sent_again(reason: FinishReason, code: str) -> None:
    script = Script(pieces=[], reason=reason, message="The server is shutting down.")
    async with (
        running(ScriptedEngine(script)) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match="shutting down") as caught:
            await client.chat.completions.create(**ASK)
        assert (caught.value.status_code, caught.value.code) == (503, code)
        stream = await client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match="shutting down") as broken:
            async for _ in stream:
                pass
        assert broken.value.code == code


async def test_arguments_nested_as_deep_as_may_be_are_read_or_refused(http: httpx.AsyncClient) -> None:
    for depth in range(850, 1010):
        nested = '{"a":' + "[" * depth + "]" * depth + "}"
        function = {"name": "f", "arguments": nested}
        asked = {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": function}]}
        talk = [*ASK["messages"], asked, {"role": "tool", "tool_call_id": "a", "content": "1"}]
        answer = await http.post("/v1/chat/completions", json={"model": MODEL, "messages": talk})
        assert answer.status_code in {200, 400}, (depth, answer.text)


async def test_a_schema_that_leads_nowhere_is_the_clients_fault() -> None:
    script = Script(reason="constraint", message="the grammar allows nothing more")
    async with (
        running(ScriptedEngine(script)) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="allows nothing more"):
            await client.chat.completions.create(**ASK)
        stream = await client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match="allows nothing more"):
            async for _ in stream:
                pass


async def test_while_loading_it_says_so() -> None:
    async with (
        running(ready=False) as api,
        openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as client,
    ):
        assert [model.id async for model in await client.models.list()] == [MODEL]
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**ASK)
    assert caught.value.status_code == 503
    assert caught.value.code == "model_loading"
    assert "retry-after" in caught.value.response.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_frees_its_sequence(stream: bool) -> None:
    engine = ScriptedEngine(Script(gate=asyncio.Event()))
    async with running(engine) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(post("/v1/chat/completions", {**ASK, "stream": stream}))
        await until(lambda: bool(engine.generations))
        if stream:
            await reader.readuntil(b"Hello")
        assert not engine.generations[0].cancelled
        writer.close()
        await until(lambda: engine.generations[0].cancelled)


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in await client.models.list()] == [MODEL]
    model = await client.models.retrieve(MODEL)
    assert (model.id, model.to_dict()["root"]) == (MODEL, MODEL)
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")
