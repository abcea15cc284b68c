"""Carries a plan out, step by step, each with its precondition; what the API server refuses comes back as data."""

import asyncio
from collections.abc import Iterable, Sequence
from logging import getLogger

from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Cluster
from slm_operator.cluster.resources import SERVICE, Resource, resource_of
from slm_operator.snapshot import Apply, ChildRef, Create, Delete, Plan, Refusal, Step
from slm_operator.store import Key, Store

log = getLogger(__name__)


class Actor:
    """Writes children; what each write returns goes into the store at once."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster = cluster
        self._store = store

    async def act(self, key: Key, plan: Plan) -> tuple[Refusal, ...]:
        """Carry the plan out in rounds, the steps of each side by side; deletes only where nothing was refused.

        One refused child keeps only those from being written that need it.

        Raises
        ------
        RetryError
            The rest of the plan may succeed in a moment.
        TerminatingError
            The namespace is going.
        """
        refusals: list[Refusal] = []
        for steps in rounds(step for step in plan.steps if not isinstance(step, Delete)):
            missing = {refusal.ref for refusal in refusals}
            refusals += await self._together(key, [step for step in steps if not step.needs & missing])
        if not refusals:
            refusals = await self._together(key, [step for step in plan.steps if isinstance(step, Delete)])
        return tuple(refusals)

    async def _together(self, key: Key, steps: Sequence[Step]) -> list[Refusal]:
        """Take steps side by side; every one is taken, whatever becomes of the others.

        Returns
        -------
        list of Refusal
            In the order of the steps.
        """
        outcomes = await asyncio.gather(*(self._take(key, step) for step in steps), return_exceptions=True)
        failures = [each for each in outcomes if isinstance(each, BaseException)]
        # What the API server refuses for good or for a while is data, all else ends the turn: a crash first.
        for failure in sorted(failures, key=lambda each: isinstance(each, errors.ClusterError)):
            raise failure
        return [each for each in outcomes if isinstance(each, Refusal)]

    async def _take(self, key: Key, step: Step) -> Refusal | None:
        try:
            match step:
                case Create():
                    await self._create(key, step)
                case Apply():
                    await self._apply(key, step)
                case Delete():
                    await self._delete(key, step)
        except (errors.WaitError, errors.StallError) as error:
            return _refusal(step.ref, error)
        return None

    async def _create(self, key: Key, step: Create) -> None:
        """By POST. What is there already is looked at: it may be ours, and our knowledge late."""
        try:
            made = await self._cluster.create(step.document)
        except errors.ExistsError as error:
            if step.once:
                return
            await self.look_at(key, resource_of(step.document), step.ref.name)
            raise errors.ConflictError(str(error)) from error
        if not step.once:
            self._store.observe(resource_of(step.document), made)

    async def _apply(self, key: Key, step: Apply) -> None:
        """Apply over the very object that was observed.

        A port that somebody has changed on our Service stays as a second port of the same name, which the API
        server refuses: then the Service's lists are overwritten.
        """
        document, resource = step.document, resource_of(step.document)
        metadata = document["metadata"]
        if step.consolidate:
            identity = {"uid": metadata["uid"], "resource_version": metadata["resourceVersion"]}
            live = await self._cluster.consolidate(resource, key.namespace, step.ref.name, **identity)
            version = live["metadata"]["resourceVersion"]
            document = {**document, "metadata": {**metadata, "resourceVersion": version}}
        try:
            applied = await self._cluster.apply(document)
        except errors.InvalidError:
            if resource is not SERVICE:
                raise
            applied = await self._cluster.overwrite(document)
        self._store.observe(resource, applied)

    async def _delete(self, key: Key, step: Delete) -> None:
        resource = resource_of({"apiVersion": step.api_version, "kind": step.ref.kind})
        try:
            await self._cluster.delete(
                resource,
                key.namespace,
                step.ref.name,
                uid=step.uid,
                resource_version=step.resource_version,
            )
        except errors.MissingError:
            log.debug("already gone", extra={"key": "/".join(key), "kind": step.ref.kind})
        self._store.removed(resource, key.namespace, step.ref.name)

    async def look_at(self, key: Key, resource: Resource, name: str) -> None:
        """An object has a name that we want: decisions have to see it, whosever it is."""
        try:
            live = await self._cluster.get(resource, key.namespace, name)
        except errors.MissingError:
            return
        self._store.found_in_the_way(key, resource, live)


def rounds(writes: Iterable[Step]) -> tuple[list[Step], ...]:
    """What others need, those that need something, and what nobody waits for.

    The last come last although nothing keeps them: an API server takes about as long to give a Service its address as to
    make a Deployment, and beside each other both take twice that; it is the Deployment that pods wait for.
    """
    steps = list(writes)
    needed = frozenset[ChildRef]().union(*(step.needs for step in steps))
    return (
        [step for step in steps if step.ref in needed],
        [step for step in steps if step.ref not in needed and step.needs],
        [step for step in steps if step.ref not in needed and not step.needs],
    )


def _refusal(ref: ChildRef, error: errors.ClusterError) -> Refusal:
    if isinstance(error, errors.TerminatingError):
        raise error
    return Refusal(
        ref=ref,
        reason=error.reason,
        message=str(error),
        permanent=isinstance(error, errors.StallError),
    )
