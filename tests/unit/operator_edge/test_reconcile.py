"""The control loop against an in-memory cluster, with a core of a dozen lines in place of the real one."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from slm_operator.cluster import errors
from slm_operator.cluster.resources import SLM_DEPLOYMENT
from slm_operator.plan import owned_by
from slm_operator.queue import Lane, WorkQueue
from slm_operator.reconcile import Reconciler
from slm_operator.snapshot import Apply, ChildRef, Create, Decision, Delete, Plan, Snapshot, Step
from slm_operator.store import Store
from tests.sim.cluster import MemoryCluster, Ref, Write
from tests.sim.loop import simulate, wall_clock
from tests.sim.world import Faults, Gate, World
from tests.unit.operator_edge.objects import KEY, SETTINGS, child, slm

SLM = Ref("SLMDeployment", "demo", "a")
SERVICE = Ref("Service", "demo", "a")


@dataclass
class Core:
    """Wants a Secret with the first Service, a Service on the port of the spec, and a status that counts."""

    restless: bool = False
    seen: list[Snapshot] = field(default_factory=list)

    def __call__(self, snapshot: Snapshot) -> Decision:
        self.seen.append(snapshot)
        metadata, spec = snapshot.resource["metadata"], snapshot.resource["spec"]
        live = snapshot.children.get(ChildRef("Service", "a"))
        port = spec.get("port", 80)
        ports = [{"port": port, "protocol": "TCP", "targetPort": port}]
        service = child("Service", 0, owner=metadata["uid"], spec={"ports": ports})
        for key in ("uid", "resourceVersion"):
            del service["metadata"][key]
        secret = {**service, "kind": "Secret", "stringData": {"api-key": "random"}}
        secret.pop("spec")
        steps: list[Step] = []
        if live is None:
            steps += [Create(secret, once=True), Create(service)]
        elif live["spec"]["ports"] != ports or self.restless:
            identity = {key: live["metadata"][key] for key in ("uid", "resourceVersion")}
            steps.append(Apply({**service, "metadata": {**service["metadata"], **identity}}))
        steps += [
            Delete(each["apiVersion"], ref, each["metadata"]["uid"], each["metadata"]["resourceVersion"])
            for ref, each in snapshot.children.items()
            if ref.kind == "PodDisruptionBudget"
        ]
        status = {"observedGeneration": metadata["generation"], "ready": live is not None}
        if snapshot.refusals:
            status["reason"] = snapshot.refusals[0].reason
        if live is not None and not owned_by(live, metadata["uid"]):
            return Decision(Plan(), {**status, "ready": False, "reason": "NameTaken"}, requeue_after=30)
        return Decision(Plan(tuple(steps)), status)


def world(core: Core | None = None, **faults: Any) -> World:
    return World(SETTINGS, core or Core(), faults=Faults(**faults), cluster=schemaless())


def schemaless() -> MemoryCluster:
    return MemoryCluster(admit=lambda document: document)


def by_operator(each: World, since: int = 0) -> list[tuple[str, str]]:
    return [(write.verb, write.ref.kind) for write in each.cluster.requests[since:]]


def test_children_are_written_before_the_status_and_nothing_twice():
    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm(0))
        await each.settle()
        assert by_operator(each) == [("create", "Secret"), ("create", "Service"), ("status", "SLMDeployment")]
        await each.stop()

    simulate(scenario())


def test_what_the_cluster_answers_at_once_is_in_the_first_status():
    def core(snapshot: Snapshot) -> Decision:
        decision = Core()(snapshot)
        live = snapshot.children.get(ChildRef("Service", "a"), {})
        return Decision(decision.plan, {**decision.status, "address": live.get("status", {}).get("address")})

    async def scenario():
        each = World(SETTINGS, core, cluster=schemaless())
        await each.start()
        each.cluster.put(slm(0))
        await asyncio.sleep(0.3)
        each.cluster.change(SERVICE, lambda document: document.update(status={"address": "192.0.2.1"}))
        await each.settle()
        assert by_operator(each) == [("create", "Secret"), ("create", "Service"), ("status", "SLMDeployment")]
        assert each.cluster.objects[SLM]["status"]["address"] == "192.0.2.1"
        await each.stop()

    simulate(scenario())


def in_need(snapshot: Snapshot) -> Decision:
    """Wants a Service, and a budget that needs a Secret and a ConfigMap."""
    uid = snapshot.resource["metadata"]["uid"]
    children = {
        kind: child(kind, 0, owner=uid, spec={})
        for kind in ("Service", "PodDisruptionBudget", "ConfigMap", "Secret")
    }
    for each in children.values():
        for key in ("uid", "resourceVersion"):
            del each["metadata"][key]
    needs = {"PodDisruptionBudget": frozenset({ChildRef("ConfigMap", "a"), ChildRef("Secret", "a")})}
    steps = tuple(
        Create(each, needs.get(kind, frozenset()))
        for kind, each in children.items()
        if ChildRef(kind, "a") not in snapshot.children
    )
    return Decision(Plan(steps), {"refused": [each.ref.kind for each in snapshot.refusals]})


@pytest.mark.parametrize(
    ("refused", "made"),
    [
        ("", ["ConfigMap", "Secret", "PodDisruptionBudget", "Service"]),
        ("ConfigMap", ["Secret", "Service"]),
        ("PodDisruptionBudget", ["ConfigMap", "Secret", "Service"]),
        ("Service", ["ConfigMap", "Secret", "PodDisruptionBudget"]),
    ],
)
def test_what_is_waited_for_is_written_first_and_a_refusal_keeps_only_what_needs_it(refused, made):
    async def scenario():
        cluster, store = schemaless(), Store()
        world = World(SETTINGS, in_need, cluster=cluster)
        error = errors.ForbiddenError("exceeded quota")
        world.faults.refuse = lambda _verb, ref: error if ref.kind == refused else None
        store.observe(SLM_DEPLOYMENT, cluster.put(slm(0)))
        reconciler = Reconciler(
            cluster=Gate(world),
            store=store,
            queue=WorkQueue(),
            settings=SETTINGS,
            decide=in_need,
            clock=wall_clock,
        )
        await reconciler.reconcile(KEY, Lane.ACT)
        assert [event.ref.kind for event in cluster.history if event.type == "ADDED"][1:] == made
        if refused:
            assert cluster.objects[SLM]["status"] == {"refused": [refused]}

    simulate(scenario())


def test_in_a_burst_all_children_exist_before_the_first_status():
    def core(snapshot: Snapshot) -> Decision:
        metadata = snapshot.resource["metadata"]
        service = child("Service", 0, owner=metadata["uid"], spec={})
        service["metadata"] |= {"name": metadata["name"]}
        service["metadata"]["ownerReferences"][0]["name"] = metadata["name"]
        for key in ("uid", "resourceVersion"):
            del service["metadata"][key]
        return Decision(Plan(() if snapshot.children else (Create(service),)), {"ready": True})

    async def scenario():
        each = World(SETTINGS, core, faults=Faults(delay=lambda _event: 0), cluster=schemaless())
        await each.start()
        for number in range(50):
            document = slm(0)
            document["metadata"]["name"] = f"a{number}"
            each.cluster.put(document)
        await each.settle()
        kinds = [kind for _, kind in by_operator(each)]
        # A worker may have begun with a status while the other one wrote the last child.
        assert kinds[:49] == ["Service"] * 49
        assert sorted(kinds[49:]) == ["SLMDeployment"] * 50 + ["Service"]
        await each.stop()

    simulate(scenario())


def test_at_rest_and_after_a_restart_nothing_is_written():
    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm(0))
        await each.settle()
        since = len(each.cluster.requests)
        await each.stop()
        await each.start()
        await each.settle()
        assert by_operator(each, since) == []
        await each.stop()

    simulate(scenario())


def test_each_status_that_was_written_is_told_with_the_one_before():
    async def scenario():
        cluster, store, told = schemaless(), Store(), []
        store.observe(SLM_DEPLOYMENT, cluster.put(slm(0)))
        reconciler = Reconciler(
            cluster=cluster,
            store=store,
            queue=WorkQueue(),
            settings=SETTINGS,
            decide=Core(),
            clock=wall_clock,
            told=lambda before, after: told.append((before.get("status"), after["status"])),
        )
        assert await reconciler.reconcile(KEY, Lane.REPORT) == "reported"
        assert await reconciler.reconcile(KEY, Lane.REPORT) == "rest"
        assert told == [(None, {"observedGeneration": 1, "ready": True})]

    simulate(scenario())


def test_an_edit_writes_the_changed_child_and_the_status():
    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm(0))
        await each.settle()
        since = len(each.cluster.requests)
        each.cluster.change(SLM, lambda document: document["spec"].update(port=81))
        await each.settle()
        # A port that a POST made is no apply's to take away.
        assert by_operator(each, since) == [
            ("apply", "Service"),
            ("overwrite", "Service"),
            ("status", "SLMDeployment"),
        ]
        await each.stop()

    simulate(scenario())


def test_what_people_change_or_delete_is_put_back():
    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm(0))
        await each.settle()
        each.cluster.change(SERVICE, lambda document: document["spec"]["ports"][0].update(port=1))
        await each.settle()
        assert each.cluster.objects[SERVICE]["spec"]["ports"][0]["port"] == 80
        each.cluster.remove(SERVICE)
        await each.settle()
        assert SERVICE in each.cluster.objects
        await each.stop()

    simulate(scenario())


def test_a_port_that_people_changed_is_overwritten_where_apply_would_double_it():
    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm(0))
        await each.settle()
        since = len(each.cluster.requests)
        error = errors.InvalidError('spec.ports[1].name: Duplicate value: "http"')
        each.faults.refuse = lambda verb, ref: error if (verb, ref.kind) == ("apply", "Service") else None
        each.cluster.change(SERVICE, lambda document: document["spec"]["ports"][0].update(port=1))
        await each.settle()
        assert each.cluster.objects[SERVICE]["spec"]["ports"] == [
            {"port": 80, "protocol": "TCP", "targetPort": 80}
        ]
        assert by_operator(each, since) == [("overwrite", "Service")]
        await each.stop()

    simulate(scenario())


def test_a_status_is_never_written_over_an_object_that_was_not_seen():
    """The object changes between observation and write: the write is refused, and decided again."""

    async def scenario():
        each = world()
        await each.start()
        each.cluster.put(slm(0))
        await each.settle()

        changed = False

        def meddle(verb: str, _: Ref):
            nonlocal changed
            if verb == "status" and not changed:
                changed = True
                each.cluster.change(SLM, lambda document: document["spec"].update(port=83))

        each.faults.refuse = meddle
        each.cluster.change(SLM, lambda document: document["spec"].update(port=82))
        await each.settle()
        status = each.cluster.objects[SLM]["status"]
        assert status["observedGeneration"] == each.cluster.objects[SLM]["metadata"]["generation"] == 3
        assert ("SLMDeployment", 2) not in [
            (event.ref.kind, (event.document.get("status") or {}).get("observedGeneration"))
            for event in each.cluster.history
            if event.document["metadata"].get("generation") == 3
        ]
        await each.stop()

    simulate(scenario())


def test_somebody_elses_object_of_the_name_is_left_alone_and_reported_until_it_goes():
    async def scenario():
        each = world()
        foreign = child("Service", 0, owner=None, spec={"ports": [{"port": 5, "protocol": "TCP"}]})
        foreign["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "mine"}
        each.cluster.put(foreign)
        before = each.cluster.objects[SERVICE]
        await each.start()
        each.cluster.put(slm(0))
        await each.settle()
        assert each.cluster.objects[SERVICE] == before
        assert each.cluster.objects[SLM]["status"]["reason"] == "NameTaken"
        each.cluster.remove(SERVICE)
        await asyncio.sleep(31)
        await each.pause()
        assert each.cluster.objects[SERVICE]["spec"]["ports"][0]["port"] == 80
        assert "reason" not in each.cluster.objects[SLM]["status"]
        await each.stop()

    simulate(scenario())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.ForbiddenError("exceeded quota"), "WriteForbidden"),
        (errors.InvalidError("spec.ports: Invalid value"), "WriteInvalid"),
    ],
)
def test_a_refused_child_is_reported_and_heals(error, reason):
    async def scenario():
        each = world(refuse=lambda verb, ref: error if (verb, ref.kind) == ("create", "Service") else None)
        await each.start()
        each.cluster.put(slm(0))
        await asyncio.sleep(60)
        assert each.cluster.objects[SLM]["status"]["reason"] == reason
        written = sum(write == Write("status", SLM, "slm-operator") for write in each.cluster.requests)
        assert written == 1
        each.faults.refuse = lambda _verb, _ref: None
        await each.settle()
        assert "reason" not in each.cluster.objects[SLM]["status"]
        await each.stop()

    simulate(scenario())


@pytest.mark.parametrize(
    "error",
    [errors.UnavailableError("503"), errors.ThrottledError("429", retry_after=3), errors.ConflictError("")],
)
def test_an_outage_passes_without_a_trace(error):
    async def scenario():
        down = True
        each = world(refuse=lambda _verb, _ref: error if down else None)
        await each.start()
        each.cluster.put(slm(0))
        await asyncio.sleep(30)
        tries = each.asked
        assert 2 <= tries <= 24, "two writes a try"
        down = False
        await each.settle()
        assert each.cluster.objects[SLM]["status"] == {"observedGeneration": 1, "ready": True}
        await each.stop()

    simulate(scenario())


def test_a_plan_that_never_settles_backs_off_and_still_reports():
    async def scenario():
        core = Core(restless=True)
        each = world(core)
        await each.start()
        each.cluster.put(slm(0))
        await asyncio.sleep(600)
        assert each.cluster.objects[SLM]["status"]["ready"]
        assert len(each.cluster.requests) < 40
        await each.stop()

    simulate(scenario())


def test_a_bug_in_the_core_is_kept_to_its_deployment():
    async def scenario():
        core = Core()

        def buggy(snapshot: Snapshot) -> Decision:
            if "bug" in snapshot.resource["spec"]:
                raise KeyError("bug")
            return core(snapshot)

        each = World(SETTINGS, buggy, cluster=schemaless())
        await each.start()
        each.cluster.put(slm(0))
        broken = slm(0)
        broken["metadata"]["name"] = "b"
        broken["spec"]["bug"] = True
        each.cluster.put(broken)
        await asyncio.sleep(30)
        assert each.cluster.objects[SLM]["status"]["ready"]
        assert all(not operator.crashed for operator in each.operators)
        await each.stop()

    simulate(scenario())


def test_a_delete_hits_only_what_was_observed():
    async def scenario():
        each = world()
        each.cluster.put(slm(0))
        each.cluster.put(child("PodDisruptionBudget", 0, owner="uid-1", spec={}))
        ref = Ref("PodDisruptionBudget", "demo", "a")
        changed = False

        def meddle(verb: str, _: Ref):
            nonlocal changed
            if verb == "delete" and not changed:
                changed = True
                each.cluster.remove(ref)
                each.cluster.put(child("PodDisruptionBudget", 0, owner=None, spec={"minAvailable": 1}))
                each.cluster.change(ref, lambda document: document["metadata"].update(labels={}))

        each.faults.refuse = meddle
        await each.start()
        await each.settle()
        assert each.cluster.objects[ref]["spec"] == {"minAvailable": 1}
        await each.stop()

    simulate(scenario())


def test_the_lane_of_reports_acts_too():
    """Lanes are priorities and nothing else: a lost urgent event must not matter."""

    async def scenario():
        each = world()
        await each.start()
        operator = each.operators[0]
        document = each.cluster.put(slm(0))
        operator.store.observe(SLM_DEPLOYMENT, document)
        operator.queue.add(next(iter(operator.store.deployments())), Lane.REPORT)
        await each.settle()
        assert SERVICE in each.cluster.objects
        await each.stop()

    simulate(scenario())


def test_upgrades_take_turns_and_each_tells_the_next():
    """However long nothing else happens: nobody asks again and again whether it is its turn."""
    begun: dict[str, datetime] = {}

    def core(snapshot: Snapshot) -> Decision:
        name = snapshot.resource["metadata"]["name"]
        if name not in begun and not snapshot.may_upgrade:
            return Decision(Plan(), {"ready": True}, awaits_turn=True)
        since = begun.setdefault(name, snapshot.now)
        left = 60 - (snapshot.now - since).total_seconds()
        if left <= 0:
            return Decision(Plan(), {"ready": True})
        return Decision(Plan(), {"ready": False}, at_rest=False, upgrading=True, requeue_after=left)

    async def scenario():
        settings = SETTINGS.model_copy(update={"upgrades_at_once": 2})
        each = World(settings, core, cluster=schemaless())
        await each.start()
        for number in range(5):
            document = slm(0)
            document["metadata"]["name"] = f"a{number}"
            each.cluster.put(document)
        for expected in (2, 4, 5):
            await asyncio.sleep(50)
            assert len(begun) == expected
            await asyncio.sleep(15)
        await each.stop()

    simulate(scenario())
