"""What the tests of changes change: two SLMDeployments of a tiny model, which a source in their namespace has."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.e2e.site import Document, Namespace, Site, merged
from tests.e2e.source import CA, Source, source
from tests.support.gguf import write_tiny_gguf


@dataclass(frozen=True)
class Models:
    """Two SLMDeployments: `two` replicas that take upgrades as they come, `one` that waits for a change of its spec."""

    ns: Namespace
    source: Source

    def spec(self, name: str, **changes: Any) -> Document:
        spec = {
            "model": {"name": name, "source": self.source.url("tiny.gguf"), "caBundle": CA},
            "runtime": {"contextLength": 512, "parallel": 4},
            "replicas": 2 if name == "two" else 1,
            "rollout": {"upgrade": "Auto" if name == "two" else "OnSpecChange"},
        }
        return merged(spec, changes)

    def apply(self, name: str, **changes: Any) -> None:
        self.ns.apply(name, self.spec(name, **changes))

    def pods(self, name: str, *, going: bool = False) -> set[str]:
        """Uids; of those that are on their way out too, where they are asked for."""
        metadata = [pod["metadata"] for pod in self.ns.pods(name)]
        return {each["uid"] for each in metadata if going or "deletionTimestamp" not in each}

    def wait_rolled(self, name: str, before: set[str]) -> Document:
        """Wait until no pod is left of those before, and the SLMDeployment says that it serves."""
        self.ns.site.eventually(
            f"every pod of {name} is a new one", lambda: not before & self.pods(name, going=True), seconds=180
        )
        return self.ns.wait_ready(name)


@contextmanager
def serving(site: Site) -> Iterator[Models]:
    """Both in a namespace of their own, ready."""
    with TemporaryDirectory() as folder:
        tiny = write_tiny_gguf(Path(folder) / "tiny.gguf").read_bytes()
    with site.namespace("changes") as ns, source(ns, site.runtime_image) as running:
        running.put("tiny.gguf", tiny)
        # A header like any other, and a tensor is missing.
        running.put("broken.gguf", tiny.replace(b"output_norm.weight", b"output_nerm.weight"))
        models = Models(ns, running)
        for name in ("two", "one"):
            models.apply(name)
        for name in ("two", "one"):
            ns.wait_ready(name)
        yield models


def states(status: Document) -> list[tuple[str, str | None]]:
    """State and reason of each revision, newest first."""
    return [(each["state"], each.get("reason")) for each in status["revisions"]]
