"""What a bad input gets: a condition with its own reason, a remedy, and recovery by itself when the cause goes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import SMOLLM2, Namespace, Site
from tests.e2e.source import CA, Source, source
from tests.support.gguf import write_tiny_gguf

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ns(site: Site) -> Iterator[Namespace]:
    with site.namespace("failures") as namespace:
        yield namespace


@pytest.fixture(scope="module")
def models(ns: Namespace) -> Iterator[Source]:
    with source(ns, ns.site.runtime_image) as running:
        yield running


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf").read_bytes()


def spec(url: str, **model: object) -> dict[str, object]:
    return {
        "model": {"source": url, "caBundle": CA, **model},
        "runtime": {"contextLength": 512, "parallel": 1},
    }


def assert_explained(status: dict[str, object], reason: str) -> None:
    failure = status["lastFailure"]
    assert isinstance(failure, dict)
    assert failure["reason"] == reason
    assert failure["message"]
    assert failure["remedy"]
    print(f"\n{reason}: {failure['message']} -- {failure['remedy']}")


def test_a_source_that_is_not_there_is_served_once_it_is(ns: Namespace, models: Source, tiny: bytes) -> None:
    ns.apply("late", spec(models.url("late.gguf")))
    assert_explained(ns.wait_reason("late", "Ready", "SourceNotFound"), "SourceNotFound")
    models.put("late.gguf", tiny)
    ns.wait_ready("late", after_failure=True)


def test_a_wrong_checksum_keeps_nothing_and_is_mended_by_the_spec(
    ns: Namespace, models: Source, tiny: bytes
) -> None:
    models.put("sum.gguf", tiny)
    ns.apply("sum", spec(models.url("sum.gguf"), sha256="0" * 64))
    status = ns.wait_reason("sum", "Ready", "ChecksumMismatch")
    assert_explained(status, "ChecksumMismatch")
    assert status.get("readyReplicas", 0) == 0
    ns.apply("sum", spec(models.url("sum.gguf"), sha256=hashlib.sha256(tiny).hexdigest()))
    assert ns.wait_ready("sum", after_failure=True)["model"]["sha256"] == hashlib.sha256(tiny).hexdigest()


def test_a_source_that_is_cut_off_never_serves_a_part(ns: Namespace, models: Source, tiny: bytes) -> None:
    models.put("cut.gguf", tiny, cut=len(tiny) // 2)
    ns.apply("cut", spec(models.url("cut.gguf")))
    status = ns.wait_reason("cut", "Ready", "SourceUnreachable")
    assert_explained(status, "SourceUnreachable")
    assert status.get("readyReplicas", 0) == 0
    models.put("cut.gguf", tiny)
    ns.wait_ready("cut", after_failure=True)


def test_a_file_that_is_no_model(ns: Namespace, models: Source, tiny: bytes) -> None:
    models.put("page.gguf", b"<html>Please log in</html>" * 100)
    ns.apply("page", spec(models.url("page.gguf")))
    assert_explained(ns.wait_reason("page", "Ready", "InvalidModel"), "InvalidModel")
    models.put("page.gguf", tiny)
    ns.wait_ready("page", after_failure=True)


def test_a_source_that_the_site_does_not_allow(
    site: Site, ns: Namespace, models: Source, tiny: bytes
) -> None:
    models.put("allowed.gguf", tiny)
    site.install(fetch={"allowedSources": ["pypi://"]})
    try:
        ns.apply("denied", spec(models.url("allowed.gguf")))
        status = ns.wait_reason("denied", "Stalled", "SourceNotAllowed")
        assert_explained(status, "SourceNotAllowed")
    finally:
        site.install()
    ns.wait_ready("denied", after_failure=True)


def test_a_model_that_does_not_fit_the_node(ns: Namespace) -> None:
    too_much = {
        "model": {"source": SMOLLM2},
        "runtime": {"contextLength": 8192, "parallel": 256, "kvCacheType": "f16"},
    }
    ns.apply("big", too_much)
    status = ns.wait_reason("big", "MemoryFits", "DoesNotFit")
    assert ns.condition("big", "MemoryFits")["status"] == "False"
    assert "256" in status["memory"]["explanation"]
    assert status["lastFailure"]["remedy"]
    assert ns.pods("big") == [] or all("inspect" in pod["metadata"]["name"] for pod in ns.pods("big"))
    print(f"\n{ns.condition('big', 'MemoryFits')['message']} -- {status['lastFailure']['remedy']}")
    ns.apply("big", {"model": {"source": SMOLLM2}, "runtime": {"contextLength": 512, "parallel": 1}})
    ns.wait_ready("big", after_failure=True)


def test_an_image_that_can_not_be_pulled(ns: Namespace, models: Source, tiny: bytes) -> None:
    models.put("image.gguf", tiny)
    good = spec(models.url("image.gguf"))
    ns.apply("image", {**good, "runtime": {"image": "registry.invalid/slm-runtime:none"}})
    assert_explained(ns.wait_reason("image", "Ready", "ImagePullFailed"), "ImagePullFailed")
    ns.apply("image", good)
    ns.wait_ready("image", after_failure=True)


def test_an_image_that_the_site_does_not_allow(ns: Namespace, models: Source) -> None:
    other = {**spec(models.url("image.gguf")), "runtime": {"image": "elsewhere.example/miner:latest"}}
    ns.apply("foreign", other)
    assert_explained(ns.wait_reason("foreign", "Stalled", "ImageNotAllowed"), "ImageNotAllowed")


def test_a_strangers_secret_in_the_place_of_the_key(ns: Namespace, models: Source, tiny: bytes) -> None:
    """Kubelet mounts no Secret that lacks the entry of this SLMDeployment's own uid: nobody's keys are taken for ours."""
    models.put("keyed.gguf", tiny)
    # What the tests before have left takes the whole of a small node.
    ns.site.kubectl("delete", "slm", "--all", "-n", ns.name)
    ours = ("-l", "app.kubernetes.io/managed-by=slm-operator")
    ns.site.eventually("the node has room", lambda: not ns.site.list("pods", ns.name, *ours))
    ns.site.kubectl(
        *("create", "secret", "generic", "keyed-api-key", "-n", ns.name, "--from-literal=k=theirs")
    )
    ns.apply("keyed", spec(models.url("keyed.gguf")))
    status = ns.wait_reason("keyed", "Ready", "NameTaken")
    assert_explained(status, "NameTaken")
    assert "references non-existent secret key" in status["lastFailure"]["message"]
    assert ns.condition("keyed", "Stalled")["status"] == "True"
    assert status.get("readyReplicas", 0) == 0
    ns.site.kubectl("delete", "secret", "keyed-api-key", "-n", ns.name)
    # Both are patient by now: the operator with its POST, kubelet with the volume.
    ns.wait_ready("keyed", seconds=600, after_failure=True)
    with ns.client("keyed") as client:
        assert client.models.list()


def test_the_api_server_refuses_what_can_never_work(ns: Namespace, tmp_path: Path) -> None:
    refused = {
        "a scheme that is not known": ({"model": {"source": "ftp://host/model.gguf"}}, "https://"),
        "a checksum that is none": ({"model": {"source": SMOLLM2, "sha256": "abc"}}, "64"),
        "a class named twice": (
            {"model": {"source": SMOLLM2}, "hardware": {"preference": ["cpu", "cpu"]}},
            "once",
        ),
    }
    for case, (bad, words) in refused.items():
        with pytest.raises(Exception, match=words) as caught:
            ns.apply("refused", bad)
        print(f"\n{case}: {str(caught.value).splitlines()[-1]}")
