"""What every cluster offers to tests and to the demo, whatever it is made of."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["kubeconfig", "kind", "single-node"]


class Cluster(Protocol):
    """A whole cluster with at least one node that runs pods."""

    @property
    def kind(self) -> Kind: ...

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""

    @property
    def audit_log(self) -> Path | None:
        """The API server's audit log (JSON lines, metadata), where it can be read."""

    @property
    def node_name(self) -> str:
        """A node that runs pods."""

    def up(self) -> None:
        """Bring it up, or leave it alone where it is."""

    def down(self) -> None:
        """Take away what ``up`` brought."""

    def is_up(self) -> bool:
        """Whether it answers now."""

    def kubectl(self, *args: str, input: str | None = None) -> str:
        """Output of kubectl; HarnessError with its words where it fails."""

    def helm(self, *args: str) -> str:
        """Output of Helm; HarnessError with its words where it fails."""

    def load_image(self, archive: Path, name: str) -> str:
        """Make the image *name* in *archive* usable by pods.

        Returns the name that pods must use: *name*, but for a cluster that pulls from a registry.
        """

    def reach(self, namespace: str, service: str, port: int) -> AbstractContextManager[str]:
        """A ``host:port`` of this machine that leads to the Service while the context lasts."""
