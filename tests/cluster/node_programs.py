"""The programs of the single node, started in order inside its sandbox."""

import json
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import host, network, node_config, pause_image, tools
from tests.cluster.clients import Clients
from tests.cluster.controlplane import Addresses, ControlPlane
from tests.cluster.errors import HarnessError
from tests.cluster.network import Range
from tests.cluster.processes import Process, answers, wait_until
from tests.cluster.sandbox import Sandbox

CONDITION = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"


def node_is_ready(clients: Clients, name: str) -> bool:
    """Whether the API server answers and calls the node *name* ready."""
    try:
        return clients.kubectl("get", "node", name, "-o", CONDITION) == "True"
    except HarnessError:
        return False


def import_image(sandbox: Sandbox, archive: Path, name: str) -> None:
    """Give the sandbox's containerd the image *name* out of *archive*.

    Raises
    ------
    HarnessError
        The archive is no image, or one of another name.
    """
    ctr: list[str | Path] = [tools.containerd.path("ctr"), "--address", node_config.CONTAINERD_SOCKET]
    sandbox.run(*ctr, "--namespace", "k8s.io", "images", "import", archive)
    if name not in sandbox.run(*ctr, "--namespace", "k8s.io", "images", "list", "-q").split():
        raise HarnessError(f"{archive} holds no image named {name}")


class NodePrograms:
    """containerd, the control plane, kubelet, kube-proxy and CoreDNS of one node."""

    def __init__(
        self, folder: Path, name: str, sandbox: Sandbox, addresses: Range, forward_to: list[str]
    ) -> None:
        self.folder = folder
        self.name = name
        self.sandbox = sandbox
        self.addresses = addresses
        self.forward_to = forward_to
        self.config = folder / "config"
        self.config.mkdir()
        self.processes: list[Process] = []
        at = addresses
        self.control = ControlPlane(
            controllers=True,
            folder=folder / "control-plane",
            addresses=Addresses(at.node, 6443, 2379, 2380, 10257, 10259, at.services, at.kubernetes_service),
            launch=self.launch,
        )

    def start(self) -> None:
        """Start them all, and return when a pod can be made."""
        self._containerd()
        self.control.start()
        self._kubelet()
        self._kube_proxy()
        self._coredns()
        ready = f"http://{self.addresses.node}:{node_config.DNS_READY_PORT}/ready"
        for what, check in (
            ("the cluster's DNS answers", lambda: answers(ready)),
            ("the node takes pods", lambda: node_is_ready(self.control, self.name)),
            ("the default service account is there", self._has_service_account),
        ):
            wait_until(what, check, processes=self.processes)

    def launch(self, name: str, argv: Sequence[str | Path]) -> Process:
        path = f"{tools.containerd.folder()}:/usr/sbin:/usr/bin:/sbin:/bin"
        log = self.folder / "logs" / f"{name}.log"
        process = Process.start(name, self.sandbox.enter(argv), log, env={"PATH": path})
        self.processes.append(process)
        return process

    def _has_service_account(self) -> bool:
        return bool(
            self.control.kubectl("get", "serviceaccount", "default", "--ignore-not-found", "-o", "name")
        )

    def _containerd(self) -> None:
        config = self.config / "containerd.toml"
        runc = host.find_program("runc") or "runc"
        config.write_text(node_config.containerd(runc=runc, cni_plugins=host.CNI_PLUGINS))
        pods = self.config / "pods.conflist"
        pods.write_text(node_config.cni(self.addresses, network.uplink_mtu()))
        self.sandbox.run("mkdir", "-p", f"{node_config.CNI_FOLDER}/net.d")
        self.sandbox.run("cp", pods, f"{node_config.CNI_FOLDER}/net.d/")
        containerd = self.launch("containerd", [tools.containerd.path("containerd"), "--config", config])
        root = Path("/proc") / str(self.sandbox.init.pid) / "root"
        socket = root / node_config.CONTAINERD_SOCKET.lstrip("/")
        wait_until("containerd listens", socket.exists, processes=[containerd])
        archive = self.config / "pause.tar"
        pause_image.write(tools.pause.path(), archive, node_config.PAUSE_IMAGE)
        import_image(self.sandbox, archive, node_config.PAUSE_IMAGE)

    def _kubelet(self) -> None:
        authority = self.control.authority
        hosts = [self.name, self.addresses.node]
        certificate, key = authority.issue("kubelet-serving", self.name, hosts=hosts)
        kubeconfig = authority.kubeconfig(
            authority.folder / "kubelet.kubeconfig",
            self.control.url,
            f"system:node:{self.name}",
            "system:nodes",
        )
        config = self.config / "kubelet.json"
        document = node_config.kubelet(
            self.addresses,
            authority=str(authority.certificate),
            certificate=str(certificate),
            key=str(key),
            cgroup=self.name,
        )
        config.write_text(json.dumps(document))
        flags = [f"--config={config}", f"--kubeconfig={kubeconfig}", f"--node-ip={self.addresses.node}"]
        program = tools.kubernetes.path("kubelet")
        self.launch("kubelet", [program, *flags, f"--hostname-override={self.name}"])

    def _kube_proxy(self) -> None:
        authority = self.control.authority
        kubeconfig = authority.kubeconfig(
            authority.folder / "kube-proxy.kubeconfig", self.control.url, "system:kube-proxy"
        )
        flags = [
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.name}",
            f"--cluster-cidr={self.addresses.pods}",
            "--proxy-mode=iptables",
            # The table of connections belongs to the whole machine: leave its size and times alone.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        ]
        self.launch("kube-proxy", [tools.kubernetes.path("kube-proxy"), *flags])

    def _coredns(self) -> None:
        corefile = self.config / "Corefile"
        kubeconfig = str(self.control.kubeconfig)
        corefile.write_text(
            node_config.corefile(self.addresses, kubeconfig=kubeconfig, forward_to=self.forward_to)
        )
        self.launch("coredns", [tools.coredns.path(), "-conf", corefile])
        self.control.kubectl(
            "apply", "--server-side", "-f", "-", input=node_config.dns_objects(self.addresses)
        )
