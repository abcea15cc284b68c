"""The client against a server of a few lines that answers what it is told, and keeps what it was asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from slm_operator.cluster import errors
from slm_operator.cluster.client import KubernetesClient
from slm_operator.cluster.connection import api_client
from slm_operator.cluster.resources import DEPLOYMENT, EVENT, SERVICE, SERVICE_MONITOR
from tests.unit.operator_edge.objects import child, slm

Asked = list[tuple[str, str, dict[str, str], Any, str]]


@asynccontextmanager
async def server(*answers: Any) -> AsyncIterator[tuple[KubernetesClient, Asked]]:
    """Answers in order, the last one for ever: a document, or (code, document, headers)."""
    asked: Asked = []
    left = list(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        asked.append((request.method, request.path, dict(request.query), body, request.content_type))
        given = left.pop(0) if len(left) > 1 else left[0]
        code, document, headers = given if isinstance(given, tuple) else (200, given, {})
        if isinstance(document, str):
            return web.Response(status=code, text=document, headers=headers)
        return web.json_response(document, status=code, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    client = KubernetesClient(api_client(Configuration(host=f"http://{host}:{port}"), 4), timeout=5)
    try:
        yield client, asked
    finally:
        await client.close()
        await runner.cleanup()


def status(code: int, reason: str = "", **details: Any) -> tuple[int, Any, dict[str, str]]:
    return code, {"kind": "Status", "message": "no", "reason": reason, "code": code, "details": details}, {}


async def test_apply_sends_the_intent_under_our_name():
    async with server(child("Service", 7)) as (client, asked):
        applied = await client.apply(child("Service", 1))
    assert applied["metadata"]["resourceVersion"] == "7"
    method, path, query, body, content = asked[0]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/demo/services/a")
    assert query == {"fieldManager": "slm-operator", "force": "true"}
    assert content == "application/apply-patch+yaml"
    assert body == child("Service", 1)


def managed(operation: str, field: str) -> dict[str, Any]:
    return {"manager": "slm-operator", "operation": operation, "fieldsV1": {"f:spec": {field: {}}}}


async def consolidate(client: KubernetesClient, version: str = "7") -> Any:
    return await client.consolidate(SERVICE, "demo", "a", uid="uid-Service", resource_version=version)


async def test_our_entries_become_one_over_the_very_object_that_was_seen():
    live = child("Service", 7)
    live["metadata"]["managedFields"] = [managed("Apply", "f:type"), managed("Update", "f:ports")]
    async with server(live, child("Service", 8)) as (client, asked):
        written = await consolidate(client)
    assert written["metadata"]["resourceVersion"] == "8"
    assert [each[0:2] for each in asked] == [
        ("GET", "/api/v1/namespaces/demo/services/a"),
        ("PATCH", "/api/v1/namespaces/demo/services/a"),
    ]
    assert asked[1][4] == "application/json-patch+json"
    values = {operation["path"]: operation["value"] for operation in asked[1][3]}
    one = {**managed("Apply", "f:type"), "fieldsV1": {"f:spec": {"f:type": {}, "f:ports": {}}}}
    assert values == {
        "/metadata/uid": "uid-Service",
        "/metadata/resourceVersion": "7",
        "/metadata/managedFields": [one],
    }


async def test_what_is_one_entry_already_is_not_written():
    live = child("Service", 7)
    live["metadata"]["managedFields"] = [managed("Apply", "f:type")]
    async with server(live) as (client, asked):
        assert await consolidate(client) == live
        with pytest.raises(errors.ConflictError, match="Service 'a' has changed"):
            await consolidate(client, "6")
    assert [each[0] for each in asked] == ["GET", "GET"]


@pytest.mark.parametrize(
    ("data", "content"),
    [
        ({"b": "<é & 🤖>", "a": [1, None, {}]}, "application/json"),
        ({"scale": 0.5}, "application/yaml"),
        ({"text": "\b"}, "application/yaml"),
    ],
)
async def test_a_revision_is_sent_as_api_servers_write_it_where_that_is_known(data, content):
    revision = {**child("ControllerRevision", 0), "apiVersion": "apps/v1", "data": data, "revision": 1}
    async with server(revision) as (client, asked):
        await client.create(revision)
    assert (asked[0][3], asked[0][4]) == (revision, content)


async def test_the_status_is_a_subresource():
    async with server(slm(7)) as (client, asked):
        await client.apply_status(slm(3, status={"ready": True}))
    assert asked[0][1] == "/apis/slm-operator.io/v1alpha1/namespaces/demo/slmdeployments/a/status"
    assert asked[0][3]["metadata"]["resourceVersion"] == "3"


async def test_a_delete_names_the_very_object():
    async with server({}) as (client, asked):
        await client.delete(DEPLOYMENT, "demo", "a", uid="u", resource_version="5")
    assert asked[0][0:2] == ("DELETE", "/apis/apps/v1/namespaces/demo/deployments/a")
    assert asked[0][3]["preconditions"] == {"uid": "u", "resourceVersion": "5"}
    assert asked[0][3]["propagationPolicy"] == "Background"


def page(names: list[str], more: str = "") -> dict[str, Any]:
    metadata = {"resourceVersion": "40", **({"continue": more} if more else {})}
    return {"metadata": metadata, "items": [{"metadata": {"name": name}} for name in names]}


async def test_lists_come_in_pages_and_their_items_say_their_kind():
    async with server(page(["a", "b"], "next"), page(["c"])) as (client, asked):
        listing = await client.list(SERVICE, None, lambda item: (item["kind"], item["metadata"]["name"]))
    assert listing.items == [("Service", "a"), ("Service", "b"), ("Service", "c")]
    assert listing.resource_version == "40"
    assert asked[0][1] == "/api/v1/services"
    assert asked[0][2]["labelSelector"] == "app.kubernetes.io/managed-by=slm-operator"
    assert asked[1][2]["continue"] == "next"


async def test_a_list_from_the_servers_memory_asks_so_for_its_first_page_only():
    async with server(page(["a"], "next"), page(["b"])) as (client, asked):
        await client.list(EVENT, "demo", lambda item: item, field_selector="reason=Placed", cached=True)
    assert asked[0][2] == {"limit": "100", "fieldSelector": "reason=Placed", "resourceVersion": "0"}
    assert asked[1][2] == {"limit": "100", "fieldSelector": "reason=Placed", "continue": "next"}


async def test_a_list_that_outlives_its_revision_begins_anew():
    async with server(page(["a"], "next"), status(410, "Expired"), page(["b"])) as (client, _):
        listing = await client.list(SERVICE, "demo", lambda item: item["metadata"]["name"])
    assert listing.items == ["b"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(400, "BadRequest"), errors.InvalidError),
        (status(401, "Unauthorized"), errors.UnauthenticatedError),
        (status(403, "Forbidden"), errors.ForbiddenError),
        (status(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}]), errors.TerminatingError),
        (status(404, "NotFound"), errors.MissingError),
        (status(409, "AlreadyExists"), errors.ExistsError),
        (status(409, "Conflict"), errors.ConflictError),
        (status(409, "Conflict", causes=[{"reason": "FieldManagerConflict"}]), errors.TakenError),
        (status(410, "Expired"), errors.ExpiredError),
        (status(422, "Invalid"), errors.InvalidError),
        (status(422, "Invalid", causes=[{"field": "spec.ports"}]), errors.InvalidError),
        (status(422, "Invalid", causes=[{"field": "metadata.uid"}]), errors.ConflictError),
        (status(429, "TooManyRequests"), errors.ThrottledError),
        (status(500, "InternalError"), errors.UnavailableError),
        (status(503, "ServiceUnavailable"), errors.UnavailableError),
        ((502, "<html>bad gateway</html>", {}), errors.UnavailableError),
        ((200, "<html>log in here</html>", {}), errors.UnavailableError),
    ],
)
async def test_each_refusal_has_its_class(answer, error):
    async with server(answer) as (client, _):
        with pytest.raises(errors.ClusterError) as caught:
            await client.get(SERVICE, "demo", "a")
    assert type(caught.value) is error


async def test_the_servers_wait_is_told_in_either_place():
    in_header = (429, {"message": "slow down"}, {"Retry-After": "7"})
    for answer in (in_header, status(429, retryAfterSeconds=7)):
        async with server(answer) as (client, _):
            with pytest.raises(errors.ThrottledError) as caught:
                await client.get(SERVICE, "demo", "a")
        assert caught.value.retry_after == 7


async def test_nobody_there_is_an_outage():
    client = KubernetesClient(api_client(Configuration(host="http://127.0.0.1:9"), 4), timeout=5)
    with pytest.raises(errors.UnavailableError, match="/services/a"):
        await client.get(SERVICE, "demo", "a")
    await client.close()


@pytest.mark.parametrize(
    ("answer", "served"),
    [
        ({"resources": [{"name": "servicemonitors"}]}, True),
        ({"resources": [{"name": "prometheuses"}]}, False),
        (status(404, "NotFound"), False),
    ],
)
async def test_discovery_tells_what_is_served(answer, served):
    async with server(answer) as (client, asked):
        assert await client.serves(SERVICE_MONITOR) is served
    assert asked[0][1] == "/apis/monitoring.coreos.com/v1"


async def test_a_document_of_a_kind_that_is_not_ours_is_a_mistake():
    async with server({}) as (client, _):
        with pytest.raises(LookupError, match="apps/v2/Widget"):
            await client.create({"apiVersion": "apps/v2", "kind": "Widget", "metadata": {"name": "a"}})
