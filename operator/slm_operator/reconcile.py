"""The one place that orders I/O: observe, decide, act, report.

A reconcile starts from the store, never from the event that caused it, and everything between observation
and writing is the pure ``decide``. In the ACT lane it writes children and leaves the status to a later turn
in the REPORT lane, so that in a burst all Deployments exist before the first status is written. In the REPORT
lane it does all it finds to do.

Status is written by server-side apply over the very revision that was observed: a merge patch has no
precondition, and would silently put an old reader's view over a newer one; a field that is no longer reported
would stay for ever. A conflict means that the object has moved on: it is read, and decided again.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from logging import getLogger
from typing import Any, Final, Literal

from slm_operator.acting import Actor
from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Cluster
from slm_operator.cluster.resources import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    SLM_DEPLOYMENT,
    resource_of,
)
from slm_operator.contest import Contest
from slm_operator.pace import Pace
from slm_operator.queue import Lane, WorkQueue
from slm_operator.revision.rollout import parse_rollout
from slm_operator.settings import Settings
from slm_operator.snapshot import (
    Create,
    Decision,
    Document,
    Refusal,
    Snapshot,
)
from slm_operator.store import Change, Key, Store
from slm_operator.waking import Waker

log = getLogger(__name__)

ACTED_SETTLE: Final = 0.5
"""Seconds from a write to the status that tells of it: what the cluster answers at once, be it pods or a quota, is in it."""

Result = Literal["gone", "rest", "acted", "reported", "refused", "retry", "error"]
"""How a reconcile ended, for the metrics."""


class Reconciler:
    """Keeps SLMDeployments as they are asked for, through the given cluster.

    Parameters
    ----------
    decide
        The pure core.
    clock
        The time, with its zone.
    finished
        Told of each turn.
    told
        Told of each status that was written: the SLMDeployment before and after.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        store: Store,
        queue: WorkQueue[Key],
        settings: Settings,
        decide: Callable[[Snapshot], Decision],
        clock: Callable[[], datetime],
        finished: Callable[[Result], None] = lambda _: None,
        told: Callable[[Document, Document], None] = lambda _before, _after: None,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._queue = queue
        self._settings = settings
        self._decide = decide
        self._clock = clock
        self._finished = finished
        self._told = told
        self._contest = Contest(clock)
        self._pace: Pace[Key] = Pace(settings.upgrades_at_once)
        self._waker = Waker(store, queue)
        self._actor = Actor(cluster, store)

    def wake(self, changes: list[Change]) -> None:
        """Queue what the changes concern."""
        self._waker.wake(changes)

    async def work(self) -> None:
        """Process keys for ever; several of these run side by side."""
        while True:
            key, lane = await self._queue.get()
            try:
                self._finished(await self.reconcile(key, lane))
            finally:
                self._queue.done(key)

    async def reconcile(self, key: Key, lane: Lane) -> Result:
        """One turn for one SLMDeployment; whatever goes wrong is logged and tried again with backoff."""
        try:
            return await self._turn(key, lane)
        except errors.TerminatingError:
            self._queue.forget(key)
            return "gone"
        except errors.ConflictError as error:
            await self._look_again(key)
            self._retry(key, lane, error)
            return "retry"
        except errors.ClusterError as error:
            self._retry(key, lane, error)
            return "retry"
        except Exception:
            log.exception("reconcile failed", extra={"key": "/".join(key)})
            self._queue.retry(key, lane)
            return "error"

    async def _turn(self, key: Key, lane: Lane) -> Result:
        await self._look_at_strangers(key)
        await self._look_at_revision(key)
        snapshot = self._observe(key)
        if snapshot is None:
            self._queue.forget(key)
            self._contest.forget(key)
            self._give_turn(key)
            self._waker.heed(key, watches_nodes=True)
            return "gone"
        decision = self._decide(snapshot)
        if _remakes(snapshot, decision) and await self._is_gone(key, snapshot):
            return await self._turn(key, lane)
        self._waker.heed(key, watches_nodes=decision.watches_nodes)
        if decision.upgrading:
            self._pace.begin(key)
        elif decision.awaits_turn:
            self._pace.wait(key)
        refusals: tuple[Refusal, ...] = ()
        acted = bool(decision.plan)
        if acted:
            self._contest.fought(key, decision.contested)
            refusals = await self._actor.act(key, decision.plan)
            if not refusals and lane is Lane.ACT:
                self._queue.add_after(key, ACTED_SETTLE)
                return "acted"
            snapshot = self._observe(key)
            if snapshot is None:
                return "gone"
            snapshot = replace(snapshot, refusals=refusals)
            decision = self._decide(snapshot)
        if not same_meaning(snapshot.resource.get("status"), decision.status):
            if lane is Lane.ACT and not refusals:
                self._queue.add(key, Lane.REPORT)
                return "rest"
            await self._report(snapshot, decision)
            result: Result = "reported"
        else:
            result = "rest"
        if refusals or (acted and decision.plan):
            # Refused, or what was written wants writing again: neither may become a hot loop.
            self._queue.retry(key)
            return "refused"
        self._queue.forget(key)
        if decision.at_rest and not decision.awaits_turn:
            self._give_turn(key)
        for wait in (decision.requeue_after, self._contest.wait(key)):
            if wait is not None:
                self._queue.add_after(key, wait)
        return result

    def _give_turn(self, key: Key) -> None:
        for each in self._pace.done(key):
            self._queue.add(each)

    async def _is_gone(self, key: Key, snapshot: Snapshot) -> bool:
        """Whether the SLMDeployment isn't the one that was observed any more; what it is now is in the store then."""
        try:
            live = await self._cluster.get(SLM_DEPLOYMENT, *key)
        except errors.MissingError:
            self._store.removed(SLM_DEPLOYMENT, *key)
            return True
        if live["metadata"]["uid"] == snapshot.resource["metadata"]["uid"]:
            return False
        self._store.observe(SLM_DEPLOYMENT, live)
        return True

    def _observe(self, key: Key) -> Snapshot | None:
        snapshot = self._store.snapshot(key, self._settings, self._clock())
        if snapshot is None:
            return None
        return replace(
            snapshot,
            new_key=secrets.token_urlsafe(32),
            yielding=self._contest.yielding(key),
            may_upgrade=self._pace.admits(key),
        )

    async def _report(self, snapshot: Snapshot, decision: Decision) -> None:
        metadata = snapshot.resource["metadata"]
        written = await self._cluster.apply_status(
            {
                "apiVersion": SLM_DEPLOYMENT.api_version,
                "kind": SLM_DEPLOYMENT.kind,
                "metadata": {key: metadata[key] for key in ("name", "namespace", "resourceVersion")},
                "status": decision.status,
            }
        )
        self._store.observe(SLM_DEPLOYMENT, written)
        self._told(snapshot.resource, written)

    async def _look_at_strangers(self, key: Key) -> None:
        """No watch tells of other people's objects: look whether they still are in the way."""
        for resource, name in self._store.in_the_way(key):
            self._store.removed(resource, key.namespace, name)
            await self._actor.look_at(key, resource, name)

    async def _look_at_revision(self, key: Key) -> None:
        """Lists and watches tell of a Deployment and of the revision that it names in any order."""
        rollout = parse_rollout(self._store.get(DEPLOYMENT, *key))
        if (
            rollout is None
            or self._store.get(CONTROLLER_REVISION, key.namespace, rollout.revision) is not None
        ):
            return
        with suppress(errors.MissingError):
            live = await self._cluster.get(CONTROLLER_REVISION, key.namespace, rollout.revision)
            self._store.observe(CONTROLLER_REVISION, live)

    async def _look_again(self, key: Key) -> None:
        """A precondition failed, so the store is behind: read the object and its children now."""
        snapshot = self._observe(key)
        live = [] if snapshot is None else [snapshot.resource, *snapshot.children.values()]
        for document in live:
            resource, name = resource_of(document), document["metadata"]["name"]
            try:
                self._store.observe(resource, await self._cluster.get(resource, key.namespace, name))
            except errors.MissingError:
                self._store.removed(resource, key.namespace, name)
            except errors.ClusterError as error:
                log.info("can't look again", extra={"key": "/".join(key), "cause": str(error)})

    def _retry(self, key: Key, lane: Lane, error: errors.ClusterError) -> None:
        delay = self._queue.retry(key, lane, at_least=error.retry_after)
        log.info(
            "the API server refused, will retry",
            extra={"key": "/".join(key), "cause": str(error), "seconds": round(delay, 1)},
        )


def same_meaning(live: Any, intent: Any) -> bool:
    """Equal, where an empty map, an empty list and an absent field mean the same."""
    if isinstance(live, dict) and isinstance(intent, dict):
        return all(same_meaning(live.get(key), intent.get(key)) for key in live.keys() | intent.keys())
    if isinstance(live, list | tuple) and isinstance(intent, list | tuple):
        return len(live) == len(intent) and all(map(same_meaning, live, intent))
    return bool(live == intent) or (_is_empty(live) and _is_empty(intent))


def _is_empty(value: Any) -> bool:
    return value is None or value in ({}, [], ())


def _remakes(snapshot: Snapshot, decision: Decision) -> bool:
    """Whether children of an SLMDeployment that was looked at before are made: it may be going, and they before it."""
    observed = (snapshot.resource.get("status") or {}).get("observedGeneration", -1)
    return observed > 0 and any(
        isinstance(step, Create) and step.ref.kind in {"Deployment", "Service"}
        for step in decision.plan.steps
    )
