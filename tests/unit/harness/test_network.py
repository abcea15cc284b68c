"""The single node's addresses."""

import ipaddress
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster import network
from tests.cluster.errors import HarnessError
from tests.cluster.network import CANDIDATES, Range


def test_a_range_is_cut_into_parts_that_do_not_meet() -> None:
    cut = Range("10.213.0.0/16")
    services, pods = ipaddress.ip_network(cut.services), ipaddress.ip_network(cut.pods)
    assert not services.overlaps(pods)
    for address in (cut.kubernetes_service, cut.dns_service):
        assert ipaddress.ip_address(address) in services
    for address in (cut.host, cut.node):
        assert ipaddress.ip_address(address) not in services
        assert ipaddress.ip_address(address) not in pods


def test_every_part_lies_in_the_range() -> None:
    for candidate in CANDIDATES:
        whole = ipaddress.ip_network(candidate)
        cut = Range(candidate)
        parts = [ipaddress.ip_network(part) for part in (cut.services, cut.pods, cut.host, cut.node)]
        assert all(whole.supernet_of(part) for part in parts)  # type: ignore[arg-type]


def test_an_interface_that_the_kernel_takes_first_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes with its network namespace, whenever the kernel comes to that; no real one shows it at will."""
    (tmp_path / "slm-x").mkdir()
    asked = []

    def run(argv: Sequence[str]) -> str:
        asked.append(argv[0])
        if argv[0] != "ip":
            return ""
        (tmp_path / "slm-x").rmdir()
        raise HarnessError('Cannot find device "slm-x"')

    monkeypatch.setattr(network, "INTERFACES", tmp_path)
    monkeypatch.setattr(network, "run", run)
    network.Link("slm-x", Range(CANDIDATES[0])).disconnect()
    assert asked == ["ip", "iptables-save", "iptables-save"]
