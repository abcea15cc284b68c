"""A model in a smaller format than its source has: derived in the cluster, known before, served."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.site import Namespace, Site
from tests.e2e.source import CA, source
from tests.e2e.volume import CLASS, static_volume
from tests.support.gguf import write_tiny_gguf

pytestmark = pytest.mark.e2e

QUESTION = "word but not what all were we"
FIRST = 4
TYPE = b"general.file_type\x04\0\0\0"
"""What stands before the number by which a header names its format."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(Path(tmp_path_factory.mktemp("tiny")) / "tiny.gguf").read_bytes()


@pytest.fixture(scope="module")
def served(site: Site, tiny: bytes) -> Iterator[tuple[Namespace, str]]:
    """A namespace with a source, and what it calls the model."""
    with static_volume(site), site.namespace("quantization") as ns, source(ns, site.runtime_image) as server:
        server.put("tiny-f32.gguf", tiny)
        server.put("tiny-q4.gguf", tiny.replace(TYPE + bytes(4), TYPE + b"\x02\0\0\0"))
        yield ns, server.url("tiny-f32.gguf")


def spec(url: str, **model: Any) -> dict[str, Any]:
    return {
        "model": {"name": "tiny", "source": url, "caBundle": CA, **model},
        "runtime": {"contextLength": 512, "parallel": 1},
    }


def continued(ns: Namespace, name: str) -> str:
    """What follows greedily."""
    with ns.client(name) as client:
        answer = client.completions.create(model="tiny", prompt=QUESTION, max_tokens=16, temperature=0)
        return answer.choices[0].text


@pytest.mark.parametrize("cache", ["Ephemeral", "PVC"])
def test_a_smaller_format_is_derived_and_served(
    served: tuple[Namespace, str], tiny: bytes, cache: str
) -> None:
    ns, url = served
    name = f"eight-{cache.lower()}"
    wanted = spec(url, quantization="Q8_0")
    if cache == "PVC":
        wanted["cache"] = {"mode": "PVC", "size": "1Gi", "storageClassName": CLASS}
    ns.apply(name, wanted)
    model = ns.wait_ready(name)["model"]
    assert model["quantization"] == "Q8_0"
    assert model["sizeBytes"] < len(tiny) // 2
    assert (model["origin"]["quantization"], model["origin"]["sizeBytes"]) == ("F32", len(tiny))
    assert len(model["sha256"]) == 64
    eight = continued(ns, name)
    ns.apply(name, {**wanted, "model": spec(url)["model"]})
    whole = ns.wait_ready(name)["model"]
    assert (whole["quantization"], whole["sizeBytes"]) == ("F32", len(tiny))
    assert "origin" not in whole
    assert eight[:FIRST] == continued(ns, name)[:FIRST], "eight bits are enough for the first words"
    ns.site.kubectl("delete", "slmdeployment", name, "-n", ns.name)


def test_auto_chooses_a_format_and_says_why(served: tuple[Namespace, str]) -> None:
    ns, url = served
    ns.apply("auto", spec(url, quantization="Auto"))
    model = ns.wait_ready("auto")["model"]
    assert (model["quantization"], model["origin"]["quantization"]) == ("Q4_K_M", "F32")
    assert model["quantizationReason"] == (
        "Auto chose Q4_K_M: derived of the source's F32; the first choice of the class cpu"
    )
    ns.site.kubectl("delete", "slmdeployment", "auto", "-n", ns.name)


def test_what_cannot_be_derived_is_refused_before_a_pod_is_made(served: tuple[Namespace, str]) -> None:
    ns, url = served
    ns.apply("larger", spec(url.replace("tiny-f32", "tiny-q4"), quantization="Q8_0"))
    status = ns.wait_reason("larger", "ModelReady", "UnsupportedQuantization")
    assert "quantized already (Q4_0)" in status["lastFailure"]["message"]
    assert ns.site.get("deployment", ns.name, "larger") is None
    ns.site.kubectl("delete", "slmdeployment", "larger", "-n", ns.name)
