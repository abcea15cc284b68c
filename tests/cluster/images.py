"""The images of this checkout, built when their inputs change and kept as archives."""

import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import backends, cache, wheel
from tests.cluster.base_image import BOOKWORM, TRIXIE, Debian, base
from tests.cluster.builders import Build, choose, secrets
from tests.cluster.errors import HarnessError

ROOT = Path(__file__).resolve().parents[2]
REGISTRY = "slm-operator.io"
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "requirements", "operator", "runtime")
KEPT = 2
"""Archives of one image that stay in the cache, the newest ones."""
RECENT = 3600.0
"""Seconds; another run, of another checkout perhaps, is still to load what is newer."""


@dataclass(frozen=True)
class Image:
    """An image that was built here; its tag stands for all that went into it."""

    repository: str
    tag: str
    archive: Path

    @property
    def name(self) -> str:
        """As pods write it."""
        return f"{self.repository}:{self.tag}"

    @property
    def size(self) -> int:
        """Bytes of the archive, compressed where the builder compresses."""
        return self.archive.stat().st_size


@dataclass(frozen=True)
class Recipe:
    """What an image is made of beside this checkout's sources."""

    containerfile: str
    parts: Callable[[], list[Path]] = list
    """Makes what goes into the context's `dist/`: paths that tell what is in them."""
    base: Debian = BOOKWORM
    target: str | None = None


RUNTIME = "runtime/Containerfile"
ALWAYS = {
    "slm-operator": Recipe("operator/Containerfile"),
    "slm-runtime": Recipe(RUNTIME, lambda: [wheel.ensure()]),
}
VARIANTS = {
    "vulkan": Recipe(RUNTIME, lambda: [wheel.ensure(), backends.vulkan()], TRIXIE, "slm-runtime-vulkan"),
}
"""The runtime for accelerators, built only where somebody asks for it."""


@functools.cache
def ensure() -> dict[str, Image]:
    """Both images by name (``slm-operator``, ``slm-runtime``), built first if need be.

    The first call of a process looks at the sources; later ones give the same images, whatever
    is edited meanwhile.
    """
    return {name: _image(name, recipe) for name, recipe in ALWAYS.items()}


def ensure_variant(name: str) -> Image:
    """The runtime's image with the accelerator backend *name*, built first if need be.

    Raises
    ------
    HarnessError
        There is no such variant, or it can't be built here.
    """
    if name not in VARIANTS:
        raise HarnessError(
            f"there is no variant {name!r} of the runtime's image; there are: {', '.join(VARIANTS)}"
        )
    return _image(f"slm-runtime-{name}", VARIANTS[name])


def _sources() -> list[Path]:
    found: list[Path] = []
    for name in SOURCES:
        path = ROOT / name
        found += [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return [path for path in found if "__pycache__" not in path.parts]


def _image(name: str, recipe: Recipe) -> Image:
    builder = choose()
    base_image = base(builder, recipe.base)
    parts = recipe.parts()
    other = {each.containerfile for each in ALWAYS.values()} - {recipe.containerfile}
    sources = [path for path in _sources() if str(path.relative_to(ROOT)) not in other]
    inputs: Mapping[str, object] = {
        "sources": cache.digest_of_files(sources, ROOT),
        "wheels": [str(path) for path in parts],
        "base": base_image,
    }
    image_name = f"{REGISTRY}/{name}:{cache.digest(inputs)}"

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            context = Path(scratch) / "context"
            for source in sources:
                target = context / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
            (context / "dist").mkdir()
            for part in parts:
                shutil.copy2(part, context / "dist")
            file, arguments = context / recipe.containerfile, {"BASE_IMAGE": base_image}
            found = secrets(Path(scratch))
            builder.build(
                Build(file, context, image_name, arguments, found, recipe.target), folder / "image.tar"
            )

    folder = cache.built(
        "images", name, inputs, build, note="a minute, seconds when only sources changed", gib=2
    )
    forget_older(name, folder)
    repository, _, tag = image_name.rpartition(":")
    return Image(repository, tag, folder / "image.tar")


def forget_older(name: str, current: Path) -> None:
    """Remove archives of the image *name* from the cache, but for *current*, the newest and the recent ones."""
    all_of_it = [path for path in current.parent.glob(f"{name}-*") if path.name.rpartition("-")[0] == name]
    others = [path for path in all_of_it if path != current]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[KEPT - 1 :]:
        if path.stat().st_mtime < time.time() - RECENT:
            shutil.rmtree(path, ignore_errors=True)
