"""The client against a real API server: preconditions, owners of fields, and what is compared byte by byte."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from typing_extensions import override

from slm_operator.cluster import errors
from slm_operator.cluster.client import KubernetesClient
from slm_operator.cluster.connection import api_client, load
from slm_operator.cluster.kept import kept_object
from slm_operator.cluster.resources import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EVENT,
    NODE,
    SERVICE,
    resource_of,
)
from slm_operator.ownership import Loss, differences, leftover
from slm_operator.snapshot import Document
from tests.apiserver.operator import until
from tests.cluster import ControlPlane, service_monitor_crd
from tests.contract.test_examples import SETTINGS
from tests.unit.operator_core.world import GIVEN, World, spec

pytestmark = pytest.mark.apiserver

OTHER = "11111111-1111-1111-1111-111111111111"


@pytest_asyncio.fixture
async def client(plane: ControlPlane) -> AsyncIterator[KubernetesClient]:
    made = KubernetesClient(api_client(await load(str(plane.kubeconfig)), 4))
    yield made
    await made.close()


def config_map(namespace: str, **data: str) -> dict[str, Any]:
    metadata = {"name": "a", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def over(live: Document, intent: Document) -> dict[str, Any]:
    """The intent for that very object in that very state."""
    identity = {key: live["metadata"][key] for key in ("uid", "resourceVersion")}
    return {**intent, "metadata": {**intent["metadata"], **identity}}


def identity(live: Document) -> dict[str, str]:
    return {"uid": live["metadata"]["uid"], "resource_version": live["metadata"]["resourceVersion"]}


async def test_what_a_post_made_goes_with_an_apply_once_it_has_one_owner(
    client: KubernetesClient, namespace: str
) -> None:
    wanted = config_map(namespace, kept="1")
    made = await client.create(config_map(namespace, kept="1", dropped="1"))
    assert leftover(wanted, made)
    applied = await client.apply(over(made, wanted))
    assert applied["data"] == {"kept": "1", "dropped": "1"}
    one = await consolidate(client, applied)
    assert [entry["operation"] for entry in one["metadata"]["managedFields"]] == ["Apply"]
    assert one["data"] == applied["data"]
    assert not leftover(wanted, one)
    assert await consolidate(client, one) == one
    again = await client.apply(over(one, wanted))
    assert again["data"] == {"kept": "1"}
    assert differences(wanted, again).lost == ()


async def test_fields_of_others_stay_theirs(
    client: KubernetesClient, plane: ControlPlane, namespace: str
) -> None:
    made = await client.create(config_map(namespace, ours="1"))
    plane.kubectl("label", "configmap", "a", "-n", namespace, "team=a")
    plane.kubectl("patch", "configmap", "a", "-n", namespace, "-p", '{"data": {"ours": "2"}}')
    live = await client.get(CONFIG_MAP, namespace, "a")
    assert differences(made, live).lost == (Loss("data.ours", "kubectl-patch"),)
    one = await consolidate(client, live)
    theirs = [entry for entry in live["metadata"]["managedFields"] if entry["manager"] != "slm-operator"]
    assert [entry for entry in one["metadata"]["managedFields"] if entry in theirs] == theirs
    back = await client.apply(over(one, config_map(namespace, ours="1")))
    assert (back["data"], back["metadata"]["labels"]) == ({"ours": "1"}, {"team": "a"})


async def test_an_apply_is_for_that_very_object_in_that_very_state(
    client: KubernetesClient, namespace: str
) -> None:
    intent = config_map(namespace, a="1")
    first = await client.create(intent)
    with pytest.raises(errors.ConflictError):
        await client.apply(over({"metadata": {**first["metadata"], "uid": OTHER}}, intent))
    await client.apply(over(first, config_map(namespace, a="2")))
    with pytest.raises(errors.ConflictError):
        await client.apply(over(first, intent))
    live = await client.get(CONFIG_MAP, namespace, "a")
    await client.delete(CONFIG_MAP, namespace, "a", **identity(live))
    with pytest.raises(errors.ConflictError):
        await client.apply(over(live, intent))
    with pytest.raises(errors.MissingError):
        await client.get(CONFIG_MAP, namespace, "a")
    await client.create(intent)
    with pytest.raises(errors.ConflictError):
        await client.apply(over(live, intent))
    with pytest.raises(errors.ExistsError):
        await client.create(intent)


async def test_so_is_making_one_owner_of_two(
    client: KubernetesClient, plane: ControlPlane, namespace: str
) -> None:
    made = await client.create(config_map(namespace, a="1"))

    class Overtaken(KubernetesClient):
        @override
        async def get(self, *args: Any) -> Document:
            live = await super().get(*args)
            plane.kubectl("label", "configmap", "a", "-n", namespace, "team=a")
            return live

    overtaken = Overtaken(api_client(await load(str(plane.kubeconfig)), 4))
    with pytest.raises(errors.ConflictError):
        await overtaken.consolidate(CONFIG_MAP, namespace, "a", **identity(made))
    await overtaken.close()
    with pytest.raises(errors.ConflictError):
        await client.consolidate(CONFIG_MAP, namespace, "a", **identity(made))
    with pytest.raises(errors.MissingError):
        await client.consolidate(CONFIG_MAP, namespace, "b", **identity(made))


@pytest.mark.parametrize("text", ["🤖 of any plane: é \u2028 \ufeff", "control: \x7f \x85 \x9f \t"])
async def test_text_arrives_as_it_is(client: KubernetesClient, namespace: str, text: str) -> None:
    made = await client.create(config_map(namespace, posted=text))
    applied = await client.apply(over(made, config_map(namespace, posted=text, applied=text)))
    assert applied["data"] == {"posted": text, "applied": text}


@pytest.mark.parametrize(
    "data",
    [
        {
            "z": {"image": "runtime:1", "empty": {}},
            "text": '<é & 🤖> \u2028 \x7f \t\n\x01 "\\',
            "numbers": [1, 98_000_000_000],
        },
        {"z": [0.1, 2.0, 1e-5, 1e-7, 3e16], "none": None, "B": True, "a🤖": 1, "aé": 2, "a\uffee": 3},
        {"back": "\b", "feed": "\f", "path": "C:\\b"},
    ],
)
async def test_a_revision_can_be_written_again(
    client: KubernetesClient, plane: ControlPlane, namespace: str, data: dict[str, Any]
) -> None:
    """Its data never change, and API servers compare them byte by byte with what comes back to them."""
    revision = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": "a", "namespace": namespace},
        "data": data,
        "revision": 1,
    }
    made = await client.create(revision)
    assert made["data"] == revision["data"]
    plane.kubectl("label", "controllerrevision", "a", "-n", namespace, "team=a")
    live = await client.get(CONTROLLER_REVISION, namespace, "a")
    applied = await client.apply(over(live, {**revision, "revision": 2}))
    one = await consolidate(client, applied)
    assert (one["revision"], one["data"]) == (2, revision["data"])
    assert differences(revision, one).lost == differences({**revision, "revision": 2}, one).rewritten == ()


async def test_lists_by_field_and_from_the_servers_memory(client: KubernetesClient, namespace: str) -> None:
    for name in ("a", "b"):
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.1", "namespace": namespace},
            "involvedObject": {"kind": "SLMDeployment", "name": name, "namespace": namespace},
            "reason": "Placed",
            "message": f"{name} is placed",
            "type": "Normal",
        }
        await client.create(event)
    listing = await client.list(
        EVENT, namespace, lambda each: each["message"], field_selector="involvedObject.name=b"
    )
    assert listing.items == ["b is placed"]
    nodes = await client.list(NODE, None, lambda each: each["metadata"]["name"])
    cached = await client.list(NODE, None, lambda each: each["metadata"]["name"], cached=True)
    assert set(cached.items) == set(nodes.items) != set()


FIXED = {"Job", "ControllerRevision"}
"""Kinds that are never applied."""


async def test_every_child_is_ours_as_it_was_made(
    client: KubernetesClient, plane: ControlPlane, namespace: str
) -> None:
    plane.kubectl("apply", "--server-side", "-f", str(service_monitor_crd()))
    until(
        "ServiceMonitors are served",
        lambda: "servicemonitors" in plane.kubectl("api-resources", "-o", "name"),
    )
    for intent in children(plane, namespace):
        made = await client.create(intent)
        for live in (made, kept_object(resource_of(intent), made)):
            assert differences(intent, live).lost == (), intent["kind"]
            assert differences(intent, live).rewritten == (), intent["kind"]
            assert intent["kind"] in FIXED or not leftover(intent, live), intent["kind"]
        if intent["kind"] in FIXED:
            continue
        applied = await undisturbed(client, intent, client.apply)
        one = await undisturbed(client, intent, partial(consolidate, client))
        again = await undisturbed(client, intent, client.apply)
        for live in (applied, one, again, kept_object(resource_of(intent), again)):
            assert differences(intent, live).lost == (), intent["kind"]
            assert differences(intent, live).rewritten == (), intent["kind"]
        assert again["metadata"].get("generation") == made["metadata"].get("generation"), intent["kind"]


async def consolidate(client: KubernetesClient, document: Document) -> Document:
    metadata = document["metadata"]
    return await client.consolidate(
        resource_of(document), metadata["namespace"], metadata["name"], **identity(document)
    )


async def undisturbed(
    client: KubernetesClient, intent: Document, write: Callable[[Document], Awaitable[Document]]
) -> Document:
    """Write over the object as it is, again where its controller was there in between."""
    metadata = intent["metadata"]
    while True:
        live = await client.get(resource_of(intent), metadata["namespace"], metadata["name"])
        with suppress(errors.ConflictError):
            return await write(over(live, intent))


def children(plane: ControlPlane, namespace: str) -> list[dict[str, Any]]:
    """One of each kind that an SLMDeployment is made of."""
    cached = World(
        spec(resources=GIVEN, cache={"mode": "PVC", "size": "1024Mi"}), settings=SETTINGS, name="cached"
    )
    served = World(
        spec(resources=GIVEN, observability={"serviceMonitor": {"enabled": True}}),
        settings=SETTINGS,
        monitoring=True,
        name="served",
    )
    for world in (cached, served):
        # The owner has to be there, or the garbage collector takes its children.
        document = {
            **world.resource,
            "metadata": {"name": world.resource["metadata"]["name"], "namespace": namespace},
        }
        made = plane.kubectl("create", "-f", "-", "-o", "json", input=json.dumps(document))
        world.resource["metadata"] = json.loads(made)["metadata"]
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "served", "namespace": namespace},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app.kubernetes.io/instance": "served"}}},
    }
    steps = [*cached.decide().plan.steps, *served.decide().plan.steps]
    documents = [*(step.document for step in steps if step.ref.kind != "Secret"), budget]
    kinds = {document["kind"] for document in documents}
    assert kinds == {
        "ConfigMap",
        "ControllerRevision",
        "Deployment",
        "Job",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
        "ServiceMonitor",
    }
    return json.loads(json.dumps(documents))


async def test_what_people_do_shows(client: KubernetesClient, plane: ControlPlane, namespace: str) -> None:
    by_kind = {
        intent["kind"]: intent
        for intent in children(plane, namespace)
        if intent["metadata"]["name"] == "served"
    }
    deployment, service = by_kind["Deployment"], by_kind["Service"]
    for intent in (deployment, service):
        await client.create(intent)
    at = ("-n", namespace)
    plane.kubectl("set", "image", "deployment/served", "serve=other:1", *at)
    plane.kubectl("scale", "deployment/served", "--replicas=3", *at)
    plane.kubectl("label", "deployment/served", "app.kubernetes.io/part-of-", *at)
    plane.kubectl("set", "env", "deployment/served", "--containers=serve", "SLM_CONFIG-", *at)
    live = kept_object(DEPLOYMENT, await client.get(DEPLOYMENT, namespace, "served"))
    assert differences(deployment, live).lost == (
        Loss("metadata.labels[app.kubernetes.io/part-of]", None),
        Loss("spec.replicas", "kubectl"),
        Loss("spec.template.spec.containers[serve].image", "kubectl-set"),
        Loss("spec.template.spec.containers[serve].env", None),
    )
    port = [{"op": "replace", "path": "/spec/ports/0/port", "value": 81}]
    plane.kubectl("patch", "service", "served", *at, "--type=json", "-p", json.dumps(port))
    exposed = kept_object(SERVICE, await client.get(SERVICE, namespace, "served"))
    assert [loss.path for loss in differences(service, exposed).lost] == ["spec.ports[http]"]
