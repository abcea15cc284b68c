"""Which cluster is chosen, and what is said where there is none."""

import sys

import pytest

from tests.cluster import NoCluster, docker, node, select


@pytest.fixture(autouse=True)
def _bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLUSTER", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(docker, "unavailable", lambda: "no Docker engine answers")
    monkeypatch.setattr(node, "unavailable", lambda: "a node of real parts needs root")


def test_kind_goes_before_a_node_of_real_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "unavailable", lambda: None)
    monkeypatch.setattr(node, "unavailable", lambda: None)
    assert select().kind == "kind"


def test_without_docker_there_is_a_node_of_real_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "unavailable", lambda: None)
    assert select().kind == "single-node"


def test_where_nothing_can_be_had_every_reason_is_said() -> None:
    with pytest.raises(NoCluster, match=r"no Docker engine answers.*needs root.*CLUSTER=kubeconfig"):
        select()


def test_a_named_file_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "kubeconfig")
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    with pytest.raises(NoCluster, match="there is no file /nowhere/config: set KUBECONFIG"):
        select()


def test_an_unknown_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "minikube")
    with pytest.raises(NoCluster, match="CLUSTER=minikube is unknown"):
        select()


def test_another_system_is_told_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert node.unavailable() == "a node of real parts runs on Linux only, this is darwin"
