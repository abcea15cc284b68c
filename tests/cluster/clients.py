"""kubectl and Helm against one kubeconfig: what every kind of cluster offers in the same way."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cluster import tools
from tests.cluster.commands import run
from tests.cluster.errors import HarnessError
from tests.cluster.processes import Process, listens, wait_until
from tests.support.ports import free_port


def kubectl(kubeconfig: Path, *args: str, stdin: str | None = None) -> str:
    """Run kubectl and return its output.

    Raises
    ------
    HarnessError
        It failed; its own words are in the message.
    """
    return run([tools.kubernetes.path("kubectl"), "--kubeconfig", kubeconfig, *args], stdin=stdin)


class Clients:
    """What is done to a cluster by its clients alone."""

    kubeconfig: Path

    def kubectl(self, *args: str, input: str | None = None) -> str:
        return kubectl(self.kubeconfig, *args, stdin=input)

    def answers(self) -> bool:
        """Whether the API server does."""
        try:
            return self.kubectl("get", "--raw", "/readyz", "--request-timeout=5s") == "ok"
        except HarnessError:
            return False

    def established(self, *crds: str) -> None:
        """Wait until the API server serves what these CRDs define; `kubectl wait` fails on one without conditions yet."""
        wait_until(
            f"the API server serves {', '.join(crds)}", lambda: all(self._is_established(crd) for crd in crds)
        )

    def _is_established(self, crd: str) -> bool:
        status = json.loads(self.kubectl("get", "crd", crd, "-o", "json")).get("status") or {}
        conditions = status.get("conditions") or ()
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    def helm(self, *args: str) -> str:
        return run([tools.helm.path(), "--kubeconfig", self.kubeconfig, *args])


class ForwardedClients(Clients):
    """Of a cluster whose Services this machine has no route to."""

    @contextlib.contextmanager
    def reach(self, namespace: str, service: str, port: int) -> Iterator[str]:
        """Yield a ``host:port`` of this machine that leads to the Service's *port* (by port-forward)."""
        local = free_port()
        argv = ["--kubeconfig", str(self.kubeconfig), "--namespace", namespace, "port-forward"]
        with TemporaryDirectory(prefix="slm-forward-") as folder:
            forward = Process.start(
                "port-forward",
                [tools.kubernetes.path("kubectl"), *argv, f"service/{service}", f"{local}:{port}"],
                Path(folder) / "log",
                dies_with_us=True,
            )
            try:
                wait_until(
                    f"a way to {service}:{port}",
                    lambda: listens("127.0.0.1", local),
                    processes=[forward],
                    seconds=30,
                )
                yield f"127.0.0.1:{local}"
            finally:
                forward.stop()
