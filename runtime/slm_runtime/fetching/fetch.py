"""One model onto the volume: resolve, transfer, verify, publish.

What fails for the moment is tried again here; what fails for good is raised, and nothing of it is kept.
"""

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from slm_contract.config import ModelConfig
from slm_contract.report import ModelFacts
from slm_runtime.errors import (
    ChecksumMismatch,
    InvalidModel,
    OutOfSpace,
    RuntimeFailure,
    SourceChanged,
    StorageError,
)
from slm_runtime.fetching.part import BLOCK, Part, part_identity
from slm_runtime.fetching.patience import Patience
from slm_runtime.fetching.progress import Progress
from slm_runtime.fetching.transfer import transfer_ranges, transfer_stream
from slm_runtime.models.facts import model_facts
from slm_runtime.models.folder import FetchedModel, ModelFolder, SourceState, storage_errors
from slm_runtime.models.sources.artifact import Artifact, FileBlob
from slm_runtime.models.sources.resolve import open_artifact
from slm_runtime.models.sources.site import Site

MAGIC_BYTES: Final = 4096
"""Transferred for a look at a file's first bytes."""
SLACK: Final = 1 << 20
"""Bytes for the small files beside the model."""


class Fetched(NamedTuple):
    model: FetchedModel
    cached: bool
    """It was there already."""


class Fetch:
    """Fetches one model. `progress` and `source_state` may be looked at meanwhile and afterwards."""

    def __init__(
        self,
        model: ModelConfig,
        site: Site,
        *,
        progress: Progress | None = None,
        patience: Patience | None = None,
        block: int = BLOCK,
    ) -> None:
        """`block`: bytes that one ranged request asks for."""
        self._block = block
        self._model = model
        self._site = site
        self._patience = patience or Patience()
        self.progress = progress or Progress()
        self.folder = ModelFolder(site.places.model_dir, model)
        self._part_is_ours = False
        self.source_state: SourceState | None = None
        """As the last attempt found the source; None: it couldn't be asked."""

    def run(self) -> Fetched:
        """Fetch, unless it is there already.

        Raises
        ------
        RuntimeFailure
        """
        with storage_errors(self.folder.path), self.folder.locked(lambda: self.progress.enter("Waiting")):
            found = self.folder.fetched()
            fetched = Fetched(found, cached=True) if found else Fetched(self._persist(), cached=False)
        self.progress.complete(fetched.model.facts)
        return fetched

    def look(self) -> SourceState:
        """Ask the source how it is, without transferring anything.

        Raises
        ------
        RuntimeFailure
        """
        with open_artifact(self._model.source, self._site) as artifact:
            return SourceState(version=artifact.payload.version, size=artifact.payload.size)

    def _persist(self) -> FetchedModel:
        """Attempt until it is done or patience ends."""
        while True:
            try:
                return self._attempt()
            except _ResumedInVain:
                continue
            except StorageError:
                raise
            except RuntimeFailure as failure:
                if isinstance(failure, SourceChanged):
                    self.folder.discard()
                self.progress.fail(failure.to_failure())
                self._patience.wait(failure, self.progress.bytes_done)

    def _attempt(self) -> FetchedModel:
        self.source_state = None
        with open_artifact(self._model.source, self._site) as artifact:
            payload = artifact.payload
            self.source_state = SourceState(version=payload.version, size=payload.size)
            self._transfer(artifact)
            self.progress.enter("Verifying")
            try:
                verified, facts = self._verify(artifact)
            except RuntimeFailure as failure:
                if failure.permanent:
                    self.folder.discard()
                    if not self._part_is_ours:
                        raise _ResumedInVain from failure
                raise
            except OSError:
                self.folder.unpacked.unlink(missing_ok=True)
                raise
            return self.folder.publish(verified, facts)

    def _transfer(self, artifact: Artifact) -> None:
        """Bring the payload to the part."""
        payload, folder = artifact.payload, self.folder
        if not payload.ranged or payload.size is None:
            folder.discard()
            self._part_is_ours = True
            self._check_space(artifact)
            try:
                transfer_stream(payload, folder.part, self.progress)
            except BaseException:
                folder.discard()
                raise
            return
        self._check_space(artifact)
        identity = part_identity(payload, pinned=self._model.sha256 is not None)
        with Part(folder.part, folder.part_state, payload.size, identity, self._block) as part:
            if not part.resumed:
                self._part_is_ours = True
                _check_magic(artifact)
            transfer_ranges(payload, part, self.progress)

    def _check_space(self, artifact: Artifact) -> None:
        if artifact.space is None:
            return
        need, free = artifact.space - self.folder.transferred() + SLACK, self.folder.free_space()
        if need > free:
            raise OutOfSpace(
                f"{artifact.file_name} needs {_gib(need)} more on the model volume, which has {_gib(free)} left."
            )

    def _verify(self, artifact: Artifact) -> tuple[Path, ModelFacts]:
        """Check the transferred payload and make the model file of it.

        Raises
        ------
        ChecksumMismatch, InvalidModel, UnsupportedFormat, UnsupportedArchitecture, SourceInvalid
        """
        part, wanted = self.folder.part, self._model.sha256
        if wanted is None:
            artifact.confirm(part)
        path = artifact.unpack(part, self.folder.unpacked)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if wanted is not None and found != wanted:
            raise ChecksumMismatch(
                f"sha256 of {artifact.file_name} is {found}, the spec asks for {wanted};"
                f" {path.stat().st_size:,} bytes fetched from {artifact.payload.where}."
            )
        with FileBlob(path).read() as chunks:
            facts = model_facts(chunks, file_name=artifact.file_name, size=path.stat().st_size)
        return path, facts.model_copy(update={"sha256": found})


class _ResumedInVain(Exception):
    """What an earlier process left on the volume may have been bad: begin anew before blaming the source."""


def _check_magic(artifact: Artifact) -> None:
    """Refuse what is no GGUF file before all of it is transferred."""
    with artifact.head(MAGIC_BYTES) as (chunks, _):
        start = next(chunks, b"")
    if not start.startswith(b"GGUF"[: max(1, len(start))]):
        raise InvalidModel(
            f"{artifact.file_name} starts with {start[:4]!r}, not with b'GGUF': it is no GGUF file."
        )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB"
