"""A real API server with its etcd and, where asked for, the controllers: a cluster without nodes.

On loopback it needs no root, starts in about four seconds, and several run side
by side. The single node runs the same programs inside its own namespaces.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster import certs, tools
from tests.cluster.clients import Clients
from tests.cluster.processes import Process, answers, wait_until
from tests.support.ports import free_ports

Launch = Callable[[str, Sequence[str | Path]], Process]
"""Starts the named program and returns at once."""

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
NEVER_ROTATED_MIB = 100_000
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Addresses:
    """Where a control plane listens, and the range its Services get.

    ``api`` is the address of the API server; the others stay on loopback.
    """

    api: str
    api_port: int
    etcd_port: int
    peer_port: int
    controller_manager_port: int
    scheduler_port: int
    service_range: str = "10.96.0.0/16"
    kubernetes_service: str = "10.96.0.1"

    @staticmethod
    def free() -> "Addresses":
        """Ports of the loopback interface that nobody uses now."""
        return Addresses(LOOPBACK, *free_ports(5))


class ControlPlane(Clients):
    """etcd and kube-apiserver, with the audit log always on; a context manager.

    Parameters
    ----------
    controllers
        Run the controller manager and the scheduler too.
    folder
        Keeps state and logs, and stays; without it a temporary folder is used, which goes.

    Attributes
    ----------
    kubeconfig
        For a cluster administrator.
    url
        Of the API server.
    audit_log
        JSON lines, one a finished request, metadata only; complete at any time.
    """

    def __init__(
        self,
        *,
        controllers: bool = False,
        folder: Path | None = None,
        addresses: Addresses | None = None,
        launch: Launch | None = None,
    ) -> None:
        self.addresses = addresses or Addresses.free()
        self.controllers = controllers
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="slm-control-plane-"))
        self.url = f"https://{self.addresses.api}:{self.addresses.api_port}"
        self.audit_log = self.folder / "audit.log"
        self.logs = self.folder / "logs"
        self.kubeconfig = self.folder / "certs" / "admin.kubeconfig"
        self.kubelet_kubeconfig = self.folder / "certs" / "kubelet.kubeconfig"
        self._launch = launch or self._as_child
        self.processes: list[Process] = []

    def _as_child(self, name: str, argv: Sequence[str | Path]) -> Process:
        return Process.start(name, argv, self.logs / f"{name}.log", dies_with_us=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all programs and return when the API server is ready."""
        binaries = tools.kubernetes.folder()
        etcd = tools.etcd.path()
        self.logs.mkdir(parents=True, exist_ok=True)
        self.authority = certs.Authority(self.folder / "certs")
        self.processes.append(self._launch("etcd", [etcd, *self._etcd_flags()]))
        self.processes.append(self._launch("apiserver", [binaries / "kube-apiserver", *self._api_flags()]))
        self.authority.kubeconfig(self.kubeconfig, self.url, "admin", "system:masters")
        admin = self.authority.folder / "admin.crt"
        context = self.authority.context(admin, admin.with_suffix(".key"))
        wait_until(
            "the API server is ready",
            lambda: answers(f"{self.url}/readyz", context),
            processes=self.processes,
        )
        if self.controllers:
            for name, port in (
                ("kube-controller-manager", self.addresses.controller_manager_port),
                ("kube-scheduler", self.addresses.scheduler_port),
            ):
                flags = self._controller_flags(name, port)
                self.processes.append(self._launch(name, [binaries / name, *flags]))

    def stop(self) -> None:
        """End all programs, last started first, and remove what was temporary."""
        while self.processes:
            self.processes.pop().stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _etcd_flags(self) -> list[str]:
        client = f"http://{LOOPBACK}:{self.addresses.etcd_port}"
        peer = f"http://{LOOPBACK}:{self.addresses.peer_port}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",  # a test cluster need not outlive a power cut
            "--log-level=warn",
        ]

    def _api_flags(self) -> list[str]:
        at = self.addresses
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        names = [f"kubernetes.default{suffix}" for suffix in ("", ".svc", ".svc.cluster.local")]
        hosts = ["localhost", "kubernetes", *names, LOOPBACK, at.kubernetes_service]
        serving = self.authority.issue("apiserver", "kube-apiserver", hosts=list({*hosts, at.api}))
        proxy = self.authority.issue("front-proxy", "front-proxy")
        kubelet = self.authority.issue("apiserver-kubelet", "apiserver-kubelet", "system:masters")
        tokens = certs.service_account_key(self.authority.folder)
        reconciler = ["--endpoint-reconciler-type=none"] if at.api == LOOPBACK else []
        return [
            f"--etcd-servers=http://{LOOPBACK}:{at.etcd_port}",
            f"--bind-address={at.api}",
            f"--advertise-address={at.api}",
            f"--secure-port={at.api_port}",
            f"--service-cluster-ip-range={at.service_range}",
            f"--tls-cert-file={serving[0]}",
            f"--tls-private-key-file={serving[1]}",
            f"--client-ca-file={self.authority.certificate}",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            f"--kubelet-client-certificate={kubelet[0]}",
            f"--kubelet-client-key={kubelet[1]}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={self.authority.certificate}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy[0]}",
            f"--proxy-client-key-file={proxy[1]}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={tokens}",
            f"--service-account-signing-key-file={tokens}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--feature-gates=ImageVolume=true",  # beta in 1.34, off by default
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-mode=blocking",  # a finished request is always in the log
            f"--audit-log-maxsize={NEVER_ROTATED_MIB}",
            *reconciler,
        ]

    def _controller_flags(self, name: str, port: int) -> list[str]:
        config = self.authority.kubeconfig(
            self.authority.folder / f"{name}.kubeconfig", self.url, f"system:{name}"
        )
        common = [
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            "--leader-elect=false",
            "--kube-api-qps=200",  # the defaults (20, 50) make a burst of 500 objects take minutes
            "--kube-api-burst=400",
        ]
        if name == "kube-scheduler":
            return common
        return [
            *common,
            f"--root-ca-file={self.authority.certificate}",
            f"--service-account-private-key-file={self.authority.folder / 'service-accounts.key'}",
            "--use-service-account-credentials=true",
        ]
