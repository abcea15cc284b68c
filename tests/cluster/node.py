"""One whole Kubernetes node of real parts, in namespaces of its own: for Linux as root, without Docker."""

import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import cache, cgroups, host, network, node_config, node_programs, tools
from tests.cluster.base import Kind
from tests.cluster.clients import Clients
from tests.cluster.errors import HarnessError, NoCluster
from tests.cluster.network import FORWARDING, Link, Range
from tests.cluster.node_programs import NodePrograms
from tests.cluster.processes import Identity, listens, wait_until
from tests.cluster.progress import say, step
from tests.cluster.sandbox import Sandbox

SYS_ADMIN = 21
NET_ADMIN = 12
DISK_GIB = 3.0


@dataclasses.dataclass(frozen=True)
class Record:
    """What ``down`` needs to know, written before anything on the host is changed."""

    range: str
    forwarding: str
    """The host's setting before the first node that needed it changed."""
    hermetic: bool
    init: Identity | None = None

    @staticmethod
    def read(path: Path) -> "Record | None":
        try:
            fields = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        init = fields.pop("init")
        return Record(**fields, init=Identity(**init) if init else None)

    def write(self, path: Path) -> None:
        draft = path.with_suffix(".part")
        draft.write_text(json.dumps(dataclasses.asdict(self)))
        draft.rename(path)


def unavailable() -> str | None:
    """Why this machine can't run a node; None where it can."""
    if sys.platform != "linux":
        return f"a node of real parts runs on Linux only, this is {sys.platform}"
    if os.geteuid() != 0:
        return "a node of real parts needs root"
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    if not all(effective >> capability & 1 for capability in (SYS_ADMIN, NET_ADMIN)):
        return (
            "a node of real parts needs the capabilities SYS_ADMIN and NET_ADMIN, which this container lacks"
        )
    if not Path("/sys/fs/cgroup").is_mount():
        return "a node of real parts needs control groups at /sys/fs/cgroup"
    return None


class SingleNode(Clients):
    """etcd, API server, controllers, containerd, kubelet, kube-proxy and CoreDNS as one node.

    Parameters
    ----------
    name
        Nodes of different names live side by side; at most 10 characters.
    hermetic
        Without a way, or a name server, to the outside.
    """

    kind: Kind = "single-node"

    def __init__(self, name: str = "demo", *, hermetic: bool = False) -> None:
        if not name.isalnum() or len(name) > 10:
            raise HarnessError(f"{name!r} is no name for a node: letters and digits, at most 10")
        self.name = name
        self.hermetic = hermetic
        self.node_name = f"slm-{name}"
        self.folder = cache.root() / "nodes" / name
        self.kubeconfig = self.folder / "control-plane" / "certs" / "admin.kubeconfig"
        self.audit_log: Path | None = self.folder / "control-plane" / "audit.log"
        self._record_path = self.folder / "node.json"
        self._failed_logs = self.folder.with_name(f"{name}-failed-logs")

    def up(self) -> None:
        """Start the node, or leave one alone that is up; return when it takes pods.

        Raises
        ------
        NoCluster
            This machine can't run one.
        HarnessError
            It did not come up. What had been started is taken down again; the logs stay.
        """
        reason = unavailable()
        if reason:
            raise NoCluster(reason)
        host.require(host.NODE_PACKAGES)
        with cache.lock(f"node-{self.name}"):
            if self.is_up():
                say(f"  {self.node_name} is up")
                return
            if self.folder.exists():
                say(f"  an earlier run left an unfinished {self.node_name}: cleaning up first")
                self._clean()
            tools.ensure(tools.SINGLE_NODE)
            with step(f"starting {self.node_name}, Kubernetes {tools.KUBERNETES}"):
                try:
                    self._start()
                except BaseException:
                    shutil.rmtree(self._failed_logs, ignore_errors=True)
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copytree(self.folder / "logs", self._failed_logs)
                    say(f"  logs of the failed start: {self._failed_logs}")
                    self._clean()
                    raise

    def down(self) -> None:
        """Take away everything that ``up`` brought, whether it finished or not."""
        with cache.lock(f"node-{self.name}"):
            shutil.rmtree(self._failed_logs, ignore_errors=True)
            if self.folder.exists():
                with step(f"stopping {self.node_name}"):
                    self._clean()

    def is_up(self) -> bool:
        """Whether its programs run and its API server answers."""
        record = Record.read(self._record_path)
        if (
            record is None
            or record.init is None
            or not record.init.alive()
            or record.hermetic != self.hermetic
        ):
            return False
        try:
            ready = self.kubectl(
                "get",
                "node",
                self.node_name,
                "-o",
                "jsonpath={.status.conditions[?(@.type=='Ready')].status}",
            )
        except HarnessError:
            return False
        return ready == "True"

    def load_image(self, archive: Path, name: str) -> str:
        """Make the image in *archive*, which names it *name*, known to the node.

        Raises
        ------
        HarnessError
            The archive is no image, or one of another name.
        """
        loaded = self.folder / "images" / cache.digest({"name": name})
        content = f"{archive.resolve()} {archive.stat().st_mtime_ns}"
        if loaded.exists() and loaded.read_text() == content:
            return name
        node_programs.import_image(self._sandbox(), archive, name)
        loaded.parent.mkdir(exist_ok=True)
        loaded.write_text(content)
        return name

    @contextlib.contextmanager
    def reach(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """Yield the Service's own address, to which this host has a route, once it accepts connections."""
        address = self.kubectl("get", "service", "-n", namespace, service, "-o", "jsonpath={.spec.clusterIP}")
        wait_until(f"{service}:{port} accepts connections", lambda: listens(address, port), seconds=30)
        host.never_proxy(address)
        yield f"{address}:{port}"

    def _sandbox(self) -> Sandbox:
        record = Record.read(self._record_path)
        if record is None or record.init is None or not record.init.alive():
            raise HarnessError(f"{self.node_name} is not up: python -m tests.cluster up")
        return Sandbox(record.init)

    def _start(self) -> None:
        cache.require_space(self.folder, DISK_GIB, "a node")
        (self.folder / "logs").mkdir()
        forward_to = [] if self.hermetic else network.resolvers()
        (self.folder / "resolv.conf").write_text(node_config.resolv_conf(forward_to))
        with cache.lock("node-addresses"):
            link, sandbox = self._connect()
        cgroups.create(self.node_name)
        programs = NodePrograms(self.folder, self.node_name, sandbox, link.range, forward_to)
        programs.start()

    def _connect(self) -> tuple[Link, Sandbox]:
        """Make the node's namespaces and join them to the host by addresses that are free."""
        link = Link(self.node_name, Range.free())
        others = self._others_that_forward()
        before = others[0].forwarding if others else FORWARDING.read_text().strip()
        record = Record(link.range.whole, before, self.hermetic)
        record.write(self._record_path)
        sandbox = Sandbox.create(self.folder)
        dataclasses.replace(record, init=sandbox.init).write(self._record_path)
        link.connect(sandbox, hermetic=self.hermetic)
        return link, sandbox

    def _others_that_forward(self) -> list[Record]:
        """Find the other nodes that need this host to forward: the last one puts the setting back."""
        paths = [path for path in self.folder.parent.glob("*/node.json") if path != self._record_path]
        records = [Record.read(path) for path in paths]
        return [record for record in records if record is not None and not record.hermetic]

    def _clean(self) -> None:
        record = Record.read(self._record_path)
        if record is not None and record.init is not None:
            Sandbox(record.init).close()
        if record is not None:
            Link(self.node_name, Range(record.range)).disconnect()
            if not record.hermetic and not self._others_that_forward():
                FORWARDING.write_text(record.forwarding + "\n")
        cgroups.remove(self.node_name)
        shutil.rmtree(self.folder)
