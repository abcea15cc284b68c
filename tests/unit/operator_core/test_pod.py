"""What the pods' templates hold, and who may put it there."""

from typing import Any

import pytest

from slm_contract import places
from slm_operator.settings import EnvVar, FetchSettings
from tests.unit.operator_core.world import GIVEN, SETTINGS, World, spec

SITE = SETTINGS.model_copy(
    update={"fetch": FetchSettings(env=(EnvVar(name="PIP_INDEX_URL", value="https://index.corp/simple"),))}
)
AROUND = {
    "PIP_EXTRA_INDEX_URL": "https://evil/simple",
    "PIP_FIND_LINKS": "https://evil/links",
    "PIP_TRUSTED_HOST": "evil",
    "HTTPS_PROXY": "http://evil:3128",
    "SSL_CERT_FILE": "/models/evil.pem",
}
"""Ways of a spec around the site's allow-list, if its environment reached the fetch."""


def names(container: dict[str, Any]) -> set[str]:
    return {each["name"] for each in container["env"]}


@pytest.mark.parametrize("cache", [{}, {"mode": "PVC", "size": "5Gi"}], ids=["in the pod", "in a claim"])
@pytest.mark.parametrize("resources", [{}, {"resources": GIVEN}], ids=["inspected", "given"])
def test_the_environment_of_a_spec_stays_out_of_what_fetches(
    cache: dict[str, Any], resources: dict[str, Any]
) -> None:
    env = [{"name": name, "value": value} for name, value in AROUND.items()]
    world = World(spec(runtime={"env": env}, cache=cache, **resources), settings=SITE)
    world.settle()
    fetching = [
        container
        for ref, child in world.children.items()
        if ref.kind in {"Job", "Deployment"}
        for key in ("initContainers", "containers")
        for container in child["spec"]["template"]["spec"].get(key, ())
        if container["name"] != "serve"
    ]
    assert fetching
    for container in fetching:
        assert names(container) - {places.RETENTION_ENV} == {places.CONFIG_ENV, "PIP_INDEX_URL"}


def test_the_environment_of_a_spec_reaches_the_server() -> None:
    world = World(spec(runtime={"env": [{"name": "GGML_LOG", "value": "1"}]}, resources=GIVEN), settings=SITE)
    world.settle()
    (serve,) = world.deployment["spec"]["template"]["spec"]["containers"]
    assert names(serve) == {places.CONFIG_ENV, "GGML_LOG"}


@pytest.mark.parametrize("user", [65532, 4711])
def test_pods_run_as_the_site_s_user(user: int) -> None:
    world = World(spec(resources=GIVEN), settings=SETTINGS.model_copy(update={"run_as_user": user}))
    world.settle()
    context = world.deployment["spec"]["template"]["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (user, user, user)


@pytest.mark.parametrize("resources", [{}, {"resources": GIVEN}], ids=["Job", "Deployment"])
def test_where_the_platform_assigns_users_none_is_named(resources: dict[str, Any]) -> None:
    world = World(spec(**resources), settings=SETTINGS.model_copy(update={"run_as_user": None}))
    world.settle()
    (template,) = (
        child["spec"]["template"]["spec"]
        for ref, child in world.children.items()
        if ref.kind in {"Job", "Deployment"}
    )
    context = template["securityContext"]
    assert context["runAsNonRoot"] is True
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()
