"""The operator hurts nobody: what was once seen to do harm, played in the whole simulated cluster."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from slm_operator.cluster import errors
from slm_operator.crd import names
from slm_operator.observed.pods import volumes_of
from slm_operator.settings import FetchSettings
from tests.sim.actors import Strangers, owner, scale
from tests.sim.cases import DEPLOYMENT, SLM, slm
from tests.sim.cluster import Doc, Ref, clone
from tests.sim.stories import CLAIM, conditions, edit, play, pods, reconfigure, seconds
from tests.sim.world import World

CA = Ref("ConfigMap", "demo", "a-ca")
CACHE = {"mode": "PVC", "size": "1Gi"}


def claim(**metadata: Any) -> Doc:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM.name, "namespace": "demo", **metadata},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }


# What isn't ours.


@pytest.mark.parametrize("labels", [{}, {names.MANAGED_BY_LABEL: names.MANAGED_BY}])
def test_somebodys_claim_outlives_us_byte_for_byte(labels):
    """Nor does anything of ours ever mount it: a pull Job would write into it."""

    async def scenario(each: World) -> None:
        each.cluster.put(claim(labels=labels))
        before = clone(each.cluster.objects[CLAIM])
        each.cluster.put(slm(cache=CACHE))
        await each.pause()
        assert conditions(each)["Ready"] == ("False", "NameTaken")
        assert not any(CLAIM.name in volumes_of(pod["spec"])[CLAIM.kind] for _, pod in each.cluster.of("Pod"))
        each.cluster.remove(SLM)
        await each.pause()
        assert each.cluster.objects[CLAIM] == before

    play(scenario)


def test_nothing_trusts_the_cas_in_somebodys_config_map():
    async def scenario(each: World) -> None:
        each.cluster.put(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": CA.name, "namespace": "demo"},
                "data": {"ca.crt": "of somebody else"},
            }
        )
        before = clone(each.cluster.objects[CA])
        each.cluster.put(slm())
        await each.pause()
        assert conditions(each)["Ready"] == ("False", "NameTaken")
        assert pods(each) == []
        assert each.cluster.objects[CA] == before
        each.cluster.remove(CA)
        await asyncio.sleep(60)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario, fetch=FetchSettings(ca_bundle="of the site"))


def test_a_model_is_not_read_for_ever_where_the_deployments_name_is_taken():
    async def scenario(each: World) -> None:
        strangers = Strangers(each.cluster)
        each.cluster.put(owner())
        strangers.come(DEPLOYMENT, {}, owned=False)
        each.cluster.put(slm(resources=None))
        await each.settle()
        assert conditions(each)["Ready"] == ("False", "NameTaken")
        strangers.check()
        strangers.go(DEPLOYMENT)
        await asyncio.sleep(60)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario)


@pytest.mark.parametrize("tool", ["autoscaler", "kubectl-rollout"])
def test_a_writer_that_keeps_fighting_is_named_and_not_fought_for_ever(tool):
    async def scenario(each: World) -> None:
        each.cluster.put(slm(replicas=2))
        await each.pause()
        safe, since = each.watch, len(each.cluster.requests)

        def fight(seen: World) -> None:
            safe(seen)
            if tool == "autoscaler":
                scale(seen.cluster, 4)
            elif "runtime:1" in str(seen.cluster.objects[DEPLOYMENT]["spec"]["template"]):
                image = [{"name": "serve", "image": "runtime:0"}]
                seen.cluster.change(
                    DEPLOYMENT,
                    lambda document: document["spec"]["template"]["spec"]["containers"][0].update(image[0]),
                    by=tool,
                )

        each.watch = fight
        await seconds(each, 1800)
        written = [write for write in each.cluster.requests[since:] if write.ref == DEPLOYMENT]
        assert len(written) <= 10
        assert conditions(each)["Contended"] == ("True", "FieldsTaken")
        told = {one["type"]: one for one in each.cluster.objects[SLM]["status"]["conditions"]}
        assert tool in told["Contended"]["message"]
        each.watch = safe
        await asyncio.sleep(7200)
        await each.settle()
        assert "Contended" not in conditions(each)
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario)


# What something still needs.


def test_the_cas_that_a_running_template_mounts_stay_when_the_site_takes_them_back():
    async def scenario(each: World) -> None:
        each.cluster.put(slm())
        await each.pause()
        assert CA in each.cluster.objects
        await reconfigure(each, fetch=FetchSettings())
        await each.settle()
        assert CA in each.cluster.objects
        edit(each, replicas=2)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving"), "more of its pods can be made"

    play(scenario, fetch=FetchSettings(ca_bundle="of the site"))


def test_an_own_claim_stays_while_something_mounts_it():
    """From an own claim to one that somebody brings, which can't be filled at first."""

    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache=CACHE))
        await each.pause()
        edit(each, cache={"mode": "PVC", "claimName": "mine"})
        await each.pause()
        assert CLAIM in each.cluster.objects
        assert "deletionTimestamp" not in each.cluster.objects[CLAIM]["metadata"]
        mine = claim()
        mine["metadata"]["name"] = "mine"
        each.cluster.put(mine)
        await each.settle()
        assert conditions(each)["Ready"] == ("True", "Serving")
        assert CLAIM not in each.cluster.objects

    play(scenario)


def test_one_of_two_stuck_pods_is_repaired_when_the_site_changes():
    async def scenario(each: World) -> None:
        each.cluster.put(slm(replicas=2))
        await each.pause()
        before = each.cluster.objects[DEPLOYMENT]["spec"]["template"]
        stuck = Ref("Pod", "demo", pods(each)[1])

        def fail(pod: Doc) -> None:
            pod["status"]["phase"] = "Pending"
            pod["status"]["conditions"] = [{**pod["status"]["conditions"][1], "status": "False"}]
            waiting = {"reason": "ImagePullBackOff", "message": "ErrImagePull: no such host"}
            pod["status"]["containerStatuses"] = [{"name": "serve", "state": {"waiting": waiting}}]

        stuck_for_good(each, stuck, fail)
        await each.pause()
        assert conditions(each)["Ready"] == ("False", "ImagePullFailed")
        await reconfigure(each, runtime_image="mirror/runtime:1")
        await each.pause()
        assert each.cluster.objects[DEPLOYMENT]["spec"]["template"] != before
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario)


def stuck_for_good(each: World, ref: Ref, fail: Callable[[Doc], None]) -> None:
    """A pod that kubelet brings no further."""
    each.cluster.change(ref, fail, by="kubelet")
    advance = each.controllers.pods.advance
    each.controllers.pods.advance = lambda pod, document: None if pod == ref else advance(pod, document)


# Words.


def test_a_service_monitor_that_is_refused_leaves_the_model_ready():
    async def scenario(each: World) -> None:
        each.cluster.served.add("ServiceMonitor")
        await reconfigure(each)
        each.faults.refuse = lambda _verb, ref: (
            errors.InvalidError("metadata.labels: Invalid value") if ref.kind == "ServiceMonitor" else None
        )
        monitor = {"enabled": True, "labels": {"release": "p"}}
        each.cluster.put(slm(observability={"serviceMonitor": monitor}))
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")
        assert conditions(each)["MonitoringReady"] == ("False", "WriteInvalid")
        each.faults.refuse = lambda _verb, _ref: None
        await each.settle()
        assert conditions(each)["MonitoringReady"] == ("True", "ServiceMonitorMade")

    play(scenario)


def test_deleted_and_made_again_it_never_stalls():
    told: list[Doc] = []

    async def scenario(each: World) -> None:
        each.cluster.put(slm(cache=CACHE))
        await each.pause()
        since = len(each.cluster.history)
        each.cluster.remove(SLM)
        each.cluster.put(slm(cache=CACHE))
        collect = each.controllers.collect_garbage
        each.controllers.collect_garbage = lambda: None
        await asyncio.sleep(5)
        assert conditions(each)["Ready"] == ("False", "WaitingForGarbageCollector")
        each.controllers.collect_garbage = collect
        each.controllers.limit_pods(None)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")
        told.extend(event.document for event in each.cluster.history[since:] if event.ref == SLM)

    play(scenario)
    assert "NameTaken" not in str(told)
    assert "Stalled" not in str(told)


def test_a_quota_is_told_and_heals():
    async def scenario(each: World) -> None:
        each.controllers.limit_pods(1)
        each.cluster.put(slm(replicas=2))
        await each.pause()
        assert conditions(each)["Ready"] == ("False", "FailedCreate")
        each.controllers.limit_pods(None)
        await each.pause()
        assert conditions(each)["Ready"] == ("True", "Serving")

    play(scenario)
