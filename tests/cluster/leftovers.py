"""Everything of this host that a node could change: read before and after, it must be the same."""

import re
from pathlib import Path

from tests.cluster import host
from tests.cluster.commands import run
from tests.cluster.sandbox import KERNEL_SETTINGS

LIFETIMES = re.compile(r" expires \d+sec")
"""Of routes that a router announces: they count down."""
OTHERS = re.compile(r"\.(service|scope|slice|mount|socket)$")
"""Control groups of systemd's units, which come and go by themselves."""
COUNTERS = re.compile(r"\[\d+:\d+\]")
SETTINGS = (*KERNEL_SETTINGS, "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max")


def host_state() -> dict[str, list[str]]:
    """Interfaces, addresses, routes, firewall rules, mounts, control groups and kernel settings, by kind."""
    state = {
        "interfaces": run(["ip", "-o", "link"]).splitlines(),
        "addresses": re.findall(r"inet6? \S+.*? scope \S+", run(["ip", "-o", "address"])),
        "rules": run(["ip", "rule"]).splitlines(),
        "routes": LIFETIMES.sub("", run(["ip", "route", "show", "table", "all"])).splitlines(),
        "mounts": Path("/proc/self/mounts").read_text().splitlines(),
        "control groups": [
            str(path)
            for path in Path("/sys/fs/cgroup").glob("*/*")
            if path.is_dir() and not OTHERS.search(path.name)
        ],
        "settings": [
            f"{name} = {(Path('/proc/sys') / name).read_text().strip()}"
            for name in SETTINGS
            if (Path("/proc/sys") / name).exists()
        ],
    }
    if host.find_program("iptables-save"):
        saved = COUNTERS.sub("", run(["iptables-save"]))
        # A table that was merely looked at exists from then on, with its built-in chains and no rules.
        state["firewall"] = [line for line in saved.splitlines() if line.startswith("-A") or " - " in line]
    return {kind: sorted(lines) for kind, lines in state.items()}


def processes_in(namespace: str) -> list[int]:
    """Processes whose process namespace is *namespace* (as ``/proc/PID/ns/pid`` reads)."""
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            if str(link.readlink()) == namespace:
                found.append(int(link.parts[2]))
        except OSError:
            continue
    return found
