"""The last seen state of everything that decisions are made of: a cache that may be late, never wrong.

Watches fill it, lists correct it, and what our own writes return goes in at once, so that the next decision
sees them (read your writes). An object is only ever replaced by a newer one: revisions of one kind are
ordered. What was deleted stays deleted: for a name that isn't here, only revisions above the last known
deletion or list count.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

from slm_contract.report import RuntimeReport
from slm_operator.cluster.kept import kept_node, kept_object
from slm_operator.cluster.protocol import Listing
from slm_operator.cluster.resources import DEPLOYMENT, JOB, NODE, POD, SLM_DEPLOYMENT, Resource, resource_of
from slm_operator.crd.names import INSTANCE_LABEL
from slm_operator.nodes import Node
from slm_operator.nodeset import NodeSet
from slm_operator.packed import Packed, Packer
from slm_operator.scrapers import Scrapers
from slm_operator.settings import HardwareClass, Settings
from slm_operator.snapshot import ChildRef, Document, Snapshot
from slm_operator.touched import Touched

UNPACKED: Final = 256
"""Documents that are kept as they are beside the packed ones: those of the SLMDeployments in work."""


CONDITIONS: Final = frozenset(
    {"Ready", "Available", "ModelReady", "Stalled", "SourceDrifted", "Drifting", "MonitoringReady"}
)
"""Those that alerts are made of."""
_FOLLOWED: Final = (SLM_DEPLOYMENT, JOB, POD)


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
        The SLMDeployment it concerns; None for a node, which concerns all that wait for nodes.
    urgent
        Children may have to be written, and not only the status: something came, went, or has another spec.
    complete
        The Deployment's roll-out is complete: nothing is likely to follow in the next moment.
    """

    key: Key | None
    urgent: bool = False
    complete: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class _Entry:
    packed: Packed
    owner: Key | None
    version: int | None
    uid: str
    complete: bool = False
    selects: frozenset[str] = frozenset()
    """Labels of nodes that an SLMDeployment selects by."""
    conditions: tuple[tuple[str, bool], ...] = ()
    """Of an SLMDeployment: those that are told to Prometheus, and whether they are true."""
    stranger: bool = False
    """Counted as a child by its name alone."""


@dataclass(frozen=True)
class Kept:
    """An object as the store keeps it."""

    place: _Place
    version: int | None
    content: "_Entry | Node"


class Store:
    """Objects by kind and name, and which SLMDeployment they belong to.

    Parameters
    ----------
    classes
        What nodes are told apart by.
    """

    def __init__(self, classes: Iterable[HardwareClass] = ()) -> None:
        self._entries: dict[str, dict[_Place, _Entry]] = {}
        self._packers: dict[str, Packer] = {}
        self._nodes = NodeSet(classes)
        self._node_versions: dict[_Place, int | None] = {}
        self._owned: dict[Key, set[tuple[str, _Place]]] = {}
        self._gone: dict[tuple[str, _Place], int] = {}
        self._floor: dict[tuple[str, str | None], int] = {}
        self._told: dict[str, str] = {}
        """Reports as JSON, by pod uid."""
        self._clues: dict[str, str] = {}
        self._followers: list[Touched[Key]] = []
        self._served: frozenset[str] = frozenset()
        self._scrapers: Scrapers | None = None
        self._document = lru_cache(maxsize=UNPACKED)(lambda entry: entry.packed.document())
        self._report = lru_cache(maxsize=UNPACKED)(RuntimeReport.model_validate_json)

    @property
    def served(self) -> frozenset[str]:
        """Kinds that a cluster may lack, and this one serves."""
        return self._served

    def found_served(self, kinds: Iterable[str]) -> None:
        """Which of them it serves was just asked."""
        self._served = frozenset(kinds)

    def found_scrapers(self, scrapers: Scrapers | None) -> None:
        """Who might take ServiceMonitors was just looked at; None where that may not be seen."""
        self._scrapers = scrapers

    def deployments(self) -> list[Key]:
        """Every SLMDeployment."""
        return [Key(*place) for place in self._entries.get(SLM_DEPLOYMENT.kind, ())]

    def conditions(self) -> Iterator[tuple[Key, tuple[tuple[str, bool], ...]]]:
        """Of every SLMDeployment, those of :data:`CONDITIONS` that there are."""
        for place, entry in self._entries.get(SLM_DEPLOYMENT.kind, {}).items():
            yield Key(*place), entry.conditions

    def get(self, resource: Resource, namespace: str, name: str) -> Document | None:
        entry = self._entries.get(resource.kind, {}).get(_Place(namespace, name))
        return None if entry is None else self._document(entry)

    def pods(self, key: Key) -> list[Document]:
        """The pods of an SLMDeployment."""
        return self._owned_by(key, POD)

    def jobs(self, key: Key) -> list[Document]:
        """The Jobs of an SLMDeployment."""
        return self._owned_by(key, JOB)

    def _owned_by(self, key: Key, resource: Resource) -> list[Document]:
        places = [place for kind, place in self._owned.get(key, ()) if kind == resource.kind]
        return [self._document(self._entries[resource.kind][place]) for place in sorted(places)]

    # What others than the API server's watches tell; it is dropped with the object that it is about.

    def report(self, uid: str) -> RuntimeReport | None:
        """What a pod has last told."""
        told = self._told.get(uid)
        return None if told is None else self._report(told)

    def reported(self, key: Key, uid: str, report: RuntimeReport) -> bool:
        """A pod has told something; True where it is news."""
        told = report.to_json()
        if self._told.get(uid) == told:
            return False
        self._told[uid] = told
        self._touch(key)
        return True

    def clue(self, uid: str) -> str | None:
        """What events say of a Job or pod that doesn't come to life."""
        return self._clues.get(uid)

    def found_clue(self, uid: str, text: str | None) -> bool:
        """Events of a Job or pod were read, and say this or nothing; True where it is news."""
        if self._clues.get(uid) == text:
            return False
        if text is None:
            del self._clues[uid]
        else:
            self._clues[uid] = text
        return True

    def follow(self) -> Touched[Key]:
        """SLMDeployments of which pods, Jobs, reports or the own status change from now on; first all that have children."""
        follower = Touched(self._owned)
        self._followers.append(follower)
        return follower

    def _touch(self, key: Key) -> None:
        for follower in self._followers:
            follower.touch(key)

    def snapshot(self, key: Key, settings: Settings, now: datetime) -> Snapshot | None:
        """What is known of an SLMDeployment; None where it is gone or going."""
        resource = self.get(SLM_DEPLOYMENT, *key)
        if resource is None or resource["metadata"].get("deletionTimestamp"):
            return None
        children: dict[ChildRef, Document] = {}
        pods: list[Document] = []
        uids: list[str] = []
        for kind, place in sorted(self._owned.get(key, ())):
            entry = self._entries[kind][place]
            document = self._document(entry)
            uids.append(entry.uid)
            if kind == POD.kind:
                pods.append(document)
            else:
                children[ChildRef(kind, place.name)] = document
        reports = {uid: self.report(uid) for uid in uids}
        return Snapshot(
            resource=resource,
            children=children,
            pods=tuple(pods),
            nodes=self._nodes.nodes,
            settings=settings,
            now=now,
            reports={uid: report for uid, report in reports.items() if report is not None},
            served=self._served,
            scrapers=self._scrapers,
            clues={uid: self._clues[uid] for uid in uids if uid in self._clues},
        )

    def observe(self, resource: Resource, document: Document, *, deleted: bool = False) -> list[Change]:
        """Take an object in from a watch, a list or the answer to a write.

        Returns
        -------
        list of Change
            Empty where nothing that matters changed, in particular for the echo of an own write.
        """
        place, version = _place(document), _version(document)
        if deleted:
            return self._forget(resource, place, version)
        if not self._is_news(resource, place, version):
            return []
        return self._put(resource, self.keep(resource, document))

    def keep(self, resource: Resource, document: Document) -> Kept:
        """An object as :meth:`replace` takes it: a list of thousands is never held as it was sent."""
        place, version = _place(document), _version(document)
        if resource is NODE:
            return Kept(place, version, kept_node(document))
        known = self._entries.get(resource.kind, {}).get(place)
        if known is not None and version is not None and known.version == version:
            return Kept(place, version, known)
        return Kept(place, version, self._entry(resource, document))

    def _entry(self, resource: Resource, document: Document, *, stranger_to: Key | None = None) -> _Entry:
        reduced = kept_object(resource, document)
        packer = self._packers.setdefault(resource.kind, Packer(resource))
        return _Entry(
            packed=packer.pack(reduced),
            owner=stranger_to or _owner(resource, reduced),
            version=_version(document),
            uid=reduced["metadata"].get("uid", ""),
            complete=resource is DEPLOYMENT and _is_complete(reduced),
            selects=_selects(reduced) if resource is SLM_DEPLOYMENT else frozenset(),
            conditions=_conditions(reduced) if resource is SLM_DEPLOYMENT else (),
            stranger=stranger_to is not None,
        )

    def removed(self, resource: Resource, namespace: str, name: str) -> list[Change]:
        """Our own delete succeeded: the object in the state we knew is gone."""
        place = _Place(namespace, name)
        entry = self._entries.get(resource.kind, {}).get(place)
        return [] if entry is None else self._forget(resource, place, entry.version)

    def replace(self, resource: Resource, namespace: str | None, listing: Listing[Kept]) -> list[Change]:
        """Take in a whole list: what it lacks is gone, unless it is newer than the list.

        This is what finds a deletion that no watch told of.
        """
        version = _number(listing.resource_version)
        changes: list[Change] = []
        present = set()
        for kept in listing.items:
            present.add(kept.place)
            if self._is_news(resource, kept.place, kept.version):
                changes += self._put(resource, kept)
        for place in list(self._places(resource)):
            absent = place not in present and namespace in {None, place.namespace}
            if (
                absent
                and not _newer(self._known(resource, place), version)
                and not self._stranger(resource, place)
            ):
                changes += self._forget(resource, place, version)
        if version is not None:
            self._floor[resource.kind, namespace] = version
            self._gone = {
                (kind, place): revision
                for (kind, place), revision in self._gone.items()
                if kind != resource.kind or revision > version
            }
        return changes

    # Strangers: objects of somebody else that have a child's name. No watch tells of them.

    def found_in_the_way(self, key: Key, resource: Resource, document: Document) -> None:
        """Count a stranger among the children of ``key``: whoever does has to look again before the next decision."""
        entry = self._entry(resource, document, stranger_to=key)
        self._put(resource, Kept(_place(document), entry.version, entry))

    def in_the_way(self, key: Key) -> list[tuple[Resource, str]]:
        """Resource and name of each stranger among the children of ``key``."""
        entries = [(self._entries[kind][place], place.name) for kind, place in self._owned.get(key, ())]
        return [(resource_of(self._document(entry)), name) for entry, name in entries if entry.stranger]

    def _stranger(self, resource: Resource, place: _Place) -> bool:
        entry = self._entries.get(resource.kind, {}).get(place)
        return entry is not None and entry.stranger

    # One object.

    def _places(self, resource: Resource) -> Mapping[_Place, Any]:
        return self._node_versions if resource is NODE else self._entries.get(resource.kind, {})

    def _known(self, resource: Resource, place: _Place) -> int | None:
        """The revision that is known of an object that is there."""
        if resource is NODE:
            return self._node_versions[place]
        return self._entries[resource.kind][place].version

    def _is_news(self, resource: Resource, place: _Place, version: int | None) -> bool:
        if version is None:
            return True
        if place in self._places(resource):
            known = self._known(resource, place)
            return known is None or version > known
        floors = (
            self._gone.get((resource.kind, place), 0),
            self._floor.get((resource.kind, None), 0),
            self._floor.get((resource.kind, place.namespace), 0),
        )
        return version > max(floors)

    def _put(self, resource: Resource, kept: Kept) -> list[Change]:
        if isinstance(kept.content, Node):
            self._node_versions[kept.place] = kept.version
            return [Change(None)] if self._nodes.put(kept.content) else []
        entries, entry = self._entries.setdefault(resource.kind, {}), kept.content
        before = entries.get(kept.place)
        entries[kept.place] = entry
        reference = (resource.kind, kept.place)
        if before is not None and before.owner is not None and before.owner != entry.owner:
            self._disown(before.owner, reference)
        if resource is SLM_DEPLOYMENT:
            self._nodes.select(more=entry.selects, less=before.selects if before is not None else ())
        elif entry.owner is not None:
            self._owned.setdefault(entry.owner, set()).add(reference)
        same = before is not None and before.packed.meaning == entry.packed.meaning
        if before is not None and before.owner == entry.owner:
            if same or entry.owner is None:
                return []
            respecified = before.packed.intent != entry.packed.intent
            return [self._change(resource, entry.owner, urgent=respecified, complete=entry.complete)]
        owners = {entry.owner, before.owner if before else None} - {None}
        return [self._change(resource, each, urgent=True) for each in owners if each is not None]

    def _change(self, resource: Resource, key: Key, *, urgent: bool, complete: bool = False) -> Change:
        if resource in _FOLLOWED:
            self._touch(key)
        return Change(key, urgent=urgent and resource is not POD, complete=complete)

    def _forget(self, resource: Resource, place: _Place, version: int | None) -> list[Change]:
        if version is not None:
            self._gone[resource.kind, place] = max(version, self._gone.get((resource.kind, place), 0))
        if place not in self._places(resource) or _newer(self._known(resource, place), version):
            return []
        if resource is NODE:
            del self._node_versions[place]
            return [Change(None)] if self._nodes.remove(place.name) else []
        entry = self._entries[resource.kind].pop(place)
        self._told.pop(entry.uid, None)
        self._clues.pop(entry.uid, None)
        if resource is SLM_DEPLOYMENT:
            self._nodes.select(less=entry.selects)
        if entry.owner is None:
            return []
        self._disown(entry.owner, (resource.kind, place))
        return [self._change(resource, entry.owner, urgent=True)]

    def _disown(self, owner: Key, reference: tuple[str, _Place]) -> None:
        owned = self._owned.get(owner, set())
        owned.discard(reference)
        if not owned:
            self._owned.pop(owner, None)


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


def _conditions(document: Document) -> tuple[tuple[str, bool], ...]:
    found = (document.get("status") or {}).get("conditions") or ()
    return tuple((each["type"], each["status"] == "True") for each in found if each["type"] in CONDITIONS)


def _place(document: Document) -> _Place:
    return _Place(document["metadata"].get("namespace", ""), document["metadata"]["name"])


def _version(document: Document) -> int | None:
    return _number(document["metadata"].get("resourceVersion"))


def _number(revision: str | None) -> int | None:
    """A revision as a number; None where the server's are none, and nothing can be said of their order."""
    return int(revision) if revision and revision.isdecimal() else None


def _newer(known: int | None, version: int | None) -> bool:
    return known is not None and version is not None and known > version


def _is_complete(deployment: Document) -> bool:
    """Whether its controller says that every replica is of the present template and ready."""
    status, metadata = deployment.get("status") or {}, deployment["metadata"]
    wanted = (deployment.get("spec") or {}).get("replicas", 1)
    counts = [status.get(each, 0) for each in ("replicas", "updatedReplicas", "readyReplicas")]
    return status.get("observedGeneration") == metadata.get("generation") and counts == [wanted] * 3


def _selects(resource: Document) -> frozenset[str]:
    """The schema has seen to it that these are maps."""
    return frozenset(((resource.get("spec") or {}).get("hardware") or {}).get("nodeSelector") or ())
