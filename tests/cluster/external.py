"""A cluster that is there already, named by ``CLUSTER=kubeconfig`` and ``KUBECONFIG``."""

import os
from pathlib import Path

from tests.cluster import builders
from tests.cluster.base import Kind
from tests.cluster.clients import ForwardedClients
from tests.cluster.errors import HarnessError, NoCluster

REGISTRY = "IMAGE_REGISTRY"
CLUSTER_WIDE = ("customresourcedefinitions", "clusterroles", "clusterrolebindings", "namespaces")
"""What the demo and the tests make that belongs to no namespace."""


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
        """See that it answers, and that this user may install the chart.

        Raises
        ------
        NoCluster
            It doesn't, or he may not.
        """
        if not self.is_up():
            raise NoCluster(f"CLUSTER=kubeconfig, but the cluster of {self.kubeconfig} does not answer")
        missing = [kind for kind in CLUSTER_WIDE if not self._may_create(kind)]
        if missing:
            raise NoCluster(
                f"CLUSTER=kubeconfig, but the user of {self.kubeconfig} may not create {', '.join(missing)}, "
                "which the chart installs: ask an administrator of the cluster"
            )

    def _may_create(self, kind: str) -> bool:
        try:
            return self.kubectl("auth", "can-i", "create", kind).strip() == "yes"
        except HarnessError:
            return False  # kubectl's code says no, too

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
        try:
            builders.choose().publish(archive, name, pushed)
        except HarnessError as error:
            raise HarnessError(f"{name} can't be pushed to {REGISTRY}={registry}: {error}") from error
        return pushed
