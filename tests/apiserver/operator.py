"""The operator as a process beside a control plane, and what it wrote, from the API server's audit log."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import yaml

from tests.apiserver.kubelet import LABEL, ROOT, TAINT
from tests.cluster import ControlPlane
from tests.support import audit
from tests.support.ports import free_port

CRD = ROOT / "crds" / "slmdeployments.slm-operator.io.yaml"
SETTINGS: dict[str, Any] = {
    "runtimeImage": "runtime:1",
    "classes": [
        {
            "name": "cpu",
            "family": "cpu",
            "nodeSelector": {LABEL: "fake"},
            "tolerations": [{"key": TAINT["key"], "operator": "Exists"}],
        }
    ],
}
GIVEN = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}


def slm(name: str, namespace: str, **spec: Any) -> dict[str, Any]:
    """One whose memory is given, so that the model need not be looked at before; None leaves a field out."""
    model = {"name": "m", "source": "https://models.example.com/m.gguf", "sha256": "e" * 64}
    given = {"model": model, "resources": GIVEN, "hardware": {"preference": ["cpu"]}, **spec}
    return {
        "apiVersion": "slm-operator.io/v1alpha1",
        "kind": "SLMDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {field: value for field, value in given.items() if value is not None},
    }


PATIENCE = 180
"""Seconds for what has to come, however busy the machine: a process that starts took 60 beside six others."""


def until(what: str, holds: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait for something that has to become true; returns what it answered."""
    deadline = time.monotonic() + seconds
    while not (answer := holds()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return answer


class Operator:
    """One process; a context manager that ends it.

    With *kubeconfig* it goes another way to the API server, such as through a proxy.
    """

    def __init__(
        self,
        plane: ControlPlane,
        folder: Path,
        *,
        lease: str = "slm-operator",
        pod: str = "one",
        port: int | None = None,
        kubeconfig: Path | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / f"{pod}.yaml"
        config.write_text(yaml.safe_dump(SETTINGS | settings))
        self.port = port or free_port()
        self.log = folder / f"{pod}.log"
        self._environ = os.environ | {
            "KUBECONFIG": str(kubeconfig or plane.kubeconfig),
            "SLM_OPERATOR_CONFIG": str(config),
            "SLM_OPERATOR_PORT": str(self.port),
            "SLM_LEASE_NAME": lease,
            "POD_NAME": pod,
            "POD_NAMESPACE": "default",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def launch(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "slm_operator"], env=self._environ, stdout=log, stderr=log, cwd=ROOT
            )

    def start(self, *, acting: bool = True, seconds: float = PATIENCE) -> None:
        self.launch()
        try:
            until("the operator acts", lambda: self.state() == "acting" if acting else self.state(), seconds)
        except AssertionError:
            # Nobody else would end it: it would take its share of the machine from all that follow.
            self.kill()
            raise

    def state(self) -> str | None:
        """What /readyz says; None while nobody answers. It has to be running."""
        assert self._process is not None
        assert self._process.poll() is None, f"the operator ended: {self.log.read_text()}"
        return self.readiness()

    def readiness(self) -> str | None:
        """What /readyz says; None while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.HTTPError, OSError):
            return None

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
        assert found, name
        return float(found[1])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def wait(self) -> int:
        """Until it ends by itself; returns the exit code."""
        assert self._process is not None
        code = self._process.wait(timeout=PATIENCE)
        self._process = None
        return code

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def revive(self) -> None:
        """Start it again where it has ended, as the kubelet would."""
        if self._process is None or self._process.poll() is not None:
            self.launch()

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(number)
        try:
            code = self._process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        self._process = None
        return code


class Audit:
    """The audit log from now on."""

    WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})

    def __init__(self, plane: ControlPlane) -> None:
        self._path = plane.audit_log
        self._from = audit.end(self._path)

    def events(self) -> list[dict[str, Any]]:
        return audit.events(self._path, self._from)

    def requests(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """By the operator: our client's and Kopf's."""
        return [
            event
            for event in self.events()
            if event.get("userAgent", "").startswith(("slm-operator", "kopf/"))
            and namespace in {None, event.get("objectRef", {}).get("namespace")}
        ]

    def writes(self, namespace: str | None = None) -> Counter[str]:
        """How many, by resource; without the Lease, which is renewed in any case, and Events, which change nothing."""
        return Counter(
            "/".join(filter(None, (event["objectRef"]["resource"], event["objectRef"].get("subresource"))))
            for event in self.requests(namespace)
            if event["verb"] in self.WRITES and event["objectRef"]["resource"] not in {"leases", "events"}
        )

    def told(self, namespace: str) -> int:
        """How many Events the operator has made."""
        return sum(
            event["verb"] == "create" and event["objectRef"]["resource"] == "events"
            for event in self.requests(namespace)
        )

    def settled(self, namespace: str | None = None, *, seconds: float = 3) -> Counter[str]:
        """The writes, once none has come for a while."""
        last, since = self.writes(namespace), time.monotonic()
        deadline = since + 60
        while time.monotonic() - since < seconds:
            time.sleep(0.2)
            if (now := self.writes(namespace)) != last:
                last, since = now, time.monotonic()
            assert time.monotonic() < deadline, f"no rest: {last}"
        return last
