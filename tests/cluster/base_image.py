"""The image all others start from: Debian's own, or its like made from Debian's packages."""

import os
import tempfile
from pathlib import Path

from tests.cluster import cache
from tests.cluster.builders import Build, Buildah, Docker
from tests.cluster.commands import run

DEFAULT = "debian:bookworm-slim"
SUITE = "bookworm"
NAME = "slm-operator.io/base:bookworm"
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
"""Lays /bin and /lib as links from the start; else a package with all of Perl behind it would do it later."""
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
"""What the slim images leave out too."""


def base(builder: Docker | Buildah) -> str:
    """Value of ``BASE_IMAGE`` for *builder*; the user's own setting goes first."""
    named = os.environ.get("BASE_IMAGE")
    if named:
        return named
    if builder.pulls:
        return DEFAULT

    options = [f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT]
    options += ["--dpkgopt=path-include=/usr/share/doc/*/copyright", "--variant=apt"]
    options += [f"--hook-dir={MERGED_USR}", "--include=usr-is-merged"]

    def bootstrap(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as context:
            run(["mmdebstrap", "--quiet", *options, SUITE, f"{context}/rootfs.tar"])
            containerfile = Path(context) / "Containerfile"
            containerfile.write_text('FROM scratch\nADD rootfs.tar /\nCMD ["/bin/bash"]\n')
            build = Build(containerfile, Path(context), NAME, {}, {})
            builder.build(build, folder / "base.tar")

    inputs = {"suite": SUITE, "options": options, "machine": os.uname().machine}
    folder = cache.built("images", "base", inputs, bootstrap, note=f"Debian {SUITE}, about 1 min, once")
    return f"oci-archive:{folder / 'base.tar'}"
