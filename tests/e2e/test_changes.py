"""Nobody notices a change: of 20 requests a second through the Service none fails, whatever is done to what serves them."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster import HarnessError, images
from tests.e2e.load import RATE, steady_load
from tests.e2e.models import Models, serving, states
from tests.e2e.site import Site
from tests.e2e.variant import variant

pytestmark = pytest.mark.e2e

APPETITE = """
import os, sys
if "serve" in sys.orig_argv:
    taken = b"x" * (int(os.environ.get("APPETITE_MIB", "0")) << 20)
"""
"""Of the other image: its server takes so much more memory than a model's header shows."""
KILL_ENGINE = """
import os, pathlib, signal
for each in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if b"slm_runtime.engine.process" in each.read_bytes() and each.parent.name != str(os.getpid()):
        os.kill(int(each.parent.name), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def models(site: Site) -> Iterator[Models]:
    with serving(site) as models:
        yield models
    site.install()


@pytest.fixture(scope="module")
def other_image(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A runtime image that isn't the site's."""
    built = images.ensure()["slm-runtime"]
    name, archive = f"{built.repository}-other:{built.tag}", tmp_path_factory.mktemp("image") / "other.tar"
    files = {"opt/other/sitecustomize.py": APPETITE}
    variant(built.archive, name, archive, files=files, env={"PYTHONPATH": "/opt/other"})
    return site.cluster.load_image(archive, name)


def test_another_context(models: Models) -> None:
    """One replica is enough: the new pod serves before the old one goes."""
    before = {name: models.pods(name) for name in ("two", "one")}
    with steady_load(models.ns, "two") as load, steady_load(models.ns, "one") as other:
        for name in before:
            models.apply(name, runtime={"contextLength": 256})
        for name, pods in before.items():
            status = models.wait_rolled(name, pods)
            assert states(status) == [("Serving", None), ("Superseded", None)]
            assert status["model"]["contextLength"] == 256
            assert status["nodes"] == [models.ns.site.cluster.node_name]
            assert status["keySecret"] == f"{name}-api-key"
    assert not load.failures, load
    assert not other.failures, other


def test_another_class_bundle_and_image_reach_who_consents(
    site: Site, models: Models, other_image: str
) -> None:
    before = {name: models.pods(name) for name in ("two", "one")}
    digest = models.ns.status("two")["imageDigest"]
    repository, _, tag = other_image.rpartition(":")
    tolerations = [{"key": "e2e.example/changed", "operator": "Exists"}]
    with steady_load(models.ns, "two") as load:
        site.install(
            hardwareClasses={"cpu": {"tolerations": tolerations}},
            runtime={"image": {"repository": repository, "tag": tag}},
        )
        status = models.wait_rolled("two", before["two"])
        site.wait_until_caught_up()
    assert not load.failures, load
    assert status["revisions"][0]["image"] == other_image
    assert status["imageDigest"] != digest
    (pod, _) = models.ns.pods("two")
    assert "e2e.example/changed" in {each.get("key") for each in pod["spec"]["tolerations"]}
    assert models.pods("one") == before["one"], "it waits for a change of its spec"


def test_a_pod_that_is_deleted(models: Models) -> None:
    ns = models.ns
    (gone, _) = ns.pods("two")
    with steady_load(ns, "two") as load:
        ns.site.kubectl("delete", "pod", gone["metadata"]["name"], "-n", ns.name)
        ns.wait_ready("two")
    assert not load.failures, load
    assert gone["metadata"]["uid"] not in models.pods("two")


def test_the_only_pod_that_is_deleted(models: Models) -> None:
    """It serves until its successor does."""
    before = models.pods("one")
    with steady_load(models.ns, "one") as load:
        models.ns.site.kubectl("delete", "pod", "-l", "app.kubernetes.io/instance=one", "-n", models.ns.name)
        models.wait_rolled("one", before)
    assert not load.failures, load


def test_a_node_that_is_drained(models: Models) -> None:
    ns, node = models.ns, models.ns.site.cluster.node_name
    with steady_load(ns, "two") as load:
        try:
            with pytest.raises(HarnessError, match="disruption budget"):
                ns.site.kubectl(
                    *("drain", node, "--pod-selector=app.kubernetes.io/instance=two"),
                    *("--delete-emptydir-data", "--timeout=12s"),
                )
            status = ns.wait_reason("two", "Ready", "Unschedulable")
            assert status["readyReplicas"] == 1
        finally:
            ns.site.kubectl("uncordon", node)
        ns.wait_ready("two", after_failure=True)
    assert not load.failures, load


def test_an_image_that_is_not_there(models: Models) -> None:
    before = models.pods("two")
    with steady_load(models.ns, "two") as load:
        models.apply("two", runtime={"image": "registry.invalid/slm-runtime:none"})
        status = models.ns.wait_reason("two", "Ready", "ImagePullFailed")
        assert states(status)[0] == ("Pending", None)
        assert before < models.pods("two")
        models.apply("two")
        status = models.ns.wait_ready("two", after_failure=True)
    assert not load.failures, load
    assert status["revisions"][0]["state"] == "Serving"


def test_a_model_that_can_not_be_loaded(models: Models) -> None:
    """Its header is good, so pods are made."""
    before = models.pods("two")
    with steady_load(models.ns, "two") as load:
        models.apply("two", model={"source": models.source.url("broken.gguf")})
        status = models.ns.wait_reason("two", "Ready", "RolledBack")
        models.ns.site.eventually("only the old pods are left", lambda: models.pods("two") == before)
        assert ("RolledBack", "InvalidModel") in states(status)
        assert status["readyReplicas"] == 2
        assert models.ns.condition("two", "Stalled")["reason"] == "InvalidModel"
        assert models.ns.condition("two", "Ready")["status"] == "True"
        models.apply("two")
        models.ns.wait_reason("two", "Ready", "Serving")
    assert not load.failures, load
    assert models.ns.condition("two", "Stalled") == {}
    assert models.pods("two") == before


def test_a_new_pod_that_is_killed_for_its_memory(models: Models) -> None:
    """More than the header shows: the next try of the same gets more, and serves."""
    before, given = models.pods("two"), models.ns.status("two")["memory"]["request"]
    with steady_load(models.ns, "two") as load:
        models.apply("two", runtime={"env": [{"name": "APPETITE_MIB", "value": "100"}]})
        status = models.wait_rolled("two", before)
    assert not load.failures, load
    assert "killed for want of memory" in status["memory"]["explanation"]
    assert status["memory"]["request"] != given
    assert "TooLittleMemory" in {each["cause"] for each in status["attempts"]}
    assert status["revisions"][0]["state"] == "Serving"


def test_an_engine_that_the_kernel_kills(models: Models) -> None:
    """One replica: what it was working on is lost, what comes meanwhile waits for the next engine."""
    (pod,) = models.ns.pods("one")
    with steady_load(models.ns, "one") as load:
        begin = time.monotonic()
        models.ns.site.kubectl(
            *("exec", pod["metadata"]["name"], "-n", models.ns.name, "-c", "serve", "--"),
            *("python", "-c", KILL_ENGINE),
        )
        end = time.monotonic()
        answered = len(load.answers)
        models.ns.site.eventually("it goes on", lambda: len(load.answers) > answered + 2 * RATE)
    assert not load.failures_outside(begin, end), load
    (same,) = models.ns.pods("one")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
