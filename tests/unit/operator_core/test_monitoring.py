import pytest

from slm_operator.scrapers import Scraper, Scrapers, scraper_of
from tests.unit.operator_core.world import GIVEN, SETTINGS, World, spec

STACK = {
    "metadata": {"name": "k8s", "namespace": "monitoring"},
    "spec": {
        "serviceMonitorSelector": {"matchLabels": {"release": "stack"}},
        "serviceMonitorNamespaceSelector": {},
    },
}
ASKED = {"serviceMonitor": {"enabled": True}}


def monitored(observability: dict[str, object], **settings: object) -> World:
    given = SETTINGS.model_validate({**SETTINGS.model_dump(), "monitoring": settings})
    return World(spec(resources=GIVEN, observability=observability), monitoring=True, settings=given)


def condition(world: World) -> tuple[str, str, str]:
    world.settle()
    found = next(each for each in world.status["conditions"] if each["type"] == "MonitoringReady")
    return found["status"], found["reason"], found["message"]


def test_labels_of_the_site_are_on_every_monitor_beneath_its_own() -> None:
    world = monitored(
        {"serviceMonitor": {"enabled": True, "labels": {"team": "a"}}},
        labels={"release": "stack", "team": "all"},
    )
    world.settle()
    (monitor,) = [each for ref, each in world.children.items() if ref.kind == "ServiceMonitor"]
    labels = monitor["metadata"]["labels"]
    assert (labels["release"], labels["team"]) == ("stack", "a")
    assert labels["app.kubernetes.io/managed-by"] == "slm-operator"


def test_a_monitor_that_no_prometheus_takes_is_said_with_what_it_lacks() -> None:
    world = monitored(ASKED)
    world.scrapers = Scrapers((scraper_of(STACK),), {"demo": {}})
    truth, reason, message = condition(world)
    assert (truth, reason) == ("False", "NotSelected")
    assert "monitoring/k8s takes those with release=stack" in message
    world.run_pods()
    world.settle()
    ready = next(each for each in world.status["conditions"] if each["type"] == "Ready")
    assert ready["status"] == "True", "the model is served all the same"
    world.edit(observability={"serviceMonitor": {"enabled": True, "labels": {"release": "stack"}}})
    assert condition(world)[:2] == ("True", "ServiceMonitorMade")


def test_nobody_to_take_it_is_said_and_nothing_where_nobody_looked() -> None:
    world = monitored(ASKED)
    world.scrapers = Scrapers((), {})
    assert condition(world)[:2] == ("False", "NoPrometheus")
    world.scrapers = None
    assert condition(world)[:2] == ("True", "ServiceMonitorMade")


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
    ],
)
def test_selectors_are_read_as_the_api_server_reads_them(
    selector: dict[str, object] | None, taken: bool
) -> None:
    scraper = Scraper(name="k8s", namespace="monitoring", monitors=selector, namespaces={})
    assert (scraper.objection({"a": "1"}, "demo", {}) is None) is taken


@pytest.mark.parametrize(
    ("namespaces", "namespace", "taken"),
    [
        (None, "monitoring", True),
        (None, "demo", False),
        ({}, "demo", True),
        ({"matchLabels": {"team": "a"}}, "demo", True),
        ({"matchLabels": {"team": "b"}}, "demo", False),
    ],
)
def test_namespaces_are_selected_by_their_labels(
    namespaces: dict[str, object] | None, namespace: str, taken: bool
) -> None:
    scraper = Scraper(name="k8s", namespace="monitoring", monitors={}, namespaces=namespaces)
    assert (scraper.objection({}, namespace, {"team": "a"}) is None) is taken
