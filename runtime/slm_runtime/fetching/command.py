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
from typing import Final

from slm_contract.config import ModelConfig
from slm_contract.places import ExitCode
from slm_contract.report import Failure, FetchReport, ModelFacts
from slm_contract.retention import Removed
from slm_contract.source import SourcePin
from slm_runtime.errors import (
    ConfigError,
    RuntimeFailure,
    SourceNotFound,
    SourceUnauthorized,
    SourceUntrusted,
)
from slm_runtime.fetching.fetch import Fetch
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
    model: ModelConfig, site: Site, *, look_seconds: float = LOOK_SECONDS, patience: Patience | None = None
) -> int:
    """Fetch, report, and return the exit code.

    Raises
    ------
    PortInUse
    """
    command = FetchCommand(model, site, look_seconds, patience)
    with operations(site.places.host, site.places.ops_port, command.report):
        return command.run()


class FetchCommand:
    def __init__(
        self, model: ModelConfig, site: Site, look_seconds: float, patience: Patience | None = None
    ) -> None:
        self._model = model
        self._site = site
        self._termination_message = site.places.termination_message
        self._look_seconds = look_seconds
        self._fetch = Fetch(model, site, patience=patience)
        self._started = time.monotonic()
        self._removed: Removed | None = None

    def report(self) -> str:
        return self._fetch.progress.report().to_json()

    def run(self) -> int:
        try:
            self._make_room()
            with storage_errors(self._fetch.folder.path):
                remembered = self._fetch.folder.failure()
            if remembered is None or self._fetch.folder.fetched() is not None:
                self._run_once()
            else:
                self._stay(remembered)
        except RuntimeFailure as failure:
            self._leave(failure=failure.to_failure())
            _log.error(failure.message, extra={"fields": {"remedy": failure.remedy}})
            if isinstance(failure, ConfigError):
                return failure.exit_code
            return ExitCode.FETCH_PERMANENT if failure.permanent else ExitCode.FETCH_TRANSIENT
        return ExitCode.OK

    def _make_room(self) -> None:
        """Remove what nothing uses any more, where the operator says what is used."""
        retention = self._site.retention
        if retention is not None:
            kept = retention.model_copy(update={"keep": (*retention.keep, self._model.folder)})
            self._removed = prune(self._site.places.model_dir, kept, time.time())

    def _run_once(self) -> None:
        try:
            model, cached = self._fetch.run()
        except RuntimeFailure as failure:
            if failure.permanent:
                self._remember(failure)
            raise
        self._leave(model=model.facts, cached=cached, latest=None if cached else self._fetch.latest())

    def _stay(self, remembered: RememberedFailure) -> None:
        """Look at the source until it is worth another attempt, and that succeeds."""
        _log.error(
            remembered.failure.message,
            extra={"fields": {"remedy": remembered.failure.remedy, "looksEverySeconds": self._look_seconds}},
        )
        pause = min(FIRST_LOOK_SECONDS, self._look_seconds)
        while True:
            self._fetch.progress.stay(remembered.failure)
            if self._changed(remembered):
                try:
                    self._run_once()
                except RuntimeFailure as failure:
                    _log.error(failure.message, extra={"fields": {"remedy": failure.remedy}})
                    remembered = self._fetch.folder.failure() or remembered
                else:
                    return
                self._fetch.progress.stay(remembered.failure)
            time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
            pause = min(2 * pause, self._look_seconds)

    def _changed(self, remembered: RememberedFailure) -> bool:
        try:
            state = self._fetch.look()
        except RuntimeFailure:
            return False
        return state != remembered.state

    def _remember(self, failure: RuntimeFailure) -> None:
        """Leave word for the next process that the same attempt would fail again."""
        # Where the source refused half-way, that it answers again is change enough.
        state = None if isinstance(failure, _CANT_ASK) else self._fetch.source_state
        remembered = RememberedFailure(
            failure=failure.to_failure(), source=self._model.source, sha256=self._model.sha256, state=state
        )
        try:
            with storage_errors(self._fetch.folder.path):
                self._fetch.folder.remember(remembered)
        except RuntimeFailure as storage:
            _log.warning(storage.message)

    def _leave(
        self,
        *,
        model: ModelFacts | None = None,
        failure: Failure | None = None,
        cached: bool = False,
        latest: SourcePin | None = None,
    ) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        report = FetchReport(
            command="fetch",
            model=model,
            failure=failure,
            seconds=seconds,
            cached=cached,
            latest=latest,
            removed=self._removed,
        )
        leave(report, self._termination_message)
