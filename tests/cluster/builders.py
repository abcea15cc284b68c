"""The programs that can build an image: docker, podman or buildah, whichever is there."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cache, host, kind
from tests.cluster.commands import run
from tests.cluster.errors import HarnessError

PROXIES = ("http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class Build:
    """One image to build: a Containerfile over a context, with secrets that stay out of the image."""

    containerfile: Path
    context: Path
    name: str
    arguments: Mapping[str, str]
    secrets: Mapping[str, Path]

    def flags(self) -> list[str | Path]:
        """Flags that all the programs understand."""
        flags: list[str | Path] = ["--file", self.containerfile, "--tag", self.name]
        for name, value in self.arguments.items():
            flags += ["--build-arg", f"{name}={value}"]
        for name, path in self.secrets.items():
            flags += ["--secret", f"id={name},src={path}"]
        return [*flags, self.context]


class Docker:
    """Docker with BuildKit; podman understands the same words."""

    pulls = True

    def __init__(self, program: str) -> None:
        self.program = program

    def build(self, build: Build, archive: Path) -> None:
        """Build, and write the image with its name to *archive*."""
        proxies: list[str | Path] = []
        for name in PROXIES:
            if os.environ.get(name):
                proxies += ["--build-arg", name]
        run([self.program, "build", *proxies, *build.flags()], env={"DOCKER_BUILDKIT": "1"})
        run([self.program, "save", "--output", archive, build.name])

    def publish(self, archive: Path, name: str, target: str) -> None:
        """Push the image *name* in *archive* to a registry as *target*."""
        run([self.program, "load", "--input", archive])
        run([self.program, "tag", name, target])
        run([self.program, "push", target])


class Buildah:
    """Buildah without any service, its storage in the cache; base images are archives made here."""

    pulls = False

    def __init__(self) -> None:
        storage = cache.root() / "buildah"
        self._words: list[str | Path] = ["buildah", "--root", storage / "root", "--runroot", storage / "run"]
        self._words += ["--storage-driver", "overlay"]

    def build(self, build: Build, archive: Path) -> None:
        """Build, and write the image with its name to *archive*."""
        options = ["--isolation", "chroot", "--network", "host", "--pull=never", "--layers"]
        run([*self._words, "bud", *options, *build.flags()])
        run([*self._words, "push", build.name, f"oci-archive:{archive}:{build.name}"])
        run([*self._words, "rmi", build.name])

    def publish(self, archive: Path, name: str, target: str) -> None:
        """Push the image *name* in *archive* to a registry as *target*."""
        run([*self._words, "pull", f"oci-archive:{archive}"])
        run([*self._words, "push", name, f"docker://{target}"])


def choose() -> Docker | Buildah:
    """The first program that can build here; buildah is installed where there is none and root asks.

    Raises
    ------
    HarnessError
        There is none, and none can be installed.
    """
    if kind.unavailable() is None:
        return Docker("docker")
    if shutil.which("podman"):
        return Docker("podman")
    if os.geteuid() != 0:
        raise HarnessError("no program here can build images: start Docker, or install podman, or be root")
    host.require(host.IMAGE_PACKAGES)
    return Buildah()
