"""``python -m tests.cluster``: clusters and what they are made of, by hand."""

import argparse
import os
import sys
from collections.abc import Callable

from tests.cluster import backends, cache, images, kind_node_image, tools, wheel
from tests.cluster.base import Cluster
from tests.cluster.errors import HarnessError
from tests.cluster.selection import DEFAULT_NAME, select


def up(cluster: Cluster) -> None:
    """Bring the cluster up."""
    cluster.up()
    print(f"{cluster.kind}: export KUBECONFIG={cluster.kubeconfig}")


def down(cluster: Cluster) -> None:
    """Take the cluster away; nothing of it stays but the cache of built tools."""
    cluster.down()


def status(cluster: Cluster) -> None:
    """Say which cluster this machine gets, and whether it is up."""
    print(f"{cluster.kind}: {'up' if cluster.is_up() else 'not up'} (cache: {cache.root()})")


def kubeconfig(cluster: Cluster) -> None:
    """Print the path of an administrator's kubeconfig."""
    print(cluster.kubeconfig)


CLUSTER_VERBS: dict[str, Callable[[Cluster], None]] = {
    "up": up,
    "down": down,
    "status": status,
    "kubeconfig": kubeconfig,
}


def build_tools() -> None:
    """Build every program of the cluster, once."""
    tools.ensure(tools.SINGLE_NODE)


def build_images() -> None:
    """Build both images and the runtime's variants that $VARIANTS names; print name, size and archive of each."""
    variants = os.environ.get("VARIANTS", "").replace(",", " ").split()
    for image in [*images.ensure().values(), *map(images.ensure_variant, variants)]:
        print(f"{image.name}  {image.size / 1e6:.0f} MB  {image.archive}")


def build_wheel() -> None:
    """Build the portable llama-cpp-python wheel, once, and print its path."""
    print(wheel.ensure())


def build_vulkan_backend() -> None:
    """Build ggml's Vulkan backend for the wheel, once, and print its path."""
    print(backends.vulkan())


def build_kind_node_image() -> None:
    """Build a node image for kind out of packages alone, and print its name and archive (for KIND_NODE_IMAGE)."""
    archive, name = kind_node_image.ensure()
    print(f"{name}  {archive.stat().st_size / 1e6:.0f} MB  {archive}")


BUILD_VERBS: dict[str, Callable[[], None]] = {
    "tools": build_tools,
    "images": build_images,
    "wheel": build_wheel,
    "vulkan-backend": build_vulkan_backend,
    "kind-node-image": build_kind_node_image,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--name", default=DEFAULT_NAME, help="which cluster (default: %(default)s)")
    parser.add_argument("--hermetic", action="store_true", help="without a way to the outside")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, action in {**CLUSTER_VERBS, **BUILD_VERBS}.items():
        verbs.add_parser(name, help=(action.__doc__ or "").splitlines()[0])
    for client in ("kubectl", "helm"):
        wrapped = verbs.add_parser(client, help=f"run {client} on the cluster", add_help=False)
        wrapped.add_argument("words", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.verb in BUILD_VERBS:
        BUILD_VERBS[arguments.verb]()
        return
    cluster = select(arguments.name, hermetic=arguments.hermetic)
    if arguments.verb in CLUSTER_VERBS:
        CLUSTER_VERBS[arguments.verb](cluster)
    else:
        print(getattr(cluster, arguments.verb)(*arguments.words), end="")


if __name__ == "__main__":
    try:
        main()
    except HarnessError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
