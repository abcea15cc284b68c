"""The image of kind's nodes: the one that was named, kind's own, or one made here of packages alone."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from tests.cluster import cache, gotoolchain, pause_image, tools
from tests.cluster.base_image import base
from tests.cluster.builders import Build, Buildah, Docker, choose
from tests.cluster.commands import run
from tests.cluster.images import forget_older

OFFICIAL = "kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a"
"""What this version of kind was released with."""
NAME = f"slm-operator.io/kind-node:v{tools.KUBERNETES}"
SOURCES = Path(__file__).parent / "kind_node"
SANDBOX_IMAGE = "registry.k8s.io/pause:3.10"
"""As kind's configuration of containerd names it."""
NODE_PROGRAMS = ("kubeadm", "kubectl", "kubelet")
POD_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler")
TOOLS = (tools.kubernetes, tools.containerd, tools.coredns, tools.etcd, tools.pause)


def name() -> str:
    """The node image to use, which the engine then has: ``$KIND_NODE_IMAGE``, kind's own, else ours."""
    named = os.environ.get("KIND_NODE_IMAGE")
    if named:
        return named
    engine = Docker("docker")
    if engine.pulls(OFFICIAL):
        return OFFICIAL
    archive, ours = ensure()
    return engine.take(archive, ours)


def ensure() -> tuple[Path, str]:
    """Archive and name of our own node image, built first if need be."""
    builder = choose()
    tools.ensure(TOOLS)
    base_image = base(builder)
    files = _files_of_kind()
    sources = [path for path in SOURCES.rglob("*") if path.is_file()]
    inputs = {
        "sources": cache.digest_of_files(sources, SOURCES),
        "programs": [str(tool.folder()) for tool in TOOLS],
        "kind": tools.KIND,
        "base": base_image,
        **builder.makes,
    }
    image = f"{NAME}-{cache.digest(inputs)}"

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            context = Path(scratch)
            _control_plane(builder, context / "control-plane", base_image, context / "node/kind/images")
            _node(context, files)
            _build(builder, "Containerfile", context, image, base_image, folder / "image.tar")

    folder = cache.built("images", "kind-node", inputs, build, note="about 3 min, once", gib=5)
    forget_older("kind-node", folder)
    return folder / "image.tar", image


def _files_of_kind() -> Path:
    """Find the files that kind lays into its own base image, in its module."""
    module = f"sigs.k8s.io/kind@v{tools.KIND}"
    printed = run([gotoolchain.go(), "mod", "download", "-json", module], env=gotoolchain.environment())
    return Path(json.loads(printed)["Dir"]) / "images" / "base" / "files"


def lay(source: Path, target: Path) -> None:
    """Copy the files under *source* into *target*, scripts as programs: a module's files have no modes."""
    for path in source.rglob("*"):
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            place.chmod(0o755 if path.read_bytes().startswith(b"#!") else 0o644)


def _programs(tool: tools.Tool, names: tuple[str, ...], folder: Path) -> None:
    """Lay programs of *tool* into *folder*; those that are one file stay one."""
    folder.mkdir(parents=True, exist_ok=True)
    first: dict[Path, str] = {}
    for each in names:
        real = tool.path(each).resolve()
        if real in first:
            (folder / each).symlink_to(first[real])
        else:
            shutil.copy2(real, folder / each)
            first[real] = each


def _build(
    builder: Docker | Buildah, containerfile: str, context: Path, image: str, base_image: str, archive: Path
) -> None:
    builder.build(Build(SOURCES / containerfile, context, image, {"BASE_IMAGE": base_image}, {}), archive)


def _control_plane(builder: Docker | Buildah, context: Path, base_image: str, target: Path) -> None:
    """Build the image of all that kubeadm runs in containers, with the list of the names it goes by."""
    for tool, names in (
        (tools.kubernetes, POD_PROGRAMS),
        (tools.coredns, tools.coredns.programs),
        (tools.etcd, tools.etcd.programs),
    ):
        _programs(tool, names, context / "programs")
    target.mkdir(parents=True)
    image = f"slm-operator.io/control-plane:v{tools.KUBERNETES}"
    _build(builder, "control-plane.Containerfile", context, image, base_image, target / "control-plane.tar")
    (target / "control-plane").write_text(f"{image}\n")
    version = f"--kubernetes-version=v{tools.KUBERNETES}"
    asked = run([tools.kubernetes.path("kubeadm"), "config", "images", "list", version]).split()
    (target / "names").write_text("".join(f"{each}\n" for each in asked if "/pause:" not in each))
    pause_image.write(tools.pause.path(), target / "pause.tar", SANDBOX_IMAGE)


def _node(context: Path, files: Path) -> None:
    """Lay out what the node's Containerfile copies: ``files/`` of kind's and ours, ``node/`` that was built."""
    lay(files, context / "files")
    lay(SOURCES / "files", context / "files")
    _programs(tools.kubernetes, NODE_PROGRAMS, context / "node/usr/bin")
    _programs(tools.containerd, tools.containerd.programs, context / "node/usr/local/bin")
    (context / "node/kind/version").write_text(f"v{tools.KUBERNETES}")
