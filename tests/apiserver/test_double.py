"""The real API server passes the suite that the simulated one passes, and both make the same of whole objects.

It runs without controllers, which would write to the objects in between.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from slm_operator.cluster.client import APPLY, MERGE, KubernetesClient
from slm_operator.cluster.connection import api_client, load
from slm_operator.cluster.resources import resource_of
from tests.apiserver.operator import CRD
from tests.cluster import ControlPlane, HarnessError, service_monitor_crd
from tests.cluster.processes import wait_until
from tests.double import objects
from tests.double.cases import CASES
from tests.double.stage import Doc, Stage, over
from tests.sim.cluster import MemoryCluster
from tests.sim.loop import simulate

pytestmark = pytest.mark.apiserver
NAMESPACE = "double"


@dataclass
class Others:
    """Implements :class:`tests.double.stage.Others`."""

    client: KubernetesClient

    async def create(self, document: Doc, *, by: str) -> Doc:
        path = resource_of(document).path(NAMESPACE)
        return await self._send("POST", document, path, document, by=by)

    async def replace(self, document: Doc, *, by: str) -> Doc:
        return await self._send("PUT", document, _path(document), document, by=by)

    async def apply(self, document: Doc, *, by: str, force: bool = False) -> Doc:
        more = {"content_type": APPLY}
        query = {"force": str(force).lower()}
        body = orjson.dumps(document)
        return await self._send("PATCH", document, _path(document), body, by=by, query=query, **more)

    async def patch(self, live: Doc, patch: Doc, *, by: str, subresource: str = "") -> Doc:
        more = {"content_type": MERGE}
        await self._send("PATCH", live, _path(live, subresource), patch, by=by, **more)
        if (patch.get("metadata") or {}).get("finalizers", "") is None:
            return live
        return await self.client.get(resource_of(live), NAMESPACE, live["metadata"]["name"])

    async def delete(self, live: Doc) -> None:
        await self.client._request("DELETE", resource_of(live), _path(live))

    async def _send(
        self,
        method: str,
        of: Doc,
        path: str,
        body: Doc | bytes,
        *,
        by: str,
        query: dict | None = None,
        **more: Any,
    ) -> Doc:
        query = {"fieldManager": by, **(query or {})}
        return await self.client._request(method, resource_of(of), path, query=query, body=body, **more)


def _path(document: Doc, subresource: str = "") -> str:
    return resource_of(document).path(NAMESPACE, document["metadata"]["name"], subresource)


@pytest.fixture(scope="module")
def bare() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        plane.kubectl("apply", "--server-side", "-f", str(CRD))
        plane.kubectl("apply", "--server-side", "-f", str(service_monitor_crd()))
        for group in ("slm-operator.io/v1alpha1/slmdeployments", "monitoring.coreos.com/v1/servicemonitors"):
            wait_until("the CRDs are served", lambda path=f"/apis/{group}": _is_served(plane, path))
        plane.kubectl("create", "namespace", NAMESPACE)
        yield plane


def _is_served(plane: ControlPlane, path: str) -> bool:
    try:
        plane.kubectl("get", "--raw", path)
    except HarnessError:
        return False
    return True


@pytest.fixture
async def client(bare: ControlPlane) -> AsyncIterator[KubernetesClient]:
    client = KubernetesClient(api_client(await load(str(bare.kubeconfig)), 4))
    yield client
    await client.close()


@pytest.mark.parametrize("name", CASES)
async def test_real(client: KubernetesClient, name: str) -> None:
    await CASES[name](Stage(client, Others(client), NAMESPACE, name.replace("_", "-")[:60].strip("-")))


SAMPLES = {
    "deployment": objects.whole_deployment,
    "deployment, small": objects.deployment,
    "deployment, recreated": lambda stage: objects.whole_deployment(stage, strategy={"type": "Recreate"}),
    "job": objects.whole_job,
    "job, small": objects.job,
    "service": objects.service,
    "service, small": lambda stage: objects.service(stage, {"port": 80}),
    "service, balanced": lambda stage: _typed(objects.service(stage), "LoadBalancer"),
    "claim": lambda stage: objects.claim(stage, "1024Mi", labels={"app": "a"}),
    "config map": lambda stage: objects.config_map(stage, {"a": "1"}, annotations={"a": "b"}),
    "secret": objects.secret,
    "budget": objects.budget,
    "revision": objects.revision,
    "monitor": objects.monitor,
    "ours": lambda stage: objects.slm(
        stage,
        replicas=2,
        hardware={"preference": ["cpu"]},
        runtime={"env": [{"name": "A", "value": "b"}]},
        endpoint={"cors": {"allowedOrigins": ["https://a.example.com"]}},
    ),
}


@pytest.mark.parametrize("verb", ["post", "apply", "apply over a post", "consolidate"])
@pytest.mark.parametrize("sample", SAMPLES)
def test_both_make_the_same_of_it(bare: ControlPlane, sample: str, verb: str) -> None:
    """Defaults, generations and owners of all fields; not what is random or allocated."""

    async def play(stage: Stage) -> Doc:
        document = SAMPLES[sample](stage)
        if verb == "apply":
            return await stage.cluster.apply(document)
        live = await stage.cluster.create(document)
        if verb == "apply over a post":
            return await stage.cluster.apply(over(live, document))
        if verb == "consolidate":
            resource, metadata = resource_of(live), live["metadata"]
            return await stage.cluster.consolidate(
                resource,
                NAMESPACE,
                metadata["name"],
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"],
            )
        return live

    name = f"{sample}-{verb}".replace(",", "").replace(" ", "-")

    async def real() -> Doc:
        client = KubernetesClient(api_client(await load(str(bare.kubeconfig)), 4))
        try:
            return await play(Stage(client, Others(client), NAMESPACE, name))
        finally:
            await client.close()

    async def simulated() -> Doc:
        cluster = MemoryCluster()
        return await play(Stage(cluster, Others(client=None), NAMESPACE, name))  # type: ignore[arg-type]

    assert _normal(simulate(simulated())) == _normal(asyncio.run(real()))


def _normal(document: Doc) -> Doc:
    """Without identities, times and addresses."""
    text = json.dumps(document).replace(document["metadata"]["uid"], "UID")
    normal: Doc = json.loads(text)
    for key in ("resourceVersion", "creationTimestamp"):
        del normal["metadata"][key]
    for entry in normal["metadata"]["managedFields"]:
        entry["time"] = "time" in entry
    for key in ("clusterIP", "clusterIPs"):
        normal.get("spec", {}).pop(key, None)
    for port in normal.get("spec", {}).get("ports", ()):
        port.pop("nodePort", None)
    return normal


def _typed(document: Doc, kind: str) -> Doc:
    document["spec"]["type"] = kind
    return document
