"""The last seen state of everything that decisions are made of: a cache that may be late, never wrong.

Watches fill it, lists correct it, and what our own writes return goes in at once, so that the next decision
sees them (read your writes). An object is only ever replaced by a newer one: revisions of one kind are
ordered. What was deleted stays deleted: for a name that isn't here, only revisions above the last known
deletion or list count.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from slm_contract.report import RuntimeReport
from slm_operator.cluster.kept import kept_node, kept_object
from slm_operator.cluster.protocol import Listing
from slm_operator.cluster.resources import NODE, POD, SLM_DEPLOYMENT, Resource, resource_of
from slm_operator.crd.names import INSTANCE_LABEL
from slm_operator.settings import Settings
from slm_operator.snapshot import ChildRef, Document, Node, Snapshot


class Key(NamedTuple):
    """An SLMDeployment."""

    namespace: str
    name: str


class _Place(NamedTuple):
    namespace: str
    name: str


@dataclass(frozen=True)
class Change:
    """What an event changed.

    Attributes
    ----------
    key
        The SLMDeployment it concerns; None for a node, which concerns all.
    urgent
        Children may have to be written, and not only the status: something came, went, or has another spec.
    """

    key: Key | None
    urgent: bool = False


@dataclass(frozen=True)
class _Entry:
    document: Document
    owner: Key | None
    version: int | None


class Store:
    """Objects by kind and name, and which SLMDeployment they belong to."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[_Place, _Entry]] = {}
        self._nodes: dict[str, tuple[Node, int | None]] = {}
        self._owned: dict[Key, set[tuple[str, _Place]]] = {}
        self._gone: dict[tuple[str, _Place], int] = {}
        self._floor: dict[tuple[str, str | None], int] = {}
        self.reports: dict[str, RuntimeReport] = {}
        """By pod uid; kept by the reports task, dropped with the pod."""
        self.monitoring = False
        """Whether the cluster serves ServiceMonitor."""

    def deployments(self) -> list[Key]:
        """Every SLMDeployment."""
        return [Key(*place) for place in self._entries.get(SLM_DEPLOYMENT.kind, ())]

    def get(self, resource: Resource, namespace: str, name: str) -> Document | None:
        entry = self._entries.get(resource.kind, {}).get(_Place(namespace, name))
        return None if entry is None else entry.document

    def pods(self) -> list[tuple[Key, Document]]:
        """Every pod of ours with its SLMDeployment."""
        entries = self._entries.get(POD.kind, {}).values()
        return [(entry.owner, entry.document) for entry in entries if entry.owner is not None]

    def snapshot(self, key: Key, settings: Settings, now: datetime) -> Snapshot | None:
        """What is known of an SLMDeployment; None where it is gone or going."""
        resource = self.get(SLM_DEPLOYMENT, *key)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            return None
        children: dict[ChildRef, Document] = {}
        pods: list[Document] = []
        for kind, place in sorted(self._owned.get(key, ())):
            document = self._entries[kind][place].document
            if kind == POD.kind:
                pods.append(document)
            else:
                children[ChildRef(kind, place.name)] = document
        uids = [pod["metadata"]["uid"] for pod in pods]
        return Snapshot(
            resource=resource,
            children=children,
            pods=tuple(pods),
            nodes=tuple(node for _, (node, _) in sorted(self._nodes.items())),
            settings=settings,
            now=now,
            reports={uid: self.reports[uid] for uid in uids if uid in self.reports},
            monitoring=self.monitoring,
        )

    def observe(self, resource: Resource, document: Document, *, deleted: bool = False) -> list[Change]:
        """Take an object in from a watch, a list or the answer to a write.

        Returns
        -------
        list of Change
            Empty where nothing that matters changed, in particular for the echo of an own write.
        """
        if deleted:
            metadata = document["metadata"]
            version = _version(metadata.get("resourceVersion"))
            if resource is NODE:
                return self._observe_node(metadata["name"], None, version)
            return self._forget(resource, _Place(metadata["namespace"], metadata["name"]), version)
        return self._take(resource, document, partial(kept_object, resource))

    def adopt(self, key: Key, resource: Resource, document: Document) -> None:
        """Count somebody else's object among the children of ``key``, whose name it has taken.

        No watch tells of it: whoever adopts has to look again before the next decision.
        """
        place = _Place(document["metadata"]["namespace"], document["metadata"]["name"])
        version = _version(document["metadata"].get("resourceVersion"))
        self._put(resource, place, _Entry(kept_object(resource, document), key, version))

    def adopted(self, key: Key) -> list[tuple[Resource, str]]:
        """Resource and name of each object adopted for ``key``."""
        entries = [(self._entries[kind][place], place.name) for kind, place in self._owned.get(key, ())]
        return [(resource_of(entry.document), name) for entry, name in entries if _adopted(entry)]

    def removed(self, resource: Resource, namespace: str, name: str) -> list[Change]:
        """Our own delete succeeded: the object in the state we knew is gone."""
        place = _Place(namespace, name)
        entry = self._entries.get(resource.kind, {}).get(place)
        return [] if entry is None else self._forget(resource, place, entry.version)

    def replace(self, resource: Resource, namespace: str | None, listing: Listing[Document]) -> list[Change]:
        """Take in a whole list of kept objects: what it lacks is gone, unless it is newer than the list.

        This is what finds a deletion that no watch told of.
        """
        version = _version(listing.resource_version)
        changes: list[Change] = []
        present = set()
        for document in listing.items:
            metadata = document["metadata"]
            present.add(_Place(metadata.get("namespace", ""), metadata["name"]))
            changes += self._take(resource, document, lambda kept: kept)
        if resource is NODE:
            for name in [name for name in self._nodes if _Place("", name) not in present]:
                changes += self._observe_node(name, None, version)
            return changes
        known = self._entries.get(resource.kind, {})
        for place, entry in list(known.items()):
            absent = place not in present and namespace in {None, place.namespace}
            if absent and not _newer(entry.version, version) and not _adopted(entry):
                changes += self._forget(resource, place, version)
        if version is not None:
            self._floor[resource.kind, namespace] = version
            self._gone = {
                (kind, place): revision
                for (kind, place), revision in self._gone.items()
                if kind != resource.kind or revision > version
            }
        return changes

    def _take(
        self, resource: Resource, document: Document, keep: Callable[[Document], Document]
    ) -> list[Change]:
        metadata = document["metadata"]
        version = _version(metadata.get("resourceVersion"))
        if resource is NODE:
            return self._observe_node(metadata["name"], kept_node(document), version)
        place = _Place(metadata["namespace"], metadata["name"])
        if not self._is_news(resource, place, version):
            return []
        return self._put(resource, place, _Entry(keep(document), None, version))

    def _is_news(self, resource: Resource, place: _Place, version: int | None) -> bool:
        known = self._entries.get(resource.kind, {}).get(place)
        if version is None:
            return True
        if known is not None:
            return known.version is None or version > known.version
        floors = (
            self._gone.get((resource.kind, place), 0),
            self._floor.get((resource.kind, None), 0),
            self._floor.get((resource.kind, place.namespace), 0),
        )
        return version > max(floors)

    def _put(self, resource: Resource, place: _Place, entry: _Entry) -> list[Change]:
        entries = self._entries.setdefault(resource.kind, {})
        before = entries.get(place)
        owner = entry.owner or _owner(resource, entry.document)
        entries[place] = _Entry(entry.document, owner, entry.version)
        reference = (resource.kind, place)
        if before is not None and before.owner is not None and before.owner != owner:
            self._disown(before.owner, reference)
        if owner is not None and resource is not SLM_DEPLOYMENT:
            self._owned.setdefault(owner, set()).add(reference)
        if before is not None and before.owner == owner:
            if _same(before.document, entry.document):
                return []
            if owner is None:
                return []
            urgent = resource is not POD and _respecified(before.document, entry.document)
            return [Change(owner, urgent=urgent)]
        owners = {owner, before.owner if before else None} - {None}
        return [Change(each, urgent=resource is not POD) for each in owners]

    def _forget(self, resource: Resource, place: _Place, version: int | None) -> list[Change]:
        entry = self._entries.get(resource.kind, {}).get(place)
        if version is not None:
            self._gone[resource.kind, place] = max(version, self._gone.get((resource.kind, place), 0))
        if entry is None or _newer(entry.version, version):
            return []
        del self._entries[resource.kind][place]
        if resource is POD:
            self.reports.pop(entry.document["metadata"]["uid"], None)
        if entry.owner is None:
            return []
        self._disown(entry.owner, (resource.kind, place))
        return [Change(entry.owner, urgent=resource is not POD)]

    def _disown(self, owner: Key, reference: tuple[str, _Place]) -> None:
        owned = self._owned.get(owner, set())
        owned.discard(reference)
        if not owned:
            self._owned.pop(owner, None)

    def _observe_node(self, name: str, node: Node | None, version: int | None) -> list[Change]:
        known, known_version = self._nodes.get(name, (None, None))
        if _newer(known_version, version):
            return []
        if node is None:
            self._nodes.pop(name, None)
        else:
            self._nodes[name] = (node, version)
        return [] if node == known else [Change(None)]


def controller_of(document: Document) -> Mapping[str, Any] | None:
    """The owner reference of the controller; None where nothing controls the object."""
    references: Iterable[Mapping[str, Any]] = document["metadata"].get("ownerReferences") or ()
    return next((reference for reference in references if reference.get("controller")), None)


def _owner(resource: Resource, document: Document) -> Key | None:
    """Pods are told by their label, since a ReplicaSet or Job stands between; children by their owner."""
    metadata = document["metadata"]
    if resource is SLM_DEPLOYMENT:
        return Key(metadata["namespace"], metadata["name"])
    controller = controller_of(document)
    if resource is not POD and controller is not None:
        group = str(controller.get("apiVersion", "")).partition("/")[0]
        if (group, controller.get("kind")) == (SLM_DEPLOYMENT.group, SLM_DEPLOYMENT.kind):
            return Key(metadata["namespace"], controller["name"])
        return None
    instance = (metadata.get("labels") or {}).get(INSTANCE_LABEL)
    return Key(metadata["namespace"], instance) if instance else None


def _adopted(entry: _Entry) -> bool:
    """Counted as a child by its name alone."""
    return entry.owner is not None and entry.owner != _owner(resource_of(entry.document), entry.document)


def _version(resource_version: str | None) -> int | None:
    """A revision as a number; None where the server's are none, and nothing can be said of their order."""
    return int(resource_version) if resource_version and resource_version.isdecimal() else None


def _newer(known: int | None, version: int | None) -> bool:
    return known is not None and version is not None and known > version


def _same(before: Document, after: Document) -> bool:
    """Equal but for the revision; who owns a field is a part of it."""
    parts = ("spec", "status", "data", "revision")
    return all(before.get(part) == after.get(part) for part in parts) and _unversioned(
        before
    ) == _unversioned(after)


def _unversioned(document: Document) -> dict[str, Any]:
    return {key: value for key, value in document["metadata"].items() if key != "resourceVersion"}


def _respecified(before: Document, after: Document) -> bool:
    """Something that a person or we write changed, rather than what a controller reports.

    A field whose value has stayed and that somebody else owns now isn't: it can wait.
    """
    return any(before.get(part) != after.get(part) for part in ("spec", "data", "revision")) or any(
        before["metadata"].get(part) != after["metadata"].get(part) for part in ("labels", "ownerReferences")
    )
