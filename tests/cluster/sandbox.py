"""Namespaces of its own for the single node: network, mounts, processes.

Everything that the node's programs start, mount, route or filter happens in
here, so that the host sees one process, one interface and one folder. When the
first process ends, the kernel ends all others with it and drops their mounts,
interfaces and firewall rules.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import tools
from tests.cluster.commands import run
from tests.cluster.errors import HarnessError
from tests.cluster.processes import Identity, Process, bury, wait_until

COVERED = ("/run", "/var/lib", "/var/log")
"""Folders of the host that the node sees as empty ones of its own."""

KERNEL_SETTINGS = {
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}
"""What a kubelet wants the whole machine to be set to. It finds these values and so sets nothing."""


def _child_of(parent: int) -> int | None:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # processes end while one looks
            if int(entry.read_text().rpartition(")")[2].split()[1]) == parent:
                return int(entry.parent.name)
    return None


class Sandbox:
    """The namespaces that hang on one first process."""

    def __init__(self, init: Identity) -> None:
        self.init = init

    @classmethod
    def create(cls, folder: Path) -> "Sandbox":
        """Make the namespaces; what they hide of the host lies in *folder* instead.

        Raises
        ------
        HarnessError
            The folder lies where the node's view of the host differs, or the kernel refuses.
        """
        for covered in COVERED:
            if folder.is_relative_to(covered):
                raise HarnessError(
                    f"{folder} lies in {covered}, which the node covers; name another folder by SLM_CACHE_DIR"
                )
        pause = tools.pause.path()
        argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private"]
        log = folder / "sandbox.log"
        outer = Process.start("unshare", [*argv, pause], log)
        found: list[int] = []

        def paused() -> bool:
            child = _child_of(outer.pid)
            if child is None or (Path("/proc") / str(child) / "comm").read_text().strip() != "pause":
                return False
            found.append(child)
            return True

        wait_until("the node's namespaces are made", paused, processes=[outer], seconds=10)
        identity = Identity.of(found[0])
        if identity is None:
            raise HarnessError(f"the node's first process ended at once; see {log}")
        sandbox = cls(identity)
        try:
            sandbox._furnish(folder)
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def _furnish(self, folder: Path) -> None:
        self.run("mount", "--make-rshared", "/")
        resolver = os.path.realpath("/etc/resolv.conf")
        for covered in COVERED:
            own = folder / "root" / covered.strip("/").replace("/", "-")
            own.mkdir(parents=True)
            if covered == "/run":
                self.run("mount", "-t", "tmpfs", "-o", "mode=755", "node-run", covered)
            else:
                self.run("mount", "--bind", own, covered)
        if resolver.startswith("/run/"):
            self.run("mkdir", "-p", Path(resolver).parent)
            self.run("touch", resolver)
        self.run("mount", "--bind", folder / "resolv.conf", resolver)
        for name, value in KERNEL_SETTINGS.items():
            wanted = folder / "root" / name.replace("/", ".")
            wanted.write_text(value + "\n")
            if (Path("/proc/sys") / name).exists():
                self.run("mount", "--bind", wanted, f"/proc/sys/{name}")

    def enter(self, argv: Sequence[str | Path]) -> list[str | Path]:
        """Turn *argv* into the command line that runs it inside."""
        inside = ["nsenter", "--target", str(self.init.pid), "--net", "--mount", "--pid", "--"]
        return [*inside, *argv]

    def run(self, *argv: str | Path) -> str:
        """Run a command inside, and return its output."""
        return run(self.enter(argv))

    def close(self) -> None:
        """End the first process, and all others with it."""
        self.init.end()
        bury()
