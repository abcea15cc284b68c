"""Cases: who owns which field, and what an apply makes of an object."""

import pytest

from slm_operator.cluster import errors
from tests.double import objects
from tests.double.stage import Stage, changed, identity, kind_of, over, owners

POSTED = "slm-operator/Update"
APPLIED = "slm-operator/Apply"
REPLICAS = ("f:spec", "f:replicas")
CONTAINERS = ("f:spec", "f:template", "f:spec", "f:containers")
SERVE = (*CONTAINERS, 'k:{"name":"serve"}')
CONTROLLER = "kube-controller-manager"


async def a_post_owns_what_it_says_and_what_was_filled_in(stage: Stage) -> None:
    live = await stage.cluster.create(objects.deployment(stage, replicas=2))
    assert owners(live, *REPLICAS) == {POSTED}
    assert owners(live, *SERVE, "f:image") == {POSTED}
    assert owners(live, *SERVE, "f:imagePullPolicy") == {POSTED}
    assert owners(live, *SERVE) == {POSTED}


async def an_apply_owns_what_it_says_alone(stage: Stage) -> None:
    live = await stage.cluster.apply(objects.deployment(stage, replicas=2))
    assert owners(live, *REPLICAS) == {APPLIED}
    assert owners(live, *SERVE, "f:image") == {APPLIED}
    assert live["spec"]["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
    assert owners(live, "f:spec", "f:template", "f:spec", "f:dnsPolicy") == set()


async def an_apply_that_says_the_same_as_a_post_owns_it_too(stage: Stage) -> None:
    document = objects.deployment(stage, replicas=2)
    live = await stage.cluster.create(document)
    after = await stage.cluster.apply(over(live, document))
    assert owners(after, *REPLICAS) == {POSTED, APPLIED}
    assert after["spec"] == live["spec"]
    assert changed(live, after), "who owns a field is a part of the object"
    assert after["metadata"]["generation"] == 1


async def an_apply_that_changes_nothing_writes_nothing(stage: Stage) -> None:
    document = objects.deployment(stage, replicas=2)
    live = await stage.cluster.apply(document)
    assert not changed(live, await stage.cluster.apply(over(live, document)))


async def a_field_that_an_apply_drops_goes(stage: Stage) -> None:
    live = await stage.cluster.apply(objects.config_map(stage, {"a": "1", "b": "2"}, labels={"team": "x"}))
    after = await stage.cluster.apply(over(live, objects.config_map(stage, {"a": "1"})))
    assert after["data"] == {"a": "1"}
    assert "labels" not in after["metadata"]


async def a_field_that_an_apply_drops_stays_while_the_post_owns_it(stage: Stage) -> None:
    live = await stage.cluster.create(objects.config_map(stage, {"a": "1", "b": "2"}))
    live = await stage.cluster.apply(over(live, objects.config_map(stage, {"a": "1", "b": "2"})))
    live = await stage.cluster.apply(over(live, objects.config_map(stage, {"a": "1"})))
    assert live["data"] == {"a": "1", "b": "2"}
    assert owners(live, "f:data", "f:b") == {POSTED}


async def a_field_that_an_apply_drops_goes_once_post_and_apply_are_one(stage: Stage) -> None:
    document = objects.config_map(stage, {"a": "1", "b": "2"})
    live = await stage.cluster.create(document)
    live = await stage.cluster.consolidate(*kind_of(document), **identity(live))
    assert owners(live, "f:data", "f:b") == {APPLIED}
    assert live["data"] == {"a": "1", "b": "2"}
    live = await stage.cluster.apply(over(live, objects.config_map(stage, {"a": "1"})))
    assert live["data"] == {"a": "1"}


async def consolidating_keeps_what_both_own(stage: Stage) -> None:
    document = objects.config_map(stage, {"a": "1", "b": "2"})
    live = await stage.cluster.create(document)
    live = await stage.cluster.apply(over(live, objects.config_map(stage, {"a": "1", "c": "3"})))
    live = await stage.others.patch(live, {"data": {"d": "4"}}, by="people")
    live = await stage.cluster.consolidate(*kind_of(document), **identity(live))
    assert [owners(live, "f:data", f"f:{key}") for key in "abc"] == [{APPLIED}] * 3
    assert owners(live, "f:data", "f:d") == {"people/Update"}
    assert not changed(live, await stage.cluster.consolidate(*kind_of(document), **identity(live)))
    live = await stage.cluster.apply(over(live, objects.config_map(stage, {"c": "3"})))
    assert live["data"] == {"c": "3", "d": "4"}


async def a_template_part_that_is_dropped_goes_with_all_that_was_filled_in(stage: Stage) -> None:
    probe = {"httpGet": {"port": 80}}
    live = await stage.cluster.apply(objects.deployment(stage, objects.container(livenessProbe=probe)))
    after = await stage.cluster.apply(over(live, objects.deployment(stage)))
    assert "livenessProbe" not in after["spec"]["template"]["spec"]["containers"][0]


async def a_container_that_is_dropped_goes_with_what_people_patched_into_it(stage: Stage) -> None:
    live = await stage.cluster.apply(
        objects.deployment(stage, objects.container(), objects.container("side"))
    )
    serving, side = live["spec"]["template"]["spec"]["containers"]
    pods = {"containers": [serving, {**side, "stdin": True}]}
    live = await stage.others.patch(live, {"spec": {"template": {"spec": pods}}}, by="people")
    assert owners(live, *CONTAINERS, 'k:{"name":"side"}', "f:stdin") == {"people/Update"}
    after = await stage.cluster.apply(over(live, objects.deployment(stage)))
    assert [each["name"] for each in after["spec"]["template"]["spec"]["containers"]] == ["serve"]


async def a_container_that_others_apply_too_stays(stage: Stage) -> None:
    await stage.cluster.apply(objects.deployment(stage, objects.container(), objects.container("side")))
    live = await stage.others.apply(
        objects.deployment(stage, objects.container("side", stdin=True)), by="people"
    )
    after = await stage.cluster.apply(over(live, objects.deployment(stage)))
    containers = after["spec"]["template"]["spec"]["containers"]
    assert [each["name"] for each in containers] == ["serve", "side"]
    assert (containers[1]["image"], containers[1]["stdin"]) == ("runtime:1", True)


async def a_strangers_claim_is_merged(stage: Stage) -> None:
    """Why nothing may be applied that isn't known to be ours: the garbage collector would take it with us."""
    await stage.others.create(objects.claim(stage), by="people")
    ours = objects.claim(stage, labels={"app": "a"}, ownerReferences=[objects.owner("uid-of-ours")])
    after = await stage.cluster.apply(ours, force=False)
    assert [each["uid"] for each in after["metadata"]["ownerReferences"]] == ["uid-of-ours"]
    assert owners(after, "f:spec", "f:accessModes") == {"people/Update", APPLIED}


async def a_strangers_config_map_is_merged(stage: Stage) -> None:
    await stage.others.create(objects.config_map(stage, {"mine": "1"}), by="people")
    after = await stage.cluster.apply(objects.config_map(stage, {"ca.crt": "ours"}), force=False)
    assert after["data"] == {"mine": "1", "ca.crt": "ours"}


async def a_strangers_service_with_other_values_is_refused_without_force(stage: Stage) -> None:
    theirs = objects.service(stage)
    theirs["spec"]["ports"][0]["targetPort"] = 1234
    before = await stage.others.create(theirs, by="people")
    with pytest.raises(errors.TakenError, match="people"):
        await stage.cluster.apply(objects.service(stage), force=False)
    assert await stage.live(theirs) == before
    after = await stage.cluster.apply(objects.service(stage))
    assert after["spec"]["ports"][0]["targetPort"] == "api"
    item = ("f:spec", "f:ports", 'k:{"port":80,"protocol":"TCP"}')
    assert owners(after, *item, "f:targetPort") == {APPLIED}
    assert owners(after, *item, "f:port") == {"people/Update", APPLIED}


async def a_patch_of_an_owned_field_moves_it(stage: Stage) -> None:
    document = objects.deployment(stage, replicas=2)
    live = await stage.cluster.create(document)
    live = await stage.others.patch(live, {"spec": {"replicas": 5}}, by="kubectl-patch")
    assert owners(live, *REPLICAS) == {"kubectl-patch/Update"}
    live = await stage.cluster.apply(over(live, document))
    assert live["spec"]["replicas"] == 2
    assert owners(live, *REPLICAS) == {APPLIED}


async def a_patch_to_the_same_value_moves_nothing(stage: Stage) -> None:
    live = await stage.cluster.apply(objects.deployment(stage, replicas=2))
    after = await stage.others.patch(live, {"spec": {"replicas": 2}}, by="kubectl-patch")
    assert not changed(live, after)


async def a_field_that_people_delete_is_nobodys(stage: Stage) -> None:
    live = await stage.cluster.apply(objects.config_map(stage, {"a": "1", "b": "2"}))
    live = await stage.others.patch(live, {"data": {"b": None}}, by="people")
    assert owners(live, "f:data", "f:b") == set()
    live = await stage.cluster.apply(over(live, objects.config_map(stage, {"a": "1", "b": "2"})))
    assert live["data"] == {"a": "1", "b": "2"}


async def a_replace_moves_what_it_changes(stage: Stage) -> None:
    live = await stage.cluster.apply(objects.config_map(stage, {"a": "1", "b": "2"}))
    theirs = {**live, "data": {"a": "1", "b": "3"}}
    after = await stage.others.replace(theirs, by="people")
    assert owners(after, "f:data", "f:a") == {APPLIED}
    assert owners(after, "f:data", "f:b") == {"people/Update"}


async def a_controllers_status_leaves_the_spec_alone(stage: Stage) -> None:
    live = await stage.cluster.create(objects.deployment(stage, replicas=2))
    status = {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]}
    after = await stage.others.patch(live, {"status": status}, by=CONTROLLER, subresource="status")
    assert after["status"]["replicas"] == 1
    assert after["metadata"]["generation"] == live["metadata"]["generation"]
    assert owners(after, *REPLICAS) == {POSTED}
    assert owners(after, "f:status", "f:replicas") == {f"{CONTROLLER}/Update/status"}
    condition = ("f:status", "f:conditions", 'k:{"type":"Available"}')
    assert owners(after, *condition) == {f"{CONTROLLER}/Update/status"}


async def a_status_is_not_taken_from_a_write_of_the_rest(stage: Stage) -> None:
    live = await stage.cluster.create({**objects.deployment(stage), "status": {"replicas": 7}})
    assert live["status"].get("replicas", 0) == 0
    after = await stage.others.patch(live, {"status": {"replicas": 7}}, by="people")
    assert not changed(live, after)


async def an_autoscaler_owns_the_replicas_by_the_scale_subresource(stage: Stage) -> None:
    live = await stage.cluster.create(objects.deployment(stage, replicas=2))
    after = await stage.others.patch(live, {"spec": {"replicas": 4}}, by=CONTROLLER, subresource="scale")
    assert after["spec"]["replicas"] == 4
    assert owners(after, *REPLICAS) == {f"{CONTROLLER}/Update/scale"}
    assert after["metadata"]["generation"] == 2


async def our_status_drops_what_it_no_longer_says(stage: Stage) -> None:
    live = await stage.cluster.create(objects.slm(stage))
    live = await stage.cluster.apply_status(over(live, _status(stage, observedGeneration=1, readyReplicas=2)))
    assert owners(live, "f:status", "f:readyReplicas") == {"slm-operator/Apply/status"}
    after = await stage.cluster.apply_status(over(live, _status(stage, observedGeneration=1)))
    assert "readyReplicas" not in after["status"]
    assert after["metadata"]["generation"] == 1
    assert not changed(
        after, await stage.cluster.apply_status(over(after, _status(stage, observedGeneration=1)))
    )


async def lists_merge_by_their_keys_in_the_order_of_the_intent(stage: Stage) -> None:
    env = [{"name": name, "value": "1"} for name in "ab"]
    live = await stage.cluster.apply(objects.deployment(stage, objects.container(env=env)))
    added = {"spec": {"template": {"spec": {"containers": [{**_serving(live), "env": [*env, _named("z")]}]}}}}
    live = await stage.others.patch(live, added, by="people")
    turned = [_named("c"), *reversed(env)]
    after = await stage.cluster.apply(over(live, objects.deployment(stage, objects.container(env=turned))))
    assert [each["name"] for each in _serving(after)["env"]] == ["c", "b", "z", "a"]
    assert owners(after, *SERVE, "f:env", 'k:{"name":"z"}', "f:value") == {"people/Update"}


async def atomic_lists_and_maps_are_one_value(stage: Stage) -> None:
    document = objects.deployment(stage)
    document["spec"]["template"]["spec"] |= {
        "nodeSelector": {"a": "1"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
    }
    live = await stage.cluster.apply(document)
    theirs = {"nodeSelector": {"b": "2"}, "tolerations": [{"key": "b", "operator": "Exists"}]}
    live = await stage.others.patch(live, {"spec": {"template": {"spec": theirs}}}, by="people")
    pods = ("f:spec", "f:template", "f:spec")
    assert live["spec"]["template"]["spec"]["nodeSelector"] == {"a": "1", "b": "2"}, "so is a merge patch"
    assert owners(live, *pods, "f:nodeSelector") == owners(live, *pods, "f:tolerations") == {"people/Update"}
    live = await stage.cluster.apply(over(live, document))
    assert live["spec"]["template"]["spec"]["nodeSelector"] == {"a": "1"}
    assert live["spec"]["template"]["spec"]["tolerations"] == [{"key": "a", "operator": "Exists"}]
    assert owners(live, *pods, "f:nodeSelector") == {APPLIED}


async def owner_references_are_told_apart_by_uid(stage: Stage) -> None:
    theirs = objects.config_map(stage, {}, ownerReferences=[objects.owner("uid-1", controller=False)])
    await stage.others.create(theirs, by="people")
    ours = objects.config_map(stage, {}, ownerReferences=[objects.owner("uid-2")])
    live = await stage.cluster.apply(ours)
    assert [each["uid"] for each in live["metadata"]["ownerReferences"]] == ["uid-1", "uid-2"]
    assert owners(live, "f:metadata", "f:ownerReferences", 'k:{"uid":"uid-2"}') == {APPLIED}


def _status(stage: Stage, **status: object) -> objects.Doc:
    document = {**objects.slm(stage), "status": status}
    del document["spec"]
    return document


def _serving(live: objects.Doc) -> objects.Doc:
    serving: objects.Doc = live["spec"]["template"]["spec"]["containers"][0]
    return serving


def _named(name: str) -> dict[str, str]:
    return {"name": name, "value": "1"}
