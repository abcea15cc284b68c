"""What comes of somebody else's file: an SLMDeployment, and by line what of it could not be kept."""

from dataclasses import dataclass, field
from typing import Any, Final

from slm_operator.crd.names import API_VERSION, KIND


@dataclass(frozen=True)
class Note:
    line: int | None
    """Of the file; None where it has none to name."""
    what: str
    """As the file has it, briefly."""
    why: str
    """A sentence: what became of it, or what to write."""
    file: str | None = None
    """Where several were read."""

    @property
    def sentence(self) -> str:
        """All of it, for people."""
        place = ", ".join(filter(None, (self.file, f"line {self.line}" if self.line else "")))
        return f"{f'{place}: ' if place else ''}{self.what}: {self.why}"


@dataclass(frozen=True)
class Converted:
    document: dict[str, Any]
    notes: tuple[Note, ...]


class NotConverted(Exception):
    """Nothing can come of the file before somebody has changed it."""

    def __init__(self, line: int | None, message: str, remedy: str) -> None:
        self.message = message if line is None else f"line {line}: {message}"
        super().__init__(self.message)
        self.remedy = remedy


@dataclass
class Draft:
    """An SLMDeployment while it is written."""

    spec: dict[str, Any] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    file: str | None = None
    """What is read just now."""

    def put(self, path: str, value: Any) -> None:
        """Set a field of the spec, by its path: `model.prompt.system`."""
        *parents, name = path.split(".")
        place = self.spec
        for each in parents:
            place = place.setdefault(each, {})
        place[name] = value

    def get(self, path: str) -> Any:
        """What stands there; None: nothing."""
        place: Any = self.spec
        for each in path.split("."):
            place = place.get(each) if isinstance(place, dict) else None
        return place

    def note(self, line: int | None, what: str, why: str) -> None:
        brief = what if len(what) <= 60 else f"{what[:57]}..."
        self.notes.append(Note(line, brief.replace("\n", " "), why, self.file))

    def converted(self, name: str) -> Converted:
        metadata = {"name": name, **({"annotations": self.annotations} if self.annotations else {})}
        document = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": metadata,
            "spec": _ordered(self.spec),
        }
        return Converted(document, tuple(self.notes))


_FIRST: Final = ("model", "runtime", "hardware")


def _ordered(spec: dict[str, Any]) -> dict[str, Any]:
    """As people write it: the model first."""
    return {name: spec[name] for name in (*_FIRST, *spec) if name in spec}
