"""A control plane with our CRD and a fake kubelet, for the whole run; an operator where a test wants one."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.api import Api
from tests.apiserver.kubelet import beside
from tests.apiserver.operator import CRD, Operator
from tests.apiserver.webhook import Rule, Webhook
from tests.cluster import ControlPlane

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    control_plane.kubectl("apply", "--server-side", "-f", str(CRD))
    control_plane.established("slmdeployments.slm-operator.io")
    with beside(control_plane.kubeconfig):
        yield control_plane


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    test = request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")
    name = f"{test[:40].strip('-')}-{next(NUMBERS)}"
    plane.kubectl("create", "namespace", name)
    yield name
    plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def start(plane: ControlPlane, tmp_path: Path) -> Iterator[Callable[..., Operator]]:
    """Starts operators, and ends those that a test leaves."""
    running: list[Operator] = []

    def begin(*, acting: bool = True, **more: Any) -> Operator:
        operator = Operator(plane, tmp_path, **more)
        running.append(operator)
        operator.start(acting=acting)
        return operator

    yield begin
    for operator in running:
        operator.stop()


@pytest.fixture
def operator(start: Callable[..., Operator]) -> Operator:
    return start()


@pytest.fixture
def apply(plane: ControlPlane) -> Callable[..., None]:
    def send(*documents: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(listed))

    return send


@pytest.fixture
def api(plane: ControlPlane, namespace: str) -> Api:
    return Api(plane, namespace)


@pytest.fixture
def webhook(api: Api, tmp_path: Path) -> Iterator[Callable[[str, Rule], Webhook]]:
    """Lets the objects of a resource in the test's namespace go through a rule."""
    with ExitStack() as stack:
        yield lambda resource, rule: stack.enter_context(Webhook(api, tmp_path, resource, rule))
