"""Responses that are kept, where the deployment says so."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from slm_runtime.api.openai import stored
from slm_runtime.api.openai.stored import Kept, StoredResponses
from tests.unit.runtime_api.scripted import MODEL, Running, Script, ScriptedEngine, running
from tests.unit.runtime_api.test_responses import TOOL
from tests.unit.runtime_api.test_tools import CALL


@pytest.fixture
async def keeping() -> AsyncIterator[Running]:
    async with running(stored_responses=3) as api:
        yield api


@pytest.fixture
async def client(keeping: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{keeping.base}/v1", api_key="none", max_retries=0) as it:
        yield it


def prompt(api: Running) -> str:
    return str(api.engine.requests[-1].prompt[0])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_goes_on_from_a_response(
    keeping: Running, client: openai.AsyncOpenAI, stream: bool
) -> None:
    first: Any = await client.responses.create(
        model=MODEL, input="One", instructions="Be kind.", stream=stream
    )
    if stream:
        first = [event async for event in first][-1].response
    assert first.store  # type: ignore[attr-defined]
    second = await client.responses.create(model=MODEL, input="Two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert "<|im_start|>user\nOne<|im_end|>\n<|im_start|>assistant\nHello, world!<|im_end|>" in prompt(
        keeping
    )
    assert "Be kind." not in prompt(keeping), "instructions are a request's own"
    await client.responses.create(model=MODEL, input="Three", previous_response_id=second.id)
    assert [word in prompt(keeping) for word in ("One", "Two", "Three")] == [True] * 3


async def test_a_tools_result_alone_goes_on_with_its_call(
    client: openai.AsyncOpenAI, keeping: Running
) -> None:
    keeping.engine.script = Script(pieces=[CALL])
    first = await client.responses.create(model=MODEL, input="Weather?", tools=[TOOL])  # type: ignore[list-item]
    (call,) = first.output
    assert call.type == "function_call"
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}]
    await client.responses.create(model=MODEL, input=result, tools=[TOOL], previous_response_id=first.id)  # type: ignore[list-item]
    assert '"name":"weather"' in prompt(keeping)
    assert "Rain." in prompt(keeping)


async def test_a_response_is_fetched_and_forgotten(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model=MODEL, input="One")
    assert await client.responses.retrieve(made.id) == made
    more: Any = [{"role": "user", "content": text} for text in ("Two", "Three", "Four")]
    other = await client.responses.create(model=MODEL, input=more, previous_response_id=made.id)
    items = [item async for item in client.responses.input_items.list(other.id, order="asc", limit=2)]
    assert [item.content for item in items] == ["Two", "Three", "Four"]  # type: ignore[union-attr]
    newest = await client.responses.input_items.list(other.id, limit=1)
    assert newest.data[0].content == "Four"  # type: ignore[union-attr]
    assert newest.has_more
    await client.responses.delete(made.id)
    for gone in (client.responses.retrieve(made.id), client.responses.delete(made.id)):
        with pytest.raises(openai.NotFoundError, match="not found"):
            await gone
    with pytest.raises(openai.BadRequestError) as refused:
        await client.responses.create(model=MODEL, input="x", previous_response_id=made.id)
    assert (refused.value.code, refused.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    # What went on from it has what it needs.
    await client.responses.create(model=MODEL, input="x", previous_response_id=other.id)


async def test_items_are_referred_to(client: openai.AsyncOpenAI, keeping: Running) -> None:
    """As clients do that take it for granted that responses are stored."""
    made = await client.responses.create(model=MODEL, input="One")
    reference: Any = [{"type": "item_reference", "id": made.output[0].id}, {"role": "user", "content": "Two"}]
    await client.responses.create(model=MODEL, input=reference)
    assert "assistant\nHello, world!" in prompt(keeping)


async def test_what_nobody_wants_stored_is_not(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model=MODEL, input="One", store=False)
    assert not made.store  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)


async def test_half_an_answer_is_not_stored(keeping: Running, client: openai.AsyncOpenAI) -> None:
    keeping.engine.script = Script(reason="error")
    with pytest.raises(openai.InternalServerError):
        await client.responses.create(model=MODEL, input="One")
    assert not keeping.serving.stored._kept


async def test_keys_see_their_own(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        (tmp_path / name).write_text(f"sk-{name}")
    async with (
        running(ScriptedEngine(), keys=tmp_path, stored_responses=3) as api,
        httpx.AsyncClient(base_url=api.base, trust_env=False) as http,
    ):
        ann, bob = ({"authorization": f"Bearer sk-{name}"} for name in ("ann", "bob"))
        made = (await http.post("/v1/responses", json={"model": MODEL, "input": "x"}, headers=ann)).json()
        path = f"/v1/responses/{made['id']}"
        assert (await http.get(path, headers=bob)).status_code == 404
        assert (await http.delete(path, headers=bob)).status_code == 404
        body = {"model": MODEL, "input": "y", "previous_response_id": made["id"]}
        assert (await http.post("/v1/responses", json=body, headers=bob)).status_code == 400
        assert (await http.post("/v1/responses", json=body, headers=ann)).status_code == 200


async def test_without_it_nothing_is_stored(http: httpx.AsyncClient) -> None:
    made = await http.post("/v1/responses", json={"model": MODEL, "input": "x", "store": True})
    assert (made.status_code, made.json()["store"]) == (200, False)
    gone = await http.get(f"/v1/responses/{made.json()['id']}")
    assert (gone.status_code, "storedResponses" in gone.text) == (404, True)
    body = {"model": MODEL, "input": "x", "previous_response_id": made.json()["id"]}
    refused = (await http.post("/v1/responses", json=body)).json()["error"]
    assert "storedResponses" in refused["message"]
    assert refused["param"] == "previous_response_id"


def kept(name: str, text: str = "") -> Kept:
    item = {"type": "message", "id": f"msg_{name}", "role": "assistant", "content": text}
    return Kept({"id": name, "output": [item]}, [], [])


def test_the_oldest_go_when_there_are_too_many_or_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "BYTES", 1000)
    responses = StoredResponses(3)
    for name in "abcd":
        responses.keep("ann", kept(name))
    assert [responses.find("ann", name) is not None for name in "abcd"] == [False, True, True, True]
    assert responses.item("ann", "msg_a") is None
    assert responses.item("ann", "msg_d") is not None
    responses.keep("ann", kept("e", "x" * 700))
    assert [responses.find("ann", name) is not None for name in "bcde"] == [False, True, True, True]
    responses.keep("ann", kept("f", "x" * 700))
    assert [responses.find("ann", name) is not None for name in "cdef"] == [False, False, False, True]
    responses.keep("ann", kept("g", "x" * 2000))
    assert responses.find("ann", "g") is None


def test_what_is_old_goes() -> None:
    now = 0.0
    responses = StoredResponses(3, clock=lambda: now)
    responses.keep("ann", kept("a"))
    now = stored.SECONDS
    responses.keep("ann", kept("b"))
    assert responses.find("ann", "a") is not None
    now += 1
    assert responses.find("ann", "a") is None
    assert responses.find("ann", "b") is not None
