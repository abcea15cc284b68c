from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest

from slm_contract.config import ModelConfig
from slm_runtime.fetching.inspect import inspect_file
from tests.runtime.api.server import KEY, ServeProcess, serving
from tests.support.gguf import write_tiny_gguf
from tests.support.models import SMOLLM2, smollm2


@pytest.fixture(scope="session")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """SmolLM2, one server for all tests that only ask."""
    model_dir = smollm2().parent.parent
    with serving(SMOLLM2, model_dir, tmp_path_factory.mktemp("smol")) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelConfig, Path]:
    """A random model of half a MiB, for tests of the process rather than of the answers."""
    model_dir = tmp_path_factory.mktemp("models")
    model = ModelConfig(name="tiny", source="https://example.org/tiny.gguf")
    folder = model_dir / model.key
    folder.mkdir()
    path = write_tiny_gguf(folder / "tiny.gguf")
    (folder / "model.json").write_text(inspect_file(path).to_json())
    return model, model_dir


@pytest.fixture
def client(smol: ServeProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{smol.base}/v1", api_key=KEY, max_retries=0, timeout=120) as it:
        yield it


@pytest.fixture
async def async_client(smol: ServeProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{smol.base}/v1", api_key=KEY, max_retries=0, timeout=120) as it:
        yield it
