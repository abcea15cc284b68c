"""Models that are mounted as images, `spec.cache.mode: Image`: which image kubelet is asked for."""

from collections.abc import Iterable
from typing import Final

from slm_contract.config import ModelConfig
from slm_contract.source import Mirror, at_mirror, mirror_of
from slm_operator.model.source import OciSource, parse_source

_SCHEME: Final = "oci://"
_DOCKER_HUB: Final = "docker.io"
_ITS_NAMES: Final = frozenset({_DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})


def image_reference(artifact: ModelConfig, mirrors: Iterable[Mirror]) -> str | None:
    """The image by the digest that was pinned; None where it isn't known yet which that is.

    Parameters
    ----------
    mirrors
        Of fetches: a registry that stands for another does so here too. What stands for it by `https://` is no registry's
        name: the node's own configuration has to lead there.
    """
    source = parse_source(artifact.source)
    pin = artifact.pin
    if not isinstance(source, OciSource) or pin is None or pin.revision is None:
        return None
    registry, repository = source.registry, source.repository
    if registry in _ITS_NAMES:
        registry, repository = _DOCKER_HUB, repository if "/" in repository else f"library/{repository}"
    address = f"{_SCHEME}{registry}/{repository}"
    mirror = mirror_of(mirrors, address)
    if mirror is not None and mirror.mirror.startswith(_SCHEME):
        address = at_mirror(mirror, address)
    return f"{address.removeprefix(_SCHEME)}@{pin.revision}"
