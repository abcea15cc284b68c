"""How the single node is joined to the host, and how that is undone.

One pair of interfaces, one route for all of the node's addresses, and, unless
the node is hermetic, address translation to the outside. Every rule carries the
node's name, so that they are found and removed without any memory of the run.
"""

import ipaddress
import json
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.errors import HarnessError
from tests.cluster.sandbox import Sandbox

CANDIDATES = tuple(f"10.{second}.0.0/16" for second in range(213, 253))
INTERFACES = Path("/sys/class/net")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


@dataclass(frozen=True)
class Range:
    """The addresses of one node: a /16, cut into link, Services and pods."""

    whole: str

    @cached_property
    def _base(self) -> int:
        return int(ipaddress.ip_network(self.whole).network_address)

    def _at(self, offset: int) -> str:
        return str(ipaddress.ip_address(self._base + offset))

    @property
    def host(self) -> str:
        """The host's end of the link."""
        return self._at(1)

    @property
    def node(self) -> str:
        """The node's end: API server, kubelet and DNS listen here."""
        return self._at(2)

    @property
    def services(self) -> str:
        return f"{self._at(16 << 8)}/20"

    @property
    def kubernetes_service(self) -> str:
        return self._at((16 << 8) + 1)

    @property
    def dns_service(self) -> str:
        return self._at((16 << 8) + 10)

    @property
    def pods(self) -> str:
        return f"{self._at(128 << 8)}/20"

    @staticmethod
    def free() -> "Range":
        """Find a range that no route of this host touches.

        Raises
        ------
        HarnessError
            Every candidate is taken.
        """
        routes = json.loads(run(["ip", "-4", "-json", "route", "show", "table", "all"]))
        targets = [route["dst"] for route in routes if route["dst"] != "default"]
        taken = [ipaddress.ip_network(target, strict=False) for target in targets]
        for candidate in CANDIDATES:
            network = ipaddress.ip_network(candidate)
            if not any(network.overlaps(other) for other in taken):
                return Range(candidate)
        raise HarnessError(
            f"no free address range for the node: this host has routes into each of {CANDIDATES[0]} to "
            f"{CANDIDATES[-1]}; remove what left them"
        )


def uplink_mtu() -> int:
    """Largest packet of the interface that leads outside; 1500 where nothing leads there."""
    routes = json.loads(run(["ip", "-4", "-json", "route", "show", "default"]))
    if not routes:
        return 1500
    return int(json.loads(run(["ip", "-json", "link", "show", routes[0]["dev"]]))[0]["mtu"])


def resolvers() -> list[str]:
    """The host's name servers that can be reached from another network namespace."""
    for path in RESOLVER_FILES:
        if path.exists():
            servers = re.findall(r"^\s*nameserver\s+(\S+)", path.read_text(), flags=re.MULTILINE)
            usable = [server for server in servers if not ipaddress.ip_address(server).is_loopback]
            if usable:
                return usable
    return []


@dataclass(frozen=True)
class Link:
    """The host's side of one node's network."""

    interface: str
    """At most 15 characters; also the mark on every firewall rule."""
    range: Range

    def connect(self, sandbox: Sandbox, *, hermetic: bool) -> None:
        """Join the sandbox to the host, and to the outside unless *hermetic*."""
        mtu = str(uplink_mtu())
        pair = ["type", "veth", "peer", "name", "eth0", "mtu", mtu, "netns", str(sandbox.init.pid)]
        run(["ip", "link", "add", self.interface, "mtu", mtu, *pair])
        run(["ip", "address", "add", f"{self.range.host}/30", "dev", self.interface])
        run(["ip", "link", "set", self.interface, "up"])
        run(["ip", "route", "add", self.range.whole, "via", self.range.node, "dev", self.interface])
        sandbox.run("ip", "link", "set", "lo", "up")
        sandbox.run("ip", "address", "add", f"{self.range.node}/30", "dev", "eth0")
        sandbox.run("ip", "link", "set", "eth0", "up")
        # An address without a pod or a rule ends here and does not bounce between host and node.
        sandbox.run("ip", "route", "add", "unreachable", self.range.pods)
        sandbox.run("ip", "route", "add", self.range.services, "dev", "lo", "src", self.range.node)
        sandbox.run("sh", "-c", f"echo 1 > {FORWARDING}")
        if not hermetic:
            sandbox.run("ip", "route", "add", "default", "via", self.range.host)
            FORWARDING.write_text("1\n")
            for table, *rule in self._rules():
                run(["iptables", "-w", "-t", table, "-I", *rule])

    def _rules(self) -> list[list[str]]:
        mark = ["-m", "comment", "--comment", self.interface]
        leaves = ["-s", self.range.whole, "!", "-o", self.interface]
        return [
            ["nat", "POSTROUTING", *leaves, *mark, "-j", "MASQUERADE"],
            ["filter", "FORWARD", "-i", self.interface, *mark, "-j", "ACCEPT"],
            ["filter", "FORWARD", "-o", self.interface, *mark, "-j", "ACCEPT"],
        ]

    def disconnect(self) -> None:
        """Remove interface, route and rules, whichever are there."""
        device = INTERFACES / self.interface
        if device.exists():
            try:
                run(["ip", "link", "delete", self.interface])
            except HarnessError:
                # The kernel takes it away with the node's network namespace, a moment after that has gone.
                if device.exists():
                    raise
        for table in ("nat", "filter"):
            for line in run(["iptables-save", "-t", table]).splitlines():
                words = shlex.split(line)
                if words[:1] == ["-A"] and self.interface in words:
                    run(["iptables", "-w", "-t", table, "-D", *words[1:]])
