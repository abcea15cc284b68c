"""The fault proxy does to a client what it is told to do."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse, RemoteDisconnected
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.api import Api, Document
from tests.apiserver.operator import Operator, until
from tests.apiserver.proxy import DROPPED, KILL_BEFORE, Proxy, refused
from tests.cluster import ControlPlane

pytestmark = pytest.mark.apiserver


def test_an_operator_that_does_not_come_is_ended(plane: ControlPlane, tmp_path: Path) -> None:
    with Proxy(plane.kubeconfig, tmp_path) as proxy:
        nowhere = proxy.kubeconfig
    operator = Operator(plane, tmp_path, kubeconfig=nowhere)
    with pytest.raises(AssertionError, match="the operator acts: not within"):
        operator.start(seconds=1)
    with pytest.raises(AssertionError):
        operator.pid  # noqa: B018 - there is none any more


class Client:
    """Through the proxy, as an operator goes."""

    def __init__(self, proxy: Proxy, api: Api) -> None:
        server = json.loads(proxy.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        self._url = server + api.path("ConfigMap")

    def open(self, method: str, query: str = "", body: Document | None = None) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self._url + query, method=method, data=data, headers=headers)
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=20)
        return answer

    def create(self, name: str) -> None:
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        with self.open("POST", body=document) as answer:
            answer.read()

    def names(self) -> list[str]:
        with self.open("GET") as answer:
            found = [each["metadata"]["name"] for each in json.loads(answer.read())["items"]]
        return [name for name in found if name != "kube-root-ca.crt"]

    @contextmanager
    def watch(self) -> Iterator[Iterator[Document]]:
        """The events from now on."""
        with self.open("GET") as answer:
            since = json.loads(answer.read())["metadata"]["resourceVersion"]
        with self.open("GET", f"?watch=true&resourceVersion={since}") as stream:
            yield (json.loads(line) for line in stream)


@pytest.fixture
def proxy(plane: ControlPlane, tmp_path: Path) -> Iterator[Proxy]:
    with Proxy(plane.kubeconfig, tmp_path) as running:
        yield running


@pytest.fixture
def client(proxy: Proxy, api: Api) -> Client:
    until("the namespace has its first ConfigMap", lambda: api.get("ConfigMap", "kube-root-ca.crt"))
    return Client(proxy, api)


def named(event: Document) -> Any:
    return event["object"]["metadata"]["name"]


def test_it_numbers_writes_and_passes_them_on(proxy: Proxy, client: Client) -> None:
    client.create("a")
    client.create("b")
    assert client.names() == ["a", "b"]
    assert [(write.number, write.code, write.fault) for write in proxy.writes] == [(0, 201, ""), (1, 201, "")]


def test_a_refusal_comes_in_place_of_the_write(proxy: Proxy, client: Client) -> None:
    proxy.at(1, refused(429))
    client.create("a")
    with pytest.raises(urllib.error.HTTPError) as caught:
        client.create("b")
    with caught.value as refusal:
        assert (refusal.code, refusal.headers["Retry-After"]) == (429, "1")
    client.create("b")
    assert client.names() == ["a", "b"]


def test_a_dropped_answer_is_of_a_write_that_happened(proxy: Proxy, client: Client) -> None:
    proxy.every(2, DROPPED)
    client.create("a")
    with pytest.raises((RemoteDisconnected, ConnectionResetError)):
        client.create("b")
    proxy.clear()
    assert client.names() == ["a", "b"]
    assert [write.fault for write in proxy.writes] == ["", "dropped"]


def test_a_kill_before_is_of_a_write_that_did_not_happen(proxy: Proxy, client: Client) -> None:
    killed: list[int] = []
    proxy.kill = lambda: killed.append(len(proxy.writes))
    proxy.at(0, KILL_BEFORE)
    with pytest.raises((RemoteDisconnected, ConnectionResetError)):
        client.create("a")
    assert killed == [1]
    assert client.names() == []


def test_events_pass_at_once_until_the_watch_is_ended_with_an_error(proxy: Proxy, client: Client) -> None:
    with client.watch() as events:
        for name in ("a", "b"):
            client.create(name)
            assert named(next(events)) == name
        proxy.end_watches("configmaps", error=410)
        told = next(events)
        assert (told["type"], told["object"]["code"], told["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert list(events) == []


def test_an_event_is_lost_and_a_held_watch_loses_none(proxy: Proxy, client: Client) -> None:
    with client.watch() as events:
        proxy.swallow("configmaps", 2)
        proxy.hold_watches(0.5)
        for name in ("a", "b", "c"):
            client.create(name)
        assert [named(next(events)) for _ in range(2)] == ["a", "c"]


def test_a_stale_list_is_answered_as_often_as_was_said(proxy: Proxy, client: Client) -> None:
    assert client.names() == []
    proxy.record_lists()
    client.create("a")
    assert [client.names() for _ in range(3)] == [[], [], ["a"]]
