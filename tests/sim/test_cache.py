"""Models that outlive their pods, in claims and on nodes: what is there when it is needed, and what goes."""

import asyncio

import pytest

from slm_operator.model.known import runtime_config
from tests.sim.cases import DEPLOYMENT, SLM, node, npu_node, slm
from tests.sim.cluster import Ref
from tests.sim.stories import CLAIM, conditions, edit, folders, model, play, reconfigure, seconds, source
from tests.sim.world import World

# Models in a claim.


@pytest.mark.parametrize("disturbed", ["nothing", "a restart", "a model that never serves"])
def test_a_claim_holds_what_runs_and_what_ran_before(disturbed):
    """What serves is never removed (`Safety`), and the room of earlier models is there for the next one."""

    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache={"mode": "PVC", "size": "1Gi"}))
        await each.settle()
        for name in ("second", "third", "fourth"):
            if disturbed == "a model that never serves":
                edit(each, model=model(f"crash-{name}"))
                await each.settle()
                assert conditions(each)["Ready"] == ("True", "RolledBack")
            edit(each, model=model(name))
            if disturbed == "a restart":
                await seconds(each, 2)
                await each.stop()
                await each.start()
            await each.settle()
            assert conditions(each)["Ready"] == ("True", "Serving")
            assert len(folders(each, CLAIM)) == 2
        assert each.cluster.objects[SLM]["status"]["cache"]["removed"]["models"] == 1

    play(scenario)


def test_a_model_that_may_be_gone_back_to_stays_in_its_claim():
    """The third is asked for while the second hasn't served: the first is served all the time, and may have to be again."""

    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache={"mode": "PVC", "size": "1Gi", "accessModes": ["ReadWriteMany"]}))
        await each.pause()
        edit(each, model=model("never-ready"))
        await seconds(each, 20)
        edit(each, model=model("crash-third"))
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "RolledBack")
        assert source(each.cluster.objects[DEPLOYMENT]).startswith("https://models.example.com/m.gguf")

    play(scenario)


@pytest.mark.parametrize(("unused", "left"), [("Delete", 4), ("Retain", 5), (None, 5)])
def test_a_claim_that_others_share_keeps_what_they_serve(unused, left):
    """And what any of them has started with within a day: nothing goes that isn't asked for by name."""
    cache = {"claimName": "shared", "accessModes": ["ReadWriteMany"]}
    if unused is not None:
        cache["unusedModels"] = unused
    shared = Ref("PersistentVolumeClaim", "demo", "shared")

    async def scenario(each: World) -> None:
        each.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "shared", "namespace": "demo"},
                "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
            }
        )
        each.cluster.put(slm("b", model=model("of-b"), cache={**cache, "unusedModels": "Retain"}))
        each.cluster.put(slm(cache=cache))
        await each.settle()
        for name in ("second", "third"):
            edit(each, model=model(name))
            await each.settle()
        assert len(folders(each, shared)) == 4, "none was without use for a day"
        await asyncio.sleep(100_000)
        edit(each, model=model("fourth"))
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "Serving")
        assert conditions(each, SLM._replace(name="b"))["Ready"] == ("True", "Serving")
        assert len(folders(each, shared)) == left

    play(scenario)


# Models on nodes.

NODE_LOCAL = {"mode": "NodeLocal"}
COPIED = {**NODE_LOCAL, "prePull": True}
DAEMON_SET = Ref("DaemonSet", "demo", "a-copies")
SITE = "/var/lib/slm-models"


def on(name: str) -> Ref:
    """The part that the namespace has of a node's directory."""
    return Ref("Directory", "demo", name)


def served(each: World) -> str:
    """The folder of the model that the Deployment serves."""
    config = runtime_config(each.cluster.objects[DEPLOYMENT]["spec"]["template"]["spec"])
    assert config is not None
    return config.model.folder


def test_copies_are_on_every_node_of_the_class_and_follow_the_model():
    """Also on a node that comes later; where the class has none, there is none."""

    async def scenario(each: World) -> None:
        each.cluster.put(npu_node())
        each.cluster.put(node("second"))
        each.cluster.put(slm(cache=COPIED, hardware={"preference": ["npu"]}, replicas=1))
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "Serving")
        copies = {"wanted": 1, "ready": 1, "failed": 0}
        assert each.cluster.objects[SLM]["status"]["cache"] == {"copies": copies}
        assert folders(each, on("fast")) == {served(each)}
        assert on("second") not in each.controllers.pods.volumes.models
        edit(each, hardware={"preference": ["cpu"]}, model=model("next"))
        await each.settle()
        each.cluster.put(node("third"))
        await each.settle()
        copies = {"wanted": 4, "ready": 4, "failed": 0}
        assert each.cluster.objects[SLM]["status"]["cache"] == {"copies": copies}
        for name in ("n", "fast", "second", "third"):
            assert served(each) in folders(each, on(name))

    play(scenario, node_cache=SITE)


def test_copies_that_nobody_wants_any_more_go_in_time():
    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache=COPIED))
        await each.settle()
        assert DAEMON_SET in each.cluster.objects
        for name in ("second", "third", "fourth"):
            await asyncio.sleep(100_000)
            edit(each, model=model(name))
            await each.settle()
        assert len(folders(each, on("n"))) == 3, "the first was found without use when the third came"
        edit(each, cache=NODE_LOCAL)
        await each.settle()
        assert DAEMON_SET not in each.cluster.objects
        assert "cache" not in each.cluster.objects[SLM]["status"]
        assert conditions(each)["Ready"] == ("True", "Serving")
        assert each.controllers.starts == {"a": 4}, "copies are no part of what serves"

    play(scenario, node_cache=SITE)


def test_copies_that_fail_are_counted():
    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache=COPIED, model=model("checksum")))
        await each.settle()
        assert conditions(each)["Ready"] == ("False", "ChecksumMismatch")
        copies = {"wanted": 1, "ready": 0, "failed": 1}
        assert each.cluster.objects[SLM]["status"]["cache"] == {"copies": copies}
        edit(each, model=model("good"))
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "Serving")
        copies = {"wanted": 1, "ready": 1, "failed": 0}
        assert each.cluster.objects[SLM]["status"]["cache"] == {"copies": copies}

    play(scenario, node_cache=SITE)


def test_copies_go_back_with_what_serves():
    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache=COPIED))
        await each.settle()
        good = served(each)
        edit(each, model=model("crash"))
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "RolledBack")
        config = runtime_config(each.cluster.objects[DAEMON_SET]["spec"]["template"]["spec"])
        assert config is not None
        assert config.model.folder == served(each) == good

    play(scenario, node_cache=SITE)


def test_a_site_that_takes_its_directory_back_leaves_what_runs():
    """The operator may neither read nor write DaemonSets any more: the copies go with the SLMDeployment."""

    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache=COPIED))
        await each.settle()
        await reconfigure(each, node_cache=None)
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "Serving")
        assert "cache" not in each.cluster.objects[SLM]["status"]
        assert DAEMON_SET in each.cluster.objects
        each.cluster.remove(SLM)
        await each.settle()
        assert DAEMON_SET not in each.cluster.objects

    assert play(scenario, node_cache=SITE).controllers.starts == {"a": 1}
