"""What a projector's picture takes by its header, beside what llama.cpp reserves for it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, c_char_p, c_int, c_void_p
from pathlib import Path

import pytest
from llama_cpp import mtmd_cpp as mtmd

from slm_operator.model.memory import picture_bytes
from slm_runtime.engine.llama_cpp.backends import load_backends
from slm_runtime.fetching.inspect import inspect_file
from tests.support.projector import TinyProjector

pytestmark = pytest.mark.runtime

MIB = 1 << 20
_BUFFER = re.compile(r"compute buffer size = +([\d.]+) MiB")
_SIDE = re.compile(r"warmup with image size = (\d+) x")
_Sink = CFUNCTYPE(None, c_int, c_char_p, c_void_p)


@contextmanager
def heard() -> Iterator[list[str]]:
    """What libmtmd says; what it says afterwards is heard by nobody."""
    said: list[str] = []
    sink = _Sink(lambda _level, text, _data: said.append(text.decode(errors="replace")))
    mtmd._libmtmd.mtmd_log_set.argtypes = [_Sink, c_void_p]
    mtmd._libmtmd.mtmd_log_set(sink, None)
    try:
        yield said
    finally:
        mtmd._libmtmd.mtmd_log_set(_SILENCE, None)


_SILENCE = _Sink(lambda _level, _text, _data: None)


@pytest.fixture
def reserved() -> Callable[[Path], tuple[float, int]]:
    """Of a file, the buffer that llama.cpp reserves before the first picture, in MiB, and the side of that in pixels."""
    load_backends()

    def of(path: Path) -> tuple[float, int]:
        params = mtmd.mtmd_context_params_default()
        params.use_gpu, params.n_threads, params.warmup = False, 1, True
        with heard() as said:
            context = mtmd.mtmd_init_from_file(str(path).encode(), None, params)
            assert context, "".join(said)
            mtmd.mtmd_free(context)
        text = "".join(said)
        return float(_BUFFER.findall(text)[-1]), int(_SIDE.findall(text)[-1])

    return of


SHAPES = {
    "llava 1.5": TinyProjector(
        "mlp", output=4096, embedding=1024, feed_forward=4096, heads=16, image_size=336
    ),
    "smolvlm 500m": TinyProjector(
        "idefics3",
        output=960,
        embedding=768,
        feed_forward=3072,
        heads=12,
        image_size=512,
        patch_size=16,
        merge=4,
    ),
    "narrow": TinyProjector(
        "idefics3",
        output=960,
        embedding=768,
        feed_forward=768,
        heads=12,
        image_size=512,
        patch_size=16,
        merge=4,
    ),
    "gemma 3 4b": TinyProjector(
        "gemma3", output=2560, embedding=1152, feed_forward=4304, heads=16, image_size=896, merge=4
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_picture_s_buffer_is_foreseen_within_five_percent(
    shape: TinyProjector, reserved: Callable[[Path], tuple[float, int]], tmp_path: Path
) -> None:
    path = shape.write(tmp_path / "mmproj.gguf")
    theirs, side = reserved(path)
    facts = inspect_file(path)
    assert facts.projector is not None
    assert facts.projector.image_size == side
    assert picture_bytes(facts) / MIB == pytest.approx(theirs, rel=0.05)


def test_pictures_of_any_shape_are_foreseen_at_their_largest(
    reserved: Callable[[Path], tuple[float, int]], tmp_path: Path
) -> None:
    """llama.cpp reserves less than the largest one takes, and what it reserves grows with a picture's pixels."""
    shape = TinyProjector("qwen2vl_merger", embedding=1280, feed_forward=5120, heads=16)
    path = shape.write(tmp_path / "mmproj.gguf")
    theirs, side = reserved(path)
    facts = inspect_file(path)
    assert facts.projector is not None
    assert facts.projector.image_size == 64 * 28 > side
    scaled = theirs * (facts.projector.image_size / side) ** 2
    assert picture_bytes(facts) / MIB == pytest.approx(scaled, rel=0.05)
