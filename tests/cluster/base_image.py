"""The image all others start from: Debian's own, or its like made from Debian's packages."""

import os
import shutil
import tempfile
from pathlib import Path

from tests.cluster import cache, host
from tests.cluster.builders import Build, Buildah, Docker
from tests.cluster.commands import run
from tests.cluster.errors import HarnessError

DEFAULT = "debian:bookworm-slim"
SUITE = "bookworm"
NAME = "slm-operator.io/base:bookworm"
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
"""Lays /bin and /lib as links from the start; else a package with all of Perl behind it would do it later."""
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
"""What the slim images leave out too."""


def base(builder: Docker | Buildah) -> str:
    """Value of ``BASE_IMAGE`` for *builder*; the user's own setting goes first.

    Raises
    ------
    HarnessError
        It can neither be pulled nor made here.
    """
    named = os.environ.get("BASE_IMAGE")
    if named:
        return named
    if builder.pulls(DEFAULT):
        return DEFAULT
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise HarnessError(
            f"the image {DEFAULT} can't be pulled here, and only root on Debian or Ubuntu can make its like: "
            f"name one of Debian {SUITE} by BASE_IMAGE"
        )
    host.require(host.IMAGE_PACKAGES)

    options = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    options += ["--dpkgopt=path-include=/usr/share/doc/*/copyright", "--variant=apt"]
    options += [f"--hook-dir={MERGED_USR}", "--include=usr-is-merged"]
    inputs = {"suite": SUITE, "options": options, "machine": os.uname().machine, **builder.makes}
    name = f"{NAME}-{cache.digest(inputs)}"

    def bootstrap(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as context:
            run(["mmdebstrap", "--quiet", *options, SUITE, f"{context}/rootfs.tar"])
            containerfile = Path(context) / "Containerfile"
            containerfile.write_text('FROM scratch\nADD rootfs.tar /\nCMD ["/bin/bash"]\n')
            builder.build(Build(containerfile, Path(context), name, {}, {}), folder / "base.tar")

    folder = cache.built("images", "base", inputs, bootstrap, note=f"Debian {SUITE}, about 1 min, once")
    return builder.take(folder / "base.tar", name)
