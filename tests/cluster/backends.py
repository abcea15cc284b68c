"""ggml's backends for accelerators: files beside the wheel's own, compiled once from its sources.

The CPU image doesn't grow by them, and the wheel stays one.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cluster import cache, wheel
from tests.cluster.base_image import TRIXIE, base
from tests.cluster.builders import Build, choose

STAGE = Path(__file__).with_name("backend_stage") / "Containerfile"
FLAGS = (
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_NATIVE=OFF",
    "-DGGML_CPU=OFF",  # the wheel's
    "-DCMAKE_SKIP_RPATH=ON",  # what it links with is loaded before it
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_COMMON=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)
VULKAN_FLAGS = (*FLAGS, "-DGGML_VULKAN=ON")
VULKAN_PACKAGES = ("glslc", "libvulkan-dev", "spirv-headers")


def vulkan() -> Path:
    """Path of `libggml-vulkan.so`; it is built first if need be."""
    inputs: dict[str, object] = {
        "version": wheel.VERSION,
        "flags": list(VULKAN_FLAGS),
        "packages": list(VULKAN_PACKAGES),
        "patches": [patch.read_text() for patch in wheel.PATCHES],
        "stage": STAGE.read_text(),
        "suite": TRIXIE.suite,
        "machine": os.uname().machine,
    }
    note = f"{wheel.VERSION}, about 7 min on two cores, once"
    folder = cache.built("backends", "vulkan", inputs, _build_vulkan, note=note, gib=4)
    return folder / "libggml-vulkan.so"


def _build_vulkan(folder: Path) -> None:
    builder = choose()
    base_image = base(builder, TRIXIE)
    arguments = {
        "BASE_IMAGE": base_image,
        "BACKEND": "vulkan",
        "PACKAGES": " ".join(VULKAN_PACKAGES),
        "CMAKE_ARGS": " ".join(VULKAN_FLAGS),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(len(os.sched_getaffinity(0))),
    }
    with TemporaryDirectory(dir=folder) as scratch:
        context = Path(scratch) / "context"
        wheel.lay_sources(context)
        builder.export(Build(STAGE, context, f"ggml-vulkan:{wheel.VERSION}", arguments, {}), folder)
