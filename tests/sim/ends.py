"""The end of a history, without what differs between two runs to the same end."""

import json
import re
from typing import Any

from slm_operator.crd.names import INTENT_ANNOTATION, REVISION_LABEL, ROLLOUT_ANNOTATION
from tests.sim.cluster import MemoryCluster, Ref

_IDENTITY = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")
_ALLOCATED = (
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
)
_TIMES = ("lastTransitionTime", "measuredAt", "time", "since", "until")
_DROPPED = {*_IDENTITY, *_ALLOCATED, *_TIMES, "observedGeneration", INTENT_ANNOTATION}


def normal(document: Any) -> Any:
    """Without identities, what hashes them, addresses, revisions and times."""
    if isinstance(document, list):
        return [normal(each) for each in document]
    if not isinstance(document, dict):
        return document
    return {
        key: _rollout(value) if key == ROLLOUT_ANNOTATION else normal(value)
        for key, value in document.items()
        if key not in _DROPPED
    }


def end_state(cluster: MemoryCluster, *, without: frozenset[str] = frozenset({"Secret"})) -> dict[Ref, Any]:
    """Everything there is, normalised; a Secret's content is random."""
    return {
        ref: None if ref.kind in without else normal(document) for ref, document in cluster.objects.items()
    }


def present(state: dict[Ref, Any]) -> dict[Ref, Any]:
    """Without history: only the revision in use, by a name that doesn't depend on which SLMDeployment of its name it is."""
    ours = [each for ref, each in state.items() if ref.kind == "Deployment" and _remembers(each)]
    used = {str(json.loads(each["metadata"]["annotations"][ROLLOUT_ANNOTATION])["revision"]) for each in ours}
    labels = {each["spec"]["template"]["metadata"]["labels"].get(REVISION_LABEL) for each in ours} - {None}
    kept = {}
    for ref, each in state.items():
        if ref.kind == "ControllerRevision" and ref.name not in used:
            continue
        text = json.dumps(each)
        for name in used | labels:
            text = re.sub(rf"\b{name}\b", "REVISION", text)
        told = json.loads(re.sub(r"owner-uid-\d+", "owner-UID", text))
        name = ref.name
        if ref.kind == "Pod":
            # Its name has the template's hash, and its address comes of its name.
            name = f"{ref.name.split('-')[0]}-{ref.name.rpartition('-')[2]}"
            told["metadata"]["name"], told["status"]["podIP"] = name, ""
            told["metadata"]["labels"].pop("pod-template-hash", None)
        if ref.kind == "ControllerRevision":
            name, told["revision"] = "REVISION", 1
        if isinstance(told, dict) and isinstance(told.get("status"), dict):
            told["status"].pop("revisions", None)
            told["status"].pop("attempts", None)
        kept[ref._replace(name=name)] = told
    return kept


def _remembers(deployment: Any) -> bool:
    """Whether it is an SLMDeployment's."""
    return ROLLOUT_ANNOTATION in (deployment["metadata"].get("annotations") or {})


def _rollout(text: str) -> str:
    return json.dumps({key: each for key, each in json.loads(text).items() if key == "revision"})
