"""Everything that is known of Kopf: which objects to watch, and to hand each event to the store.

Kopf only watches here. It writes nothing: no finalizer, no annotation, no event, no peering; its handlers
with state would take three writes and a finalizer a change. It lists each kind before it watches it, though we have just
done so: it can't be told where to begin but by its streaming of the first list, which many API servers refuse.
So the objects come once more, in pages, and nothing of them is news. They don't replace our own lists: what they lack
isn't told.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import kopf
from kopf._core.engines.peering import Identity  # no public name
from typing_extensions import override

from slm_operator.cluster.connection import bearer_token
from slm_operator.cluster.resources import OPTIONAL, WATCHED, Resource
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
            self.resync.ask(resource)
        deleted = event["type"] == "DELETED"
        self.reconciler.wake(self.store.observe(resource, event["object"], deleted=deleted))


async def watch(
    watcher: Watcher,
    configuration: Any,
    *,
    kinds: tuple[Resource, ...],
    namespaces: tuple[str, ...],
    identity: str,
    started: Callable[[], None],
) -> None:
    """Feed the watcher until it fails or is cancelled.

    Parameters
    ----------
    namespaces
        Empty: the whole cluster.
    identity
        Kopf would ask for the user's name, which a numeric UID in a container doesn't have.
    started
        Called when Kopf has put its own signal handlers in place of the process's, and would wait five seconds for
        its tasks at the end: time to catch signals again.
    """
    ready = asyncio.Event()
    operator = kopf.operator(
        registry=registry(watcher, configuration, kinds),
        settings=settings(),
        clusterwide=not namespaces,
        namespaces=namespaces,
        standalone=True,
        identity=Identity(identity),
        ready_flag=ready,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(operator, name="kopf")
        await ready.wait()
        started()


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
    watcher: Watcher, configuration: Any, kinds: tuple[Resource, ...] = WATCHED
) -> kopf.OperatorRegistry:
    """The handlers: one a watched kind, and the login.

    Kinds that a cluster may lack are watched where it serves them at start; where it does so only later, the
    resync keeps them.
    """
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        return await login(configuration)

    served = [each for each in OPTIONAL if each.listable and each.kind in watcher.store.served]
    for resource in (*kinds, *served):
        _watch(handlers, resource, watcher)
    return handlers


def _watch(handlers: kopf.OperatorRegistry, resource: Resource, watcher: Watcher) -> None:
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
    # Each object of a page is a task of its own, and all of them run before anybody else.
    configured.watching.chunk_size = 50
    # Loses objects when the first stream breaks in the middle of the list (Kopf 1.45.2).
    configured.watching.initial_streaming = False
    configured.watching.connect_timeout = 10
    for resource in (*WATCHED, *OPTIONAL):
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
