"""A model in a claim: pulled once by a Job, found there by every pod after that."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.site import SMOLLM2, SMOLLM2_SHA256, Namespace, Site
from tests.e2e.volume import CLASS, static_volume

pytestmark = pytest.mark.e2e


@pytest.fixture
def volume(site: Site) -> Iterator[None]:
    with static_volume(site):
        yield


def fetched(ns: Namespace, name: str) -> dict[str, object]:
    """What the fetch of the one serving pod said at its end."""
    (pod,) = ns.pods(name)
    (container,) = pod["status"]["initContainerStatuses"]
    report: dict[str, object] = json.loads(container["state"]["terminated"]["message"])
    return report


@pytest.mark.usefixtures("volume")
def test_a_claim_is_filled_once(site: Site) -> None:
    with site.namespace("cache") as ns:
        ns.apply(
            "cached",
            {
                "model": {"name": "smollm2-135m", "source": SMOLLM2, "sha256": SMOLLM2_SHA256},
                "runtime": {"contextLength": 512, "parallel": 1},
                "cache": {"mode": "PVC", "size": "1Gi", "storageClassName": CLASS},
            },
        )
        ns.wait_ready("cached")
        (claim,) = site.list("persistentvolumeclaims", ns.name)
        assert claim["status"]["phase"] == "Bound"
        assert fetched(ns, "cached")["cached"] is True, "the Job had pulled it before"
        (before,) = ns.pods("cached")
        site.kubectl("delete", "pod", before["metadata"]["name"], "-n", ns.name)
        ns.wait_ready("cached")
        assert fetched(ns, "cached")["cached"] is True
        with ns.client("cached") as client:
            assert client.models.list().data[0].id == "smollm2-135m"
