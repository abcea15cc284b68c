"""One model onto the volume: resolve, transfer, verify, publish.

What fails for the moment is tried again here; what fails for good is raised, and nothing of it is kept.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Final, NamedTuple

from slm_contract.config import ModelConfig
from slm_contract.report import ModelFacts
from slm_contract.source import ModelFile
from slm_runtime.errors import (
    ConfigError,
    OutOfSpace,
    RuntimeFailure,
    SourceChanged,
    SourceDrifted,
    StorageError,
    StorageUnusable,
)
from slm_runtime.fetching.bring import Bring, ResumedInVain
from slm_runtime.fetching.part import BLOCK
from slm_runtime.fetching.patience import Patience
from slm_runtime.fetching.progress import Progress
from slm_runtime.models.facts import model_facts
from slm_runtime.models.folder import FetchedModel, ModelFolder, SourceState, VerifiedFile, storage_errors
from slm_runtime.models.sources.remote import RemoteModel
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site

SLACK: Final = 1 << 20
"""Bytes for the small files beside the model."""
FILES_AT_ONCE: Final = 3
"""While one is verified the next is transferred; small ones wait for the server together."""


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
        self._own_parts: set[str] = set()
        """Files whose part this process began: what is wrong with them is the source's fault."""
        self.source_state: SourceState | None = None
        """As the last attempt found the source; None: it couldn't be asked."""

    def run(self) -> Fetched:
        """Fetch, unless it is there already.

        Raises
        ------
        RuntimeFailure
        """
        with storage_errors(self.folder.path):
            if self.folder.read_only():
                fetched = Fetched(self._brought_by_others(), cached=True)
            else:
                with self.folder.locked(lambda: self.progress.enter("Waiting")):
                    found = self.folder.fetched()
                    fetched = Fetched(found, cached=True) if found else Fetched(self._persist(), cached=False)
        self.progress.complete(fetched.model.facts)
        return fetched

    def _brought_by_others(self) -> FetchedModel:
        found = self.folder.fetched()
        if found is None:
            raise StorageUnusable(
                f"The model volume is read-only, and {self._model.source} isn't on it, in {self.folder.path}.",
                "Let an SLMDeployment of the same model that may write to the claim (ReadWriteOnce or"
                " ReadWriteMany) fetch it there, or name another claim in spec.cache.claimName.",
            )
        return found

    def look(self) -> SourceState:
        """Ask the source how it is, without transferring anything.

        Raises
        ------
        RuntimeFailure
        """
        with self._open() as remote:
            return _state(remote)

    def _open(self) -> AbstractContextManager[RemoteModel]:
        pin = self._model.pin
        return open_model(self._model.source, self._site, pin.revision if pin else None)

    def _persist(self) -> FetchedModel:
        """Attempt until it is done or patience ends."""
        while True:
            try:
                return self._attempt()
            except ResumedInVain:
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
        with self._open() as remote:
            self.source_state = _state(remote)
            self._check_pin(remote)
            self._check_files(remote)
            brings = [
                Bring(
                    each,
                    self.folder,
                    index,
                    self.progress,
                    sha256=self._model.sha256,
                    own_parts=self._own_parts,
                    block=self._block,
                    in_place=remote.in_place,
                )
                for index, each in enumerate(remote.files)
            ]
            self._check_space(brings)
            self.progress.begin(sum(each.bytes_done for each in brings), remote.size)
            files = _all(brings)
            self.progress.enter("Verifying")
            try:
                facts = self._facts(remote, files)
            except RuntimeFailure as failure:
                self.folder.withdraw(each.path for each in remote.files)
                if any(each.path not in self._own_parts for each in remote.files) and not remote.in_place:
                    raise ResumedInVain from failure
                raise
            return self.folder.publish(facts, remote.prompt)

    def _check_pin(self, remote: RemoteModel) -> None:
        pin = self._model.pin
        if pin is not None and remote.pin.digest != pin.digest:
            raise SourceDrifted(
                f"{self._model.source} isn't what it was when this was decided"
                f"{f' ({pin.revision})' if pin.revision else ''}: its files are others."
            )

    def _check_files(self, remote: RemoteModel) -> None:
        if self._model.sha256 is not None and len(remote.files) > 1:
            raise ConfigError(
                f"spec.model.sha256 is of one file, and {self._model.source} stands for {len(remote.files)}.",
                "Leave out sha256: what the source says of each file is checked and pinned.",
            )

    def _check_space(self, brings: Sequence[Bring]) -> None:
        spaces = [each.space for each in brings]
        need = sum(each for each in spaces if each is not None) + SLACK
        free = self.folder.free_space()
        if need > free:
            name = self._model.source.rpartition("/")[2]
            raise OutOfSpace(
                f"{name} needs {_gib(need)} more on the model volume, which has {_gib(free)} left."
            )

    def _facts(self, remote: RemoteModel, files: Sequence[VerifiedFile]) -> ModelFacts:
        paths = [each.path for each in remote.files]
        facts = model_facts(
            [
                (path, file.size_bytes, self.folder.chunks(path))
                for path, file in zip(paths, files, strict=True)
            ]
        )
        listed = tuple(
            ModelFile(path=path, size_bytes=file.size_bytes, sha256=file.sha256)
            for path, file in zip(paths, files, strict=True)
        )
        return facts.model_copy(update={"sha256": files[0].sha256, "files": listed, "pin": remote.pin})


def _state(remote: RemoteModel) -> SourceState:
    payload = remote.files[0].artifact.payload
    version = payload.version if len(remote.files) == 1 else remote.pin.digest
    return SourceState(version=version, size=remote.size)


def _all(brings: Sequence[Bring]) -> list[VerifiedFile]:
    """Bring all files, a few at a time; the first failure stops the rest."""
    stop = threading.Event()
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="file") as pool:
        futures: list[Future[VerifiedFile]] = [pool.submit(each.run, stop) for each in brings]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            return [future.result() for future in futures]
        finally:
            stop.set()
            for future in futures:
                future.cancel()


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB"
