"""Objects as JSON, for tests that look often: a request costs milliseconds, where kubectl costs a process."""

import json
import urllib.error
import urllib.request
from typing import Any

from tests.cluster import ControlPlane

Document = dict[str, Any]
APPLY = "application/apply-patch+yaml"
SLM = "/apis/slm-operator.io/v1alpha1/namespaces/{}/slmdeployments"
PATHS = {
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "ControllerRevision": "/apis/apps/v1/namespaces/{}/controllerrevisions",
    "Service": "/api/v1/namespaces/{}/services",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "ServiceMonitor": "/apis/monitoring.coreos.com/v1/namespaces/{}/servicemonitors",
    "SLMDeployment": SLM,
}
"""Collections in a namespace, by kind."""


class Api:
    """One namespace, as its administrator sees it."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.namespace = namespace
        self._url = plane.url
        certificate = plane.authority.folder / "admin.crt"
        self._tls = plane.authority.context(certificate, certificate.with_suffix(".key"))

    def send(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Document:
        """The answer, also where it is a refusal: then it is a Status."""
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type, "User-Agent": "tests"},
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as refusal:
            with refusal:
                told = refusal.read()
                # The path of a kind that isn't served is answered in plain words.
                plain = {"kind": "Status", "code": refusal.code, "message": told.decode()}
                return json.loads(told) if told.startswith(b"{") else plain

    def path(self, kind: str, name: str = "") -> str:
        return PATHS[kind].format(self.namespace) + (f"/{name}" if name else "")

    def get(self, kind: str, name: str) -> Document | None:
        found = self.send("GET", self.path(kind, name))
        return None if found.get("kind") == "Status" else found

    def list(self, kind: str, selector: str = "") -> list[Document]:
        """Empty where the cluster doesn't know the kind."""
        found = self.send("GET", self.path(kind) + (f"?labelSelector={selector}" if selector else ""))
        return found.get("items") or []

    def apply(self, document: Document) -> Document:
        """Answers the object; a refusal fails the test."""
        path = self.path(document["kind"], document["metadata"]["name"])
        answer = self.send("PATCH", f"{path}?fieldManager=tests&force=true", document, APPLY)
        assert answer.get("kind") == document["kind"], answer
        return answer

    def delete(self, kind: str, name: str) -> None:
        self.send("DELETE", self.path(kind, name))

    def reason(self, name: str, condition: str = "Ready") -> str:
        return self.condition(name, condition).get("reason", "")

    def condition(self, name: str, kind: str = "Ready") -> Document:
        """Of an SLMDeployment; empty where it isn't there."""
        status = (self.get("SLMDeployment", name) or {}).get("status") or {}
        return next((each for each in status.get("conditions") or () if each["type"] == kind), {})
