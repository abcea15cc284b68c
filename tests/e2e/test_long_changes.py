"""Changes under load that take minutes: a version of the operator that was released before, patience that ends.

They are run by hand: `make test-changes`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.load import steady_load
from tests.e2e.models import Models, serving, states
from tests.e2e.site import OPERATOR, SYSTEM_NAMESPACE, Site

pytestmark = [pytest.mark.e2e, pytest.mark.by_hand, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]
RELEASED = os.environ.get("SLM_UPGRADE_FROM", "45105d3")
"""The commit whose chart and images are upgraded: the last before revisions were kept."""
DESCRIBE = """
import json
from tests.cluster import chart, images
built = images.ensure()
values = chart.values({name: image.name for name, image in built.items()})
print(json.dumps({"images": {image.name: str(image.archive) for image in built.values()}, "values": values}))
"""


@dataclass(frozen=True)
class Release:
    chart: Path
    values: Path
    runtime_image: str


@pytest.fixture(scope="module")
def released(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """An earlier version: its chart, and its images on the cluster."""
    folder = tmp_path_factory.mktemp("released")
    packed = subprocess.run(["git", "archive", RELEASED], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed, check=True)
    environ = os.environ | {"PYTHONPATH": f"{folder}:{folder}/operator:{folder}/runtime"}
    told = subprocess.run(
        [sys.executable, "-c", DESCRIBE], cwd=folder, env=environ, check=True, stdout=subprocess.PIPE
    ).stdout
    described = json.loads(told.splitlines()[-1])
    for name, archive in described["images"].items():
        site.cluster.load_image(Path(archive), name)
    values = folder / "values.json"
    values.write_text(json.dumps(described["values"]))
    image = described["values"]["runtime"]["image"]
    return Release(folder / "charts" / "slm-operator", values, f"{image['repository']}:{image['tag']}")


@pytest.fixture
def upgradable(site: Site, released: Release) -> Iterator[Models]:
    """Models under the earlier version."""
    site.uninstall()
    site.cluster.helm(
        *("upgrade", "--install", OPERATOR, str(released.chart), "--namespace", SYSTEM_NAMESPACE),
        *("--create-namespace", "--values", str(released.values), "--wait", "--timeout", "3m"),
    )
    with serving(site) as models:
        yield models
    site.install()


def test_an_upgrade_of_the_operator_rolls_nobody_who_did_not_consent(
    site: Site, upgradable: Models, released: Release
) -> None:
    models, ns = upgradable, upgradable.ns
    models.apply("two", rollout={"upgrade": "OnSpecChange"})
    ns.wait_ready("two")
    before = {name: models.pods(name) for name in ("two", "one")}
    services = {each["metadata"]["name"]: each["spec"] for each in site.list("services", ns.name)}
    with steady_load(ns, "two") as load, steady_load(ns, "one") as other:
        site.install()
        site.wait_until_caught_up()
        for name, pods in before.items():
            site.eventually(f"{name} tells its revisions", lambda name=name: "revisions" in ns.status(name))
            status = ns.wait_ready(name)
            assert models.pods(name) == pods
            assert states(status) == [("Serving", None)]
            assert status["revisions"][0]["image"] == released.runtime_image
            assert status["keySecret"] == f"{name}-api-key"
            assert status["nodes"] == [site.cluster.node_name]
        assert {each["metadata"]["name"]: each["spec"] for each in site.list("services", ns.name)} == services
        for name, pods in before.items():
            models.apply(name, runtime={"contextLength": 256}, rollout={"upgrade": "OnSpecChange"})
            status = models.wait_rolled(name, pods)
            assert status["revisions"][0]["image"] == site.runtime_image
            assert states(status) == [("Serving", None), ("Superseded", None)]
    assert not load.failures, load
    assert not other.failures, other


def test_an_upgrade_of_the_operator_reaches_who_consents(site: Site, upgradable: Models) -> None:
    before = upgradable.pods("two")
    with steady_load(upgradable.ns, "two") as load:
        site.install()
        status = upgradable.wait_rolled("two", before)
    assert not load.failures, load
    assert status["revisions"][0]["image"] == site.runtime_image


@pytest.fixture(scope="module")
def models(site: Site) -> Iterator[Models]:
    with serving(site) as models:
        yield models


def test_memory_that_the_spec_gives_and_that_is_too_little(models: Models) -> None:
    before = models.pods("two")
    with steady_load(models.ns, "two") as load:
        models.apply("two", resources={"limits": {"memory": "40Mi"}})
        status = models.ns.wait_reason("two", "Ready", "RolledBack", seconds=300)
        site = models.ns.site
        site.eventually("only the old pods are left", lambda: models.pods("two") == before)
    assert not load.failures, load
    assert ("RolledBack", "OutOfMemory") in states(status)
    assert models.ns.condition("two", "Stalled")["reason"] == "OutOfMemory"
    models.apply("two")
    models.ns.wait_reason("two", "Ready", "Serving")


def test_an_image_that_stays_away_has_its_time_and_no_more(models: Models) -> None:
    before = models.pods("two")
    with steady_load(models.ns, "two") as load:
        models.apply("two", runtime={"image": "registry.invalid/slm-runtime:none"})
        status = models.ns.wait_reason("two", "Ready", "RolledBack", seconds=1200)
        models.ns.site.eventually("only the old pods are left", lambda: models.pods("two") == before)
    assert not load.failures, load
    assert ("RolledBack", "ImagePullFailed") in states(status)
    models.apply("two")
    models.ns.wait_reason("two", "Ready", "Serving")
