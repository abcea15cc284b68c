"""What Events say of Jobs without pods and pods without sandboxes, in words that stay while the cause does."""

from typing import Any

import pytest

from slm_operator.observed.clues import LIMIT, LONGEST, clue, needs_clue, steady

JOB = "a-inspect-0f1e2d"
QUOTA = 'Error creating: pods "a-inspect-0f1e2d-{}" is forbidden: exceeded quota: no-pods'
KEYS = 'MountVolume.SetUp failed for volume "keys" : references non-existent secret key: owner-{}'
CA = 'MountVolume.SetUp failed for volume "ca" : configmap "site-ca" not found'
SUMMARY = (
    "Unable to attach or mount volumes: unmounted volumes=[keys], unattached volumes=[], failed: timed out"
)
UID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
OTHER = "7d444840-9dc0-11d1-b245-5ffdce74fad2"


def event(version: int, message: str, *, reason: str = "FailedMount", **more: Any) -> dict[str, Any]:
    """One whose time is its revision, in seconds."""
    time = f"2026-01-01T00:{version // 60:02}:{version % 60:02}Z"
    document = {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": time}
    return {"metadata": {"resourceVersion": str(version)}, **document, **more}


def job(**status: Any) -> dict[str, Any]:
    return {"kind": "Job", "metadata": {"name": JOB}, "status": status}


def pod(*, scheduled: str = "True", sandbox: str = "False", **metadata: str) -> dict[str, Any]:
    conditions = [
        {"type": "PodScheduled", "status": scheduled, "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "PodReadyToStartContainers", "status": sandbox},
    ]
    status = {"phase": "Pending", "conditions": conditions}
    return {"kind": "Pod", "metadata": {"name": "p", **metadata}, "status": status}


@pytest.mark.parametrize("document", [job(), job(active=0, failed=1), pod()])
def test_what_does_not_come_to_life_is_asked_about(document: dict[str, Any]) -> None:
    assert needs_clue(document)


@pytest.mark.parametrize(
    "document",
    [
        job(active=1),
        job(succeeded=1),
        job(conditions=[{"type": "Failed", "status": "True"}]),
        pod(scheduled="False"),
        pod(sandbox="True"),
        pod(deletionTimestamp="2026-01-01T00:00:00Z"),
    ],
)
def test_what_lives_waits_for_the_scheduler_or_goes_is_left_alone(document: dict[str, Any]) -> None:
    assert not needs_clue(document)


def test_each_try_names_another_pod_and_the_words_stay() -> None:
    told = {clue([event(1, QUOTA.format(name))], JOB, None) for name in ("abcde", "x8k2p")}
    assert told == {"pods is forbidden: exceeded quota: no-pods"}


@pytest.mark.parametrize(
    "words",
    [
        'Failed to create pod sandbox: setup network for sandbox "{sha}": no route',
        "dial tcp 10.0.0.5:{port}->10.96.0.1:443: i/o timeout",
        "the webhook denied pod a-inspect-0f1e2d-{suffix} at {time}",
        "(combined from similar events): can't mount for pod {uid}",
    ],
)
def test_what_changes_from_try_to_try_is_left_out(words: str) -> None:
    tries = [
        {"sha": "ab" * 32, "port": 4711, "suffix": "abcde", "time": "2026-01-01T00:00:00Z", "uid": UID},
        {"sha": "cd" * 32, "port": 815, "suffix": "x8k2p", "time": "2026-01-02T03:04:05.6Z", "uid": OTHER},
    ]
    assert len({steady(words.format(**each), JOB) for each in tries}) == 1


def test_uids_of_volumes_and_of_the_owner_entry_are_names_and_stay() -> None:
    for words in (KEYS.format(UID), f'Multi-Attach error for volume "pvc-{UID}"'):
        assert steady(words) == words


def test_words_have_an_end() -> None:
    told = clue([event(1, "x" * 2000)], "p", None)
    assert told is not None
    assert len(told) == LIMIT


@pytest.mark.parametrize("words", ["a" * 2**20, "a:1" * 2**18, 'pods "' * 2**17, "0123abcd" * 2**16])
def test_long_words_are_read_in_no_time(words: str) -> None:
    """By a number of steps that grows as the words do, or these would hold the event loop for minutes."""
    assert len(steady(words, "a")) <= LONGEST


def test_a_warning_of_a_policy_that_let_it_pass_is_no_cause() -> None:
    audit = event(5, "policy require-labels fail: no team", reason="PolicyViolation")
    assert clue([event(1, CA), audit], "p", None) == CA


def test_a_time_that_nobody_can_read_is_long_ago() -> None:
    odd = event(5, CA, lastTimestamp="0000-01-01T00:00:00Z")
    assert clue([odd, event(4, KEYS.format(UID))], "p", None) == CA


def test_the_newest_warning_counts() -> None:
    assert clue([event(200, CA), event(2, KEYS.format(UID))], "p", None) == CA


def test_of_two_causes_that_are_told_by_turns_one_is_told() -> None:
    told = None
    for second in range(0, 120, 10):
        keys, ca = event(second, KEYS.format(UID)), event(second + 5, CA)
        told = clue([keys, ca], "p", told)
        assert told == CA
        told = clue([event(second + 10, KEYS.format(UID)), ca], "p", told)
        assert told == CA


def test_a_cause_that_is_no_longer_told_gives_way() -> None:
    assert clue([event(1, CA), event(200, KEYS.format(UID))], "p", CA) == KEYS.format(UID)


def test_what_kubelet_says_of_all_volumes_says_less_than_what_it_says_of_one() -> None:
    assert clue([event(1, CA), event(120, SUMMARY)], "p", None) == CA
    assert clue([event(120, SUMMARY)], "p", None) == SUMMARY


def test_what_was_overcome_is_no_clue() -> None:
    made = event(2, "Created pod", reason="SuccessfulCreate", type="Normal")
    assert clue([event(1, QUOTA.format("abcde")), made], JOB, None) is None
    assert clue([event(3, QUOTA.format("abcde")), made], JOB, None) is not None


def test_nothing_said_is_no_clue() -> None:
    assert clue([], "p", CA) is None
    assert clue([event(1, "attached", reason="SuccessfulAttachVolume", type="Normal")], "p", CA) is None


def test_where_revisions_are_no_numbers_times_order() -> None:
    """And an Event of the newer API has its time elsewhere."""
    old, new = event(1, CA), event(2, SUMMARY.replace("Unable", "Can't"))
    new |= {"lastTimestamp": None, "eventTime": "2026-01-01T01:00:00.000001Z"}
    for each in (old, new):
        each["metadata"] = {"resourceVersion": "etag"}
    assert clue([new, old], "p", None) == new["message"]
