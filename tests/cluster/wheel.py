"""llama-cpp-python, built once into a wheel that runs on any x86-64 or arm64 Linux of this Python's kind.

Only its sources are published, and they build for the machine they are built on.
The flags here build every CPU variant instead; the runtime picks one at start.
The same wheel serves the virtual environment and the image.
"""

import os
import re
import shutil
import sys
import sysconfig
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cluster import builders, cache, host
from tests.cluster.base_image import base
from tests.cluster.commands import run

PINNED = Path(__file__).resolve().parents[2] / "requirements" / "llama-cpp-python.txt"
VERSION = re.findall(r"^llama-cpp-python==(\S+)", PINNED.read_text(), flags=re.MULTILINE)[0]
CMAKE_FLAGS = (
    "-DGGML_NATIVE=OFF",  # what this machine's CPU advertises is not what the next one has
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU_ALL_VARIANTS=ON",
    "-DMTMD_VIDEO=OFF",  # it would run ffmpeg
    "-DLLAMA_OPENSSL=OFF",
)
_PATCHES = Path(__file__).with_name("patches")
MENDED = (_PATCHES / "amx.patch",)
"""What llama.cpp can't run without; the peers that are measured beside ours get it too."""
PATCHES = (*MENDED, _PATCHES / "prefix.patch", _PATCHES / "encoder.patch", _PATCHES / "attention.patch")

STAGE = Path(__file__).with_name("wheel_stage") / "Containerfile"


def _pip(*words: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]


def sdist() -> Path:
    """Path of the published source archive, whose hash is the pinned one."""

    def download(folder: Path) -> None:
        options = ["--quiet", "--no-deps", "--no-binary", "llama-cpp-python", "--require-hashes"]
        run(_pip("download", *options, "--dest", folder, "-r", PINNED))

    inputs = {"pinned": PINNED.read_text()}
    folder = cache.built("sdists", "llama-cpp-python", inputs, download, note=f"{VERSION}, 77 MB")
    return next(folder.glob("*.tar.gz"))


def unpack(folder: Path, patches: Sequence[Path]) -> Path:
    """The patched sources: the one directory in `folder`."""
    with tarfile.open(sdist()) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    for patch in patches:
        run(["patch", "--batch", "--quiet", "--strip=1", "--directory", tree, "--input", patch])
    return tree


def lay_sources(context: Path) -> None:
    """What a stage that compiles starts from: `sources.tar.gz` and `patches/`, in their order."""
    (context / "patches").mkdir(parents=True)
    shutil.copy2(sdist(), context / "sources.tar.gz")
    for number, patch in enumerate(PATCHES):
        shutil.copy2(patch, context / "patches" / f"{number:02}.patch")


def _inputs() -> dict[str, object]:
    return {
        "version": VERSION,
        "flags": list(CMAKE_FLAGS),
        "patches": [patch.read_text() for patch in PATCHES],
        "abi": sysconfig.get_config_var("SOABI"),
        "machine": os.uname().machine,
    }


def ensure() -> Path:
    """Path of the wheel; it is built first if need be."""
    note = f"{VERSION}, about 11 min on two cores, once"
    folder = cache.built("wheels", "llama-cpp-python", _inputs(), _build, note=note, gib=4)
    return next(folder.glob("*.whl"))


def _build(folder: Path) -> None:
    engine = builders.engine()
    if engine is not None:
        _build_in_stage(engine, folder)
    else:
        _build_here(folder)


def _environment() -> dict[str, str]:
    return {
        "CMAKE_ARGS": " ".join(CMAKE_FLAGS),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(len(os.sched_getaffinity(0))),
    }


def _build_in_stage(engine: builders.Docker, folder: Path) -> None:
    """Compile in a container: against the C library of the image that gets the wheel, and without a compiler here."""
    base_image = base(engine)
    with TemporaryDirectory(dir=folder) as scratch:
        context = Path(scratch) / "context"
        lay_sources(context)
        arguments = {"BASE_IMAGE": base_image, **_environment()}
        secrets = builders.secrets(Path(scratch))
        engine.export(
            builders.Build(STAGE, context, f"llama-cpp-python:{VERSION}", arguments, secrets), folder
        )


def _build_here(folder: Path) -> None:
    host.require(host.COMPILER_PACKAGES)
    with TemporaryDirectory(dir=folder) as sources:
        tree = unpack(Path(sources), PATCHES)
        run(_pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, tree), env=_environment())
