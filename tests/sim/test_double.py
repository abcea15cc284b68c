"""The simulated API server passes the suite that the real one passes (`tests/apiserver/test_double.py`)."""

from dataclasses import dataclass

import pytest

from tests.double import objects
from tests.double.cases import CASES
from tests.double.stage import Doc, Stage, changed, over, owners
from tests.sim.cluster import MemoryCluster, clone, ref_of
from tests.sim.loop import simulate


@dataclass
class Others:
    """Implements :class:`tests.double.stage.Others`."""

    cluster: MemoryCluster

    async def create(self, document: Doc, *, by: str) -> Doc:
        return clone(self.cluster.post(document, by=by))

    async def replace(self, document: Doc, *, by: str) -> Doc:
        return clone(self.cluster.put(document, by=by))

    async def apply(self, document: Doc, *, by: str, force: bool = False) -> Doc:
        return clone(self.cluster.apply_as(document, by=by, force=force))

    async def patch(self, live: Doc, patch: Doc, *, by: str, subresource: str = "") -> Doc:
        return clone(self.cluster.patch(ref_of(live), patch, by=by, subresource=subresource))

    async def delete(self, live: Doc) -> None:
        self.cluster.remove(ref_of(live))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_simulated(case):
    async def scenario():
        cluster = MemoryCluster()
        await case(Stage(cluster, Others(cluster), "demo", "a"))

    simulate(scenario())


def test_what_a_webhook_rewrites_stays_the_writers():
    """The real API server keeps account before mutating admission, and what that changes has the owner it had."""

    async def scenario():
        cluster = MemoryCluster()
        stage = Stage(cluster, Others(cluster), "demo", "a")
        cluster.webhooks.append(lambda document: document["data"].update(a="rewritten"))
        live = await cluster.create(objects.config_map(stage, {"a": "1"}))
        assert live["data"] == {"a": "rewritten"}
        assert owners(live, "f:data", "f:a") == {"slm-operator/Update"}
        live = await cluster.apply(over(live, objects.config_map(stage, {"a": "1"})))
        assert not changed(live, await cluster.apply(over(live, objects.config_map(stage, {"a": "1"}))))

    simulate(scenario())
