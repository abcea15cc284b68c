"""Random histories: people edit, delete and meddle, operators crash and lists come late, in any order.

When it has calmed down, the world is the one that the last spec alone would have made.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.sim import actors
from tests.sim.actors import Strangers
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
        "cache": st.sampled_from([{"mode": "PVC", "size": "1Gi"}, {"mode": "Ephemeral"}]),
        "observability": st.just({"serviceMonitor": {"enabled": True}}),
        "auth": st.sampled_from([{"mode": "None"}, {"mode": "APIKey"}, {"secretRef": {"name": "mine"}}]),
        "hardware": st.sampled_from([{"preference": ["npu", "cpu"]}, {"preference": ["cpu"]}]),
    },
)
KNOCKS = 60
"""Times that two operators ask in 2,000 s whether a stranger's key Secret is gone: Secrets aren't watched, a POST tells."""
NOISE = Ref("Service", "demo", "a")


def wanted(spec: Doc) -> Doc:
    """Memory is fitted, so that what is known of the model is the same at every end."""
    return slm(resources=None, **spec)


def stage(webhook: str = "none") -> World:
    """A cluster before anything has happened in it."""
    each = world()
    each.cluster.served.add("ServiceMonitor")
    each.cluster.put(secret())
    each.cluster.put(actors.owner())
    if (rewrites := actors.WEBHOOKS[webhook]) is not None:
        each.cluster.webhooks.append(rewrites)
    return each


def fresh(document: Doc, strangers: dict[Ref, Doc], webhook: str) -> dict[Ref, Any]:
    """What the same spec makes in a cluster where nothing else ever happened."""

    async def scenario() -> MemoryCluster:
        each = stage(webhook)
        for stranger in strangers.values():
            each.cluster.put(stranger)
        await each.start()
        each.cluster.put(document)
        await each.settle()
        await each.stop()
        return each.cluster

    return end_state(simulate(scenario()))


def secret() -> Doc:
    """A key that a person brings."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "demo"}}


def ours(state: dict[Ref, Any], strangers: dict[Ref, Doc]) -> dict[Ref, Any]:
    """The end without what is other people's; a Secret's content is random, and an earlier one may have been kept."""
    kept = present({ref: each for ref, each in state.items() if ref not in strangers})
    kept.pop(Ref("Secret", "demo", "a-api-key"), None)
    if strangers and SLM in kept:
        # What it has come to, without what it remembers of better days.
        told = kept[SLM]["status"]["conditions"]
        kept[SLM] = [(each["type"], each["status"], each["reason"]) for each in told]
    return {ref: actors.without_marks(each) for ref, each in kept.items()}


class Histories(RuleBasedStateMachine):
    """Each rule lets a little time pass; the end lets all pass."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.document: Doc | None = None

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize(operators=st.integers(1, 2))
    def begin(self, operators: int) -> None:
        self._begin(operators, "none")

    def _begin(self, operators: int, webhook: str) -> None:
        async def start() -> World:
            each = stage(webhook)
            safe, strangers = Safety(), Strangers(each.cluster)

            def watch(seen: World) -> None:
                safe(seen)
                strangers.check()

            each.watch, self.strangers = watch, strangers
            await each.start(operators)
            return each

        self.operators, self.webhook = operators, webhook
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
            if not actors.is_ours(self.world.cluster.objects.get(ref)):
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
            asked = self.world.cluster.requests[since:]
            key = Ref("Secret", "demo", "a-api-key")
            assert all(write.ref == key and key in self.strangers.there for write in asked), "no rest"
            assert len(asked) <= KNOCKS
            await self.world.stop()

        try:
            self.run(end())
        finally:
            self.runner.close()
        state, strangers = end_state(self.world.cluster), self.strangers.there
        self.strangers.check()
        if self.document is None:
            left = {ref for ref in state if ref.kind != "Node"}
            assert left == {Ref("Secret", "demo", "mine"), actors.THEIRS, *strangers}
        else:
            expected = fresh(self.document, strangers, self.webhook)
            assert ours(state, strangers) == ours(expected, strangers)


class Crowds(Histories):
    """The same among strangers who want our names, tools that write what is ours, and webhooks."""

    @initialize(operators=st.integers(1, 2), webhook=st.sampled_from(sorted(actors.WEBHOOKS)))
    def begin(self, operators: int, webhook: str) -> None:
        self._begin(operators, webhook)

    def act(self, act: Callable[[MemoryCluster], None]) -> None:
        async def work() -> None:
            act(self.world.cluster)

        self.run(work())

    @rule(
        ref=st.sampled_from(actors.NAMED), labels=st.sampled_from([{}, actors.LIKE_OURS]), owned=st.booleans()
    )
    def come(self, ref: Ref, labels: Doc, owned: bool) -> None:
        self.act(lambda _: self.strangers.come(ref, labels, owned=owned))

    @rule(ref=st.sampled_from(actors.NAMED), gone=st.booleans())
    def change(self, ref: Ref, gone: bool) -> None:
        self.act(lambda _: self.strangers.go(ref) if gone else self.strangers.change(ref))

    @rule(ref=st.sampled_from(actors.NAMED))
    def label(self, ref: Ref) -> None:
        self.act(lambda cluster: actors.label(cluster, ref))

    @rule(replicas=st.integers(1, 4))
    def scale(self, replicas: int) -> None:
        self.act(lambda cluster: actors.scale(cluster, replicas))

    @rule(undone=st.booleans())
    def roll(self, undone: bool) -> None:
        self.act(lambda cluster: actors.undo(cluster) if undone else actors.restart(cluster, "now"))


TestHistories = Histories.TestCase
TestCrowds = Crowds.TestCase
TestHistories.settings = TestCrowds.settings = settings(
    max_examples=10,
    stateful_step_count=14,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
