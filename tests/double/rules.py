"""Cases: preconditions, what is refused, what is filled in, and when a generation begins."""

import asyncio

import pytest

from slm_operator.cluster import errors
from tests.double import objects
from tests.double.objects import Doc
from tests.double.stage import Stage, changed, identity, kind_of, over


async def a_name_that_is_taken_is_not_posted_over(stage: Stage) -> None:
    theirs = objects.config_map(stage, {"mine": "1"})
    before = await stage.others.create(theirs, by="people")
    with pytest.raises(errors.ExistsError):
        await stage.cluster.create(objects.config_map(stage, {"mine": "2"}))
    assert await stage.live(theirs) == before


async def an_apply_over_an_object_that_is_gone_is_a_conflict(stage: Stage) -> None:
    document = objects.config_map(stage, {"a": "1"})
    live = await stage.cluster.create(document)
    await stage.others.delete(live)
    with pytest.raises(errors.ConflictError):
        await stage.cluster.apply(over(live, document))
    with pytest.raises(errors.MissingError):
        await stage.live(document)


async def an_apply_over_another_object_of_the_name_is_a_conflict(stage: Stage) -> None:
    document = objects.config_map(stage, {"a": "1"})
    live = await stage.cluster.create(document)
    await stage.others.delete(live)
    theirs = await stage.others.create(objects.config_map(stage, {"mine": "1"}), by="people")
    with pytest.raises(errors.ConflictError):
        await stage.cluster.apply(over(live, document))
    mixed = over(theirs, document)
    mixed["metadata"]["uid"] = live["metadata"]["uid"]
    with pytest.raises(errors.ConflictError):
        await stage.cluster.apply(mixed)
    assert await stage.live(document) == theirs


async def an_apply_over_what_has_moved_on_is_a_conflict(stage: Stage) -> None:
    document = objects.config_map(stage, {"a": "1"})
    live = await stage.cluster.create(document)
    now = await stage.others.patch(live, {"data": {"b": "2"}}, by="people")
    with pytest.raises(errors.ConflictError):
        await stage.cluster.apply(over(live, document))
    assert await stage.live(document) == now


async def every_write_over_what_has_moved_on_is_a_conflict(stage: Stage) -> None:
    document = objects.slm(stage)
    live = await stage.cluster.create(document)
    now = await stage.others.patch(live, {"metadata": {"labels": {"team": "a"}}}, by="people")
    with pytest.raises(errors.ConflictError):
        await stage.cluster.apply_status({**_headless(over(live, document)), "status": {"readyReplicas": 1}})
    with pytest.raises(errors.ConflictError):
        await stage.cluster.overwrite(over(live, document))
    with pytest.raises(errors.ConflictError):
        await stage.cluster.replace(live)
    with pytest.raises(errors.ConflictError):
        await stage.cluster.consolidate(*kind_of(document), **identity(live))
    with pytest.raises(errors.ConflictError):
        await stage.cluster.delete(*kind_of(document), **identity(live))
    with pytest.raises(errors.ConflictError):
        await stage.cluster.delete(*kind_of(document), **{**identity(now), "uid": "another"})
    assert await stage.live(document) == now
    await stage.cluster.delete(*kind_of(document), **identity(now))


async def every_write_over_what_is_gone_says_that_it_is(stage: Stage) -> None:
    document = objects.slm(stage)
    live = await stage.cluster.create(document)
    await stage.others.delete(live)
    with pytest.raises(errors.MissingError):
        await stage.cluster.apply_status({**_headless(over(live, document)), "status": {"readyReplicas": 1}})
    with pytest.raises(errors.MissingError):
        await stage.cluster.overwrite(over(live, document))
    with pytest.raises(errors.MissingError):
        await stage.cluster.consolidate(*kind_of(document), **identity(live))
    with pytest.raises(errors.MissingError):
        await stage.cluster.delete(*kind_of(document), **identity(live))


async def two_controllers_are_refused(stage: Stage) -> None:
    theirs = objects.config_map(stage, {}, ownerReferences=[objects.owner("uid-1")])
    await stage.others.create(theirs, by="people")
    with pytest.raises(errors.InvalidError, match="Only one reference can have Controller set to true"):
        await stage.cluster.apply(objects.config_map(stage, {}, ownerReferences=[objects.owner("uid-2")]))


async def a_selector_stays_as_it_is(stage: Stage) -> None:
    live = await stage.cluster.create(objects.deployment(stage))
    other = objects.deployment(stage)
    other["spec"]["selector"]["matchLabels"]["b"] = "1"
    other["spec"]["template"]["metadata"]["labels"]["b"] = "1"
    with pytest.raises(errors.InvalidError, match="immutable"):
        await stage.cluster.apply(over(live, other))


async def a_selector_matches_its_template(stage: Stage) -> None:
    document = objects.deployment(stage)
    document["spec"]["template"]["metadata"]["labels"] = {"app": "b"}
    with pytest.raises(errors.InvalidError, match=r"spec\.template\.metadata\.labels"):
        await stage.cluster.create(document)


async def a_strategy_that_is_recreate_has_nothing_to_roll(stage: Stage) -> None:
    """The trap of a POST: what it said stays, until our two entries are made one."""
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    document = objects.deployment(stage, strategy=rolling)
    recreated = objects.deployment(stage, strategy={"type": "Recreate"})
    live = await stage.cluster.create(document)
    with pytest.raises(errors.InvalidError, match="rollingUpdate"):
        await stage.cluster.apply(over(live, recreated))
    live = await stage.cluster.consolidate(*kind_of(document), **identity(live))
    live = await stage.cluster.apply(over(live, recreated))
    assert live["spec"]["strategy"] == {"type": "Recreate"}
    live = await stage.cluster.apply(over(live, objects.deployment(stage)))
    filled_in = {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert live["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": filled_in}


async def a_strategy_moves_at_all(stage: Stage) -> None:
    still = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}
    with pytest.raises(errors.InvalidError, match="maxSurge"):
        await stage.cluster.create(objects.deployment(stage, strategy=still))


async def a_jobs_template_stays_as_it_is(stage: Stage) -> None:
    live = await stage.cluster.create(objects.job(stage))
    with pytest.raises(errors.InvalidError, match="immutable"):
        await stage.cluster.apply(over(live, objects.job(stage, image="runtime:2")))
    more = {**objects.job(stage)["spec"], "backoffLimit": 9}
    after = await stage.cluster.apply(over(live, {**objects.job(stage), "spec": more}))
    assert after["spec"]["backoffLimit"] == 9
    assert after["metadata"]["generation"] == 2


async def a_claim_that_waits_for_its_volume_stays_as_it_is(stage: Stage) -> None:
    live = await stage.cluster.create(objects.claim(stage, "1Gi"))
    for other in (objects.claim(stage, "2Gi"), _shared(stage)):
        with pytest.raises(errors.InvalidError, match="spec is immutable after creation"):
            await stage.cluster.apply(over(live, other))


async def a_bound_claim_stays_as_it_is_but_for_its_size(stage: Stage) -> None:
    live = await _bound(stage)
    with pytest.raises(errors.InvalidError, match="spec is immutable after creation"):
        await stage.cluster.apply(over(live, _shared(stage)))
    with pytest.raises(errors.InvalidError, match=r"less than status\.capacity"):
        await stage.cluster.apply(over(live, objects.claim(stage, "1Gi")))


async def a_claim_is_held_until_it_is_unused(stage: Stage) -> None:
    document = objects.claim(stage)
    live = await stage.cluster.create(document)
    assert live["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    await stage.cluster.delete(*kind_of(document), **identity(live))
    live = await stage.live(document)
    assert "deletionTimestamp" in live["metadata"]
    with pytest.raises(errors.ExistsError):
        await stage.cluster.create(document)
    await stage.others.patch(live, {"metadata": {"finalizers": None}}, by="pvc-protection-controller")
    with pytest.raises(errors.MissingError):
        await stage.live(document)


async def a_revision_keeps_its_data(stage: Stage) -> None:
    live = await stage.cluster.create(objects.revision(stage))
    with pytest.raises(errors.InvalidError, match="immutable"):
        await stage.cluster.apply(over(live, objects.revision(stage, image="runtime:2")))
    with pytest.raises(errors.InvalidError, match="immutable"):
        await stage.others.patch(live, {"data": {"image": "runtime:2"}}, by="people")
    after = await stage.cluster.apply(over(live, objects.revision(stage, number=2)))
    assert after["revision"] == 2
    assert "generation" not in after["metadata"]


async def a_port_that_people_change_stays_beside_ours_and_is_refused(stage: Stage) -> None:
    document = objects.service(stage)
    live = await stage.cluster.create(document)
    live = await stage.others.patch(live, {"spec": {"ports": [objects.port(81)]}}, by="people")
    with pytest.raises(errors.InvalidError, match="Duplicate value"):
        await stage.cluster.apply(over(live, document))
    after = await stage.cluster.overwrite(over(live, document))
    assert after["spec"]["ports"] == [objects.port()]


async def several_ports_want_names(stage: Stage) -> None:
    nameless = {"port": 80, "targetPort": 80, "protocol": "TCP"}
    await stage.others.create(objects.service(stage, nameless), by="people")
    with pytest.raises(errors.InvalidError, match=r"name: Required value"):
        await stage.cluster.apply(objects.service(stage, {**nameless, "port": 81}))


async def a_service_keeps_its_address(stage: Stage) -> None:
    live = await stage.cluster.create(objects.service(stage))
    assert live["spec"]["clusterIP"] == live["spec"]["clusterIPs"][0]
    after = await stage.cluster.apply(over(live, objects.service(stage, objects.port(81, "more"))))
    assert after["spec"]["clusterIP"] == live["spec"]["clusterIP"]
    assert [each["port"] for each in after["spec"]["ports"]] == [80, 81], "the POST keeps its port"


async def a_generation_is_a_change_of_what_is_wanted(stage: Stage) -> None:
    live = await stage.cluster.create(objects.deployment(stage))
    assert live["metadata"]["generation"] == 1
    for patch, generation in (
        ({"metadata": {"labels": {"a": "1"}}}, 1),
        ({"metadata": {"annotations": {"a": "1"}}}, 2),
        ({"spec": {"replicas": 1}}, 2),
        ({"spec": {"replicas": 3}}, 3),
    ):
        live = await stage.others.patch(live, patch, by="people")
        assert live["metadata"]["generation"] == generation, patch


async def a_generation_of_ours_is_a_change_of_the_spec(stage: Stage) -> None:
    live = await stage.cluster.create(objects.slm(stage))
    assert live["metadata"]["generation"] == 1
    for patch, generation in (
        ({"metadata": {"annotations": {"a": "1"}}}, 1),
        ({"spec": {"replicas": 3}}, 2),
        ({"spec": {"replicas": 3}}, 2),
    ):
        live = await stage.others.patch(live, patch, by="people")
        assert live["metadata"]["generation"] == generation, patch


async def what_has_no_generation(stage: Stage) -> None:
    for document in (objects.service(stage), objects.config_map(stage, {}), objects.claim(stage)):
        assert "generation" not in (await stage.cluster.create(document))["metadata"]


async def a_budget_is_counted_by_generations(stage: Stage) -> None:
    live = await stage.cluster.create(objects.budget(stage))
    after = await stage.cluster.apply(over(live, objects.budget(stage, at_most=2)))
    assert (live["metadata"]["generation"], after["metadata"]["generation"]) == (1, 2)


async def a_quantity_in_other_words_is_no_change(stage: Stage) -> None:
    document = objects.deployment(stage, objects.container(resources={"limits": {"memory": "1024Mi"}}))
    live = await stage.cluster.apply(document)
    assert live["spec"]["template"]["spec"]["containers"][0]["resources"] == {"limits": {"memory": "1Gi"}}
    await asyncio.sleep(1)  # times of entries are in seconds, and no reason for a write
    assert not changed(live, await stage.cluster.apply(over(live, document)))


async def a_secrets_texts_are_kept_as_data(stage: Stage) -> None:
    live = await stage.cluster.create(objects.secret(stage))
    assert live["data"] == {"api-key": "cmFuZG9t"}
    assert "stringData" not in live


async def a_list_finds_what_is_selected(stage: Stage) -> None:
    document = objects.config_map(stage, {}, labels={"app.kubernetes.io/managed-by": "slm-operator"})
    resource, namespace, name = kind_of(document)
    await stage.cluster.create(document)
    found = await stage.cluster.list(resource, namespace, lambda each: each["metadata"]["name"])
    assert name in found.items
    live = await stage.live(document)
    await stage.others.patch(live, {"metadata": {"labels": None}}, by="people")
    found = await stage.cluster.list(resource, namespace, lambda each: each["metadata"]["name"])
    assert name not in found.items


def _shared(stage: Stage) -> Doc:
    document = objects.claim(stage)
    document["spec"]["accessModes"] = ["ReadWriteMany"]
    return document


async def _bound(stage: Stage) -> Doc:
    """A claim of 2 Gi with its volume."""
    live = await stage.cluster.create(objects.claim(stage, "2Gi"))
    live = await stage.others.patch(
        live, {"spec": {"volumeName": f"{stage.namespace}-{stage.name}"}}, by="binder"
    )
    status = {"phase": "Bound", "capacity": {"storage": "2Gi"}}
    return await stage.others.patch(live, {"status": status}, by="binder", subresource="status")


def _headless(document: Doc) -> Doc:
    return {key: value for key, value in document.items() if key != "spec"}
