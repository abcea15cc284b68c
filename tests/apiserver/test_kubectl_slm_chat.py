"""`kubectl slm chat` in a terminal, through the API server's proxy, with a server that breaks off when it is told to."""

import json
import os
import pty
import select
import socket
import subprocess
import sys
import termios
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest
from typing_extensions import override

from kubectl_slm.errors import Exit
from tests.apiserver.api import Api
from tests.apiserver.operator import PATIENCE, slm
from tests.cluster import ControlPlane, tools

pytestmark = pytest.mark.apiserver

KEY = "the-key-of-the-secret"


class Server(ThreadingHTTPServer):
    """Answers every question with itself; `long` never ends, and `break` ends in the middle of a word."""

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.left = threading.Event()
        """A client has gone before its answer's end."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers.get("x-api-key") != KEY:
            self._refuse()
            return
        self.server.asked.append(body)
        question = body["messages"][-1]["content"]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            self._answer(question)
        except OSError:
            self.server.left.set()
        self.close_connection = True

    def _answer(self, question: str) -> None:
        self._event({"choices": [{"delta": {"content": "you said: "}}]})
        while question == "long":
            self._event({"choices": [{"delta": {"content": "more "}}]})
            time.sleep(0.05)
        if question == "break":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._event({"choices": [{"delta": {"content": question.upper()}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
        self._send(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, told: dict[str, Any]) -> None:
        self._send(f"data: {json.dumps(told)}\n\n".encode())

    def _send(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _refuse(self) -> None:
        told = b'{"error": {"message": "This API key is not known here."}}'
        self.send_response(401)
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    @override
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def address() -> str:
    """Of this machine, as the API server may ask it: never the loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip(
                "this machine has no address beside the loopback one, which API servers ask nobody at"
            )
        return str(probe.getsockname()[0])


@pytest.fixture
def server(api: Api, address: str) -> Iterator[Server]:
    """Behind the Service of an SLMDeployment that serves, as its status says."""
    with Server(address) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        _serve(api, address, server.server_port)
        yield server
        server.shutdown()
        thread.join()


def _serve(api: Api, address: str, port: int) -> None:
    for name, secret in (("a", "a-api-key"), ("wrong", "wrong-api-key")):
        api.apply(slm(name, api.namespace))
        status = {"readyReplicas": 1, "keySecret": secret}
        told = api.send("PATCH", api.path("SLMDeployment", name) + "/status", {"status": status}, MERGE)
        assert told["kind"] == "SLMDeployment", told
        key = KEY if name == "a" else "another"
        entries = {"api-key": b64encode(key.encode()).decode(), "owner-x": ""}
        metadata = {"name": secret, "namespace": api.namespace}
        api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": entries})
        metadata = {"name": name, "namespace": api.namespace}
        ports = [{"name": "http", "port": 8080, "targetPort": port}]
        api.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}})
        # The API server asks only at the addresses of pods, which the Endpoints of a Service name.
        container = {"name": "serve", "image": "runtime:1"}
        api.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": {"schedulerName": "nobody", "containers": [container]},
            }
        )
        ips = {"podIP": address, "podIPs": [{"ip": address}]}
        told = api.send("PATCH", api.path("Pod", name) + "/status", {"status": ips}, MERGE)
        assert told["kind"] == "Pod", told
        pod = {"ip": address, "targetRef": {"kind": "Pod", **metadata}}
        subset = {"addresses": [pod], "ports": [{"name": "http", "port": port}]}
        path = f"/api/v1/namespaces/{api.namespace}/endpoints"
        told = api.send("POST", path, {"metadata": metadata, "subsets": [subset]})
        assert told["kind"] == "Endpoints", told


MERGE = "application/merge-patch+json"


@pytest.fixture
def environ(plane: ControlPlane) -> dict[str, str]:
    paths = [str(tools.kubernetes.path("kubectl").parent), os.environ["PATH"]]
    return os.environ | {"PATH": os.pathsep.join(paths), "KUBECONFIG": str(plane.kubeconfig), "TERM": "dumb"}


class Terminal:
    """A program on a terminal of its own, which it controls: Ctrl-C in it is a signal."""

    def __init__(self, command: list[str], environ: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        name = os.ttyname(slave)
        # The leader of a session that has no terminal gets the first that it opens.
        shell = ["sh", "-c", f'exec "$@" <{name} >{name} 2>&1', "sh", *command]
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.process = subprocess.Popen(shell, env=environ, start_new_session=True)
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._slave)
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, words: str) -> None:
        """Read on until it has shown these."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.shown:
            assert time.monotonic() < deadline, f"no {words!r} in {self.shown!r}"
            ready, _, _ = select.select([self._master], [], [], 1)
            if ready:
                self.shown += os.read(self._master, 4096).decode()
        self.shown = self.shown.partition(words)[2]

    def end(self) -> int:
        """Of the program by itself: its exit code."""
        code = self.process.wait(PATIENCE)
        assert termios.tcgetattr(self._slave) == self.before, "the terminal isn't as it was"
        return code


def chat(api: Api, *words: str) -> list[str]:
    return [sys.executable, "-m", "kubectl_slm", "-n", api.namespace, "chat", *words]


def test_a_conversation_survives_what_ends_its_answers(
    api: Api, server: Server, environ: dict[str, str]
) -> None:
    with Terminal(chat(api, "a"), environ) as terminal:
        _talk(terminal, server)
    last = server.asked[-1]
    said = [each["content"] for each in last["messages"] if each["role"] == "user"]
    assert said == ["hello", "long", "break", "again"]
    assert (last["model"], last["temperature"], last["stream"]) == ("m", 0, True)


def _talk(terminal: Terminal, server: Server) -> None:
    terminal.until(">>> ")
    terminal.type("/set temperature 0\n")
    terminal.until(">>> ")
    terminal.type("hello\n")
    terminal.until("you said: HELLO")
    terminal.until(">>> ")
    terminal.type("long\n")
    terminal.until("more more")
    terminal.type("\x03")
    terminal.until("(ended)")
    terminal.until(">>> ")
    assert server.left.wait(PATIENCE), "the server goes on computing"
    terminal.type("break\n")
    terminal.until("breaks off")
    terminal.until(">>> ")
    terminal.type("again\n")
    terminal.until("you said: AGAIN")
    terminal.until(">>> ")
    terminal.type("\x03")
    terminal.until(">>> ")
    terminal.type("\x04")
    assert terminal.end() == Exit.OK


@pytest.mark.usefixtures("server")
def test_a_question_through_a_pipe_is_answered_and_errors_are_sentences(
    api: Api, environ: dict[str, str]
) -> None:
    def ask(*words: str, told: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            chat(api, *words), env=environ, input=told, capture_output=True, text=True, check=False
        )

    answered = ask("a", "shout:", told="hello\n")
    assert answered.returncode == Exit.OK, answered.stderr
    assert answered.stdout == "you said: SHOUT:\n\nHELLO\n"
    refused = ask("wrong", "hello")
    assert refused.returncode == Exit.FORBIDDEN
    assert "not known here" in refused.stderr
    broken = ask("a", "break")
    assert broken.returncode == Exit.NO
    assert "breaks off" in broken.stderr
    assert "Traceback" not in broken.stderr + refused.stderr
