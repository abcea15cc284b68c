"""A cluster that is there already, named by ``CLUSTER=kubeconfig`` and ``KUBECONFIG``."""

import os
from pathlib import Path

from tests.cluster import builders
from tests.cluster.base import Kind
from tests.cluster.clients import ForwardedClients
from tests.cluster.errors import HarnessError, NoCluster

REGISTRY = "IMAGE_REGISTRY"


class ExternalCluster(ForwardedClients):
    """Somebody else's cluster: it is used, never started or stopped."""

    kind: Kind = "kubeconfig"
    audit_log: Path | None = None

    def __init__(self) -> None:
        self.kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        if not self.kubeconfig.is_file():
            raise NoCluster(f"CLUSTER=kubeconfig, but there is no file {self.kubeconfig}: set KUBECONFIG")

    @property
    def node_name(self) -> str:
        return self.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")

    def up(self) -> None:
        """See that it answers."""
        if not self.is_up():
            raise NoCluster(f"CLUSTER=kubeconfig, but the cluster of {self.kubeconfig} does not answer")

    def down(self) -> None:
        """Do nothing: it is not ours."""

    def is_up(self) -> bool:
        return self.answers()

    def load_image(self, archive: Path, name: str) -> str:
        """Push the image to ``$IMAGE_REGISTRY``, where this cluster pulls it from."""
        registry = os.environ.get(REGISTRY)
        if not registry:
            raise HarnessError(
                f"the cluster of {self.kubeconfig} can't see images built here: set {REGISTRY} to a "
                "registry (host/path) that this machine can push to and the cluster can pull from"
            )
        pushed = f"{registry.rstrip('/')}/{name.rpartition('/')[2]}"
        builders.choose().publish(archive, name, pushed)
        return pushed
