"""What is drift, what isn't, what may be deleted, and in which order."""

import copy
import json
from typing import Any

import pytest

from slm_operator.plan import Child, compare, intent, make_plan, of_predecessor, owned_by
from slm_operator.snapshot import Apply, ChildRef, Create, Delete, ref_of
from tests.unit.operator_core.world import fields_of, take

UID = "uid-of-owner"
SERVICE = ChildRef("Service", "a")


def document(kind: str = "Service", **spec: Any) -> dict[str, Any]:
    reference = {"kind": "SLMDeployment", "name": "a", "uid": UID, "controller": True}
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": "a", "ownerReferences": [reference]},
        "spec": spec,
    }


def live(wanted: dict[str, Any], operation: str = "Apply") -> dict[str, Any]:
    """As the API server has it after our write."""
    result = copy.deepcopy(dict(intent(wanted)))
    ours = {
        "manager": "slm-operator",
        "operation": operation,
        "fieldsV1": json.dumps(fields_of(intent(wanted))),
    }
    result["metadata"] |= {"uid": "u", "resourceVersion": "7", "managedFields": [ours]}
    return result


def test_what_others_add_and_the_server_fills_in_is_no_drift() -> None:
    observed = live(document(a=1, b={"c": 2}))
    observed["spec"] |= {"filled": "in"}
    observed["spec"]["b"]["theirs"] = 3
    assert beside(document(a=1, b={"c": 2}), observed).is_as_intended
    assert not beside(document(a=1, b={"c": 2}), observed).differences.rewritten


def test_a_field_that_another_manager_took_is_drift() -> None:
    observed = live(document(a=1))
    observed["spec"]["a"] = 2
    take(observed, "spec.a", by="kubectl-edit")
    assert not beside(document(a=1), observed).is_as_intended
    found = beside(document(a=1), observed)
    assert [(loss.path, loss.manager) for loss in found.contested] == [("spec.a", "kubectl-edit")]


def test_a_value_that_is_ours_and_differs_was_rewritten_on_its_way_in_and_is_no_drift() -> None:
    observed = live(document(image="registry/a"))
    observed["spec"]["image"] = "mirror/a"
    assert beside(document(image="registry/a"), observed).is_as_intended
    assert beside(document(image="registry/a"), observed).differences.rewritten == ("spec.image",)


def test_a_field_that_is_no_longer_wanted_shows_by_the_digest() -> None:
    observed = live(document(a=1, b=2))
    assert not beside(document(a=1), observed).is_as_intended
    assert not beside(document(a=1), observed).contested, "nobody else's doing"


def beside(wanted: dict[str, Any], observed: dict[str, Any]) -> Child:
    (child,) = compare([wanted], {ref_of(wanted): observed})
    return child


@pytest.mark.parametrize(("operation", "consolidate"), [("Update", True), ("Apply", False)])
def test_what_the_post_still_owns_is_made_the_applys_before_it_can_go(
    operation: str, consolidate: bool
) -> None:
    observed = live(document(a=1, b=2), operation)
    (step,) = make_plan(compare([document(a=1)], {SERVICE: observed}), {SERVICE: observed}, taken=()).steps
    assert isinstance(step, Apply)
    assert step.consolidate == consolidate
    (changed,) = make_plan(
        compare([document(a=1, b=3)], {SERVICE: observed}), {SERVICE: observed}, taken=()
    ).steps
    assert isinstance(changed, Apply)
    assert not changed.consolidate, "a value that changes is taken by the apply"


def test_what_isnt_known_is_made_by_post_and_what_is_ours_applied_over_what_was_seen() -> None:
    (made,) = make_plan(compare([document(a=1)], {}), {}, taken=()).steps
    assert isinstance(made, Create)
    (applied,) = make_plan(
        compare([document(a=2)], {SERVICE: live(document(a=1))}), {SERVICE: live(document(a=1))}, taken=()
    ).steps
    assert isinstance(applied, Apply)
    assert applied.document["metadata"]["uid"] == "u"
    assert applied.document["metadata"]["resourceVersion"] == "7"


def test_somebody_elses_object_is_in_no_step() -> None:
    assert not make_plan(compare([document(a=1)], {}), {}, taken={SERVICE})


def test_whose_an_object_is() -> None:
    ours, nobodys, predecessors, strangers = (live(document()) for _ in range(4))
    nobodys["metadata"]["ownerReferences"] = []
    predecessors["metadata"]["ownerReferences"][0]["uid"] = "gone"
    strangers["metadata"]["ownerReferences"][0] |= {"kind": "Site", "uid": "other"}
    assert [owned_by(each, UID) for each in (ours, nobodys, predecessors, strangers)] == [
        True,
        False,
        False,
        False,
    ]
    assert [of_predecessor(each, "a", UID) for each in (ours, nobodys, predecessors, strangers)] == [
        False,
        False,
        True,
        False,
    ]


def test_what_is_unwanted_is_deleted_as_it_was_seen_and_last() -> None:
    unwanted, going, spared = (live(document("ConfigMap")) for _ in range(3))
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    observed = {
        ChildRef("ConfigMap", "unwanted"): unwanted,
        ChildRef("ConfigMap", "going"): going,
        ChildRef("ConfigMap", "spared"): spared,
    }
    plan = make_plan(
        compare([document(a=1)], observed), observed, taken=(), spared={ChildRef("ConfigMap", "spared")}
    )
    made, deleted = plan.steps
    assert ref_of(document()) == made.ref
    assert deleted == Delete("v1", ChildRef("ConfigMap", "unwanted"), "u", "7")


def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    going = live(document(a=1))
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not make_plan(compare([document(a=2)], {SERVICE: going}), {SERVICE: going}, taken=())


def test_a_deployment_waits_for_its_revision() -> None:
    revision, deployment = document("ControllerRevision"), document("Deployment")
    steps = make_plan(compare([deployment, revision], {}), {}, taken=()).steps
    needs = {step.ref.kind: step.needs for step in steps}
    assert needs == {"Deployment": {ChildRef("ControllerRevision", "a")}, "ControllerRevision": frozenset()}


@pytest.mark.parametrize("kind", ["Job", "ControllerRevision"])
def test_what_cannot_change_is_as_it_was_made(kind: str) -> None:
    observed = live(document(kind, a=1))
    assert beside(document(kind, a=2), observed).is_as_intended
