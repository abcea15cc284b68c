"""What OpenAI's own client makes of refusals, and what becomes of a request that it gives up."""

import asyncio
import time
from typing import Any

import openai
import pytest

from tests.runtime.api.server import KEY, ServeProcess

pytestmark = pytest.mark.runtime

LONG: Any = {"max_tokens": 1500, "extra_body": {"ignore_eos": True}}
"""Would run for half a minute."""


def asked(server: ServeProcess, **more: Any) -> dict[str, Any]:
    return {"model": server.name, "messages": [{"role": "user", "content": "Hello"}], **more}


@pytest.mark.parametrize(
    ("bad", "kind", "code", "param"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found", "model"),
        ({"messages": []}, openai.BadRequestError, None, "messages"),
        ({"temperature": 3}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"logit_bias": {"999999": 1}}, openai.BadRequestError, "invalid_value", "logit_bias"),
        ({"n": 1000}, openai.BadRequestError, "invalid_value", "n"),
        ({"max_tokens": 0}, openai.BadRequestError, "invalid_value", "max_tokens"),
        ({"functions": [{"name": "f"}]}, openai.BadRequestError, "unsupported_parameter", "functions"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 5}}}},
            openai.BadRequestError,
            "invalid_value",
            "response_format",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_the_vendors_exception(
    client: openai.OpenAI,
    smol: ServeProcess,
    bad: dict[str, Any],
    kind: type[openai.APIStatusError],
    code: str | None,
    param: str | None,
    stream: bool,
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{**asked(smol), **bad}, stream=stream)
    assert (caught.value.code, caught.value.param) == (code, param)


def test_unknown_models_and_routes(client: openai.OpenAI, smol: ServeProcess) -> None:
    assert client.models.retrieve(smol.name).id == smol.name
    for call in (
        lambda: client.models.retrieve("other"),
        lambda: client.responses.retrieve("resp_1"),
        client.files.list,
    ):
        with pytest.raises(openai.NotFoundError):
            call()


def test_a_client_that_loses_patience_frees_its_sequence(client: openai.OpenAI, smol: ServeProcess) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.5).chat.completions.create(**asked(smol), **LONG)
    wait_until_idle(smol)


def test_a_stream_that_is_left_frees_its_sequence(smol: ServeProcess) -> None:
    with (
        openai.OpenAI(base_url=f"{smol.base}/v1", api_key=KEY, max_retries=0) as client,
        client.responses.create(model=smol.name, input="Tell a very long story.", stream=True) as stream,
    ):
        next(iter(stream))
    wait_until_idle(smol)


async def test_a_cancelled_task_frees_its_sequence(
    async_client: openai.AsyncOpenAI, smol: ServeProcess
) -> None:
    task = asyncio.create_task(async_client.chat.completions.create(**asked(smol), **LONG))
    async with asyncio.timeout(30):
        while not smol.metric("slm_runtime_sequences_running"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_until_idle, smol)


def wait_until_idle(server: ServeProcess) -> None:
    end = time.monotonic() + 20
    while server.metric("slm_runtime_sequences_running"):
        assert time.monotonic() < end, "a sequence runs on that nobody reads"
        time.sleep(0.02)
