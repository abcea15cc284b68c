"""What people do to an SLMDeployment, from its making to its rest; `live` plays one with whatever goes wrong meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.sim.cases import DEPLOYMENT, SLM, node, npu_node, slm, world
from tests.sim.cluster import Doc, Ref
from tests.sim.loop import simulate
from tests.sim.safety import Safety
from tests.sim.world import Faults, World

Story = Callable[[World], Awaitable[None]]
GOOD = {"name": "m", "source": "https://models.example.com/m.gguf"}
OTHER = {"name": "m", "source": "https://models.example.com/other.gguf"}
CLAIM = Ref("PersistentVolumeClaim", "demo", "a-models")


def edit(each: World, **changes: Any) -> None:
    """Somebody writes parts of the spec anew."""
    each.cluster.change(SLM, lambda document: document["spec"].update(changes))


def conditions(each: World, ref: Ref = SLM) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    told = each.cluster.objects[ref]["status"]["conditions"]
    return {one["type"]: (one["status"], one["reason"]) for one in told}


def folders(each: World, claim: Ref) -> set[str]:
    """Models that lie in a claim."""
    return set(each.controllers.pods.volumes.models[claim])


def source(document: Doc) -> str:
    """What the pods of a Deployment serve, as its template has it."""
    return str(document["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]).split('"source":"')[
        1
    ]


async def a_life(each: World) -> None:
    """Made, edited, scaled, suspended and resumed, with its memory fitted; another one made and deleted."""
    each.cluster.put(slm(resources=None))
    await each.pause()
    each.cluster.change(SLM, lambda document: document["spec"]["runtime"].update(contextLength=1024))
    await each.pause()
    each.cluster.put(slm("b"))
    edit(each, replicas=2)
    await each.pause()
    each.cluster.remove(SLM._replace(name="b"))
    edit(each, suspend=True)
    await each.pause()
    edit(each, suspend=False)
    await each.pause()


async def a_hurry(each: World) -> None:
    """The same spec in the end, by edits that come before anything has settled."""
    each.cluster.put(slm(resources=None))
    for context in (512, 1024, 2048, 1024):
        await asyncio.sleep(0.05)
        each.cluster.change(
            SLM, lambda document, context=context: document["spec"]["runtime"].update(contextLength=context)
        )
    await each.pause()


async def a_cache(each: World) -> None:
    """A volume that a Job fills before the pods start."""
    each.cluster.put(slm(cache={"mode": "PVC", "size": "1Gi"}, resources=None))
    await each.pause()


async def a_fallback(each: World) -> None:
    """A device that another pod holds until patience is over; when it is free, its class is taken after all."""
    each.cluster.put(npu_node())
    each.cluster.put(holder("example.com/npu"))
    fallback = {"after": "1m", "recover": "Always", "coolDown": "3m"}
    each.cluster.put(slm(hardware={"preference": ["npu", "cpu"], "fallback": fallback}))
    await asyncio.sleep(40)
    await each.pause()
    await asyncio.sleep(20)
    await each.pause()
    assert each.cluster.objects[SLM]["status"]["placement"]["selected"] == "cpu"
    each.cluster.remove(HOLDER)
    await asyncio.sleep(200)
    await each.pause()
    assert each.cluster.objects[SLM]["status"]["placement"]["selected"] == "npu-test"


async def a_rollback(each: World) -> None:
    """An edit to a model that is never served, and its correction; what served before serves all the time."""
    each.cluster.put(slm(replicas=2))
    await each.pause()
    edit(each, model={"name": "m", "source": "https://models.example.com/checksum.gguf"})
    await each.pause()
    assert conditions(each)["Ready"] == ("True", "RolledBack")
    assert conditions(each)["Stalled"] == ("True", "ChecksumMismatch")
    assert source(each.cluster.objects[DEPLOYMENT]).startswith(GOOD["source"])
    edit(each, model=OTHER)
    await each.pause()
    assert conditions(each)["Ready"] == ("True", "Serving")


async def a_lesson(each: World) -> None:
    """A model that is killed for want of memory until it has been given enough, and one that no lesson is enough for."""
    each.cluster.put(
        slm(model={"name": "m", "source": "https://models.example.com/oom-650Mi.gguf"}, resources=None)
    )
    await each.pause()
    memory = each.cluster.objects[SLM]["status"]["memory"]
    assert "raised to" in memory["explanation"], memory
    assert conditions(each)["Ready"] == ("True", "Serving")
    assert [one["cause"] for one in each.cluster.objects[SLM]["status"]["attempts"]] == 2 * [
        "TooLittleMemory"
    ]


async def a_class_change(each: World) -> None:
    """The site changes a class: who consents takes it, who doesn't runs on as it was."""
    each.cluster.put(slm(rollout={"upgrade": "Auto"}, resources=None))
    each.cluster.put(slm("b", resources=None))
    await each.pause()
    before = each.cluster.objects[DEPLOYMENT._replace(name="b")]["spec"]["template"]
    await each.stop()
    classes = tuple(
        one.model_copy(update={"image": "runtime:2"}) if one.name == "cpu" else one
        for one in each.settings.classes
    )
    each.settings = each.settings.model_copy(update={"classes": classes})
    await each.start()
    await each.pause()
    images = {
        name: each.cluster.objects[DEPLOYMENT._replace(name=name)]["spec"]["template"]["spec"]["containers"][
            0
        ]["image"]
        for name in "ab"
    }
    assert images == {"a": "runtime:2", "b": "runtime:1"}
    assert each.cluster.objects[DEPLOYMENT._replace(name="b")]["spec"]["template"] == before


async def a_claim(each: World) -> None:
    """Another model on a volume that only one node can have, and on one that only one pod can, which somebody brings."""
    each.cluster.put(node("m"))
    cache = {"mode": "PVC", "size": "1Gi", "accessModes": ["ReadWriteOnce"]}
    each.cluster.put(slm(cache=cache))
    await each.pause()
    edit(each, model=OTHER)
    await each.pause()
    assert conditions(each)["Ready"] == ("True", "Serving")
    each.cluster.put(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "mine", "namespace": "demo"},
            "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}},
        }
    )
    edit(each, cache={"mode": "PVC", "claimName": "mine", "accessModes": ["ReadWriteOncePod"]})
    await each.pause()
    assert conditions(each)["Ready"] == ("True", "Serving")
    edit(each, model=GOOD)
    await each.pause()
    assert conditions(each)["Ready"] == ("True", "Serving")
    assert CLAIM not in each.cluster.objects


async def a_deletion_and_again(each: World) -> None:
    """Deleted, and made again at once; nothing of the one before is taken for its own."""
    each.cluster.put(slm(cache={"mode": "PVC", "size": "1Gi"}, resources=None))
    await each.pause()
    each.cluster.remove(SLM)
    each.cluster.put(slm(replicas=2, resources=None))
    await each.pause()
    assert conditions(each)["Ready"] == ("True", "Serving")


LONG: list[Story] = [
    a_fallback,
    a_rollback,
    a_lesson,
    a_class_change,
    a_claim,
    a_deletion_and_again,
]
HOLDER = Ref("Pod", "demo", "holder")


def holder(resource: str) -> Doc:
    """A pod of somebody else that has a device."""
    requests = {resource: "1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": HOLDER.name, "namespace": HOLDER.namespace, "labels": {}},
        "spec": {
            "nodeName": "fast",
            "containers": [{"name": "c", "image": "busy", "resources": {"requests": requests}}],
        },
        "status": {"phase": "Running"},
    }


def live(story: Story, operators: int = 1, **faults: Any) -> World:
    """Play a story to its end, and check what always has to hold."""

    async def scenario() -> World:
        each = world(**faults)
        each.watch, each.patient = Safety(), "lose" in faults
        await each.start(operators)
        await story(each)
        await each.settle()
        since = len(each.cluster.requests)
        await each.stop()
        each.faults = Faults()
        await each.start()
        await each.pause()
        assert each.cluster.requests[since:] == [], "a restart at rest writes"
        await each.stop()
        return each

    return simulate(scenario())


def play(scenario: Callable[[World], Awaitable[None]], **settings: Any) -> World:
    """One operator over a cluster, safe at every moment and at rest in the end."""

    async def play() -> World:
        each = world()
        each.settings = each.settings.model_copy(update=settings)
        each.watch = Safety()
        await each.start()
        await scenario(each)
        await each.settle()
        since = len(each.cluster.requests)
        await asyncio.sleep(2000)
        await each.settle()
        assert each.cluster.requests[since:] == [], "no rest"
        await each.stop()
        return each

    return simulate(play())


async def reconfigure(each: World, **settings: Any) -> None:
    """The operator comes back with another configuration."""
    await each.stop()
    each.settings = each.settings.model_copy(update=settings)
    await each.start()


async def seconds(each: World, count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(1)
        await each.step()


def pods(each: World) -> list[str]:
    return [ref.name for ref, _ in each.cluster.of("Pod")]


def model(name: str) -> Doc:
    return {"name": "m", "source": f"https://models.example.com/{name}.gguf"}
