"""One operator acts at a time, by a Lease: others wait, and take over when it isn't renewed.

Correctness never depends on it (two operators at once converge to the same objects); it saves their fights.
Times are those of Kubernetes' own components: 15 s until a silent holder is replaced, 10 s until a holder
that can't renew gives up, 2 s between tries. A holder writes every 5 s. Whether a Lease is stale is judged by
how long *we* have seen it unchanged, never by comparing clocks.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from logging import getLogger
from typing import Any, Final

from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Cluster
from slm_operator.cluster.resources import LEASE

DURATION: Final = 15.0
DEADLINE: Final = 10.0
RETRY: Final = 2.0
RENEW: Final = 5.0

log = getLogger(__name__)


class LeaseLostError(Exception):
    """Somebody else may act from now on: this process must end."""


class Lease:
    """A named Lease in a namespace, held or wanted by one identity."""

    def __init__(
        self, *, cluster: Cluster, namespace: str, name: str, identity: str, clock: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._seen: tuple[str, float] = ("", 0.0)
        self.held = False
        self.hindrance: str | None = "the lease wasn't asked for yet"
        """Why it can't be asked for: where nobody may read it, or its namespace is gone, waiting won't help."""

    @property
    def waits(self) -> bool:
        """Somebody else holds it."""
        return self.hindrance is None and not self.held

    async def acquire(self) -> None:
        """Return when the Lease is ours; refusals are logged and tried again."""
        waiting_for = ""
        while True:
            try:
                holder = await self._try()
            except errors.ClusterError as error:
                log.warning("can't take the lease", extra={"lease": self._name, "cause": str(error)})
                self.hindrance = f"can't take the lease {self._namespace}/{self._name}: {error}"
                holder = waiting_for
            else:
                self.hindrance = None
            if self.held:
                log.info("lease acquired", extra={"lease": self._name, "identity": self._identity})
                return
            if holder != waiting_for:
                waiting_for = holder
                log.info("waiting for the lease", extra={"lease": self._name, "holder": holder})
            await asyncio.sleep(RETRY)

    async def hold(self) -> None:
        """Renew for ever.

        Raises
        ------
        LeaseLostError
            It is somebody else's now, or couldn't be renewed in time.
        """
        now = asyncio.get_running_loop().time
        renewed = now()
        pause = RENEW
        while True:
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(max(0.1, renewed + DEADLINE - now())):
                    holder = await self._try()
            except (errors.ClusterError, TimeoutError) as error:
                log.warning("can't renew the lease", extra={"lease": self._name, "cause": str(error)})
                if now() - renewed >= DEADLINE:
                    self.held = False
                    raise LeaseLostError(
                        f"lease {self._namespace}/{self._name} couldn't be renewed for {DEADLINE:.0f} s"
                    ) from error
                pause = min(RETRY, max(0.1, renewed + DEADLINE - now()))
                continue
            if not self.held:
                raise LeaseLostError(f"lease {self._namespace}/{self._name} is held by {holder}")
            renewed, pause = now(), RENEW

    async def release(self) -> None:
        """Let the next one take over at once; best effort."""
        if not self.held:
            return
        self.held = False
        try:
            lease = await self._cluster.get(LEASE, self._namespace, self._name)
            if lease["spec"].get("holderIdentity") == self._identity:
                spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._cluster.replace({**lease, "spec": spec})
        except errors.ClusterError as error:
            log.info("lease not released", extra={"lease": self._name, "cause": str(error)})

    async def _try(self) -> str:
        """Create, renew or take over the Lease where that is due; sets ``held`` and returns the holder.

        A conflict says nothing yet: who holds it then, the next try reads.
        """
        try:
            lease: Any = await self._cluster.get(LEASE, self._namespace, self._name)
        except errors.MissingError:
            lease = None
        spec = (lease or {}).get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in {"", self._identity} and not self._is_stale(lease):
            self.held = False
            return str(holder)
        await self._write(lease, spec, took_over=holder != self._identity)
        self.held = True
        return self._identity

    async def _write(self, lease: Any, spec: dict[str, Any], *, took_over: bool) -> None:
        now = self._clock().isoformat(timespec="microseconds").replace("+00:00", "Z")
        transitions = int(spec.get("leaseTransitions") or 0)
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION),
            "acquireTime": now if took_over else spec.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": transitions + int(took_over and lease is not None),
        }
        if lease is not None:
            await self._cluster.replace({**lease, "spec": spec})
            return
        metadata = {"name": self._name, "namespace": self._namespace}
        identity = {"apiVersion": LEASE.api_version, "kind": LEASE.kind}
        await self._cluster.create({**identity, "metadata": metadata, "spec": spec})

    def _is_stale(self, lease: Any) -> bool:
        """Unchanged for as long as it says that it lasts."""
        version, now = lease["metadata"]["resourceVersion"], asyncio.get_running_loop().time()
        if version != self._seen[0]:
            self._seen = (version, now)
        duration = float(lease["spec"].get("leaseDurationSeconds") or DURATION)
        return now - self._seen[1] >= duration
