"""One model onto the volume: resolve, transfer, verify, derive where that is asked for, publish.

What fails for the moment is tried again here; what fails for good is raised, and nothing of it is kept.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import AbstractContextManager, ExitStack
from typing import Final, NamedTuple

from slm_contract.config import AdapterConfig, ModelConfig, ModelFormat, PromptConfig
from slm_contract.report import WITH_ARTICLE, Kind, ModelFacts
from slm_contract.source import ModelFile, SourcePin
from slm_runtime.errors import (
    ConfigError,
    InvalidModel,
    OutOfSpace,
    RuntimeFailure,
    SignatureMissing,
    SourceDrifted,
    SourceUnreachable,
    StorageError,
    StorageUnusable,
    UnsupportedFormat,
)
from slm_runtime.fetching.bring import Bring, ResumedInVain
from slm_runtime.fetching.derive import derive, plan
from slm_runtime.fetching.part import BLOCK
from slm_runtime.fetching.patience import Patience
from slm_runtime.fetching.progress import Progress
from slm_runtime.fetching.quantize import Quantizer
from slm_runtime.fetching.transfer import CONNECTIONS, Transfer
from slm_runtime.fetching.verification import Verification, VerifiedSignature, digests_of
from slm_runtime.models.encrypted import PlainVolume, changed_at, in_plain, is_encrypted
from slm_runtime.models.folder import FetchedModel, ModelFolder, SourceState, VerifiedFile, storage_errors
from slm_runtime.models.formats import read_facts
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.remote import RemoteModel
from slm_runtime.models.sources.resolve import open_as_pinned, open_model
from slm_runtime.models.sources.site import Site

SLACK: Final = 1 << 20
"""Bytes for the small files beside the model."""
HEAD_BYTES: Final = 1 << 18
"""Of an encrypted file: its header, and the first chunk that can be decrypted."""
FILES_AT_ONCE: Final = 8
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
        quantizer: Quantizer | None = None,
    ) -> None:
        """`block`: bytes that one ranged request asks for."""
        self._block = block
        self._quantizer = quantizer or Quantizer()
        self.model = model
        self._site = site
        self._patience = patience or Patience()
        self.progress = progress or Progress()
        self.folder = ModelFolder(site.places.model_dir, model)
        self._own_parts: set[str] = set()
        """Files whose part this process began: what is wrong with them is the source's fault."""
        self._connections = CONNECTIONS
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
                    fetched = self._fetched()
        self._fill(fetched.model)
        # The folder may be shared: whoever brought the same bytes may have had them from elsewhere.
        pin = self.model.pin or fetched.model.facts.pin
        facts = fetched.model.facts.model_copy(update={"pin": pin})
        self.progress.complete(facts)
        return fetched._replace(model=fetched.model._replace(facts=facts))

    def _brought_by_others(self) -> FetchedModel:
        found = self.folder.fetched()
        if found is None:
            raise StorageUnusable(
                f"The model volume is read-only, and {self.model.source} isn't on it, in {self.folder.path}.",
                "Let an SLMDeployment of the same model that may write to the claim (ReadWriteOnce or"
                " ReadWriteMany) fetch it there, or name another claim in spec.cache.claimName.",
            )
        if not self._holds(found):
            raise SignatureMissing(
                f"The model volume is read-only, and {self.model.source} on it wasn't verified to be signed by"
                " somebody who is trusted.",
                "Let an SLMDeployment with the same spec.model.verification that may write to the claim fetch it there.",
            )
        return found

    def _fetched(self) -> Fetched:
        found = self.folder.fetched()
        if found is not None and found.path.is_symlink():
            # It lies where others may have changed it since it was verified.
            found = None
        if found is None:
            self.folder.retract()
        else:
            # Where the process that derived it was ended just then.
            self.folder.sweep(found.facts)
        good = found is not None and self._holds(found)
        return Fetched(found if found and good else self._persist(), cached=found is not None)

    def look(self) -> SourceState:
        """Ask the source how it is, without transferring anything.

        Raises
        ------
        RuntimeFailure
        """
        verification = self._verification()
        with self._open() as remote:
            return self._state(
                remote, verification.state(verification.find(remote)) if verification else None
            )

    def _state(self, remote: RemoteModel, signature: str | None) -> SourceState:
        payload = remote.files[0].artifact.payload
        version = payload.version if len(remote.files) == 1 else remote.pin.digest
        encrypted = any(is_encrypted(each.path) for each in remote.files)
        identities = changed_at(self._site.places.identities) if encrypted else None
        return SourceState(version=version, size=remote.size, signature=signature, identities=identities)

    def _verification(self) -> Verification | None:
        asked = self.model.verification
        return None if asked is None else Verification(asked, self._site)

    def _holds(self, found: FetchedModel) -> bool:
        """Whether what is there may be served without asking its source."""
        verification = self._verification()
        return verification is None or verification.holds(self.folder.signature(), found.facts)

    def latest(self) -> SourcePin | None:
        """Which bytes the source stands for now, where it was pinned to some; None also where it doesn't answer."""
        pin = self.model.pin
        if pin is None or pin.revision is None:
            return None
        try:
            with open_model(self.model.source, self._site, Asked.by(self.model)) as remote:
                return remote.pin
        except RuntimeFailure:
            return None

    def _open(self) -> AbstractContextManager[RemoteModel]:
        return open_as_pinned(self.model, self._site)

    def _persist(self) -> FetchedModel:
        """Attempt until it is done or patience ends."""
        while True:
            before = self.progress.bytes_done
            try:
                return self._attempt()
            except ResumedInVain:
                continue
            except StorageError:
                raise
            except RuntimeFailure as failure:
                if isinstance(failure, SourceUnreachable) and self.progress.bytes_done - before < self._block:
                    # Some servers, and what stands before them, bear only a few connections of one client.
                    self._connections = max(1, self._connections // 2)
                self.progress.fail(failure.to_failure())
                self._patience.wait(failure, self.progress.bytes_done)

    def _attempt(self) -> FetchedModel:
        self.source_state = None
        verification = self._verification()
        with self._open() as remote:
            found = verification.find(remote) if verification else None
            self.source_state = self._state(remote, verification.state(found) if verification else None)
            self._check_pin(remote)
            self._check_files(remote)
            signature = verification.read(remote, found) if verification else None
            if (there := self.folder.fetched()) is not None:
                _check_signed(there.facts, signature)
                return self._publish(there.facts, there.prompt, signature)
            self._check_identities(remote)
            planned = self._planned(remote)
            if planned is not None and not remote.in_place:
                self._share(remote)
            known = self.folder.verified()
            brings = [
                Bring(
                    each,
                    self.folder,
                    index,
                    self.progress,
                    sha256=self.model.sha256,
                    known=known.get(each.path),
                    own_parts=self._own_parts,
                    block=self._block,
                    in_place=remote.in_place,
                )
                for index, each in enumerate(remote.files)
            ]
            lying = {each.path for each in brings if each.is_there}
            self.folder.withdraw({*known, *(each.path for each in remote.files)} - lying)
            self._check_space(brings, planned)
            self.progress.begin(sum(each.bytes_done for each in brings), remote.size)
            with Transfer(self._site.fetch.bytes_per_second, self._connections) as transfer:
                files = _all(brings, transfer)
            self.progress.enter("Verifying")
            try:
                facts = self._facts(remote, files)
                _check_signed(facts, signature)
                if planned is not None:
                    facts = self._derived(facts, planned)
                self._fill(FetchedModel(self.folder.path / facts.file_name, facts))
            except RuntimeFailure as failure:
                if not failure.permanent:
                    raise
                self.folder.withdraw(each.path for each in remote.files)
                if any(each.path not in self._own_parts for each in remote.files) and not remote.in_place:
                    raise ResumedInVain from failure
                raise
            return self._publish(facts, remote.prompt, signature)

    def _publish(
        self, facts: ModelFacts, prompt: PromptConfig | None, signature: VerifiedSignature | None
    ) -> FetchedModel:
        by, kept = (signature.signed.by, signature.kept) if signature else (None, None)
        return self.folder.publish(facts.model_copy(update={"signed_by": by}), prompt, kept)

    def _check_pin(self, remote: RemoteModel) -> None:
        pin = self.model.pin
        if pin is not None and remote.pin.digest != pin.digest:
            raise SourceDrifted(
                f"{self.model.source} isn't what it was when this was decided"
                f"{f' ({pin.revision})' if pin.revision else ''}: its files are others."
            )

    def _check_files(self, remote: RemoteModel) -> None:
        if self.model.sha256 is not None and len(remote.files) > 1:
            raise ConfigError(
                f"spec.model.sha256 is of one file, and {self.model.source} stands for {len(remote.files)}.",
                "Leave out sha256: what the source says of each file is checked and pinned.",
            )

    def _check_identities(self, remote: RemoteModel) -> None:
        """Refuse what can't be decrypted before it is transferred."""
        for each in remote.files:
            if is_encrypted(each.path):
                with (
                    each.artifact.head(HEAD_BYTES) as (chunks, size),
                    in_plain(each.path, chunks, size, self._site.places.identities) as (plain, _),
                ):
                    next(plain, None)

    def _fill(self, model: FetchedModel) -> None:
        places = self._site.places
        with storage_errors(places.plain_dir):
            PlainVolume(places.plain_dir, places.identities).fill(model)

    def _planned(self, remote: RemoteModel) -> ModelFacts | None:
        """What shall be derived of it; None: nothing."""
        if self.model.quantization is None:
            return None
        # What a process that was ended has left of it is of no use, and takes room.
        self.folder.derived.unlink(missing_ok=True)
        planned = plan(remote, self._site.places.identities, Asked.by(self.model), self._quantizer)
        return None if planned.origin is None else planned

    def _share(self, remote: RemoteModel) -> None:
        """What it is derived of may lie beside it, served as it is: then it isn't transferred again."""
        beside = ModelFolder(
            self._site.places.model_dir, self.model.model_copy(update={"quantization": None, "auto": None})
        )
        found, known = beside.fetched(), self.folder.verified()
        there = {} if found is None else {each.path: each.sha256 for each in found.facts.files}
        for each in remote.files:
            sha256 = self.model.sha256 or each.sha256
            if sha256 is not None and there.get(each.path) == sha256 and each.path not in known:
                self.folder.share(beside, each.path, sha256)

    def _derived(self, source: ModelFacts, planned: ModelFacts) -> ModelFacts:
        assert self.model.quantization is not None  # noqa: S101 - else nothing was planned
        self.progress.begin(0, planned.size_bytes, "Quantizing")
        return derive(self.folder, source, self.model.quantization, self.progress, self._quantizer)

    def _check_space(self, brings: Sequence[Bring], planned: ModelFacts | None) -> None:
        """Both must fit: what is transferred, and what is derived of it."""
        spaces = [each.space for each in brings]
        need = sum(each for each in spaces if each is not None) + SLACK
        need += 0 if planned is None else planned.size_bytes
        free = self.folder.free_space()
        if need > free:
            name = self.model.source.rpartition("/")[2]
            raise OutOfSpace(
                f"{name} needs {_gib(need)} more on the model volume, which has {_gib(free)} left."
            )

    def _facts(self, remote: RemoteModel, files: Sequence[VerifiedFile]) -> ModelFacts:
        paths = [each.path for each in remote.files]
        identities = self._site.places.identities
        with ExitStack() as stack:
            opened = []
            for path, file in zip(paths, files, strict=True):
                plain = in_plain(path, self.folder.chunks(path), file.size_bytes, identities)
                chunks, size = stack.enter_context(plain)
                opened.append((path, size, chunks))
            facts = read_facts(opened, remote.adapters)
        check_kind(facts, self.model)
        listed = tuple(
            ModelFile(path=path, size_bytes=file.size_bytes, sha256=file.sha256)
            for path, file in zip(paths, files, strict=True)
        )
        opened_first = next(each.sha256 for each in listed if each.path == facts.file_name)
        said = {"sha256": opened_first, "files": listed, "pin": remote.pin}
        return facts.model_copy(update={**said, "encrypted": any(map(is_encrypted, paths))})


def check_kind(facts: ModelFacts, model: ModelConfig) -> None:
    """Hold what was found against what it shall be.

    Raises
    ------
    InvalidModel
        It is an adapter or a projector in a model's place, or the other way about.
    UnsupportedFormat
        It is of another format than the one that is asked for; or it belongs to a model and is encrypted: there is one place
        for what is in plain, and the model's.
    """
    name, found = facts.file_name, facts.kind
    wanted: Kind = "projector" if model.part else "adapter" if isinstance(model, AdapterConfig) else "model"
    if found != wanted:
        raise InvalidModel(
            f"{name} is {WITH_ARTICLE[found]}, and {WITH_ARTICLE[wanted]} is wanted.",
            "Name the model in spec.model.source, its adapters in spec.model.adapters, and its projector in"
            " spec.model.projector.",
        )
    if model.format not in {ModelFormat.AUTO, facts.format}:
        raise UnsupportedFormat(
            f"{model.source} is {facts.format}, and spec.model.format asks for {model.format.value}.",
            "Write Auto, or name the source of the model in that format.",
        )
    if facts.format == "ONNX" and model.quantization is not None:
        raise UnsupportedFormat(
            f"{model.source} is a folder of ONNX, which is served in the number formats that its graph has"
            f" ({facts.quantization}): {model.quantization.value} is llama.cpp's.",
            "Leave spec.model.quantization out, or name the source of a GGUF file.",
        )
    if found != "model" and is_encrypted(name):
        raise UnsupportedFormat(f"{name} is encrypted, and no model.", f"Name the {found} in plain.")


def _check_signed(facts: ModelFacts, signature: VerifiedSignature | None) -> None:
    if signature is not None:
        signature.check(digests_of(facts))


def _all(brings: Sequence[Bring], transfer: Transfer) -> list[VerifiedFile]:
    """Bring all files, a few at a time; after a failure none is begun any more."""
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="file") as pool:
        futures = [pool.submit(each.run, transfer) for each in brings]
        first = next(filter(None, (each.exception() for each in as_completed(futures))), None)
        if first is None:
            return [future.result() for future in futures]
        under_way = [each for each in futures if not each.cancel()]
        if not _may_pass(first):
            transfer.stop()
        wait(under_way)
        raise _decisive(first, under_way)


def _may_pass(failure: BaseException) -> bool:
    """Whether there will be another attempt, for which the files that are under way are better brought to their end."""
    if isinstance(failure, RuntimeFailure):
        return not failure.permanent and not isinstance(failure, StorageError)
    return isinstance(failure, ResumedInVain)


def _decisive(first: BaseException, ended: Sequence[Future[VerifiedFile]]) -> BaseException:
    """The failure that ends it: one that another attempt would only meet again, else the first."""
    failures = (each.exception() for each in ended)
    return next((each for each in failures if isinstance(each, RuntimeFailure) and each.permanent), first)


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB"
