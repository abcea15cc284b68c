"""A model's folder in the model volume, and who may write there.

::

    <model volume>/<key>/
        model.json       ModelFacts: written last, so that where it is, the model is whole and verified
        <file name>      the model
        failure.json     why the last attempt must not be repeated as it was
        .part            what has been transferred so far
        .part.json       which parts of it, of which version of the source
        .unpacked        being unpacked
        .lock            held by the one process that writes here

The key is made of source and checksum: a changed spec gets another folder, and nothing here ever changes its
meaning. Nothing outside the folder is touched, and nothing in it that was made by others.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from slm_contract.base import ContractModel
from slm_contract.config import ModelConfig
from slm_contract.report import Failure, ModelFacts
from slm_runtime.errors import ModelMissing, OutOfSpace, RuntimeFailure, StorageUnusable

LOCK_POLL_SECONDS: Final = 0.5
_Model = TypeVar("_Model", bound=BaseModel)
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FetchedModel(NamedTuple):
    path: Path
    facts: ModelFacts


class SourceState(ContractModel):
    """What told one state of the source from another."""

    version: str | None = None
    size: int | None = None


class RememberedFailure(ContractModel):
    """A failure that another attempt would only repeat, until something changes."""

    failure: Failure
    source: str
    sha256: str | None = None
    state: SourceState | None = None
    """Of the source, as it was then; None where it couldn't even be asked."""


class ModelFolder:
    def __init__(self, model_dir: Path, model: ModelConfig) -> None:
        self._model = model
        self.path = model_dir / model.key
        self.part = self.path / ".part"
        self.part_state = self.path / ".part.json"
        self.unpacked = self.path / ".unpacked"
        self._manifest = self.path / "model.json"
        self._failure = self.path / "failure.json"

    def fetched(self) -> FetchedModel | None:
        """Return the model, where it is whole, verified, and the one that is asked for."""
        facts = _read(self._manifest, ModelFacts)
        if facts is None or self._model.sha256 not in {None, facts.sha256}:
            return None
        path = self.path / facts.file_name
        try:
            return FetchedModel(path, facts) if path.stat().st_size == facts.size_bytes else None
        except OSError:
            return None

    def require(self) -> FetchedModel:
        """Return the model that `fetch` left here.

        Raises
        ------
        ModelMissing
        """
        fetched = self.fetched()
        if fetched is None:
            raise ModelMissing(f"There is no fetched model of {self._model.source} in {self.path}.")
        return fetched

    def failure(self) -> RememberedFailure | None:
        return _read(self._failure, RememberedFailure)

    def remember(self, failure: RememberedFailure) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self._failure, failure.to_json())

    def publish(self, verified: Path, facts: ModelFacts) -> FetchedModel:
        """Give a verified file its name, and say last of all that it is there."""
        path = self.path / facts.file_name
        with verified.open("rb") as file:
            os.fsync(file.fileno())
        verified.chmod(0o644)
        verified.replace(path)
        write_atomically(self._manifest, facts.to_json())
        self.discard()
        self._failure.unlink(missing_ok=True)
        return FetchedModel(path, facts)

    def discard(self) -> None:
        """Forget what was transferred."""
        for path in (self.part_state, self.part, self.unpacked):
            path.unlink(missing_ok=True)

    def transferred(self) -> int:
        """Bytes that the part takes up on the volume."""
        try:
            return self.part.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def free_space(self) -> int:
        """Bytes that are left on the volume."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    @contextmanager
    def locked(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Be the only one who writes here, on whatever node; the kernel frees the lock when its holder dies.

        `waiting` is called once where somebody else is at it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            told = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        waiting()
                        told = True
                    time.sleep(LOCK_POLL_SECONDS)
            yield


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system says into what people can act on."""
    try:
        yield
    except RuntimeFailure:
        raise
    except OSError as error:
        where = error.filename or path
        if error.errno in _FULL:
            raise OutOfSpace(f"The volume of {path} is full: {error.strerror}.") from error
        raise StorageUnusable(
            f"{where} can't be used by user {os.getuid()}: {error.strerror or error}."
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Whoever reads sees the old text or the new, also after a power cut."""
    temporary = path.with_name(f".{path.name.lstrip('.')}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems refuse to sync a folder; they order renames themselves.
        with contextlib.suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, model: type[_Model]) -> _Model | None:
    """Return what a file says; None where it isn't there, or isn't what this version writes."""
    try:
        return model.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
