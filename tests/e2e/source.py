"""A model source inside the cluster, with TLS under a CA of its own, that tests can make good or bad.

It is one pod of the runtime image (it has a Python) running the script below; `PUT /NAME` sets what `GET /NAME` answers.
Headers of that PUT say how badly, and what it says beside the bytes: to who only reads, a hub or a registry is that much.
"""

import json
import ssl
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.cluster.certs import Authority
from tests.e2e.site import Namespace

SCRIPT = """
import http.server, json, ssl
files = {}
class Source(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = json.loads(self.headers.get("X-Says", "{}"))
        files[self.path] = (body, self.headers.get("X-Status", "200"), int(self.headers.get("X-Cut", "0")), said)
        self.send_response(204); self.send_header("Content-Length", "0"); self.end_headers()
    def do_HEAD(self): self.answer(False)
    def do_GET(self): self.answer(True)
    def answer(self, with_body):
        down = (b"", "503", 0, {}) if files.get("/down", (b"",))[0] else None
        body, status, cut, said = down or files.get(self.path.partition("?")[0], (b"", "404", 0, {}))
        begin = 0
        wanted = self.headers.get("Range")
        if status == "200" and wanted and body:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last) if last else len(body) - 1, len(body) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(body)}")
            part = body[begin:end + 1]
        else:
            self.send_response(int(status)); part = body
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        for name, value in {"ETag": '"%x"' % (hash(body) & 0xffffffff), **said}.items():
            self.send_header(name, value)
        self.end_headers()
        if not with_body: return
        if cut and begin + len(part) > cut:
            self.wfile.write(part[:max(cut - begin, 0)]); self.wfile.flush(); self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(part)
server = http.server.ThreadingHTTPServer(("", 8443), Source)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Source:
    host: str
    """Its name inside the cluster."""
    address: str
    """Where this machine reaches it."""

    def url(self, name: str) -> str:
        return f"https://{self.host}:8443/{name}"

    def put(
        self,
        name: str,
        body: bytes,
        *,
        status: int = 200,
        cut: int = 0,
        says: Mapping[str, str] | None = None,
    ) -> None:
        headers = {
            "X-Status": str(status),
            "X-Cut": str(cut),
            "X-Says": json.dumps(says or {}),
            "Content-Type": "application/octet-stream",
        }
        request = urllib.request.Request(
            f"https://{self.address}/{name}", data=body, headers=headers, method="PUT"
        )
        trusting = ssl._create_unverified_context()  # the certificate is for the name inside the cluster
        with urllib.request.urlopen(request, context=trusting):
            pass

    def go_down(self) -> None:
        """Answer 503 to whatever is asked from now on."""
        self.put("down", b"yes")

    def come_up(self) -> None:
        self.put("down", b"")


@contextmanager
def source(ns: Namespace, image: str) -> Iterator[Source]:
    """Run a source in *ns*; the CA for `caBundle.configMapRef` is in the ConfigMap `source-ca`."""
    host = f"source.{ns.name}.svc.cluster.local"
    with TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        ca = authority.certificate.read_text()
        crt, key = (each.read_text() for each in authority.issue("source", host, hosts=[host]))
    labels = {"app": "source"}
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "source",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-c", SCRIPT],
                "securityContext": restricted,
                "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
            }
        ],
        "volumes": [{"name": "tls", "secret": {"secretName": "source-tls"}}],
    }
    objects = [
        {"kind": "ConfigMap", "metadata": {"name": "source-ca"}, "data": {"ca.crt": ca}},
        {
            "kind": "Secret",
            "metadata": {"name": "source-tls"},
            "stringData": {"tls.crt": crt, "tls.key": key},
        },
        {"kind": "Pod", "metadata": {"name": "source", "labels": labels}, "spec": pod},
        {
            "kind": "Service",
            "metadata": {"name": "source"},
            "spec": {"selector": labels, "ports": [{"port": 8443}]},
        },
    ]
    items = [{"apiVersion": "v1", **each} for each in objects]
    manifest = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    ns.site.kubectl("apply", "-n", ns.name, "-f", "-", input=manifest)
    ns.site.kubectl("wait", "pod/source", "-n", ns.name, "--for=condition=Ready", "--timeout=60s")
    with ns.site.cluster.reach(ns.name, "source", 8443) as address:
        yield Source(host, address)


CA = {"configMapRef": {"name": "source-ca"}}
"""What a spec says to trust the source."""
