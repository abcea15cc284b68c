"""What SLMDeployments say of themselves, read leniently: an older or newer operator may have written them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Document = Mapping[str, Any]


class Told(NamedTuple):
    """A condition."""

    type: str
    status: str
    reason: str
    message: str


def status_of(document: Document) -> Mapping[str, Any]:
    found: Mapping[str, Any] = document.get("status") or {}
    return found


def conditions(document: Document) -> dict[str, Told]:
    """By type."""
    return {
        each["type"]: Told(each["type"], each["status"], each.get("reason", ""), each.get("message", ""))
        for each in status_of(document).get("conditions") or ()
    }


def reason(document: Document) -> str:
    """The one word of the STATUS column; `Unseen` where no operator has looked at it yet."""
    ready = conditions(document).get("Ready")
    return "Unseen" if ready is None else ready.reason


def seen(document: Document) -> bool:
    """Whether the status is about the spec as it is now."""
    return int(status_of(document).get("observedGeneration") or 0) >= int(
        document["metadata"].get("generation") or 1
    )


def part(document: Document, *path: str) -> Any:
    """A field of the status, whatever is missing on the way: then None."""
    found: Any = status_of(document)
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def text(document: Document, *path: str) -> str:
    """The same, as it is printed; empty where it is missing."""
    found = part(document, *path)
    return "" if found is None else str(found)


def name_of(document: Document) -> str:
    return str(document["metadata"]["name"])


def namespace_of(document: Document) -> str:
    return str(document["metadata"].get("namespace", "default"))


def model_name(document: Document) -> str:
    """The name that clients ask for."""
    return str(document["spec"]["model"].get("name") or name_of(document))


def port(document: Document) -> int:
    """Of the Service."""
    return int((document["spec"].get("endpoint") or {}).get("port") or 8080)
