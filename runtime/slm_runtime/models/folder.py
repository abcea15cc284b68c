"""A model's folder in the model volume, and who may write there.

::

    <model volume>/<key>/
        model.json       ModelFacts: written last, so that where it is, the model is whole and verified
        prompt.json      what the source says of the prompt, where it says something
        signature.json   the signature that was verified, where one was asked for
        <path>           a file of the model, verified
        .verified        which files are, a line each: of several, one after the other is
        failure.json     why the last attempt must not be repeated as it was
        .part            what has been transferred of the first file so far; .part-1, ... of the others
        .part.json       which parts of it, of which version of the source
        .unpacked        being unpacked
        .derived         being made of the verified files
        .lock            held by the one process that writes here
        .served          held by all that serve
        .unused          there since nobody was found to use it

The key names the bytes, or else source and checksum, and what is derived of them: a changed spec gets another folder, and
nothing here ever changes its meaning. Nothing outside the folder is touched, and nothing in it that was made by others; what
nothing uses any more is removed whole (:mod:`slm_runtime.models.prune`).
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ValidationError

from slm_contract.base import ContractModel
from slm_contract.config import ModelConfig, PromptConfig
from slm_contract.report import Failure, ModelFacts
from slm_runtime.errors import ModelMissing, OutOfSpace, RuntimeFailure, SourceInvalid, StorageUnusable
from slm_runtime.models.lock import serving, writing
from slm_runtime.models.sources.remote import safe_path

CHUNK: Final = 1 << 18
_Model = TypeVar("_Model", bound=BaseModel)
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FetchedModel(NamedTuple):
    path: Path
    """What an engine opens."""
    facts: ModelFacts
    prompt: PromptConfig | None = None
    """What the source says of the prompt."""

    def beside(self, path: str) -> Path:
        """Another file of the model."""
        return self.path.parents[self.facts.file_name.count("/")] / path


class VerifiedFile(ContractModel):
    """A file that lies under its name."""

    path: str
    identity: str | None = None
    """Of the payload that it was made from: source, version and size; None: it can't be told again."""
    size_bytes: int
    mtime_ns: int
    sha256: str

    @classmethod
    def at(cls, place: Path, path: str, identity: str | None, sha256: str) -> Self:
        status = place.stat()
        return cls(
            path=path,
            identity=identity,
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            sha256=sha256,
        )


class Staging(NamedTuple):
    """Where one file is, as long as it isn't verified."""

    part: Path
    part_state: Path
    unpacked: Path

    def discard(self) -> None:
        """Forget what was transferred."""
        for path in self:
            path.unlink(missing_ok=True)

    def transferred(self) -> int:
        """Bytes that the part takes up on the volume."""
        try:
            return self.part.stat().st_blocks * 512
        except FileNotFoundError:
            return 0


class SourceState(ContractModel):
    """What told one state of the source from another."""

    version: str | None = None
    size: int | None = None
    signature: str | None = None
    """Of its signature and of those who are trusted; None: nobody asks for it."""
    identities: str | None = None
    """When those who may decrypt it last changed; None: it isn't encrypted, or there are none."""


class RememberedFailure(ContractModel):
    """A failure that another attempt would only repeat, until something changes."""

    failure: Failure
    source: str
    sha256: str | None = None
    state: SourceState | None = None
    """Of the source, as it was then; None where it couldn't even be asked."""


class KeptSignature(ContractModel):
    """With it a model that is there is held against those who are trusted today, without asking the source."""

    bundle: str
    names: tuple[str, ...]
    """What it calls the model's files, in their order."""


class ModelFolder:
    def __init__(self, model_dir: Path, model: ModelConfig) -> None:
        self._model = model
        self.path = model_dir / model.folder
        self._manifest = self.path / "model.json"
        self._prompt = self.path / "prompt.json"
        self._verified = self.path / ".verified"
        self.derived = self.path / ".derived"
        self._settling = threading.Lock()
        self._signature = self.path / "signature.json"
        self._failure = self.path / "failure.json"

    def fetched(self) -> FetchedModel | None:
        """Return the model, where it is whole, verified, and the one that is asked for."""
        facts = _read(self._manifest, ModelFacts)
        if facts is None or self._model.sha256 not in {None, facts.source_sha256}:
            return None
        path = self.path / facts.file_name
        sizes = {each.path: each.size_bytes for each in facts.files} or {facts.file_name: facts.size_bytes}
        try:
            whole = all((self.path / name).stat().st_size == size for name, size in sizes.items())
        except OSError:
            return None
        return FetchedModel(path, facts, _read(self._prompt, PromptConfig)) if whole else None

    def signature(self) -> KeptSignature | None:
        """Return what the model that is there was last verified with."""
        return _read(self._signature, KeptSignature)

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

    def staging(self, index: int) -> Staging:
        """Of the n-th file."""
        suffix = f"-{index}" if index else ""
        return Staging(
            self.path / f".part{suffix}", self.path / f".part{suffix}.json", self.path / f".unpacked{suffix}"
        )

    def verified(self) -> dict[str, VerifiedFile]:
        """What earlier attempts have brought and still lies there as it was."""
        try:
            lines = self._verified.read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        known = {}
        for line in lines:
            # The last one may have been cut off.
            with contextlib.suppress(ValidationError, SourceInvalid):
                file = VerifiedFile.model_validate_json(line)
                known[safe_path(file.path)] = file
        return {path: file for path, file in known.items() if self._is_there(file)}

    def settle(self, path: str, staged: Path, identity: str | None, sha256: str) -> VerifiedFile:
        """Give a verified file its name, and remember what it is."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.chmod(0o644)
        with staged.open("rb") as opened:
            os.fsync(opened.fileno())
        verified = VerifiedFile.at(staged, path, identity, sha256)
        with self._settling:
            staged.replace(target)
            # Behind a line that was cut off, if there is one.
            with self._verified.open("a", encoding="utf-8") as record:
                record.write(f"\n{verified.to_json()}")
        return verified

    def share(self, beside: Self, path: str, sha256: str) -> None:
        """Give a file of another folder a name here too, where the file system can: it takes no room."""
        link = self.path / ".link"
        link.unlink(missing_ok=True)
        try:
            os.link(beside.path / path, link)
            self.settle(path, link, None, sha256)
        except OSError:
            link.unlink(missing_ok=True)

    def link(self, path: str, target: Path) -> None:
        """Let a name stand for a file that lies elsewhere on this machine."""
        link, name = self.path / ".link", self.path / path
        name.parent.mkdir(parents=True, exist_ok=True)
        with self._settling:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
            link.replace(name)

    def publish(
        self,
        facts: ModelFacts,
        prompt: PromptConfig | None = None,
        signature: KeptSignature | None = None,
    ) -> FetchedModel:
        """Say that the model is there: all its files have their names."""
        if prompt is not None:
            write_atomically(self._prompt, prompt.to_json())
        for folder in {(self.path / each.path).parent for each in facts.files}:
            _sync_names(folder)
        if signature is not None:
            write_atomically(self._signature, signature.to_json())
        else:
            self._signature.unlink(missing_ok=True)
        write_atomically(self._manifest, facts.to_json())
        self.discard()
        self.sweep(facts)
        self._verified.unlink(missing_ok=True)
        self._failure.unlink(missing_ok=True)
        return FetchedModel(self.path / facts.file_name, facts, prompt)

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file that has its name."""
        with (self.path / path).open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def retract(self) -> None:
        """Say that the model isn't there any more: some of it is missing, and the rest may become another."""
        self._manifest.unlink(missing_ok=True)
        self._prompt.unlink(missing_ok=True)

    def withdraw(self, paths: Iterable[str]) -> None:
        """Take away files that are no part of the model, or not verified."""
        for path in paths:
            (self.path / path).unlink(missing_ok=True)
        if not self.verified():
            self._verified.unlink(missing_ok=True)

    def sweep(self, facts: ModelFacts) -> None:
        """Take away what a model was derived from."""
        for path in {each.path for each in facts.source_files} - {each.path for each in facts.files}:
            (self.path / path).unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget what was transferred and isn't verified."""
        for pattern in (".part*", ".unpacked*", ".derived"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def free_space(self) -> int:
        """Bytes that are left on the volume."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def locked(self, waiting: Callable[[], None] = lambda: None) -> AbstractContextManager[None]:
        """Be the only one who writes here; `waiting` is called once where somebody else is at it."""
        return writing(self.path, waiting)

    def served(self) -> AbstractContextManager[None]:
        """Keep what is served from being removed."""
        return serving(self.path)

    def read_only(self) -> bool:
        """Whether nobody can write here from this pod."""
        try:
            return bool(os.statvfs(self.path.parent).f_flag & os.ST_RDONLY)
        except FileNotFoundError:
            return False

    def _is_there(self, file: VerifiedFile) -> bool:
        try:
            return file == VerifiedFile.at(self.path / file.path, file.path, file.identity, file.sha256)
        except OSError:
            return False


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
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_names(path.parent)


def _sync_names(path: Path) -> None:
    """Bring to the disk which names a folder has."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
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
