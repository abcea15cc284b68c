"""Which cluster this machine gets: the one that was named, kind, or a node of real parts."""

import os

from tests.cluster import docker, node
from tests.cluster.base import Cluster
from tests.cluster.errors import NoCluster
from tests.cluster.external import ExternalCluster
from tests.cluster.kind import KindCluster
from tests.cluster.node import SingleNode

DEFAULT_NAME = "demo"


def select(name: str = DEFAULT_NAME, *, hermetic: bool = False) -> Cluster:
    """The cluster to use; it is not started yet.

    ``CLUSTER`` may name the kind (``kubeconfig``, ``kind``, ``single-node``); without it, kind
    where a Docker engine answers, else a single node on Linux as root.

    Parameters
    ----------
    name
        Clusters of different names live side by side.
    hermetic
        Without a way to the outside; only the single node can be.

    Raises
    ------
    NoCluster
        There is none to be had, with the reason for each way.
    """
    asked = os.environ.get("CLUSTER", "")
    if asked == "kubeconfig":
        return ExternalCluster()
    if asked not in {"", "kind", "single-node"}:
        raise NoCluster(f"CLUSTER={asked} is unknown: use kubeconfig, kind or single-node, or leave it unset")
    reasons = []
    if asked != "single-node" and not hermetic:
        why = docker.unavailable()
        if why is None:
            return KindCluster(name)
        reasons.append(f"kind: {why}")
    if asked != "kind":
        why = node.unavailable()
        if why is None:
            return SingleNode(name, hermetic=hermetic)
        reasons.append(f"single node: {why}")
    raise NoCluster(f"no cluster can be had here ({'; '.join(reasons)}); or set CLUSTER=kubeconfig")
