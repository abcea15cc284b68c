"""The image all others start from: Debian's own, or its like made from Debian's packages."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cache, host
from tests.cluster.builders import Build, Buildah, Docker
from tests.cluster.commands import run
from tests.cluster.errors import HarnessError

NAME = "slm-operator.io/base"
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
"""Lays /bin and /lib as links from the start; else a package with all of Perl behind it would do it later."""
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
"""What the slim images leave out too."""


@dataclass(frozen=True)
class Debian:
    suite: str
    setting: str
    """The environment variable by which users name an image of their own."""

    @property
    def image(self) -> str:
        return f"debian:{self.suite}-slim"


BOOKWORM = Debian("bookworm", "BASE_IMAGE")
TRIXIE = Debian("trixie", "BASE_IMAGE_TRIXIE")
"""Where drivers and compilers of shaders have to be newer."""


def base(builder: Docker | Buildah, debian: Debian = BOOKWORM) -> str:
    """Value of ``BASE_IMAGE`` for *builder*; the user's own setting goes first.

    Raises
    ------
    HarnessError
        It can neither be pulled nor made here.
    """
    named = os.environ.get(debian.setting)
    if named:
        return named
    if builder.pulls(debian.image):
        return debian.image
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise HarnessError(
            f"the image {debian.image} can't be pulled here, and only root on Debian or Ubuntu can make its like: "
            f"name one of Debian {debian.suite} by {debian.setting}"
        )
    host.require(host.IMAGE_PACKAGES)

    options = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    options += ["--dpkgopt=path-include=/usr/share/doc/*/copyright", "--variant=apt"]
    options += [f"--hook-dir={MERGED_USR}", "--include=usr-is-merged"]
    inputs = {"suite": debian.suite, "options": options, "machine": os.uname().machine, **builder.makes}
    name = f"{NAME}:{debian.suite}-{cache.digest(inputs)}"

    def bootstrap(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as context:
            run(["mmdebstrap", "--quiet", *options, debian.suite, f"{context}/rootfs.tar"])
            containerfile = Path(context) / "Containerfile"
            containerfile.write_text('FROM scratch\nADD rootfs.tar /\nCMD ["/bin/bash"]\n')
            builder.build(Build(containerfile, Path(context), name, {}, {}), folder / "base.tar")

    folder = cache.built(
        "images", "base", inputs, bootstrap, note=f"Debian {debian.suite}, about 1 min, once"
    )
    return builder.take(folder / "base.tar", name)
