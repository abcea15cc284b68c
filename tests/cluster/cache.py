"""Things built once and kept: binaries, wheels, base images.

An artifact is named by what it is and by a hash of everything that went into
it, so a changed version or flag is a new artifact and never a stale one. It is
built under a temporary name and renamed when complete: a build that was cut off
leaves nothing that could be taken for a finished one. A lock a name lets a
second run wait for the first instead of building the same thing twice.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.errors import HarnessError
from tests.cluster.progress import say, step


def root() -> Path:
    """The cache folder: ``$SLM_CACHE_DIR``, else ``slm-operator`` in the user's cache folder."""
    named = os.environ.get("SLM_CACHE_DIR")
    if named:
        return Path(named).resolve()
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache").resolve() / "slm-operator"


def digest(inputs: Mapping[str, object]) -> str:
    """Twelve hex digits that stand for *inputs* (JSON values)."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]


def digest_of_files(paths: list[Path], relative_to: Path) -> str:
    """A hash over the names and the contents of *paths*."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(str(path.relative_to(relative_to)).encode() + b"\0")
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the machine-wide lock *name*; say so when another run holds it."""
    folder = root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  waiting: another run holds {name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def require_space(folder: Path, gib: float, purpose: str) -> None:
    """Refuse to start what would fill the disk halfway.

    Raises
    ------
    HarnessError
        Fewer than *gib* GiB are free where *folder* lies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free / 2**30
    if free < gib:
        raise HarnessError(
            f"{purpose} needs about {gib:g} GiB under {folder}, {free:.1f} GiB are free: "
            "make room, or name another folder by SLM_CACHE_DIR"
        )


def place(kind: str, name: str, inputs: Mapping[str, object]) -> Path:
    """Where the artifact lies that *inputs* (JSON values) make, once it is built."""
    return root() / kind / f"{name}-{digest(inputs)}"


def built(
    kind: str,
    name: str,
    inputs: Mapping[str, object],
    build: Callable[[Path], None],
    *,
    note: str,
    gib: float = 1.0,
) -> Path:
    """The folder of an artifact, built if it is not there yet.

    Parameters
    ----------
    kind, name
        What it is; with a digest of *inputs* it names the folder.
    inputs
        All that decides what the artifact is (JSON values).
    build
        Fills the empty folder it is given.
    note
        What the person waiting should know, such as "about 5 min, once".
    gib
        Free disk space that the build needs.
    """
    target = place(kind, name, inputs)
    if target.is_dir():
        return target
    folder = target.parent
    with lock(target.name):
        if target.is_dir():
            return target
        require_space(folder, gib, f"building {name}")
        for abandoned in folder.glob(f".{target.name}.*"):
            say(f"  removing what an unfinished run left of {name}")
            shutil.rmtree(abandoned)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=folder))
        try:
            with step(f"building {name} ({note})"):
                build(draft)
            draft.chmod(0o755)
            draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    return target
