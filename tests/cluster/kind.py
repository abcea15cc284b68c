"""A cluster by kind, where a Docker engine answers."""

import shutil
import subprocess
from pathlib import Path

from tests.cluster import cache, tools
from tests.cluster.base import Kind
from tests.cluster.clients import ForwardedClients
from tests.cluster.commands import run
from tests.cluster.errors import NoCluster
from tests.cluster.progress import step


def unavailable() -> str | None:
    """Why kind can't be used here; None where it can."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    asked = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return None if asked.returncode == 0 else "no Docker engine answers"


class KindCluster(ForwardedClients):
    """One kind node, named after the cluster. Its audit log stays inside its container."""

    kind: Kind = "kind"
    audit_log: Path | None = None

    def __init__(self, name: str = "demo") -> None:
        self.name = f"slm-{name}"
        self.node_name = f"{self.name}-control-plane"
        self.folder = cache.root() / "kind" / name
        self.kubeconfig = self.folder / "kubeconfig"

    def up(self) -> None:
        """Create the cluster, or leave one alone that is up."""
        reason = unavailable()
        if reason:
            raise NoCluster(reason)
        with cache.lock(self.name):
            if self.is_up():
                return
            self._delete()
            self.folder.mkdir(parents=True, exist_ok=True)
            with step(f"starting {self.name} with kind"):
                self._kind("create", "cluster", "--wait", "180s")

    def down(self) -> None:
        """Delete the cluster and its kubeconfig."""
        with cache.lock(self.name):
            if self.folder.exists():
                self._delete()

    def is_up(self) -> bool:
        if not self.kubeconfig.exists():
            return False
        names = run([tools.kind.path(), "get", "clusters"]).split()
        return self.name in names and self.answers()

    def load_image(self, archive: Path, name: str) -> str:
        """Load *archive* into the node's containerd, over the node's standard input."""
        run([tools.kind.path(), "load", "image-archive", archive, "--name", self.name])
        return name

    def _kind(self, *args: str) -> None:
        run([tools.kind.path(), *args, "--name", self.name, "--kubeconfig", self.kubeconfig])

    def _delete(self) -> None:
        self._kind("delete", "cluster")
        shutil.rmtree(self.folder, ignore_errors=True)
