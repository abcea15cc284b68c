"""Which of ggml's backends to load.

A portable wheel carries the CPU backend once for each generation of instruction sets, in a folder where
nothing loads them by itself. The best that runs here is chosen by the score that each gives itself.
"""

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path

import llama_cpp

from slm_runtime.engine.protocol import EngineFault

log = logging.getLogger(__name__)

_CPU = "libggml-cpu-"


def load_backends() -> str:
    """Load the CPU backend that suits this machine, and every accelerator's; returns the CPU's variant.

    A wheel that was built for one machine has its backend linked in; its variant is "native".
    """
    package = Path(llama_cpp.__file__).parent
    folder = package.parent / "bin"
    # The registry that llama.cpp uses lives in this file, not in its copy without the version in its name.
    ggml = ctypes.CDLL(str(package / "lib" / "libggml.so.0"))
    ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    for library in sorted(folder.glob("libggml-*.so")):
        if not library.name.startswith(_CPU) and not ggml.ggml_backend_load(str(library).encode()):
            log.info("backend %s doesn't load here", library.name)
    variants = {library.stem.removeprefix(_CPU): library for library in folder.glob(f"{_CPU}*.so")}
    if not variants:
        return "native"
    for name in ranked(variants, _score):
        if ggml.ggml_backend_load(str(variants[name]).encode()):
            return name
    raise EngineFault(f"none of the CPU backends runs on this machine: {', '.join(sorted(variants))}")


def ranked(variants: dict[str, Path], score: Callable[[Path], int]) -> list[str]:
    """Those that can run here, the best first."""
    scores = {name: score(path) for name, path in variants.items()}
    return sorted((name for name, value in scores.items() if value > 0), key=lambda name: -scores[name])


def _score(library: Path) -> int:
    """0: the machine lacks something that it needs."""
    try:
        function = ctypes.CDLL(str(library)).ggml_backend_score
    except (OSError, AttributeError):
        return 0
    function.restype = ctypes.c_int
    return int(function())
