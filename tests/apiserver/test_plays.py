"""What the fake kubelet plays is what the operator reads of it."""

from collections.abc import Callable

import pytest

from tests.apiserver.api import Api
from tests.apiserver.operator import Operator, slm, until
from tests.apiserver.plays import TOO_MUCH_MEMORY

pytestmark = pytest.mark.apiserver

BY_MODEL = {
    "oom": "OutOfMemory",
    "crash": "EngineFailed",
    "bad-checksum": "ChecksumMismatch",
    "pull-error": "ImagePullFailed",
    "never-ready": "Starting",
    "oom-below-32Mi": "Serving",
    "model": "Serving",
}


def test_each_play_has_its_reason(api: Api, start: Callable[..., Operator]) -> None:
    """Told by the model's name; one by the image's tag too, and one is the real scheduler's."""
    start(allowedImagePrefixes=["runtime"])
    for play in BY_MODEL:
        model = {"name": "m", "source": f"https://models.example.com/{play}.gguf", "sha256": "b" * 64}
        api.apply(slm(play.lower(), api.namespace, model=model))
    api.apply(slm("by-image", api.namespace, runtime={"image": "runtime:oom"}))
    api.apply(slm("too-much", api.namespace, resources={"limits": {"memory": TOO_MUCH_MEMORY}}))
    wanted = {play.lower(): reason for play, reason in BY_MODEL.items()}
    wanted |= {"by-image": "OutOfMemory", "too-much": "Unschedulable"}

    def seen() -> dict[str, str]:
        return {name: api.reason(name) for name in wanted}

    try:
        until("each has its reason", lambda: seen() == wanted, 30)
    except AssertionError:
        assert seen() == wanted
