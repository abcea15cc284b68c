"""Each way to fail ends in a reason, a remedy and a condition of its own, and is forgotten when it heals."""

import copy
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from slm_contract.report import Download, Failure, FailureReason, FetchReport, RuntimeReport
from slm_operator.decide import decide
from slm_operator.snapshot import ChildRef, Refusal
from tests.unit.operator_core.world import GIVEN, SOURCE, World, reasons, spec


def starting(**changes: Any) -> World:
    world = World(spec(resources=GIVEN, **changes))
    world.settle()
    world.run_pods(ready=False)
    return world


def fetch_failure(reason: FailureReason, *, permanent: bool) -> str:
    failure = Failure(reason=reason, message="what is wrong", remedy="what to do", permanent=permanent)
    return FetchReport(command="fetch", failure=failure).to_json()


def waits(world: World, container: str, reason: str, message: str = "") -> None:
    kind = "initContainerStatuses" if container == "fetch" else "containerStatuses"
    for pod in world.pods:
        pod["status"] = {
            "phase": "Pending",
            kind: [
                {
                    "name": container,
                    "image": "img",
                    "state": {"waiting": {"reason": reason, "message": message}},
                }
            ],
        }


@pytest.mark.parametrize("reason", [FailureReason.CHECKSUM_MISMATCH, FailureReason.SOURCE_NOT_FOUND])
def test_what_nobody_but_people_can_mend_stalls(reason: FailureReason) -> None:
    world = starting()
    world.fail("fetch", fetch_failure(reason, permanent=True), exit_code=20)
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled", "ModelReady", "Progressing")) == [reason] * 4
    assert world.condition("Reconciling") is None
    assert world.status["lastFailure"] == {
        "time": "2026-01-01T00:01:00Z",
        "pod": "pod-1-0",
        "reason": reason,
        "message": "what is wrong",
        "exitCode": 20,
        "remedy": "what to do",
    }


def test_what_may_heal_by_itself_does_not_stall() -> None:
    world = starting()
    world.fail("fetch", fetch_failure(FailureReason.SOURCE_UNREACHABLE, permanent=False), exit_code=21)
    world.settle()
    assert reasons(world.status, ("Ready", "Reconciling")) == ["SourceUnreachable"] * 2
    assert world.condition("Stalled") is None


def test_a_fetcher_that_waits_for_its_source_still_says_why() -> None:
    """After its restart it stays and checks the source again: running, and no less failed."""
    world = starting()
    world.fail("fetch", fetch_failure(FailureReason.SOURCE_NOT_FOUND, permanent=True), exit_code=20)
    world.settle()
    before = copy.deepcopy(world.status)
    for pod in world.pods:
        (status,) = pod["status"]["initContainerStatuses"]
        status["state"] = {"running": {"startedAt": "2026-01-01T00:02:00Z"}}
    world.wait(minutes=5)
    world.settle()
    assert world.status == before


def test_a_fetch_that_is_running_again_is_a_fetch() -> None:
    world = starting()
    world.fail("fetch", fetch_failure(FailureReason.SOURCE_NOT_FOUND, permanent=True), exit_code=20)
    world.settle()
    report = RuntimeReport(
        command="fetch",
        phase="Fetching",
        download=Download(state="Fetching", bytes_done=500, bytes_total=1000),
    )
    world.hear(report)
    world.settle()
    assert reasons(world.status) == ["Fetching"]
    assert world.status["download"] == {"url": SOURCE, "state": "Fetching", "percent": 50}
    assert world.status["lastFailure"]["reason"] == "SourceNotFound", "kept until it is ready again"
    world.reports = {}
    world.run_pods()
    world.settle()
    assert reasons(world.status) == ["Serving"]
    assert "lastFailure" not in world.status
    assert "download" not in world.status


@pytest.mark.parametrize("ended", ["fetch", "serve"])
def test_what_was_last_heard_of_a_container_that_has_ended_hides_nothing(ended: str) -> None:
    """A server that ends at once is never reached: the last that was heard of its pod is half of a download."""
    world = starting()
    report = RuntimeReport(
        command="fetch",
        phase="Fetching",
        download=Download(state="Fetching", bytes_done=150, bytes_total=1000),
    )
    world.hear(report)
    world.settle()
    assert reasons(world.status) == ["Fetching"]
    world.fail(ended, "", exit_code=30)
    if ended == "serve":
        for pod in world.pods:
            fetched = {"name": "fetch", "state": {"terminated": {"exitCode": 0}}}
            pod["status"]["initContainerStatuses"] = [fetched]
    world.settle()
    assert reasons(world.status) == ["InvalidModel"]
    assert "download" not in world.status


@pytest.mark.parametrize(
    ("ended", "code", "reason"),
    [
        ({"reason": "OOMKilled"}, 137, "OutOfMemory"),
        ({}, 31, "OutOfMemory"),
        ({}, 30, "InvalidModel"),
        ({}, 10, "ConfigInvalid"),
        ({}, 40, "PortInUse"),
        ({}, 50, "EngineFailed"),
        ({}, 139, "ContainerFailed"),
    ],
)
def test_a_container_without_last_words_is_judged_by_its_exit(
    ended: dict[str, str], code: int, reason: str
) -> None:
    world = starting()
    world.fail("serve", "", exit_code=code, **ended)
    world.settle()
    assert reasons(world.status) == [reason]
    assert world.status["lastFailure"]["exitCode"] == code
    assert world.status["lastFailure"]["remedy"]


def test_an_engine_that_the_kernel_killed_for_memory_is_said_to_be_so() -> None:
    """The kernel kills the engine's process; the runtime ends with what it knows, kubelet knows more."""
    world = starting()
    failure = Failure(
        reason=FailureReason.ENGINE_FAILED,
        message="the engine process was killed by SIGKILL, 3 times in a row",
        remedy="look",
        permanent=False,
    )
    world.fail(
        "serve",
        RuntimeReport(command="serve", phase="Failed", failure=failure).to_json(),
        exit_code=50,
        reason="OOMKilled",
    )
    world.settle()
    assert reasons(world.status, ("Ready", "MemoryFits")) == ["OutOfMemory"] * 2


def test_a_native_librarys_last_words_are_kept() -> None:
    world = starting()
    world.fail("serve", "GGML_ASSERT(x) failed", exit_code=134)
    world.settle()
    assert "GGML_ASSERT(x) failed" in world.status["lastFailure"]["message"]


def test_a_crash_loop_writes_no_status_of_its_own() -> None:
    """Back-off times, restarts and the moment between two tries are noise."""
    world = starting()
    world.fail("serve", "", exit_code=137, reason="OOMKilled")
    world.settle()
    before = copy.deepcopy(world.status)
    for restart in range(3):
        for pod in world.pods:
            (status,) = pod["status"]["containerStatuses"]
            status["lastState"]["terminated"]["finishedAt"] = f"2026-01-01T00:0{restart + 2}:00Z"
            status["restartCount"] = restart
            status["state"] = [
                {"running": {}},
                {"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off {restart}0s"}},
                {"terminated": status["lastState"]["terminated"]},
            ][restart]
        world.wait(minutes=1)
        assert not world.reconcile().plan
        assert world.status == before


def test_an_image_that_cannot_be_pulled_says_so_once() -> None:
    world = starting()
    words = 'rpc error: code = NotFound desc = failed to pull and unpack image "img"'
    waits(world, "fetch", "ErrImagePull", words)
    world.settle()
    assert reasons(world.status) == ["ImagePullFailed"]
    assert words in world.status["lastFailure"]["message"]
    assert world.condition("Stalled") is None, "a registry may come back"
    before = copy.deepcopy(world.status)
    waits(world, "fetch", "ImagePullBackOff", f'Back-off pulling image "img": ErrImagePull: {words}')
    world.settle()
    assert world.status == before


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "CreateContainerError"])
def test_a_container_that_cannot_be_made_says_why(reason: str) -> None:
    world = starting()
    waits(world, "serve", reason, 'secret "x" not found')
    world.settle()
    assert reasons(world.status) == ["ContainerConfigFailed"]
    assert 'secret "x" not found' in world.status["lastFailure"]["message"]


def test_a_pod_without_its_volumes_names_them_and_the_key_is_made_again() -> None:
    world = starting()
    for pod in world.pods:
        pod["status"] = {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "PodReadyToStartContainers", "status": "False"},
            ],
        }
    world.wait(seconds=10)
    assert world.decide().requeue_after == 20
    assert not world.decide().plan
    world.secrets.clear()
    world.wait(seconds=20)
    world.reconcile()
    assert list(world.secrets) == ["smollm2-api-key"]
    assert reasons(world.status) == ["VolumesNotReady"]
    assert "Secret smollm2-api-key" in world.status["lastFailure"]["message"]


def without_sandbox() -> World:
    """Pods that were bound half a minute ago."""
    world = starting()
    for pod in world.pods:
        pod["status"] = {
            "phase": "Pending",
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "PodReadyToStartContainers", "status": "False"},
            ],
        }
    world.wait(seconds=30)
    return world


def test_a_pod_without_a_sandbox_says_what_its_events_say() -> None:
    world = without_sandbox()
    words = 'Failed to create pod sandbox: plugin type="calico" failed (add): no more addresses'
    world.clues = {pod["metadata"]["uid"]: words for pod in world.pods}
    world.reconcile()
    assert reasons(world.status, ("Ready", "Reconciling")) == ["VolumesNotReady"] * 2
    assert words in world.status["lastFailure"]["message"]
    assert "its volumes" not in world.status["lastFailure"]["message"]


def test_a_key_secret_of_somebody_else_is_told_by_the_entry_that_it_lacks() -> None:
    """Secrets are never read: kubelet, which mounts none without the entry, is who says it."""
    world = without_sandbox()
    uid = world.resource["metadata"]["uid"]
    words = f'MountVolume.SetUp failed for volume "keys" : references non-existent secret key: owner-{uid}'
    world.clues = {pod["metadata"]["uid"]: words for pod in world.pods}
    world.reconcile()
    assert reasons(world.status, ("Ready", "Stalled")) == ["NameTaken"] * 2
    world.clues = {}
    world.run_pods()
    world.settle()
    assert reasons(world.status) == ["Serving"]


def test_a_job_whose_pods_may_not_be_made_says_so_until_one_is() -> None:
    world = World(spec())
    world.settle()
    assert reasons(world.status) == ["Inspecting"]
    job = world.job("inspect")
    world.clues = {job["metadata"]["uid"]: "pods is forbidden: exceeded quota: small"}
    world.settle()
    assert reasons(world.status, ("Ready", "Reconciling")) == ["FailedCreate"] * 2
    assert "exceeded quota: small" in world.status["lastFailure"]["message"]
    job["status"] = {"active": 1}
    world.settle()
    assert reasons(world.status) == ["Inspecting"]


def test_an_evicted_pod_is_said() -> None:
    world = starting()
    for pod in world.pods:
        pod["status"] = {
            "phase": "Failed",
            "reason": "Evicted",
            "message": "The node was low on resource: memory.",
        }
    world.settle()
    assert reasons(world.status) == ["Evicted"]


def test_pods_that_may_not_be_made_are_said_without_noise() -> None:
    world = starting()
    world.pods = []
    words = 'pods "smollm2-5d-{}" is forbidden: exceeded quota: small'
    for name in ("abcde", "fghij"):
        condition = {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": words.format(name),
        }
        world.deployment["status"] = {"observedGeneration": 1, "conditions": [condition]}
        world.settle()
        assert reasons(world.status) == ["FailedCreate"]
        assert (
            world.status["lastFailure"]["message"]
            == "no pod can be made: pods is forbidden: exceeded quota: small"
        )


def test_failures_of_pods_on_their_way_out_do_not_count() -> None:
    world = starting()
    world.fail("serve", "", exit_code=50)
    old = copy.deepcopy(world.pods)
    world.edit(runtime={"parallel": 2})
    world.settle()
    world.run_pods()
    world.pods += old
    world.settle()
    assert reasons(world.status) == ["Serving"]


def test_a_pod_that_is_being_deleted_is_not_judged() -> None:
    world = starting()
    world.fail("serve", "", exit_code=137)
    for pod in world.pods:
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    world.settle()
    assert reasons(world.status) == ["Starting"]


def test_a_runtime_that_reports_its_failure_is_believed() -> None:
    world = starting(hardware={"preference": ["cpu"], "onDegraded": "Fail"})
    failure = Failure(
        reason=FailureReason.ACCELERATION_DEGRADED,
        message="it runs on the cpu",
        remedy="look at the driver",
        permanent=True,
    )
    world.reports = {
        pod["metadata"]["uid"]: RuntimeReport(command="serve", phase="Failed", failure=failure)
        for pod in world.pods
    }
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled", "Accelerated")) == ["AccelerationDegraded"] * 3


def test_an_inspect_job_that_fails_says_why() -> None:
    world = World(spec())
    world.settle()
    job = world.job("inspect")
    pod = {
        "metadata": {"name": "x", "uid": "x", "labels": job["spec"]["template"]["metadata"]["labels"]},
        "spec": job["spec"]["template"]["spec"],
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "inspect",
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {
                        "terminated": {
                            "exitCode": 20,
                            "message": fetch_failure(FailureReason.SOURCE_UNAUTHORIZED, permanent=True),
                            "finishedAt": "2026-01-01T00:00:30Z",
                        }
                    },
                }
            ],
        },
    }
    world.pods = [pod]
    world.settle()
    assert reasons(world.status, ("Ready", "Stalled")) == ["SourceUnauthorized"] * 2
    world.pods = []
    world.finish_job("inspect")
    world.settle()
    assert ChildRef("Deployment", "smollm2") in world.children


def test_a_write_that_the_api_server_refuses_is_in_the_status() -> None:
    world = starting()
    snapshot = world.snapshot
    refusal = Refusal(ChildRef("Service", "smollm2"), "WriteForbidden", "exceeded quota", permanent=False)
    status = decide(replace(snapshot, refusals=(refusal,))).status
    assert reasons(status, ("Ready", "Reconciling")) == ["WriteForbidden"] * 2
    assert "exceeded quota" in status["lastFailure"]["message"]
    stalled = decide(replace(snapshot, refusals=(replace(refusal, permanent=True),))).status
    assert reasons(stalled, ("Stalled",)) == ["WriteForbidden"]


def test_a_condition_keeps_its_time_until_it_turns() -> None:
    world = starting()
    started = world.condition("Ready")
    assert started is not None
    world.wait(minutes=10)
    world.fail("serve", "", exit_code=50)
    world.settle()
    failed = world.condition("Ready")
    assert failed is not None
    assert failed["status"] == "False"
    assert datetime.fromisoformat(failed["lastTransitionTime"]) == world.now
    world.wait(minutes=10)
    world.fail("serve", "", exit_code=139)
    world.settle()
    other = world.condition("Ready")
    assert other is not None
    assert (other["reason"], other["lastTransitionTime"]) == ("ContainerFailed", failed["lastTransitionTime"])
