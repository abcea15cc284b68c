from datetime import UTC, datetime

from slm_contract.report import RuntimeReport
from slm_operator.cluster.protocol import Listing
from slm_operator.cluster.resources import CONFIG_MAP, DEPLOYMENT, JOB, NODE, POD, SERVICE, SLM_DEPLOYMENT
from slm_operator.crd.spec import Hardware, Toleration
from slm_operator.nodes import Nodes, Offer
from slm_operator.settings import HardwareClass, ResourceRequest
from slm_operator.snapshot import ChildRef
from slm_operator.store import Change, Store
from tests.unit.operator_edge.objects import KEY, SETTINGS, child, node, slm

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEPLOYMENT_REF = ChildRef("Deployment", "a")


def snapshot(store: Store):
    return store.snapshot(KEY, SETTINGS, NOW)


def relist(store: Store, resource, version: str, *documents, namespace=None):
    """As the resync does."""
    kept = [store.keep(resource, document) for document in documents]
    return store.replace(resource, namespace, Listing(kept, version))


def test_a_new_deployment_is_urgent_and_its_status_is_not():
    store = Store()
    assert store.observe(SLM_DEPLOYMENT, slm(1)) == [Change(KEY, urgent=True)]
    assert store.observe(SLM_DEPLOYMENT, slm(2, status={"replicas": 1})) == [Change(KEY, urgent=False)]


def test_the_echo_of_an_own_write_wakes_nobody():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    store.observe(DEPLOYMENT, child("Deployment", 5, spec={"replicas": 1}))
    assert store.observe(DEPLOYMENT, child("Deployment", 5, spec={"replicas": 1})) == []


def test_a_late_event_never_replaces_a_newer_object():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    store.observe(DEPLOYMENT, child("Deployment", 9, spec={"replicas": 9}))
    assert store.observe(DEPLOYMENT, child("Deployment", 10 - 3, spec={"replicas": 7})) == []
    assert snapshot(store).children[DEPLOYMENT_REF]["spec"] == {"replicas": 9}


def test_revisions_are_numbers_not_text():
    store = Store()
    store.observe(DEPLOYMENT, child("Deployment", 9, spec={"replicas": 9}))
    store.observe(DEPLOYMENT, child("Deployment", 10, spec={"replicas": 10}))
    assert store.get(DEPLOYMENT, "demo", "a")["spec"] == {"replicas": 10}


def test_what_was_deleted_is_not_brought_back_by_a_late_event():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    store.observe(DEPLOYMENT, child("Deployment", 5))
    assert store.observe(DEPLOYMENT, child("Deployment", 8), deleted=True) == [Change(KEY, urgent=True)]
    assert store.observe(DEPLOYMENT, child("Deployment", 7)) == []
    assert snapshot(store).children == {}
    assert store.observe(DEPLOYMENT, child("Deployment", 9)) == [Change(KEY, urgent=True)]


def test_a_late_deletion_of_an_earlier_object_of_the_name_is_ignored():
    store = Store()
    store.observe(DEPLOYMENT, child("Deployment", 9))
    assert store.observe(DEPLOYMENT, child("Deployment", 7), deleted=True) == []
    assert store.get(DEPLOYMENT, "demo", "a") is not None


def test_a_list_removes_what_no_watch_told_of_but_not_what_is_newer():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    store.observe(DEPLOYMENT, child("Deployment", 5))
    store.observe(SERVICE, child("Service", 30))
    assert relist(store, DEPLOYMENT, "20") == [Change(KEY, urgent=True)]
    assert relist(store, SERVICE, "20") == []
    assert list(snapshot(store).children) == [ChildRef("Service", "a")]


def test_after_a_list_older_events_of_absent_objects_are_stale():
    store = Store()
    relist(store, DEPLOYMENT, "20")
    assert store.observe(DEPLOYMENT, child("Deployment", 15)) == []
    assert store.get(DEPLOYMENT, "demo", "a") is None


def test_a_list_that_began_before_a_deletion_does_not_undo_it():
    store = Store()
    store.observe(DEPLOYMENT, child("Deployment", 5))
    store.observe(DEPLOYMENT, child("Deployment", 25), deleted=True)
    relist(store, DEPLOYMENT, "20", child("Deployment", 5))
    assert store.get(DEPLOYMENT, "demo", "a") is None


def test_a_list_of_one_namespace_says_nothing_of_another():
    store = Store()
    store.observe(DEPLOYMENT, child("Deployment", 5))
    relist(store, DEPLOYMENT, "20", namespace="other")
    assert store.get(DEPLOYMENT, "demo", "a") is not None


def test_an_own_delete_counts_before_the_watch_tells_it():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    store.observe(DEPLOYMENT, child("Deployment", 5))
    store.removed(DEPLOYMENT, "demo", "a")
    assert snapshot(store).children == {}
    assert store.observe(DEPLOYMENT, child("Deployment", 4)) == []


def test_a_deployment_that_is_gone_or_going_has_no_snapshot():
    store = Store()
    assert snapshot(store) is None
    store.observe(SLM_DEPLOYMENT, slm(1))
    going = slm(2)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    store.observe(SLM_DEPLOYMENT, going)
    assert snapshot(store) is None


def test_only_what_decisions_need_is_kept():
    store = Store()
    document = slm(1)
    document["metadata"] |= {
        "managedFields": [{"manager": "kubectl"}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "a"},
    }
    store.observe(SLM_DEPLOYMENT, document)
    metadata = snapshot(store).resource["metadata"]
    assert "managedFields" not in metadata
    assert metadata["annotations"] == {"team": "a"}


def test_the_same_bundle_is_kept_once():
    store = Store()
    text = "x" * 1000
    for name in ("a", "b"):
        document = child("ConfigMap", 5, data={"ca.crt": "".join(list(text))})
        document["metadata"]["name"] = name
        store.observe(CONFIG_MAP, document)
    first, second = (store.get(CONFIG_MAP, "demo", name)["data"]["ca.crt"] for name in ("a", "b"))
    assert first is second


CLASSES = (
    HardwareClass(name="fast", family="cpu", node_selector={"disk": "fast"}),
    HardwareClass(name="gpu", family="gpu", resource=ResourceRequest(name="acme/gpu")),
)


def test_only_changes_of_a_node_that_placement_can_see_concern_anybody():
    store = Store(CLASSES)
    assert store.observe(NODE, node(1)) == [Change(None)]
    assert store.observe(NODE, node(2)) == []
    for version, labels, changes in (
        (3, {"disk": "fast", "owner": "me"}, []),
        (4, {"disk": "slow"}, [Change(None)]),
    ):
        labelled = node(version)
        labelled["metadata"]["labels"] = labels
        assert store.observe(NODE, labelled) == changes
    for version, amounts, changes in (
        (5, {"cpu": "1", "acme/nic": "1"}, []),
        (6, {"acme/gpu": "1"}, [Change(None)]),
    ):
        equipped = node(version)
        equipped["metadata"]["labels"] = {"disk": "slow"}
        equipped["status"]["allocatable"] = amounts
        assert store.observe(NODE, equipped) == changes


def test_a_label_of_nodes_counts_as_long_as_somebody_selects_by_it():
    store = Store(CLASSES)
    store.observe(NODE, node(1))
    selecting = slm(1)
    selecting["spec"]["hardware"] = {"nodeSelector": {"zone": "a"}}
    store.observe(SLM_DEPLOYMENT, selecting)
    zoned = node(2)
    zoned["metadata"]["labels"] |= {"zone": "a"}
    assert store.observe(NODE, zoned) == [Change(None)]
    hardware = Hardware(node_selector={"zone": "a"}, tolerations=(Toleration(operator="Exists"),))
    assert snapshot(store).nodes.offer(CLASSES[0], hardware).nodes == 1
    store.observe(SLM_DEPLOYMENT, slm(2, generation=2))
    moved = node(3)
    moved["metadata"]["labels"] |= {"zone": "b"}
    assert store.observe(NODE, moved) == []


def test_a_label_that_is_selected_by_later_was_remembered():
    store = Store(CLASSES)
    zoned = node(1)
    zoned["metadata"]["labels"] |= {"zone": "a"}
    store.observe(NODE, zoned)
    selecting = slm(1)
    selecting["spec"]["hardware"] = {"nodeSelector": {"zone": "a"}}
    store.observe(SLM_DEPLOYMENT, selecting)
    hardware = Hardware(node_selector={"zone": "a"}, tolerations=(Toleration(operator="Exists"),))
    assert snapshot(store).nodes.offer(CLASSES[0], hardware) == Offer(1, 0)


def test_nodes_are_the_same_until_one_of_them_changes():
    store = Store(CLASSES)
    store.observe(SLM_DEPLOYMENT, slm(1))
    store.observe(NODE, node(1))
    before = snapshot(store).nodes
    store.observe(NODE, node(2))
    assert snapshot(store).nodes is before
    relist(store, NODE, "9")
    assert snapshot(store).nodes == Nodes.of(())


def test_a_deleted_node_is_not_brought_back_by_a_late_event():
    store = Store(CLASSES)
    store.observe(NODE, node(1))
    assert store.observe(NODE, node(5), deleted=True) == [Change(None)]
    assert store.observe(NODE, node(3)) == []


def test_only_the_deployment_that_is_complete_is_likely_to_be_the_last_to_change():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    counts = {"replicas": 1, "updatedReplicas": 1, "observedGeneration": 1}
    changes = []
    for version, ready in ((5, 0), (6, 1)):
        status = {**counts, "readyReplicas": ready}
        document = child("Deployment", version, spec={"replicas": 1}, status=status)
        document["metadata"]["generation"] = 1
        changes += store.observe(DEPLOYMENT, document)
    assert [change.complete for change in changes] == [False, True]


def test_an_object_comes_back_as_it_was_taken_in():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    for version in (5, 6):
        spec = {"ports": [{"port": 80 + version}], "selector": {"ä": None}}
        store.observe(SERVICE, child("Service", version, spec=spec))
        assert snapshot(store).children[ChildRef("Service", "a")] == child("Service", version, spec=spec)


def test_pods_belong_by_their_label_and_take_their_report_with_them():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    pod = child("Pod", 5, owner=None, status={"phase": "Running"})
    assert store.observe(POD, pod) == [Change(KEY, urgent=False)]
    told = RuntimeReport(command="serve", phase="Loading")
    assert store.reported(KEY, "uid-Pod", told)
    assert not store.reported(KEY, "uid-Pod", told)
    assert snapshot(store).reports == {"uid-Pod": told}
    store.observe(POD, child("Pod", 6, owner=None), deleted=True)
    assert store.report("uid-Pod") is None
    assert snapshot(store).pods == ()


def test_of_a_pod_only_what_it_was_told_is_kept_not_its_environment():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    env = [{"name": "SLM_CONFIG", "value": "{}"}, {"name": "TOKEN", "value": "secret"}]
    spec = {"containers": [{"name": "serve", "image": "i", "env": env, "resources": {}}], "nodeName": "n"}
    store.observe(POD, child("Pod", 5, owner=None, spec=spec))
    assert snapshot(store).pods[0]["spec"] == {
        "nodeName": "n",
        "containers": [{"name": "serve", "image": "i", "env": [{"name": "SLM_CONFIG", "value": "{}"}]}],
    }


def test_an_object_that_changes_hands_concerns_both():
    store = Store()
    store.observe(DEPLOYMENT, child("Deployment", 5))
    given = child("Deployment", 6)
    given["metadata"]["ownerReferences"][0]["name"] = "b"
    changes = store.observe(DEPLOYMENT, given)
    assert {change.key.name for change in changes} == {"a", "b"}


def test_an_adopted_object_is_a_child_by_name_and_survives_lists():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    foreign = child("Deployment", 5, owner=None)
    foreign["metadata"]["labels"] = {"app": "mine"}
    store.found_in_the_way(KEY, DEPLOYMENT, foreign)
    relist(store, DEPLOYMENT, "20")
    assert list(snapshot(store).children) == [DEPLOYMENT_REF]
    assert store.in_the_way(KEY) == [(DEPLOYMENT, "a")]


def test_a_clue_is_in_the_snapshot_and_news_once():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    store.observe(JOB, child("Job", 2))
    assert store.found_clue("uid-Job", "no room")
    assert not store.found_clue("uid-Job", "no room")
    assert snapshot(store).clues == {"uid-Job": "no room"}
    assert store.found_clue("uid-Job", None)
    assert not store.found_clue("uid-Job", None)
    assert snapshot(store).clues == {}


def test_a_clue_is_dropped_with_its_object():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    store.observe(JOB, child("Job", 2))
    store.found_clue("uid-Job", "no room")
    store.observe(JOB, child("Job", 3), deleted=True)
    assert store.clue("uid-Job") is None


async def test_each_follower_gets_what_changed_once():
    store = Store()
    store.observe(SLM_DEPLOYMENT, slm(1))
    early = store.follow()
    store.observe(JOB, child("Job", 2))
    store.observe(POD, child("Pod", 3, owner=None))
    late = store.follow()
    for follower in (early, late):
        await follower.wait()
        assert follower.take() == [KEY]
        assert follower.take() == []
    store.observe(DEPLOYMENT, child("Deployment", 4))
    assert early.take() == late.take() == []


def test_conditions_that_alerts_are_made_of_are_told_of_every_deployment():
    store = Store()
    conditions = [
        {"type": "Ready", "status": "True"},
        {"type": "Available", "status": "Unknown"},
        {"type": "Placed", "status": "True"},
    ]
    document = {**slm(1), "status": {"conditions": conditions}}
    store.observe(SLM_DEPLOYMENT, document)
    assert list(store.conditions()) == [(KEY, (("Ready", True), ("Available", False)))]
    store.observe(SLM_DEPLOYMENT, document, deleted=True)
    assert list(store.conditions()) == []
