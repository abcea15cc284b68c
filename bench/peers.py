"""llama.cpp's own programs, as released: from the very source that our wheel was built from, with the same flags.

llama-server is what Ollama and most operators run underneath. Of our patches it gets only what it can't run without; the CPU
variants are those of the wheel, chosen in the same way.
"""

import functools
import os
import shutil
from pathlib import Path

from tests.cluster import cache
from tests.cluster.commands import run
from tests.cluster.wheel import CMAKE_FLAGS, MENDED, VERSION, unpack

PROGRAMS = ("llama-server", "llama-bench", "llama-batched-bench")
FLAGS = (
    *CMAKE_FLAGS,
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
)


def _build(folder: Path) -> None:
    sources = folder / "sources"
    tree = unpack(sources, MENDED) / "vendor" / "llama.cpp"
    made = folder / "made"
    run(["cmake", "-S", tree, "-B", made, *FLAGS])
    run(["cmake", "--build", made, "-j", str(os.cpu_count()), "--target", *PROGRAMS])
    for program in (*PROGRAMS, *made.glob("bin/*.so*")):
        shutil.copy2(made / "bin" / Path(program).name, folder, follow_symlinks=False)
    shutil.rmtree(sources)
    shutil.rmtree(made)


@functools.cache
def folder() -> Path:
    """Where the peers' programs are, built once and cached."""
    inputs = {"version": VERSION, "flags": FLAGS, "patches": [patch.read_text() for patch in MENDED]}
    return cache.built("tools", "llama-peers", inputs, _build, note="about 10 min, once", gib=3)
