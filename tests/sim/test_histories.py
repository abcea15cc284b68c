"""Random histories: people edit, delete and meddle, operators crash and lists come late, in any order.

When it has calmed down, the world is the one that the last spec alone would have made.
"""

import asyncio
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.sim.cases import DEPLOYMENT, SLM, slm, world
from tests.sim.cluster import Doc, MemoryCluster, Ref
from tests.sim.ends import end_state, present
from tests.sim.loop import VirtualLoop, simulate
from tests.sim.safety import Safety
from tests.sim.world import Faults, World

SPECS = st.fixed_dictionaries(
    {},
    optional={
        "runtime": st.fixed_dictionaries(
            {},
            optional={
                "contextLength": st.sampled_from([512, 1024, 2048]),
                "parallel": st.sampled_from([1, 2]),
                "env": st.just([{"name": "A", "value": "b"}]),
            },
        ),
        "replicas": st.integers(0, 3),
        "suspend": st.booleans(),
        "endpoint": st.fixed_dictionaries({"port": st.sampled_from([80, 8080])}),
        "auth": st.sampled_from([{"mode": "None"}, {"mode": "APIKey"}, {"secretRef": {"name": "mine"}}]),
        "hardware": st.sampled_from([{"preference": ["npu", "cpu"]}, {"preference": ["cpu"]}]),
    },
)
NOISE = Ref("Service", "demo", "a")


def wanted(spec: Doc) -> Doc:
    """Memory is fitted, so that what is known of the model is the same at every end."""
    return slm(resources=None, **spec)


def fresh(document: Doc) -> dict[Ref, Any]:
    """What the same spec makes in an empty cluster."""

    async def scenario() -> MemoryCluster:
        each = world()
        each.cluster.put(secret())
        await each.start()
        each.cluster.put(document)
        await each.settle()
        await each.stop()
        return each.cluster

    return end_state(simulate(scenario()))


def secret() -> Doc:
    """A key that a person brings."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "demo"}}


class Histories(RuleBasedStateMachine):
    """Each rule lets a little time pass; the end lets all pass."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.document: Doc | None = None
        self.meddled = False

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize(operators=st.integers(1, 2))
    def begin(self, operators: int) -> None:
        async def start() -> World:
            each = world()
            each.watch = Safety()
            each.cluster.put(secret())
            await each.start(operators)
            return each

        self.operators = operators
        self.world = self.run(start())

    @rule(spec=SPECS)
    def apply(self, spec: Doc) -> None:
        self.document = wanted(spec)

        async def write() -> None:
            live = self.world.cluster.objects.get(SLM)
            status = {"status": live["status"]} if live and "status" in live else {}
            self.world.cluster.put({**self.document, **status})

        self.run(write())

    @precondition(lambda self: self.document is not None)
    @rule()
    def delete(self) -> None:
        self.document = None

        async def remove() -> None:
            self.world.cluster.remove(SLM)

        self.run(remove())

    @rule(seconds=st.sampled_from([0.01, 0.05, 1, 3, 30, 700]))
    def wait(self, seconds: float) -> None:
        async def sleep() -> None:
            await asyncio.sleep(seconds)
            await self.world.step()

        self.run(sleep())

    @rule(ref=st.sampled_from([DEPLOYMENT, NOISE]), deleted=st.booleans())
    def meddle(self, ref: Ref, deleted: bool) -> None:
        async def change() -> None:
            if ref not in self.world.cluster.objects:
                return
            if deleted:
                self.world.cluster.remove(ref)
            else:
                self.world.cluster.change(ref, lambda each: each["metadata"]["labels"].clear())

        self.run(change())

    @rule(after=st.integers(0, 6))
    def crash_soon(self, after: int) -> None:
        self.world.faults = Faults(after=frozenset({self.world.asked + after}), stale_by=after)

    @rule()
    def restart(self) -> None:
        async def again() -> None:
            await self.world.stop()
            await self.world.start(self.operators)

        self.run(again())

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return

        async def end() -> None:
            self.world.faults = Faults()
            await self.world.settle()
            since = len(self.world.cluster.requests)
            await asyncio.sleep(2000)
            await self.world.settle()
            assert self.world.cluster.requests[since:] == [], "no rest"
            await self.world.stop()

        try:
            self.run(end())
            state = end_state(self.world.cluster)
        finally:
            self.runner.close()
        if self.document is None:
            assert {ref.kind for ref in state} == {"Node", "Secret"}
            assert [ref.name for ref in state if ref.kind == "Secret"] == ["mine"]
        else:
            expected = fresh(self.document)
            key = Ref("Secret", "demo", "a-api-key")
            state.pop(key, None)
            expected.pop(key, None)
            assert present(state) == present(expected)


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=25,
    stateful_step_count=12,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
