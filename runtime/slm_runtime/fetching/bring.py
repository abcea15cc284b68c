"""One file of a model: transferred, verified, and given its name."""

import hashlib
from pathlib import Path
from typing import Final

from slm_runtime.errors import (
    ChecksumMismatch,
    InvalidModel,
    RuntimeFailure,
    SourceChanged,
    SourceInvalid,
)
from slm_runtime.fetching.digest import GrowingDigest
from slm_runtime.fetching.part import Part, part_identity
from slm_runtime.fetching.progress import Progress, Share
from slm_runtime.fetching.transfer import Transfer
from slm_runtime.models.encrypted import is_encrypted
from slm_runtime.models.folder import ModelFolder, VerifiedFile, storage_errors
from slm_runtime.models.sources.folders import is_graph
from slm_runtime.models.sources.remote import RemoteFile

MAGIC_BYTES: Final = 4096
"""Transferred for a look at a file's first bytes."""
MAGIC: Final = b"GGUF"


class ResumedInVain(Exception):
    """What an earlier process left on the volume may have been bad: begin anew before blaming the source."""


class Bring:
    def __init__(
        self,
        file: RemoteFile,
        folder: ModelFolder,
        index: int,
        progress: Progress,
        *,
        sha256: str | None,
        known: VerifiedFile | None,
        own_parts: set[str],
        block: int,
        in_place: bool,
    ) -> None:
        """Look at what an earlier process has left of it.

        Parameters
        ----------
        sha256
            The checksum that the spec asks for.
        known
            What lies under its name.
        own_parts
            Paths of files that this process began to transfer; added to.
        block
            Bytes that one ranged request asks for.
        """
        self.path = file.path
        self._file = file
        self._folder = folder
        self._staging = folder.staging(index)
        self._wanted = sha256 or file.sha256
        self._asks = "the spec asks for" if sha256 else "its source says"
        self._main = index == 0
        self._own = own_parts
        self._block = block
        self._in_place = in_place
        self._identity = part_identity(file.artifact.payload, pinned=self._wanted is not None)
        self._verified = known if self._is_same(known) else None
        self.bytes_done = self._before()
        self._share = Share(progress, self.bytes_done)

    @property
    def is_there(self) -> bool:
        """Whether it lies under its name already, verified."""
        return self._verified is not None

    @property
    def space(self) -> int | None:
        """Bytes that it needs more on the volume; None: not known beforehand."""
        artifact = self._file.artifact
        if self._in_place or self._verified is not None:
            return 0
        return None if artifact.space is None else max(0, artifact.space - self._staging.transferred())

    def run(self, transfer: Transfer) -> VerifiedFile:
        """Bring it.

        Raises
        ------
        RuntimeFailure
        ResumedInVain
        Stopped
        """
        if self._verified is not None:
            return self._verified
        with storage_errors(self._folder.path):
            if self._in_place:
                return self._link()
            try:
                digest = self._transfer(transfer)
            except (SourceChanged, SourceInvalid, InvalidModel):
                self._discard()
                raise
            try:
                return self._verify(digest)
            except RuntimeFailure as failure:
                if failure.permanent:
                    self._discard()
                    if self._file.path not in self._own:
                        raise ResumedInVain from failure
                raise

    def _is_same(self, known: VerifiedFile | None) -> bool:
        """Whether what lies under its name is what the source has."""
        if known is None or self._in_place:
            return False
        if self._wanted is not None:
            return known.sha256 == self._wanted
        return known.identity is not None and known.identity == self._identity

    def _before(self) -> int:
        """Bytes of the payload that are there already."""
        payload = self._file.artifact.payload
        if self._in_place or self._verified is not None:
            return payload.size or 0
        if self._identity is None or not payload.ranged or payload.size is None:
            return 0
        return Part.before(self._staging, payload.size, self._identity, self._block)

    def _transfer(self, transfer: Transfer) -> str | None:
        """Bring the payload to the part; return its sha256, where that is the file's."""
        payload, staging = self._file.artifact.payload, self._staging
        if self._identity is None or not payload.ranged or payload.size is None:
            # Ranges that nothing holds together may be of different files: one answer is of one.
            return self._stream(transfer)
        with Part(*staging[:2], payload.size, self._identity, self._block) as part:
            if not part.resumed:
                self._own.add(self._file.path)
                transfer.run(self._check_magic)
            if self._file.artifact.space != payload.size:
                transfer.ranges(payload, part, self._share, lambda _: False)
                return None
            with GrowingDigest(staging.part) as digest:
                transfer.ranges(payload, part, self._share, digest.follow)
                return digest.finish()

    def _stream(self, transfer: Transfer) -> str:
        self._staging.discard()
        self._own.add(self._file.path)
        try:
            return transfer.stream(self._file.artifact.payload, self._staging.part, self._share)
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        self._staging.discard()
        self._share.forget()

    def _check_magic(self) -> None:
        """Refuse what is no such file before all of it is transferred."""
        artifact = self._file.artifact
        small = (artifact.payload.size or 0) <= self._block
        path = self._file.path
        main = self._main and not is_graph(path)
        if small or is_encrypted(path) or not (main or path.endswith(".gguf")):
            return
        with artifact.head(MAGIC_BYTES) as (chunks, _):
            start = next(chunks, b"")
        if not start.startswith(MAGIC[: max(1, len(start))]):
            raise InvalidModel(
                f"{artifact.file_name} starts with {start[:4]!r}, not with {MAGIC!r}: it is no GGUF file."
            )

    def _verify(self, digest: str | None) -> VerifiedFile:
        """Make the file of the transferred payload, check it, and let it have its name."""
        artifact, staging = self._file.artifact, self._staging
        if self._wanted is None:
            artifact.confirm(staging.part)
        try:
            path = artifact.unpack(staging.part, staging.unpacked)
        except OSError:
            staging.unpacked.unlink(missing_ok=True)
            raise
        found = digest if digest is not None and path == staging.part else _sha256(path)
        self._check(path, found)
        verified = self._folder.settle(self._file.path, path, self._identity, found)
        staging.discard()
        return verified

    def _link(self) -> VerifiedFile:
        path = Path(self._file.artifact.payload.where)
        found = _sha256(path)
        self._check(path, found)
        self._folder.link(self._file.path, path)
        return VerifiedFile.at(path, self._file.path, self._identity, found)

    def _check(self, path: Path, found: str) -> None:
        if self._wanted not in {None, found}:
            artifact = self._file.artifact
            raise ChecksumMismatch(
                f"sha256 of {artifact.file_name} is {found}, {self._asks} {self._wanted};"
                f" {path.stat().st_size:,} bytes fetched from {artifact.payload.where}."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
