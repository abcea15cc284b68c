"""A cluster by kind, where a Docker engine answers."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.cluster import cache, docker, images, kind_config, kind_node_image, tools
from tests.cluster.base import Kind
from tests.cluster.clients import Clients
from tests.cluster.commands import run
from tests.cluster.errors import HarnessError, NoCluster
from tests.cluster.processes import wait_until
from tests.cluster.progress import say, step

PREFIX = "slm-"
"""Begins the name of every cluster of ours."""
NODE_GIB = 5.0
WORKER_GIB = 3.0
PROXY = "/lib/systemd/systemd-socket-proxyd"
CONNECTIONS = 4096


class KindCluster(Clients):
    """A kind node, named after the cluster, that runs all pods; or, with *workers*, these beside it that do."""

    kind: Kind = "kind"

    def __init__(self, name: str = "demo", *, workers: int = 0) -> None:
        self.name = f"{PREFIX}{name}"
        self.workers = workers
        self.node_name = f"{self.name}-control-plane"
        self.folder = cache.root() / "kind" / name
        self.kubeconfig = self.folder / "kubeconfig"

    @property
    def audit_log(self) -> Path | None:
        """The node's, on this machine; only root can read it where the engine is root's."""
        log = self.folder / kind_config.AUDIT_LOG
        return log if os.access(log, os.R_OK) else None

    def up(self) -> None:
        """Create the cluster, or leave one alone that is up.

        Raises
        ------
        NoCluster
            No Docker engine answers, or it can't run a node.
        HarnessError
            It did not come up; nothing of it stays.
        """
        reason = docker.unavailable()
        if reason:
            raise NoCluster(reason)
        with cache.lock(self.name):
            if self.is_up():
                say(f"  {self.name} is up")
                return
            if self.name in self._clusters():
                say(f"  an earlier run left an unfinished {self.name}: cleaning up first")
            self._delete()
            docker.require_space(NODE_GIB + self.workers * WORKER_GIB)
            node_image = kind_node_image.name()
            config = kind_config.write(self.folder, node_image, self.workers)
            with step(f"starting {self.name} with kind, node image {node_image}"):
                try:
                    self._kind("create", "cluster", "--name", self.name, "--config", config, "--wait", "180s")
                    self._join_pod_networks()
                except BaseException:
                    self._delete()
                    raise

    def down(self) -> None:
        """Delete the cluster and its network; the last one takes along the images that the cache folder has too.

        Raises
        ------
        HarnessError
            No engine answers that could.
        """
        reason = docker.unavailable()
        if reason:
            raise HarnessError(f"{self.name} can't be taken away: {reason}")
        with cache.lock(self.name):
            if self.name in self._clusters():
                with step(f"deleting {self.name}"):
                    self._delete()
            if not any(each.startswith(PREFIX) for each in self._clusters()):
                docker.remove_images(f"{images.REGISTRY}/")
            say("  Docker keeps what it pulled, and its build cache (`docker builder prune` empties it)")

    @contextlib.contextmanager
    def lost(self, node: str) -> Iterator[None]:
        """Freeze *node* with all that runs there, as seen from outside a machine that is gone, until the block ends."""
        run(["docker", "pause", node])
        try:
            yield
        finally:
            run(["docker", "unpause", node])

    def is_up(self) -> bool:
        return self.kubeconfig.exists() and self.name in self._clusters() and self.answers()

    def load_image(self, archive: Path, name: str) -> str:
        """Load *archive* into each node's containerd, unless that has the image *name*.

        Raises
        ------
        HarnessError
            The archive is no image, or one of another name.
        """
        if not self._has_image(name):
            self._kind("load", "image-archive", archive, "--name", self.name)
            if not self._has_image(name):
                raise HarnessError(f"{archive} holds no image named {name}")
        return name

    @contextlib.contextmanager
    def reach(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """Yield a ``host:port`` of this machine whose connections the node passes on to the Service's own address."""
        address = self.kubectl("get", "service", "-n", namespace, service, "-o", "jsonpath={.spec.clusterIP}")
        connect = f"exec 3<>/dev/tcp/{address}/{port}"
        wait_until(
            f"{service}:{port} accepts connections",
            lambda: self._succeeds("timeout", "1", "bash", "-c", connect),
            seconds=30,
        )
        unit, node_port = self._pass_on(f"{address}:{port}")
        try:
            yield run(["docker", "port", self.node_name, f"{node_port}/tcp"]).split()[0]
        finally:
            # A pattern, since a socket that nobody came through has no service.
            self._in_node("systemctl", "stop", f"{unit}.*")

    def _join_pod_networks(self) -> None:
        """Let each node know the way to the others' pods: kind's own image does so by itself, ours knows its own alone."""
        ways = [_way(node) for node in json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]]
        for node, _, _ in ways:
            for other, pods, address in ways:
                if other != node:
                    self._in_node("ip", "route", "replace", pods, "via", address, node=node)

    def _pass_on(self, target: str) -> tuple[str, int]:
        """Let the node's systemd listen on a published port and pass connections on; answer its unit and the port.

        A unit's name is taken once, by whoever comes first: that is what shares the ports out.
        """
        for node_port in kind_config.PORTS:
            unit = f"slm-reach-{node_port}"
            listen = f"--socket-property=ListenStream={node_port}"
            proxy = [PROXY, f"--connections-max={CONNECTIONS}", target]
            with contextlib.suppress(HarnessError):
                self._in_node("systemd-run", "--quiet", "--collect", f"--unit={unit}", listen, *proxy)
                return unit, node_port
        raise HarnessError(f"no way to {target}: all of the node's {len(kind_config.PORTS)} ports are in use")

    def _in_node(self, *words: str, node: str | None = None) -> str:
        return run(["docker", "exec", node or self.node_name, *words])

    def _succeeds(self, *words: str) -> bool:
        try:
            self._in_node(*words)
        except HarnessError:
            return False
        return True

    def _has_image(self, name: str) -> bool:
        listed = ("ctr", "--namespace", "k8s.io", "images", "list", "-q", f'name=="{name}"')
        return all(self._in_node(*listed, node=node).strip() for node in self._nodes())

    def _nodes(self) -> list[str]:
        return self._kind("get", "nodes", "--name", self.name).split()

    def _kind(self, *words: str | Path) -> str:
        # A network of its own: kind's common one would stay behind, and might be somebody else's.
        network = {"KIND_EXPERIMENTAL_DOCKER_NETWORK": self.name, "KIND_EXPERIMENTAL_PROVIDER": "docker"}
        return run([tools.kind.path(), *words], env={**network, "KUBECONFIG": str(self.kubeconfig)})

    def _clusters(self) -> list[str]:
        return self._kind("get", "clusters").split()

    def _delete(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)  # kind edits the kubeconfig there
        self._kind("delete", "cluster", "--name", self.name)
        networks = run(["docker", "network", "ls", "--format", "{{.Name}}"]).split()
        if self.name in networks:
            run(["docker", "network", "rm", self.name])
        shutil.rmtree(self.folder, ignore_errors=True)


def _way(node: Mapping[str, Any]) -> tuple[str, str, str]:
    """PURE: a Node's name, the range of its pods' addresses, and its own address."""
    addresses = {each["type"]: each["address"] for each in node["status"]["addresses"]}
    return node["metadata"]["name"], node["spec"]["podCIDR"], addresses["InternalIP"]
