"""Everything that Kopf is told: which objects to watch, and to hand each event to the store.

Kopf only watches here. It writes nothing: no finalizer, no annotation, no event, no peering; its handlers
with state would take three writes and a finalizer a change.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import kopf
from typing_extensions import override

from slm_operator.cluster.connection import bearer_token
from slm_operator.cluster.resources import SERVICE_MONITOR, WATCHED, Resource
from slm_operator.reconcile import Reconciler
from slm_operator.resync import Resync
from slm_operator.store import Store

LONGEST_BACKOFF: Final = 30.0


@dataclass(frozen=True)
class Watcher:
    """Takes events in."""

    store: Store
    reconciler: Reconciler
    resync: Resync
    seen: Callable[[str], None]

    def take(self, resource: Resource, event: Any) -> None:
        """Put an event's object into the store, and wake whom it concerns."""
        self.seen(resource.kind)
        if event["type"] is None:
            self.resync.ask()
        deleted = event["type"] == "DELETED"
        self.reconciler.wake(self.store.observe(resource, event["object"], deleted=deleted))


async def login(configuration: Any) -> kopf.ConnectionInfo:
    """Our client's credentials for Kopf, which asks again whenever the API server refuses them."""
    header = await bearer_token(configuration) or ""
    scheme, _, token = header.partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        username=configuration.username or None,
        password=configuration.password or None,
        scheme=scheme or None,
        token=token.strip() or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )


def registry(
    watcher: Watcher, configuration: Any, watched: tuple[Resource, ...] = WATCHED
) -> kopf.OperatorRegistry:
    """The handlers: one a watched kind, and the login.

    ServiceMonitors are watched where the cluster serves them at start; where it does so only later, the
    resync keeps them.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return await login(configuration)

    for resource in (*watched, SERVICE_MONITOR) if watcher.store.monitoring else watched:
        watch(handlers, resource, watcher)
    return handlers


def watch(handlers: kopf.OperatorRegistry, resource: Resource, watcher: Watcher) -> None:
    """Watch one kind."""

    @kopf.on.event(resource.group, resource.version, resource.plural, registry=handlers)
    async def take(event: Any, **_: Any) -> None:
        watcher.take(resource, event)


def settings() -> kopf.OperatorSettings:
    """Kopf as a source of events and nothing else."""
    configured = kopf.OperatorSettings()
    configured.peering.standalone = True
    configured.scanning.disabled = True
    configured.posting.enabled = False
    configured.watching.chunk_size = 100
    # Loses objects when the first stream breaks in the middle of the list (Kopf 1.45.2).
    configured.watching.initial_streaming = False
    configured.watching.connect_timeout = 10
    for resource in (*WATCHED, SERVICE_MONITOR):
        if resource.selector:
            configured.watching.label_selectors[resource.group, resource.version, resource.plural] = (
                resource.selector
            )
    configured.networking.request_timeout = 30
    configured.networking.connect_timeout = 10
    configured.networking.error_backoffs = Backoffs()
    # A limit would keep each worker's slot for the idle timeout: our queue bounds what runs.
    configured.queueing.worker_limit = None
    # An idle worker holds the last event of its object, whole.
    configured.queueing.idle_timeout = 0.2
    configured.persistence.diffbase_storage = NoMemory()
    return configured


class Backoffs:
    """Seconds between tries, without end: a watch has to come back whenever the API server does."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing
            delay = min(LONGEST_BACKOFF, delay * 2)


class NoMemory(kopf.DiffBaseStorage):
    """Remembers nothing on the objects; spares a deep copy of each for each event."""

    @override
    def build(self, **_: Any) -> Any:
        return {}

    @override
    def fetch(self, **_: Any) -> Any:
        return None

    @override
    def store(self, **_: Any) -> None:
        """Nothing is stored."""
