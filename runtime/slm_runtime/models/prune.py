"""Models that nothing uses any more leave the model volume, so that another one has room.

Only folders that a fetch made are touched: their names say so, and what lies in them. No link is followed.
"""

import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path
from typing import Final, NamedTuple

from slm_contract.retention import Removed, Retention
from slm_runtime.models.lock import UNUSED, WRITTEN, removing

_FOLDER: Final = re.compile(r"[0-9a-f]{16}")
_ASIDE: Final = ".removed-"
"""A folder on its way out has another name: a model is never seen half."""
_SIGNS: Final = ("model.json", "files.json", "failure.json", ".part", ".verified", ".derived")
"""One of these lies in every folder in which a fetch has come to anything."""
STARTING_SECONDS: Final = 60.0
"""From a fetch to the server that takes the model, for which nobody holds it."""
BLOCK: Final = 512
"""What `st_blocks` counts in, whatever the file system."""
_log = logging.getLogger("slm.prune")


class CachedModel(NamedTuple):
    folder: str
    started: float
    """When a pod was last about to start with it, in seconds since the epoch."""
    unused: float | None
    """When it was first found without use; None: it wasn't, or was used since."""


class Verdict(Enum):
    STAYS = auto()
    UNUSED = auto()
    """It stays for its time of grace."""
    GOES = auto()


def judge(model: CachedModel, retention: Retention, now: float) -> Verdict:
    """What becomes of a model that nobody holds."""
    if model.folder in retention.keep or now - model.started < STARTING_SECONDS:
        return Verdict.STAYS
    since = now if model.unused is None else model.unused
    return Verdict.GOES if now - since >= retention.grace_seconds else Verdict.UNUSED


def prune(model_dir: Path, retention: Retention, now: float) -> Removed | None:
    """Remove what may go; None where that is nothing. What can't be removed is left, and logged."""
    for name in _names(model_dir):
        if name.startswith(_ASIDE) and _FOLDER.fullmatch(name.removeprefix(_ASIDE)):
            _delete(model_dir / name)
    sizes = [
        size
        for each in list(cached_models(model_dir))
        if judge(each, retention, now) is not Verdict.STAYS
        and (size := _remove(model_dir / each.folder, retention, now)) is not None
    ]
    if not sizes:
        return None
    removed = Removed(models=len(sizes), bytes=sum(sizes))
    _log.info("Removed unused models", extra={"fields": removed.model_dump()})
    return removed


def cached_models(model_dir: Path) -> Iterator[CachedModel]:
    """All that fetches have made on a volume."""
    for name in _names(model_dir):
        folder = model_dir / name
        lock = _status(folder / WRITTEN)
        ours = lock is not None and stat.S_ISREG(lock.st_mode)
        if _FOLDER.fullmatch(name) and ours and any(_status(folder / sign) for sign in _SIGNS):
            assert lock is not None  # noqa: S101 - it was just asked
            yield CachedModel(name, lock.st_mtime, _unused_since(folder))


def _names(model_dir: Path) -> list[str]:
    """Folders on the volume."""
    try:
        with os.scandir(model_dir) as entries:
            return sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _remove(folder: Path, retention: Retention, now: float) -> int | None:
    """Remove one that may go, unless somebody has come meanwhile; its bytes on the volume, None where it stays."""
    aside = folder.with_name(_ASIDE + folder.name)
    try:
        with removing(folder) as started:
            if started is None:
                (folder / UNUSED).unlink(missing_ok=True)
                return None
            verdict = judge(CachedModel(folder.name, started, _unused_since(folder)), retention, now)
            if verdict is Verdict.UNUSED:
                _mark(folder, now)
            if verdict is not Verdict.GOES:
                return None
            folder.rename(aside)
    except OSError as error:
        fields = {"folder": str(folder), "cause": str(error)}
        _log.warning("An unused model stays", extra={"fields": fields})
        return None
    return _delete(aside)


def _unused_since(folder: Path) -> float | None:
    mark = _status(folder / UNUSED)
    return None if mark is None else mark.st_mtime


def _mark(folder: Path, now: float) -> None:
    """Remember since when nobody was found to use it."""
    path = folder / UNUSED
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
        os.utime(path, (now, now))


def _delete(folder: Path) -> int | None:
    """Delete a folder; answer its bytes on the volume, None where something of it is left."""
    try:
        files = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
        size = sum(each.st_blocks * BLOCK for each in map(_status, files) if each is not None)
        shutil.rmtree(folder)
    except FileNotFoundError:
        # Another process is at it as well.
        return None
    except (OSError, RecursionError) as error:
        fields = {"folder": str(folder), "cause": str(error)}
        _log.warning("An unused model can't be removed", extra={"fields": fields})
        return None
    return size
