"""What the operator computes from a header, beside what llama.cpp says it takes, and what the processes really take."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from gguf import GGMLQuantizationType
from llama_cpp import llama_cpp as native

from slm_contract.config import KVCacheType
from slm_contract.report import ModelFacts
from slm_operator.model.memory import Estimate, estimate
from slm_runtime.engine.llama_cpp.backends import load_backends
from slm_runtime.engine.llama_cpp.encoder import INPUTS, encoder_params
from slm_runtime.engine.llama_cpp.engine import context_params, window_of
from slm_runtime.engine.llama_cpp.logs import NativeLog
from slm_runtime.engine.loading import EngineConfig
from slm_runtime.fetching.inspect import inspect_file
from slm_runtime.models.encoders import ENCODERS
from slm_runtime.models.facts import model_facts
from tests.runtime.api.server import HEADERS, KEY, ServeProcess, linked, serving
from tests.support.architectures import MODELS
from tests.support.encoders import TinyEncoder
from tests.support.gguf import write_tiny_gguf
from tests.support.headers import write_header
from tests.support.models import SMOLLM2, smollm2

pytestmark = pytest.mark.runtime

MIB = 1 << 20
ROUNDED = 0.005
"""MiB: llama.cpp's log has two digits."""
_KV = re.compile(r"llama_kv_cache\S* size = +([\d.]+) MiB")
_BUFFER = re.compile(r"(RS|compute|output) buffer size = +([\d.]+) MiB")


@pytest.fixture
def accounting(caplog: pytest.LogCaptureFixture) -> Any:
    """llama.cpp's own sum for a file, which it loads without its weights and without its caches: in MiB, by kind."""
    caplog.set_level(logging.DEBUG, "llama.cpp")
    NativeLog()
    load_backends()
    native.llama_backend_init()

    @contextmanager
    def loaded(path: Path, *, encoder: bool = False) -> Iterator[Any]:
        params = native.llama_model_default_params()
        params.no_alloc, params.load_mode, params.n_gpu_layers = True, native.LLAMA_LOAD_MODE_NONE, 0
        model = native.llama_model_load_from_file(str(path).encode(), params)
        assert model, caplog.text

        def of(context_length: int, **fields: Any) -> dict[str, float]:
            caplog.clear()
            config = EngineConfig(model_path=str(path), **fields)
            params = (
                encoder_params(config, context_length)
                if encoder
                else context_params(config, context_length, window_of(model))
            )
            context = native.llama_init_from_model(model, params)
            assert context, caplog.text
            native.llama_free(context)
            sizes = {"weights": native.llama_model_size(model) / MIB}
            sizes["KV"] = sum(float(size) for size in _KV.findall(caplog.text))
            for kind, size in _BUFFER.findall(caplog.text):
                sizes[kind] = sizes.get(kind, 0) + float(size)
            return sizes

        yield of
        native.llama_model_free(model)

    return loaded


def read(path: Path) -> ModelFacts:
    with path.open("rb") as file:
        files = [(path.name, path.stat().st_size, iter(lambda: file.read(1 << 16), b""))]
        return model_facts(files)


def assert_is(theirs: dict[str, float], ours: Estimate) -> None:
    """The caches to the last digit that is logged, the buffers nearly, the sum within five percent."""
    assert ours.kv_cache / MIB == pytest.approx(theirs["KV"], abs=0.02)
    assert ours.recurrent_state / MIB == pytest.approx(theirs.get("RS", 0), abs=0.02)
    assert ours.outputs / MIB == pytest.approx(theirs["output"], abs=0.02)
    assert ours.compute / MIB == pytest.approx(theirs["compute"], rel=0.2, abs=12)
    assert (ours.total - ours.process - ours.snapshots) / MIB == pytest.approx(sum(theirs.values()), rel=0.05)


@pytest.mark.parametrize("architecture", [name for name in MODELS if name not in ENCODERS])
def test_the_estimate_is_llama_cpps_own_sum(tmp_path: Path, accounting: Any, architecture: str) -> None:
    path = write_header(tmp_path / "m.gguf", MODELS[architecture], GGMLQuantizationType.Q4_0)
    facts = read(path)
    with accounting(path) as of:
        assert_is(of(8192, parallel=4), estimate(facts, 8192))
        assert_is(of(4096, parallel=1, batch_size=128), estimate(facts, 4096, parallel=1, batch=128))
        assert_is(
            of(2048, parallel=16, kv_cache_type="q8_0"),
            estimate(facts, 2048, parallel=16, kv_type=KVCacheType.Q8_0),
        )


@pytest.mark.parametrize("architecture", [name for name in MODELS if name in ENCODERS])
def test_the_estimate_of_an_encoder_is_llama_cpps_own_sum(
    tmp_path: Path, accounting: Any, architecture: str
) -> None:
    """Its outputs, of which llama.cpp makes few at first, are what a step of as many tokens as can be needs."""
    path = write_header(tmp_path / "m.gguf", MODELS[architecture], GGMLQuantizationType.Q8_0)
    facts = read(path)
    assert facts.encoder
    with accounting(path, encoder=True) as of:
        for context, batch in ((512, 512), (512, 2048), (min(2048, facts.context_length), 512)):
            theirs, ours = of(context, batch_size=batch), estimate(facts, context, batch=batch)
            steps = max(context, batch) / INPUTS
            theirs["output"] *= steps
            assert (ours.kv_cache, ours.recurrent_state, theirs["KV"]) == (0, 0, 0)
            assert ours.outputs / MIB == pytest.approx(theirs["output"], abs=ROUNDED * steps)
            assert ours.compute / MIB == pytest.approx(theirs["compute"], rel=0.2)
            assert (ours.total - ours.process - ours.snapshots) / MIB == pytest.approx(
                sum(theirs.values()), rel=0.05
            )


def test_llama_cpp_takes_shards_for_one_model(tmp_path: Path, accounting: Any) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", shard_tensors=8)
    with accounting(path) as of:
        assert (
            of(512, parallel=1)["weights"] * MIB
            == inspect_file(write_tiny_gguf(tmp_path / "whole.gguf")).weights_bytes
        )


@pytest.mark.parametrize(
    ("context", "parallel", "kv_type"),
    [(2048, 1, "f16"), (2048, 4, "f16"), (8192, 2, "f16"), (4096, 2, "q8_0"), (2048, 4, "q4_0")],
)
def test_the_estimate_is_what_the_processes_take(
    tmp_path: Path, context: int, parallel: int, kv_type: str
) -> None:
    """All of `slm-runtime serve`, after a prompt of more than one step.

    The mask of attention is taken as far as cells are in use, and computed for all of them: with many more it would show.
    """
    path = smollm2()
    settings = {"context_length": context, "parallel": parallel, "kv_cache_type": kv_type}
    with serving(SMOLLM2, path.parent.parent, tmp_path, **settings) as server:
        ask(server)
        taken = taken_bytes(server.process.pid) / MIB
    found = estimate(inspect_file(path), context, parallel=parallel, kv_type=KVCacheType(kv_type))
    print(f"\n{context} x {parallel}, {kv_type}: computed {found.total / MIB:.0f} MiB, taken {taken:.0f} MiB")
    assert found.total / MIB == pytest.approx(taken, rel=0.05)


def test_the_estimate_of_an_encoder_is_what_the_processes_take(tmp_path: Path) -> None:
    """After a text of the whole context: room for outputs is made when they are first needed."""
    path = TinyEncoder(tmp_path / "m.gguf", context_length=512, vocabulary=30522).write()
    facts = inspect_file(path)
    with serving(linked(path, tmp_path), tmp_path / "models", tmp_path, context_length=512) as server:
        body = {"model": server.name, "input": ["the " * 500] * 4 + ["a b"] * 50}
        answer = httpx.post(f"{server.base}/v1/embeddings", json=body, headers=HEADERS, trust_env=False)
        assert answer.status_code == 200, answer.text
        taken = taken_bytes(server.process.pid) / MIB
    found = estimate(facts, 512)
    print(f"\nencoder: computed {found.total / MIB:.0f} MiB, taken {taken:.0f} MiB")
    assert found.total / MIB == pytest.approx(taken, rel=0.05)


def taken_bytes(pid: int) -> int:
    """Of the process and its descendants. What they share counts once, whoever else on this machine has it mapped too."""
    family = [pid]
    for each in family:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            family += map(int, children.read_text().split())
    own, shared = 0, dict[str, int]()
    for each in family:
        for place, kib in mappings(Path(f"/proc/{each}/smaps").read_text()):
            own += kib["Private_Clean"] + kib["Private_Dirty"]
            shared[place] = max(shared.get(place, 0), kib["Shared_Clean"] + kib["Shared_Dirty"])
    return 1024 * (own + sum(shared.values()))


def mappings(smaps: str) -> Iterator[tuple[str, dict[str, int]]]:
    """File and offset of each, of anonymous memory its address; and its figures in KiB."""
    for mapping in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", smaps):
        head, *lines = mapping.splitlines()
        address, _, offset, device, inode, *_ = head.split()
        figures = {
            name: int(kib) for name, kib in re.findall(r"^(\w+): +(\d+) kB$", "\n".join(lines), re.MULTILINE)
        }
        yield (address if inode == "0" else f"{device} {inode} {offset}"), figures


def ask(server: ServeProcess) -> None:
    """A prompt of more than one step."""
    body = {"model": server.name, "prompt": "all of it, " * 180, "max_tokens": 4}
    answer = httpx.post(
        f"{server.base}/v1/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=600,
        trust_env=False,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
