"""What tests of `hf://` share: a model of two versions, and how it is read."""

import hashlib

import pytest

from slm_runtime.errors import (
    RuntimeFailure,
)
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from tests.support.hub import Hub

OLD, NEW = b"GGUF old" * 1000, b"GGUF new" * 1000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def token(site: Site, value: str) -> None:
    site.places.credentials_dir.mkdir(exist_ok=True)
    (site.places.credentials_dir / "token").write_text(value)


def read(uri: str, site: Site, revision: str | None = None) -> dict[str, bytes]:
    """All files of a model by their paths, in its order."""
    files = {}
    with open_model(uri, site, Asked(revision)) as model:
        for each in model.files:
            with each.artifact.payload.read() as chunks:
                files[each.path] = b"".join(chunks)
    return files


def refusal(uri: str, site: Site, revision: str | None = None) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        read(uri, site, revision)
    assert caught.value.remedy
    return caught.value


def paths(hub: Hub) -> list[str]:
    return [each.path.partition("?")[0] for each in hub.asked if each.server == "hub"]
