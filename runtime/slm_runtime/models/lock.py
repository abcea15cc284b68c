"""Who uses a model's folder: one process writes there, any number serve from it, and one that is used isn't removed.

Both are ``flock`` on files of the folder, which the kernel lets go when their holder dies. NFS makes them locks of the
server's: a shared one has to be open for reading, which a read-only mount allows, an exclusive one for writing. Where a file
system keeps locks to itself (NFS mounted with ``nolock``), nodes don't see each other's.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

WRITTEN: Final = ".lock"
"""Held by the one process that writes; its time is when a pod was last about to start with the model."""
SERVED: Final = ".served"
"""Held by all that serve; who serves couldn't make it, since it has the volume read-only."""
UNUSED: Final = ".unused"
"""There since the folder was first found without use; whoever writes there next takes it away."""
POLL_SECONDS: Final = 0.5


@contextmanager
def writing(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Make the folder, and be the only one who writes there, on whatever node.

    Parameters
    ----------
    waiting
        Called once where somebody else is at it.

    Raises
    ------
    OSError
    """
    lock = _for_writing(folder, waiting)
    try:
        # Where one of these can't be, the model is fetched all the same: it is only guarded less from being removed.
        with suppress(OSError):
            os.utime(lock)
        with suppress(OSError):
            os.close(_open(folder / SERVED, os.O_RDONLY | os.O_CREAT))
            (folder / UNUSED).unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Keep the folder from being removed. Where it can't be locked, it is served all the same."""
    try:
        lock = _open(folder / SERVED, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


@contextmanager
def removing(folder: Path) -> Iterator[float | None]:
    """Keep everybody else out, and say when a pod was last about to start; None where the folder is in use.

    Raises
    ------
    OSError
        The folder isn't ours, or can't be locked.
    """
    locks: list[int] = []
    try:
        for name in (WRITTEN, SERVED):
            with suppress(FileNotFoundError):
                locks.append(_open(folder / name, os.O_RDWR))
        free = locks and all(map(_taken, locks)) and _is_there(locks[0], folder / WRITTEN)
        yield os.fstat(locks[0]).st_mtime if free else None
    finally:
        for lock in locks:
            os.close(lock)


def _for_writing(folder: Path, waiting: Callable[[], None]) -> int:
    told = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = _open(folder / WRITTEN, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            # Removed in between.
            continue
        try:
            while not _taken(lock):
                if not told:
                    waiting()
                    told = True
                time.sleep(POLL_SECONDS)
            if _is_there(lock, folder / WRITTEN):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _open(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(lock: int, path: Path) -> bool:
    """Whether the file is still the one of its name: the folder may have been removed, and made anew."""
    try:
        return os.path.samestat(os.fstat(lock), os.lstat(path))
    except FileNotFoundError:
        return False
