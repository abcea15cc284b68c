"""Adapters under names of their own, by every way of asking."""

from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from ollama import AsyncClient

from slm_contract.config import AdapterConfig
from tests.unit.runtime_api.scripted import FACTS, MODEL, Running, running

ADAPTERS = (
    AdapterConfig(name="sql", source="https://example.org/sql.gguf"),
    AdapterConfig(name="law:v2", source="https://example.org/law.gguf"),
)
HI = [{"role": "user", "content": "Hi"}]
ASKED = [(MODEL, 0), ("sql", 1), ("SQL:latest", 1), ("law:v2", 2)]


@pytest.fixture
async def served() -> AsyncIterator[Running]:
    async with running(adapters=ADAPTERS) as api:
        api.serving.adapters = [
            FACTS.model_copy(update={"size_bytes": 10 + number, "sha256": str(number) * 64})
            for number in range(2)
        ]
        yield api


@pytest.mark.parametrize(("name", "adapter"), ASKED)
async def test_openai_s_clients_get_the_one_they_name(served: Running, name: str, adapter: int) -> None:
    async with openai.AsyncOpenAI(base_url=f"{served.base}/v1", api_key="-", max_retries=0) as client:
        chat = await client.chat.completions.create(model=name, messages=HI)  # type: ignore[arg-type]
        completion = await client.completions.create(model=name, prompt="Hi")
        response = await client.responses.create(model=name, input="Hi")
        vectors = await client.embeddings.create(model=name, input="Hi")
        await client.completions.create(model=name, prompt="Hi", logprobs=1, echo=True)
    called = served.serving.served[adapter].name
    assert {chat.model, completion.model, response.model, vectors.model} == {called}
    assert [request.adapter for request in served.engine.requests] == [adapter] * 4
    assert [request.adapter for request in served.engine.embeddings] == [adapter]
    assert [request.adapter for request in served.engine.scores] == [adapter]


@pytest.mark.parametrize(("name", "adapter"), ASKED)
async def test_ollama_s_clients_likewise(served: Running, name: str, adapter: int) -> None:
    client = AsyncClient(host=served.base, trust_env=False)
    await client.chat(name, HI)
    await client.generate(name, "Hi")
    await client.embed(name, "Hi")
    shown = await client.show(name)
    await client._client.aclose()
    assert [request.adapter for request in served.engine.requests] == [adapter] * 2
    assert [request.adapter for request in served.engine.embeddings] == [adapter]
    assert shown.details is not None
    assert shown.details.parent_model == (MODEL if adapter else "")
    sources = [line for line in (shown.modelfile or "").splitlines() if line.startswith("ADAPTER")]
    assert sources == ([f"ADAPTER {ADAPTERS[adapter - 1].source}"] if adapter else [])


async def test_all_are_listed(served: Running) -> None:
    async with httpx.AsyncClient(base_url=served.base, trust_env=False) as client:
        models = (await client.get("/v1/models")).json()["data"]
        one = (await client.get("/v1/models/sql")).json()
        tags = (await client.get("/api/tags")).json()["models"]
        loaded = (await client.get("/api/ps")).json()["models"]
    assert [(each["id"], each["parent"]) for each in models] == [
        (MODEL, None),
        ("sql", MODEL),
        ("law:v2", MODEL),
    ]
    assert one == models[1]
    assert [(each["name"], each["size"]) for each in tags] == [
        (f"{MODEL}:latest", 1),
        ("sql:latest", 10),
        ("law:v2", 11),
    ]
    assert [each["digest"] for each in tags[1:]] == ["0" * 64, "1" * 64]
    assert [each["name"] for each in loaded] == [each["name"] for each in tags]


async def test_what_isn_t_served_is_told_with_what_is(served: Running) -> None:
    async with httpx.AsyncClient(base_url=served.base, trust_env=False) as client:
        answer = await client.post("/v1/chat/completions", json={"model": "tax", "messages": HI})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].endswith(f"this server serves '{MODEL}', 'sql', 'law:v2'.")
