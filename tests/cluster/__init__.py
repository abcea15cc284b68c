"""Real clusters for the tests and the demo, from what this machine offers.

``ControlPlane`` is an API server with its etcd on loopback; ``select()`` gives a
whole cluster. On the command line: ``python -m tests.cluster``.
"""

from tests.cluster.base import Cluster
from tests.cluster.controlplane import ControlPlane
from tests.cluster.errors import HarnessError, NoCluster
from tests.cluster.host import PythonIndex, host_index
from tests.cluster.images import Image
from tests.cluster.images import ensure as ensure_images
from tests.cluster.node import SingleNode
from tests.cluster.selection import select
from tests.cluster.tools import ensure as ensure_tools
from tests.cluster.tools import neighbour_crds, service_monitor_crd

__all__ = [
    "Cluster",
    "ControlPlane",
    "HarnessError",
    "Image",
    "NoCluster",
    "PythonIndex",
    "SingleNode",
    "ensure_images",
    "ensure_tools",
    "host_index",
    "neighbour_crds",
    "select",
    "service_monitor_crd",
]
