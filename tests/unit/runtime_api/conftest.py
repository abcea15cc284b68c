from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from tests.unit.runtime_api.scripted import Running, running


@pytest.fixture
async def api() -> AsyncIterator[Running]:
    async with running() as it:
        yield it


@pytest.fixture
async def http(api: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=api.base, timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
async def client(api: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{api.base}/v1", api_key="none", max_retries=0) as it:
        yield it
