"""One file of a model: transferred, verified, and given its name."""

import hashlib
import threading
from pathlib import Path
from typing import Final

from slm_runtime.errors import ChecksumMismatch, InvalidModel, RuntimeFailure
from slm_runtime.fetching.part import Part, part_identity
from slm_runtime.fetching.progress import Progress
from slm_runtime.fetching.transfer import transfer_ranges, transfer_stream
from slm_runtime.models.encrypted import is_encrypted
from slm_runtime.models.folder import ModelFolder, VerifiedFile, storage_errors
from slm_runtime.models.sources.remote import RemoteFile

MAGIC_BYTES: Final = 4096
"""Transferred for a look at a file's first bytes."""
MAGIC: Final = b"GGUF"
_settling: Final = threading.Lock()


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
        own_parts: set[str],
        block: int,
        in_place: bool,
    ) -> None:
        """Look at what an earlier process has left of it.

        Parameters
        ----------
        sha256
            The checksum that the spec asks for.
        own_parts
            Paths of files that this process began to transfer; added to.
        block
            Bytes that one ranged request asks for.
        """
        self._file = file
        self._folder = folder
        self._staging = folder.staging(index)
        self._progress = progress
        self._wanted = sha256 or file.sha256
        self._asks = "the spec asks for" if sha256 else "its source says"
        self._main = index == 0
        self._own = own_parts
        self._block = block
        self._in_place = in_place
        self._identity = part_identity(file.artifact.payload, pinned=self._wanted is not None)
        self._verified = self._known()

    @property
    def bytes_done(self) -> int:
        """Bytes of the payload that are there already."""
        payload = self._file.artifact.payload
        if self._in_place or self._verified is not None:
            return payload.size or 0
        if not payload.ranged or payload.size is None:
            return 0
        return Part.before(self._staging, payload.size, self._identity, self._block)

    @property
    def space(self) -> int | None:
        """Bytes that it needs more on the volume; None: not known beforehand."""
        artifact = self._file.artifact
        if self._in_place or self._verified is not None:
            return 0
        return None if artifact.space is None else artifact.space - self._staging.transferred()

    def run(self, stop: threading.Event) -> VerifiedFile:
        """Bring it.

        Raises
        ------
        RuntimeFailure
        ResumedInVain
        """
        if self._verified is not None:
            return self._verified
        with storage_errors(self._folder.path):
            if not self._in_place:
                self._transfer(stop)
            try:
                return self._verify()
            except RuntimeFailure as failure:
                if failure.permanent:
                    self._discard()
                    if self._file.path not in self._own and not self._in_place:
                        raise ResumedInVain from failure
                raise
            except OSError:
                self._staging.unpacked.unlink(missing_ok=True)
                raise

    def _known(self) -> VerifiedFile | None:
        found = self._folder.verified(self._file.path)
        if found is None or self._in_place or found.identity is None or found.identity != self._identity:
            return None
        return found if self._wanted in {None, found.sha256} else None

    def _transfer(self, stop: threading.Event) -> None:
        """Bring the payload to the part."""
        payload, staging = self._file.artifact.payload, self._staging
        if not payload.ranged or payload.size is None:
            staging.discard()
            self._own.add(self._file.path)
            try:
                transfer_stream(payload, staging.part, self._progress)
            except BaseException:
                staging.discard()
                raise
            return
        with Part(*staging[:2], payload.size, self._identity, self._block) as part:
            if not part.resumed:
                self._own.add(self._file.path)
                self._check_magic()
            transfer_ranges(payload, part, self._progress, stop)

    def _discard(self) -> None:
        self._progress.add(-self.bytes_done)
        self._staging.discard()

    def _check_magic(self) -> None:
        """Refuse what is no such file before all of it is transferred."""
        path = self._file.path
        if is_encrypted(path) or not (self._main or path.endswith(".gguf")):
            return
        artifact = self._file.artifact
        with artifact.head(MAGIC_BYTES) as (chunks, _):
            start = next(chunks, b"")
        if not start.startswith(MAGIC[: max(1, len(start))]):
            raise InvalidModel(
                f"{artifact.file_name} starts with {start[:4]!r}, not with {MAGIC!r}: it is no GGUF file."
            )

    def _verify(self) -> VerifiedFile:
        """Make the file of the transferred payload, check it, and let it have its name."""
        artifact, staging = self._file.artifact, self._staging
        if self._in_place:
            path = Path(artifact.payload.where)
        else:
            if self._wanted is None:
                artifact.confirm(staging.part)
            path = artifact.unpack(staging.part, staging.unpacked)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if self._wanted not in {None, found}:
            raise ChecksumMismatch(
                f"sha256 of {artifact.file_name} is {found}, {self._asks} {self._wanted};"
                f" {path.stat().st_size:,} bytes fetched from {artifact.payload.where}."
            )
        verified = VerifiedFile(identity=self._identity, size_bytes=path.stat().st_size, sha256=found)
        if self._in_place:
            self._folder.link(self._file.path, path)
        else:
            with _settling:
                self._folder.settle(self._file.path, path, verified)
            staging.discard()
        return verified
