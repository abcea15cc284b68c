"""An API server in memory: revisions, generations, server-side apply with field owners, preconditions, history.

It answers as the real one does for the kinds that concern us; `tests/double` is the one suite that both
have to pass. Kinds that it doesn't know it stores as they come.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from slm_operator.cluster import errors
from slm_operator.cluster.protocol import Listing
from slm_operator.cluster.resources import OPTIONAL, OURS, SLM_DEPLOYMENT, Resource
from tests.sim import fields
from tests.sim.defaults import allocate, fill_in
from tests.sim.fields import APPLY, UPDATE, Manager, Owners
from tests.sim.loop import wall_clock
from tests.sim.merging import Difference, compare
from tests.sim.rules import check, generation
from tests.sim.schema import admitted
from tests.sim.structure import WITH_STATUS, structure

Doc = dict[str, Any]
MANAGER = "slm-operator"


class Ref(NamedTuple):
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Event:
    type: str
    ref: Ref
    document: Doc


@dataclass(frozen=True)
class Write:
    """A write that changed something."""

    verb: str
    ref: Ref
    by: str


@dataclass
class MemoryCluster:
    """Implements :class:`slm_operator.cluster.protocol.Cluster`; people and controllers use the same objects.

    A stored object is never changed in place: the history shares it, and so do people and controllers; the operator
    gets copies.
    """

    served: set[str] = field(default_factory=set)
    """Kinds that a cluster may lack, and this one serves."""
    revision: int = 0
    objects: dict[Ref, Doc] = field(default_factory=dict)
    history: list[Event] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    requests: list[Write] = field(default_factory=list)
    """Every write that the operator asked for, also those that changed nothing or were refused."""
    admit: Callable[[Doc], Doc] = admitted
    """What the schema makes of the custom resource."""
    webhooks: list[Callable[[Doc], None]] = field(default_factory=list)
    """Mutating admission: each may edit what is being written, and the fields' owners don't change by it."""
    watchers: list[Callable[[], None]] = field(default_factory=list)
    """Called after each change."""
    _owners: dict[Ref, Owners] = field(default_factory=dict)
    _uids: int = 0

    # What the operator uses.

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        keep: Callable[[Doc], Any],
        *,
        field_selector: str = "",
        cached: bool = False,
    ) -> Listing[Any]:
        items = [
            keep(clone(document))
            for ref, document in self.objects.items()
            if ref.kind == resource.kind
            and namespace in {None, ref.namespace}
            and (not resource.selector or _selected(document))
            and all(_field(document, *term.split("=")) for term in field_selector.split(",") if term)
        ]
        return Listing(items, str(self.revision))

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Doc:
        return clone(self._live(Ref(resource.kind, namespace or "", name)))

    async def create(self, document: Doc) -> Doc:
        self._asked("create", ref_of(document))
        return clone(self.post(document, by=MANAGER))

    async def replace(self, document: Doc) -> Doc:
        ref = self._asked("replace", ref_of(document))
        self._precondition(ref, document["metadata"].get("resourceVersion", ""))
        return clone(self.put(_with_status_of(self.objects[ref], document), by=MANAGER))

    async def apply(self, document: Doc, *, force: bool = True) -> Doc:
        self._asked("apply", ref_of(document))
        return clone(self.apply_as(document, by=MANAGER, force=force))

    async def consolidate(
        self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str
    ) -> Doc:
        ref = self._asked("consolidate", Ref(resource.kind, namespace, name))
        live = self._precondition(ref, resource_version, uid)
        owners = fields.consolidated(self._owners[ref], MANAGER, _now())
        return clone(self._store(ref, live, clone(live), owners, MANAGER))

    async def overwrite(self, document: Doc) -> Doc:
        ref = self._asked("overwrite", ref_of(document))
        self._precondition(ref, document["metadata"]["resourceVersion"])
        return clone(self.patch(ref, document, by=MANAGER))

    async def apply_status(self, document: Doc) -> Doc:
        ref = self._asked("status", ref_of(document))
        live = self._precondition(ref, document["metadata"]["resourceVersion"])
        return clone(
            self._apply(ref, live, {"status": document["status"]}, Manager(MANAGER, APPLY, "status"))
        )

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str, resource_version: str
    ) -> None:
        ref = self._asked("delete", Ref(resource.kind, namespace, name))
        self._precondition(ref, resource_version, uid)
        self.remove(ref, by=MANAGER)

    async def serves(self, resource: Resource) -> bool:
        return resource not in OPTIONAL or resource.kind in self.served

    # What people and controllers use, under names of their own.

    def post(self, document: Doc, *, by: str = "people") -> Doc:
        """Create an object; a status that is a subresource isn't taken."""
        ref = ref_of(document)
        if ref in self.objects:
            raise errors.ExistsError(f"{ref.kind} {ref.name!r} already exists")
        return self.put(_with_status_of({}, document), by=by)

    def put(self, document: Doc, *, by: str = "people") -> Doc:
        """Create an object or replace all of it, its status too; metadata that the server keeps is kept."""
        ref = ref_of(document)
        return self._update(ref, self.objects.get(ref), clone(document), by)

    def change(self, ref: Ref, change: Callable[[Doc], None], *, by: str = "people") -> Doc:
        """Edit a copy in place and put it."""
        live = self._live(ref)
        document = clone(live)
        change(document)
        return self._update(ref, live, document, by)

    def patch(self, ref: Ref, patch: Doc, *, by: str = "people", subresource: str = "") -> Doc:
        """By merge patch, of the object or of a part of it."""
        live = self._live(ref)
        after = clone(_merge_patch(live, patch))
        if subresource != "status":
            after = _with_status_of(live, after)
        return self._update(ref, live, after, by, subresource)

    def apply_as(self, document: Doc, *, by: str, force: bool = True) -> Doc:
        """By server-side apply; `uid` and `resourceVersion` are preconditions where they are given."""
        ref, metadata = ref_of(document), document["metadata"]
        live = self.objects.get(ref)
        if live is not None:
            self._precondition(ref, metadata.get("resourceVersion"), metadata.get("uid"))
        elif "uid" in metadata:
            raise errors.ConflictError(f"{ref.kind} {ref.name!r}: uid mismatch: no existing object was found")
        intent = fields.content(_with_status_of({}, document))
        return self._apply(ref, live or _bare(document), intent, Manager(by, APPLY), force=force)

    def remove(self, ref: Ref, *, by: str = "people") -> None:
        """Delete, once no finalizer holds it; the garbage collector takes what it owned when it next looks."""
        live = self._live(ref)
        document = clone(live)
        document["metadata"].setdefault("deletionTimestamp", _now())
        self._store(ref, live, document, self._owners[ref], by)

    def of(self, kind: str) -> Iterator[tuple[Ref, Doc]]:
        """All objects of a kind, oldest name first."""
        return iter([(ref, doc) for ref, doc in sorted(self.objects.items()) if ref.kind == kind])

    def changed_by(self, who: str, *, since: int = 0) -> "list[Write]":
        return [write for write in self.writes[since:] if write.by == who]

    # How it is carried out.

    def _asked(self, verb: str, ref: Ref) -> Ref:
        self.requests.append(Write(verb, ref, MANAGER))
        return ref

    def _live(self, ref: Ref) -> Doc:
        try:
            return self.objects[ref]
        except KeyError:
            raise errors.MissingError(f"{ref.kind} {ref.name!r} not found") from None

    def _precondition(self, ref: Ref, resource_version: str | None, uid: str | None = None) -> Doc:
        live = self._live(ref)
        if uid is not None and live["metadata"]["uid"] != uid:
            raise errors.ConflictError(f"{ref.kind} {ref.name!r}: the UID in the precondition doesn't match")
        if resource_version is not None and live["metadata"]["resourceVersion"] != resource_version:
            raise errors.ConflictError(f"{ref.kind} {ref.name!r}: the object has been modified")
        return live

    def _update(self, ref: Ref, before: Doc | None, after: Doc, by: str, subresource: str = "") -> Doc:
        """Whoever changes a field owns it; a status that comes along is the status subresource's."""
        owners = self._owners.get(ref, fields.NOBODY)
        managed = after["metadata"].get("managedFields")
        if before is not None and managed is not None and managed != before["metadata"]["managedFields"]:
            owners = fields.owners_of(managed)
        silent = before is None and "status" not in after
        after = self._completed(ref, before, after)
        live = {} if before is None else fields.content(before)
        change = compare(live, fields.content(after), structure(ref.kind))
        rest, status = _split(change) if ref.kind in WITH_STATUS else (change, Difference())
        owners = fields.updated(owners, Manager(by, UPDATE, subresource), rest, _now())
        if not silent:  # A status that the schema fills in is nobody's.
            owners = fields.updated(owners, Manager(by, UPDATE, "status"), status, _now())
        return self._store(ref, before, after, owners, by)

    def _apply(self, ref: Ref, live: Doc, intent: Doc, manager: Manager, *, force: bool = True) -> Doc:
        before = self.objects.get(ref)
        after, owners = fields.applied(
            self._owners.get(ref, fields.NOBODY),
            manager,
            fields.content(live),
            intent,
            structure(ref.kind),
            _now(),
            force=force,
        )
        metadata = {**fields.system(live), **after.get("metadata", {})}
        head = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata}
        after = self._completed(ref, before, clone({**after, **head}))
        return self._store(ref, before, after, owners, manager.name)

    def _completed(self, ref: Ref, before: Doc | None, after: Doc) -> Doc:
        """With what the server fills in before it looks at who owns what."""
        metadata = after["metadata"]
        if before is None:
            self._uids += 1
            metadata |= {"uid": f"uid-{self._uids}", "creationTimestamp": _now()}
        else:
            metadata |= fields.system(before)
        after = self.admit(after) if ref.kind == SLM_DEPLOYMENT.kind else fill_in(after)
        if before is not None:
            allocate(after, before, self._uids)
        return after

    def _store(self, ref: Ref, before: Doc | None, after: Doc, owners: Owners, by: str) -> Doc:
        for webhook in self.webhooks:
            webhook(after)
        if before is None:
            allocate(after, None, self._uids)
        check(before, after)
        metadata = after["metadata"]
        if (count := generation(before, after)) is not None:
            metadata["generation"] = count
        if before is not None and fields.same(owners, self._owners[ref]):
            metadata["managedFields"] = before["metadata"]["managedFields"]
            if after == before:
                return before
        metadata["managedFields"] = fields.entries(owners, after["apiVersion"])
        self.revision += 1
        metadata["resourceVersion"] = str(self.revision)
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            del self.objects[ref], self._owners[ref]
            self._record("DELETED", "delete", ref, after, by)
        else:
            self.objects[ref], self._owners[ref] = after, owners
            verbs = ("ADDED", "create") if before is None else ("MODIFIED", "update")
            self._record(*verbs, ref, after, by)
        return after

    def _record(self, kind: str, verb: str, ref: Ref, document: Doc, by: str) -> None:
        self.writes.append(Write(verb, ref, by))
        self.history.append(Event(kind, ref, document))
        for watcher in self.watchers:
            watcher()


def clone(document: Any) -> Any:
    """A deep copy of what is JSON; much faster than `deepcopy`."""
    return orjson.loads(orjson.dumps(document))


def ref_of(document: Doc) -> Ref:
    return Ref(document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"])


def _selected(document: Doc) -> bool:
    key, _, value = OURS.partition("=")
    return (document["metadata"].get("labels") or {}).get(key) == value


def _field(document: Doc, path: str, value: str) -> bool:
    found: Any = document
    for key in path.split("."):
        found = (found or {}).get(key)
    return (found or "") == value


def _bare(document: Doc) -> Doc:
    """An object before anything is applied to it."""
    metadata = {key: value for key, value in document["metadata"].items() if key in {"name", "namespace"}}
    return {"apiVersion": document["apiVersion"], "kind": document["kind"], "metadata": metadata}


def _with_status_of(live: Doc, document: Doc) -> Doc:
    """The document with another's status, where that is a subresource."""
    if document["kind"] not in WITH_STATUS:
        return document
    kept = {key: value for key, value in document.items() if key != "status"}
    return {**kept, "status": live["status"]} if "status" in live else kept


def _merge_patch(live: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = {**live} if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_patch(merged.get(key), value)
    return merged


def _split(change: Difference) -> tuple[Difference, Difference]:
    """A difference in what isn't status, and in what is."""

    def select(paths: set[tuple[str, ...]], wanted: bool) -> set[tuple[str, ...]]:
        return {path for path in paths if (path[0] == "f:status") is wanted}

    rest, status = (
        Difference(
            select(change.added, wanted), select(change.modified, wanted), select(change.removed, wanted)
        )
        for wanted in (False, True)
    )
    return rest, status


def _now() -> str:
    return wall_clock().replace(microsecond=0).isoformat().replace("+00:00", "Z")
