import pytest

from slm_runtime.engine.llama_cpp.load import load
from slm_runtime.engine.loading import EngineConfig
from tests.support.gguf import write_tiny_gguf
from tests.support.models import smollm2


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def small():
    return smollm2()


@pytest.fixture(scope="session")
def make_engine():
    """The real engine in this process; one a test, since the library's log is one a process."""

    def make(path, **fields):
        engine, _ = load(EngineConfig(**{"model_path": str(path), "context_length": 512, **fields}))
        return engine

    return make
