"""The cluster, by the `kubectl` that is there: contexts, logins, proxies and certificates are its business alone."""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from kubectl_slm.asking.proxy import Proxy
from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.refusals import refusal
from slm_operator.crd.names import API_VERSION, GROUP, INSTANCE_LABEL, KIND, PLURAL

Document = Mapping[str, Any]
"""A Kubernetes object as JSON."""

RESOURCE: Final = f"{PLURAL}.{GROUP}"
TIMEOUT: Final = "20s"
"""For each request but those that stream."""


@dataclass(frozen=True)
class Cluster:
    """What the user of a context may see and do."""

    context: str | None = None
    namespace: str | None = None
    """None: that of the context."""
    kubeconfig: str | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Cluster":
        return cls(args.context, args.namespace, args.kubeconfig)

    def deployments(self, *, everywhere: bool = False) -> list[Document]:
        """All SLMDeployments of the namespace, or of the cluster.

        Raises
        ------
        CommandError
        """
        return list(self.get(RESOURCE, everywhere=everywhere)["items"])

    def deployment(self, name: str) -> Document:
        """One SLMDeployment.

        Raises
        ------
        CommandError
            Where there is none of that name, with those whose names are near.
        """
        try:
            return self.get(RESOURCE, name)
        except CommandError as error:
            if error.code is not Exit.NOT_FOUND:
                raise
            known = [str(each["metadata"]["name"]) for each in self.deployments()]
            raise CommandError(f"there is no {KIND} {name!r}", _nearest(name, known), error.code) from None

    def pods(self, namespace: str, name: str) -> list[Document]:
        """All pods of an SLMDeployment, those of its Jobs too."""
        chosen = Cluster(self.context, namespace, self.kubeconfig)
        return list(chosen.get("pods", selector=f"{INSTANCE_LABEL}={name}")["items"])

    def get(
        self, kind: str, name: str | None = None, *, everywhere: bool = False, selector: str | None = None
    ) -> dict[str, Any]:
        """One object, or the list of a kind.

        Raises
        ------
        CommandError
        """
        arguments = [kind, *([] if name is None else [name]), "-o", "json"]
        arguments += ["--all-namespaces"] if everywhere else []
        arguments += [] if selector is None else ["--selector", selector]
        found: dict[str, Any] = json.loads(self._answer("get", *arguments, f"--request-timeout={TIMEOUT}"))
        return found

    def apply(self, document: Document) -> None:
        """Create or change an object, as `kubectl apply` does.

        Raises
        ------
        CommandError
        """
        self._answer("apply", "-f", "-", sent=json.dumps(document))

    def create(self, document: Document) -> None:
        """Create an object that mustn't be there yet.

        Raises
        ------
        CommandError
        """
        self._answer("create", "-f", "-", sent=json.dumps(document))

    def patch(self, kind: str, name: str, change: Document) -> None:
        """Merge a change into an object.

        Raises
        ------
        CommandError
        """
        self._answer("patch", kind, name, "--type=merge", "--patch", json.dumps(change))

    def delete(self, kind: str, name: str) -> None:
        """Delete an object, and don't wait for what it owns.

        Raises
        ------
        CommandError
        """
        self._answer("delete", kind, name, "--wait=false")

    def log(self, pod: str, container: str) -> str:
        """All that a container has written.

        Raises
        ------
        CommandError
        """
        return self._answer("logs", pod, "-c", container)

    def hand_over(self, *arguments: str) -> int:
        """Let kubectl speak with the terminal itself; its exit code."""
        try:
            return subprocess.run(self._command(*arguments), check=False).returncode
        except FileNotFoundError:
            raise _no_kubectl() from None

    @contextmanager
    def proxy(self) -> Iterator[Proxy]:
        """A way to the API server for what kubectl can't ask: POSTs that stream.

        It listens on a socket in a folder of this user's own: on a port, every user of this machine could ask as this one.

        Raises
        ------
        CommandError
        """
        with tempfile.TemporaryDirectory(prefix="kubectl-slm-") as folder:
            path = Path(folder) / "api.sock"
            try:
                # A process group of its own: Ctrl-C ends an answer, not the way to the next one.
                process = subprocess.Popen(
                    self._command("proxy", f"--unix-socket={path}"),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise _no_kubectl() from None
            with process:
                try:
                    told = process.stdout.readline() if process.stdout else ""
                    if not told:
                        raise refusal(process.stderr.read() if process.stderr else "", self.context)
                    yield Proxy(path)
                finally:
                    process.terminate()

    def _answer(self, *arguments: str, sent: str = "") -> str:
        """What it prints. Standard input isn't its own: what is piped in is for a model."""
        try:
            done = subprocess.run(
                self._command(*arguments), input=sent, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise _no_kubectl() from None
        if done.returncode:
            raise refusal(done.stderr, self.context)
        return done.stdout

    def _command(self, *arguments: str) -> list[str]:
        given = {"context": self.context, "namespace": self.namespace, "kubeconfig": self.kubeconfig}
        return ["kubectl", *arguments, *(f"--{name}={value}" for name, value in given.items() if value)]


def manifest(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """An SLMDeployment, to be applied in the namespace of the command line."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": dict(spec)}


def _no_kubectl() -> CommandError:
    return CommandError(
        "there is no kubectl on the PATH", "install it, or put its folder into PATH", Exit.UNREACHABLE
    )


def _nearest(name: str, known: list[str]) -> str:
    if not known:
        return "there is none in this namespace: `kubectl slm list -A` looks in all, `kubectl slm run MODEL` makes one"
    near = get_close_matches(name, known, n=3) or sorted(known)[:5]
    return f"in this namespace there is {', '.join(near)}; `kubectl slm list -A` looks in all"
