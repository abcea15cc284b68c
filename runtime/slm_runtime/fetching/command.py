"""`slm-runtime fetch`: the life of a fetching process.

::

    nothing remembered ──► fetch ──► done                          exit OK
                             ├─ it may pass ──► tried again, then  exit FETCH_TRANSIENT (kubelet backs off)
                             └─ it won't    ──► remembered,        exit FETCH_PERMANENT
    remembered ──► stay: report it, look at the source now and then ──► it changed ──► fetch

The exit brings the reason to the operator at once; staying afterwards spares source and volume a download that
can only fail again, for as long as neither the spec (then the folder is another) nor the source changes.
"""

import logging
import random
import time
from collections.abc import Iterable, Sequence
from typing import Final

from slm_contract.config import ModelConfig
from slm_contract.places import ExitCode
from slm_contract.report import Failure, FetchReport, ModelFacts, RuntimeReport
from slm_contract.retention import Removed
from slm_contract.source import SourcePin
from slm_runtime.errors import (
    ConfigError,
    RuntimeFailure,
    SourceNotFound,
    SourceUnauthorized,
    SourceUntrusted,
)
from slm_runtime.fetching.fetch import Fetch, Fetched
from slm_runtime.fetching.ops import operations
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.folder import RememberedFailure, storage_errors
from slm_runtime.models.prune import prune
from slm_runtime.models.sources.site import Site
from slm_runtime.termination import leave

FIRST_LOOK_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 60.0
"""Between two looks at the source in the long run: the first follow each other sooner."""
_CANT_ASK: Final = (SourceNotFound, SourceUnauthorized, SourceUntrusted)
_log = logging.getLogger("slm.fetch")


def fetch_command(
    model: ModelConfig,
    site: Site,
    companions: Sequence[ModelConfig] = (),
    *,
    look_seconds: float = LOOK_SECONDS,
    patience: Patience | None = None,
) -> int:
    """Fetch a model and what belongs to it, report, and return the exit code.

    Raises
    ------
    PortInUse
    """
    command = FetchCommand([model, *companions], site, look_seconds, patience)
    with operations(site.places.host, site.places.ops_port, command.report):
        return command.run()


class FetchCommand:
    def __init__(
        self,
        models: Sequence[ModelConfig],
        site: Site,
        look_seconds: float,
        patience: Patience | None = None,
    ) -> None:
        """`models`: the first is what is served, the others belong to it."""
        self._models = models
        self._site = site
        self._termination_message = site.places.termination_message
        self._look_seconds = look_seconds
        self._fetches = [Fetch(each, site, patience=patience) for each in models]
        self._current = self._fetches[0]
        self._started = time.monotonic()
        self._removed: Removed | None = None

    def report(self) -> str:
        """How far the one is that is being fetched."""
        model = self._fetches[0].progress.report().model
        report: RuntimeReport = self._current.progress.report().model_copy(update={"model": model})
        return report.to_json()

    def run(self) -> int:
        try:
            self._make_room()
            fetched = [self._bring(each) for each in self._fetches]
            latest, *others = [
                None if there.cached else each.latest()
                for each, there in zip(self._fetches, fetched, strict=True)
            ]
            model, cached = fetched[0]
            self._leave(model=model.facts, cached=cached, latest=latest, moved=self._moved(others))
        except RuntimeFailure as failure:
            self._leave(failure=failure.to_failure())
            _log.error(failure.message, extra={"fields": {"remedy": failure.remedy}})
            if isinstance(failure, ConfigError):
                return failure.exit_code
            return ExitCode.FETCH_PERMANENT if failure.permanent else ExitCode.FETCH_TRANSIENT
        return ExitCode.OK

    def _moved(self, latest: Iterable[SourcePin | None]) -> dict[str, SourcePin] | None:
        """Of what comes beside the model, whose sources stand for something else than what was pinned."""
        moved = {
            each.key: now
            for each, now in zip(self._models[1:], latest, strict=True)
            if now is not None and each.pin is not None and now.digest != each.pin.digest
        }
        return moved or None

    def _bring(self, fetch: Fetch) -> Fetched:
        self._current = fetch
        with storage_errors(fetch.folder.path):
            remembered = fetch.folder.failure()
        if remembered is None or fetch.folder.fetched() is not None:
            return self._run_once(fetch)
        return self._stay(fetch, remembered)

    def _make_room(self) -> None:
        """Remove what nothing uses any more, where the operator says what is used."""
        retention = self._site.retention
        if retention is not None:
            own = (each.folder for each in self._models)
            kept = retention.model_copy(update={"keep": (*retention.keep, *own)})
            self._removed = prune(self._site.places.model_dir, kept, time.time())

    def _run_once(self, fetch: Fetch) -> Fetched:
        try:
            return fetch.run()
        except RuntimeFailure as failure:
            if failure.permanent:
                self._remember(fetch, failure)
            raise

    def _stay(self, fetch: Fetch, remembered: RememberedFailure) -> Fetched:
        """Look at the source until it is worth another attempt, and that succeeds."""
        _log.error(
            remembered.failure.message,
            extra={"fields": {"remedy": remembered.failure.remedy, "looksEverySeconds": self._look_seconds}},
        )
        pause = min(FIRST_LOOK_SECONDS, self._look_seconds)
        while True:
            fetch.progress.stay(remembered.failure)
            if self._changed(fetch, remembered):
                try:
                    return self._run_once(fetch)
                except RuntimeFailure as failure:
                    _log.error(failure.message, extra={"fields": {"remedy": failure.remedy}})
                    remembered = fetch.folder.failure() or remembered
                fetch.progress.stay(remembered.failure)
            time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
            pause = min(2 * pause, self._look_seconds)

    def _changed(self, fetch: Fetch, remembered: RememberedFailure) -> bool:
        try:
            state = fetch.look()
        except RuntimeFailure:
            return False
        return state != remembered.state

    def _remember(self, fetch: Fetch, failure: RuntimeFailure) -> None:
        """Leave word for the next process that the same attempt would fail again."""
        # Where the source refused half-way, that it answers again is change enough.
        state = None if isinstance(failure, _CANT_ASK) else fetch.source_state
        remembered = RememberedFailure(
            failure=failure.to_failure(), source=fetch.model.source, sha256=fetch.model.sha256, state=state
        )
        try:
            with storage_errors(fetch.folder.path):
                fetch.folder.remember(remembered)
        except RuntimeFailure as storage:
            _log.warning(storage.message)

    def _leave(
        self,
        *,
        model: ModelFacts | None = None,
        failure: Failure | None = None,
        cached: bool = False,
        latest: SourcePin | None = None,
        moved: dict[str, SourcePin] | None = None,
    ) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        report = FetchReport(
            command="fetch",
            model=model,
            failure=failure,
            seconds=seconds,
            cached=cached,
            latest=latest,
            moved=moved,
            removed=self._removed,
        )
        leave(report, self._termination_message)
