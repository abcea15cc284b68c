"""Where a case plays: the cluster as the operator reaches it, and others who write to the same objects."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from slm_operator.cluster.protocol import Cluster
from slm_operator.cluster.resources import Resource, resource_of

Doc = dict[str, Any]


class Others(Protocol):
    """People, controllers and other tools, each under the name of its field manager."""

    async def create(self, document: Doc, *, by: str) -> Doc: ...

    async def replace(self, document: Doc, *, by: str) -> Doc: ...

    async def apply(self, document: Doc, *, by: str, force: bool = False) -> Doc: ...

    async def patch(self, live: Doc, patch: Doc, *, by: str, subresource: str = "") -> Doc:
        """By merge patch; what comes back of a subresource is the object as it then is."""
        ...

    async def delete(self, live: Doc) -> None: ...


@dataclass(frozen=True)
class Stage:
    """``name`` is the case's own: no other case in the namespace uses it."""

    cluster: Cluster
    others: Others
    namespace: str
    name: str

    async def live(self, document: Doc) -> Doc:
        """The object as it now is."""
        return await self.cluster.get(resource_of(document), self.namespace, document["metadata"]["name"])


Case = Callable[[Stage], Awaitable[None]]


def over(live: Doc, document: Doc) -> Doc:
    """The intent over that very object in that very state."""
    identity = {key: live["metadata"][key] for key in ("uid", "resourceVersion")}
    return {**document, "metadata": {**document["metadata"], **identity}}


def identity(live: Doc) -> dict[str, str]:
    """Preconditions of a delete and of a consolidation."""
    return {"uid": live["metadata"]["uid"], "resource_version": live["metadata"]["resourceVersion"]}


def kind_of(document: Doc) -> tuple[Resource, str, str]:
    """Resource, namespace and name: how the protocol names an object."""
    metadata = document["metadata"]
    return resource_of(document), metadata["namespace"], metadata["name"]


def owners(live: Doc, *path: str) -> set[str]:
    """Who owns a field: `manager/operation`, with `/subresource` where it is one."""
    return {
        "/".join(entry[key] for key in ("manager", "operation", "subresource") if entry.get(key))
        for entry in live["metadata"].get("managedFields") or ()
        if _has(entry["fieldsV1"], path)
    }


def _has(fields: Doc, path: tuple[str, ...]) -> bool:
    for name in path:
        if name not in fields:
            return False
        fields = fields[name]
    return not fields or "." in fields


def changed(before: Doc, after: Doc) -> bool:
    """Whether something was written."""
    return bool(before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"])
