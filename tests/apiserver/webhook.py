"""Other people's mutating admission webhooks: rewritten images, injected sidecars, refused pods.

The server runs in this process, on loopback, with a certificate of an authority of its own; what it does concerns one
namespace. A rule is a function that changes an object in place, or raises :class:`Refused`.
"""

import base64
import copy
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from typing_extensions import override

from tests.apiserver.api import Api
from tests.apiserver.operator import until
from tests.cluster.certs import Authority

Document = dict[str, Any]
Rule = Callable[[Document], None]
HOST = "127.0.0.1"
PROBE = "configmaps"
"""Asked for too, so that a test can see that the API server has heard of the webhook."""
GROUPS = {"deployments": "apps", "jobs": "batch", "pods": "", PROBE: ""}
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


class Refused(Exception):
    """The object isn't admitted; the message is what the API server passes on."""


def image_from(registry: str) -> Rule:
    """Every image comes from that registry, as Kyverno's rules and image mirrors do it."""

    def rewrite(document: Document) -> None:
        for container in _containers(document):
            name = container["image"].rpartition("/")[2]
            container["image"] = f"{registry}/{name}"

    return rewrite


def sidecar(document: Document) -> None:
    """A container beside the runtime's, as Istio does it where sidecars aren't init containers yet."""
    proxy = {"name": "istio-proxy", "image": "mesh.example.com/proxy:1", "args": ["proxy", "sidecar"]}
    spec = pod_spec(document)
    spec["containers"].append(proxy | {"securityContext": _unprivileged()})


def network_init(document: Document) -> None:
    """An init container that asks for NET_ADMIN, as Istio's does without its CNI plugin: Pod Security refuses it."""
    asked = _unprivileged() | {"capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}
    init = {"name": "istio-init", "image": "mesh.example.com/proxy:1", "securityContext": asked}
    spec = pod_spec(document)
    spec["initContainers"] = [init, *spec.get("initContainers", ())]


def refusal(message: str) -> Rule:
    def refuse(_: Document) -> None:
        raise Refused(message)

    return refuse


def pod_spec(document: Document) -> Document:
    """Of a pod, or of the pods of a Deployment or Job."""
    spec: Document = document["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


def _containers(document: Document) -> list[Document]:
    spec = pod_spec(document)
    return [*spec.get("initContainers", ()), *spec["containers"]]


def _unprivileged() -> Document:
    return {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


class Webhook:
    """A context manager; from its beginning to its end the namespace's objects of a resource go through the rule."""

    def __init__(self, api: Api, folder: Path, resource: str, rule: Rule) -> None:
        self._api = api
        self._resource = resource
        self.rule = rule
        self.asked: list[str] = []
        """The resources of the objects that were shown."""
        authority = Authority(folder / f"webhook-{resource}")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*authority.issue("webhook", HOST, hosts=[HOST]))
        self._bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
        self._name = f"{api.namespace}-{resource}"
        self._server = _Server((HOST, 0), self._handler())
        self._server.socket = tls.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        made = self._api.send("POST", CONFIGURATIONS, self._configuration())
        assert made.get("kind") == "MutatingWebhookConfiguration", made
        probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "webhook-probe"}}

        def heard() -> bool:
            self._api.send("POST", self._api.path("ConfigMap") + "?dryRun=All", probe)
            return PROBE in self.asked

        until("the API server asks the webhook", heard)
        return self

    def __exit__(self, *_: object) -> None:
        self._api.send("DELETE", f"{CONFIGURATIONS}/{self._name}")
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _configuration(self) -> Document:
        rules = [
            {
                "apiGroups": [GROUPS[each]],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"] if each == "deployments" else ["CREATE"],
                "resources": [each],
            }
            for each in (self._resource, PROBE)
        ]
        webhook = {
            "name": "tests.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            # As it is while the configuration is being taken away: a late request passes unchanged.
            "failurePolicy": "Ignore",
            "rules": rules,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self._api.namespace}},
            "clientConfig": {
                "url": f"https://{HOST}:{self._server.server_address[1]}/",
                "caBundle": self._bundle,
            },
        }
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self._name},
            "webhooks": [webhook],
        }

    def review(self, request: Document) -> Document:
        """The answer to an AdmissionReview's request: a JSON patch, or a refusal."""
        resource = request["resource"]["resource"]
        self.asked.append(resource)
        answer: Document = {"uid": request["uid"], "allowed": True}
        if resource != self._resource:
            return answer
        changed = copy.deepcopy(request["object"])
        try:
            self.rule(changed)
        except Refused as refused:
            return answer | {"allowed": False, "status": {"code": 403, "message": str(refused)}}
        patch = [
            {"op": "add", "path": f"/{key}", "value": value}
            for key, value in changed.items()
            if value != request["object"].get(key)
        ]
        encoded = base64.b64encode(json.dumps(patch).encode()).decode()
        return answer | {"patchType": "JSONPatch", "patch": encoded}

    def _handler(webhook) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                identity = {key: review[key] for key in ("apiVersion", "kind")}
                body = json.dumps(identity | {"response": webhook.review(review["request"])}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, *_: object) -> None:
                pass

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
