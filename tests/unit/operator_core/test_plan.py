"""What is drift, what isn't, and what may be deleted."""

import copy
from typing import Any

import pytest

from slm_operator.plan import intent, is_as_intended, make_plan, taken
from slm_operator.snapshot import ChildRef

UID = "uid-of-owner"


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a", "ownerReferences": [{"name": "a", "uid": UID, "controller": True}]},
        "spec": spec,
    }


def live(wanted: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(intent(wanted).document))
    result["metadata"] = {**result["metadata"], "uid": "u", "resourceVersion": "7"}
    return result


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"a": 1}, {"a": 1, "filled": "in"}),
        ({"limits": {"memory": "1024Mi"}}, {"limits": {"memory": "1Gi"}}),
        ({"limits": {"cpu": "0.5"}}, {"limits": {"cpu": "500m"}}),
        ({"sizeLimit": "2048Mi"}, {"sizeLimit": "2Gi"}),
        (
            {"env": [{"name": "b", "value": "2"}]},
            {"env": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]},
        ),
        ({"ports": [{"port": 80}]}, {"ports": [{"port": 80, "nodePort": 31000}]}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "a", "operator": "Equal"}]}),
        ({"volumes": []}, {"volumes": [{"name": "foreign"}]}),
    ],
)
def test_what_others_add_is_no_drift(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    observed = live(document(**wanted))
    observed["spec"] = found
    if wanted == {"volumes": []}:
        assert not is_as_intended(intent(document(**wanted)), observed), "an empty list is a list of none"
    else:
        assert is_as_intended(intent(document(**wanted)), observed)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {}),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "2Gi"}}),
        ({"value": "1"}, {"value": "1.0"}),
        ({"env": [{"name": "a", "value": "1"}]}, {"env": [{"name": "b", "value": "1"}]}),
        ({"command": ["x", "serve"]}, {"command": ["x"]}),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "a"}, {"key": "b"}]}),
        ({"a": {"b": 1}}, {"a": "text"}),
        ({"a": [1]}, {"a": "text"}),
    ],
)
def test_what_is_changed_of_ours_is_drift(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    observed = live(document(**wanted))
    observed["spec"] = found
    assert not is_as_intended(intent(document(**wanted)), observed)


def test_a_field_that_is_no_longer_wanted_shows_by_the_digest() -> None:
    observed = live(document(a=1, b=2))
    assert not is_as_intended(intent(document(a=1)), observed)


def test_only_what_is_ours_and_unwanted_is_deleted_as_it_was_seen() -> None:
    ours, other = live(document()), live(document())
    other["metadata"]["ownerReferences"][0]["uid"] = "an earlier object of the same name"
    going = live(document())
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    observed = {
        ChildRef("Service", "ours"): ours,
        ChildRef("Service", "other"): other,
        ChildRef("Service", "going"): going,
    }
    (delete,) = make_plan([], observed, uid=UID).delete
    assert (delete.ref, delete.uid, delete.resource_version) == (ChildRef("Service", "ours"), "u", "7")


def test_an_object_of_somebody_else_is_neither_applied_nor_deleted() -> None:
    foreign = live(document())
    foreign["metadata"]["ownerReferences"] = []
    observed = {ChildRef("Service", "a"): foreign}
    wanted = [intent(document(a=1))]
    assert not make_plan(wanted, observed, uid=UID)
    assert taken(wanted, observed, UID) == (ChildRef("Service", "a"),)


def test_a_job_that_exists_is_as_it_was_made() -> None:
    wanted = {**document(a=1), "kind": "Job"}
    observed = live(wanted)
    observed["spec"] = {"a": 2}
    assert is_as_intended(intent(wanted), observed)
