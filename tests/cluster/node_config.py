"""PURE: what the single node's programs are told, as the texts of their configuration files."""

import json
from typing import Any

from tests.cluster.network import Range

PAUSE_IMAGE = "slm-operator.io/pause:1"
CNI_FOLDER = "/run/cni"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
DNS_READY_PORT = 8181


def containerd(*, runc: str, cni_plugins: str) -> str:
    """Containerd's configuration: overlayfs, runc, and no plugin that the node does not use."""
    return f"""\
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE runc can't lower a score, and pods die with "can't get final child's PID".
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{cni_plugins}"]
  conf_dir = "{CNI_FOLDER}/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{runc}"
  SystemdCgroup = false
"""


def cni(addresses: Range, mtu: int) -> str:
    """A routed interface pair for each pod.

    Routed and not bridged: every packet between pods passes the node's rules, whether the
    kernel filters bridged traffic or not.
    """
    ranges = [[{"subnet": addresses.pods}]]
    ipam = {
        "type": "host-local",
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{CNI_FOLDER}/leases",
    }
    plugins = [
        {"type": "ptp", "mtu": mtu, "ipMasq": False, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins})


def kubelet(addresses: Range, *, authority: str, certificate: str, key: str, cgroup: str) -> dict[str, Any]:
    """The kubelet's configuration.

    No eviction and no image collection by disk pressure: the disk is shared with all else on
    this machine.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "address": addresses.node,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "clusterDNS": [addresses.dns_service],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "resolvConf": "/etc/resolv.conf",
        "featureGates": {"ImageVolume": True},
        "serializeImagePulls": False,
        "evictionHard": {
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "memory.available": "100Mi",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
    }


def corefile(addresses: Range, *, kubeconfig: str, forward_to: list[str]) -> str:
    """CoreDNS on the node's address; outside names are answered where there is somebody to ask."""
    forward = f"forward . {' '.join(forward_to)}" if forward_to else ""
    return f"""\
.:53 {{
    bind {addresses.node}
    errors
    ready {addresses.node}:{DNS_READY_PORT}
    cache 30
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa
    }}
    {forward}
}}
"""


def resolv_conf(servers: list[str]) -> str:
    """What the node's own programs and pods with the host's DNS policy ask."""
    return "".join(f"nameserver {server}\n" for server in servers)


def dns_objects(addresses: Range) -> str:
    """The Service ``kube-dns``, with the node's CoreDNS behind it, as a manifest."""
    ports = [
        {"name": f"dns-{protocol.lower()}", "port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")
    ]
    metadata = {"namespace": "kube-system", "name": "kube-dns"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"clusterIP": addresses.dns_service, "ports": ports},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [addresses.node], "conditions": {"ready": True}}],
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, endpoints]})
