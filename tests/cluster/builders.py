"""The programs that can build an image: docker, podman or buildah, whichever is there."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.cluster import cache, docker, host
from tests.cluster.commands import run
from tests.cluster.errors import HarnessError

PLUGIN_SINCE = 23
"""The first Docker client that builds by a plugin."""
BUILDKIT = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
"""With BuildKit, and an image that is just the image: containerd takes no attestation for a platform."""


CA_IN_BUILD = "/run/secrets/ca.crt"


def secrets(folder: Path) -> dict[str, Path]:
    """Pip's settings, written into *folder*, and the authorities of this machine: for a build alone."""
    index = host.host_index()
    configuration = folder / "pip.conf"
    configuration.write_text(index.pip_conf(CA_IN_BUILD))
    ca_bundle = {} if index.ca_bundle is None else {"ca.crt": index.ca_bundle}
    return {"pip.conf": configuration, **ca_bundle}


@dataclass(frozen=True)
class Build:
    """One image to build: a Containerfile over a context, with secrets that stay out of the image."""

    containerfile: Path
    context: Path
    name: str
    arguments: Mapping[str, str]
    secrets: Mapping[str, Path]
    target: str | None = None
    """The stage to build; None: the last."""

    def flags(self) -> list[str | Path]:
        """Flags that all the programs understand."""
        flags: list[str | Path] = ["--file", self.containerfile, "--tag", self.name]
        for name, value in self.arguments.items():
            flags += ["--build-arg", f"{name}={value}"]
        for name, path in self.secrets.items():
            flags += ["--secret", f"id={name},src={path}"]
        flags += ["--target", self.target] if self.target else []
        return [*flags, self.context]


@dataclass(frozen=True)
class Docker:
    """Docker with BuildKit; podman understands the same words."""

    program: str
    makes: ClassVar[Mapping[str, str]] = {"archive": "docker"}
    """What tells its archives from another program's, among the inputs of an artifact."""

    def holds(self, name: str) -> bool:
        """Whether the engine has the image *name*."""
        return self._succeeds("image", "inspect", name)

    def pulls(self, name: str) -> bool:
        """Whether the engine has the image *name*, or gets it from its registry."""
        return self.holds(name) or self._succeeds("pull", "--quiet", name)

    def _succeeds(self, *words: str) -> bool:
        try:
            run([self.program, *words])
        except HarnessError:
            return False
        return True

    def take(self, archive: Path, name: str) -> str:
        """Hold the image *name* in *archive*; the result stands for it in a Containerfile."""
        if not self.holds(name):
            run([self.program, "load", "--quiet", "--input", archive])
        return name

    def build(self, build: Build, archive: Path) -> None:
        """Build, and write the image with its name to *archive*."""
        self._build(build)
        run([self.program, "save", "--output", archive, build.name])
        run([self.program, "image", "rm", build.name])  # the archive is what is kept

    def export(self, build: Build, folder: Path) -> None:
        """Build, and lay the image's files into *folder*; no image stays."""
        self._build(build, "--output", f"type=local,dest={folder}")
        if self.holds(build.name):  # podman makes one beside the files
            run([self.program, "image", "rm", build.name])

    def _build(self, build: Build, *options: str) -> None:
        if self.program == "docker":
            _require_buildkit()
        proxies = host.proxies_of_builds()
        arguments = [
            f"--build-arg={name}" for name in proxies
        ]  # by name: a password stays out of process lists
        run([self.program, "build", *arguments, *options, *build.flags()], env={**BUILDKIT, **proxies})

    def publish(self, archive: Path, name: str, target: str) -> None:
        """Push the image *name* in *archive* to a registry as *target*."""
        self.take(archive, name)
        run([self.program, "tag", name, target])
        try:
            run([self.program, "push", target])
        finally:
            run([self.program, "image", "rm", target, name])


def _require_buildkit() -> None:
    """Refuse a client without BuildKit: it was part of the command once, and is a plugin since 23.0.

    Raises
    ------
    HarnessError
        The plugin is missing.
    """
    client = run(["docker", "version", "--format", "{{.Client.Version}}"])
    if int(client.partition(".")[0]) < PLUGIN_SINCE:
        return
    try:
        run(["docker", "buildx", "version"])
    except HarnessError as error:
        raise HarnessError(
            "Docker can't build here without its plugin buildx: install the package docker-buildx "
            "(docker-buildx-plugin where Docker comes from docker.com)"
        ) from error


class Buildah:
    """Buildah without any service, its storage in the cache; base images are archives made here."""

    makes: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        storage = cache.root() / "buildah"
        self._words: list[str | Path] = ["buildah", "--root", storage / "root", "--runroot", storage / "run"]
        self._words += ["--storage-driver", "overlay"]

    def pulls(self, name: str) -> bool:
        """Never: where there is no engine, images are made from packages alone."""
        return False

    def take(self, archive: Path, name: str) -> str:
        """Name the image *name* in *archive* as a Containerfile can; it stays where it is."""
        return f"oci-archive:{archive}"

    def build(self, build: Build, archive: Path) -> None:
        """Build, and write the image with its name to *archive*."""
        self._build(build, "--layers")
        run([*self._words, "push", build.name, f"oci-archive:{archive}:{build.name}"])
        run([*self._words, "rmi", build.name])

    def export(self, build: Build, folder: Path) -> None:
        """Build, and lay the image's files into *folder*; no image stays."""
        self._build(build, "--output", f"type=local,dest={folder}")
        run([*self._words, "rmi", build.name])

    def _build(self, build: Build, *options: str) -> None:
        always = ["--isolation", "chroot", "--network", "host", "--pull=never"]
        run([*self._words, "bud", *always, *options, *build.flags()])

    def publish(self, archive: Path, name: str, target: str) -> None:
        """Push the image *name* in *archive* to a registry as *target*."""
        run([*self._words, "pull", f"oci-archive:{archive}"])
        run([*self._words, "push", name, f"docker://{target}"])


def engine() -> Docker | None:
    """What builds here as it is, by any user: Docker where its engine answers, else podman."""
    if docker.unavailable() is None:
        return Docker("docker")
    return Docker("podman") if shutil.which("podman") else None


def choose() -> Docker | Buildah:
    """The first program that can build here; buildah is installed where there is none and root asks.

    Raises
    ------
    HarnessError
        There is none, and none can be installed.
    """
    found = engine()
    if found is not None:
        return found
    if os.geteuid() != 0:
        raise HarnessError("no program here can build images: start Docker, or install podman, or be root")
    host.require(host.IMAGE_PACKAGES)
    return Buildah()
