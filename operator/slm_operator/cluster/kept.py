"""What stays in memory of each object: enough to decide, and no more.

``managedFields`` alone are often larger than the rest of an object, and a node's list of images larger still. Of
children they are kept, since drift shows by them: as a text, which all objects of one shape share.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from slm_contract.places import CONFIG_ENV
from slm_operator.cluster.resources import (
    AUTOSCALER,
    CONFIG_MAP,
    CONTROLLER_REVISION,
    NODE,
    POD,
    SCALED_OBJECT,
    SLM_DEPLOYMENT,
    Resource,
)
from slm_operator.nodes import Node
from slm_operator.snapshot import Document

_METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
)
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
"""kubectl's copy of the whole object."""

_SCALERS: Final = (AUTOSCALER, SCALED_OBJECT)
"""Their status tells figures and times every fifteen seconds, which nobody decides by."""
_TOLD: Final = ("type", "status", "reason", "message")
_UNMANAGED: Final = (SLM_DEPLOYMENT, POD, NODE)
"""What we write no field of, or only the status."""


def kept_object(resource: Resource, document: Document) -> Document:
    """The parts of any object that decisions are made of; equal to itself when it is reduced again."""
    kept: dict[str, Any] = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": _metadata(document["metadata"]),
    }
    if resource not in _UNMANAGED and (managed := _managed_fields(document["metadata"])):
        kept["metadata"]["managedFields"] = managed
    if resource is POD:
        kept["spec"] = _pod_spec(document.get("spec") or {})
        kept["status"] = document.get("status") or {}
        return kept
    if resource is CONFIG_MAP:
        kept["data"] = document.get("data") or {}
        return kept
    if resource is CONTROLLER_REVISION:
        kept |= {key: document[key] for key in ("data", "revision") if key in document}
        return kept
    if resource is NODE:
        spec, status = document.get("spec") or {}, document.get("status") or {}
        kept["spec"] = {key: spec[key] for key in ("taints", "unschedulable") if key in spec}
        kept["status"] = {key: status[key] for key in ("allocatable", "conditions") if key in status}
        return kept
    kept["spec"] = document.get("spec") or {}
    if resource in _SCALERS:
        told = (document.get("status") or {}).get("conditions") or ()
        kept["status"] = {"conditions": [{key: each[key] for key in _TOLD if key in each} for each in told]}
        return kept
    if document.get("status"):
        kept["status"] = document["status"]
    return kept


def kept_node(document: Document) -> Node:
    """Labels, taints and allocatable; whether it is ready and takes pods."""
    spec = document.get("spec") or {}
    status = document.get("status") or {}
    conditions = status.get("conditions") or ()
    return Node(
        name=document["metadata"]["name"],
        labels=document["metadata"].get("labels") or {},
        taints=tuple(
            {key: taint[key] for key in ("key", "value", "effect") if taint.get(key)}
            for taint in spec.get("taints") or ()
        ),
        allocatable=status.get("allocatable") or {},
        ready=any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions),
        unschedulable=bool(spec.get("unschedulable")),
    )


def _pod_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Where it runs, what of, and what it was told."""
    kept = {key: spec[key] for key in ("nodeName", "volumes") if key in spec}
    for part in ("initContainers", "containers"):
        if part in spec:
            kept[part] = [
                {key: container[key] for key in ("name", "image") if key in container}
                | {"env": [each for each in container.get("env") or () if each.get("name") == CONFIG_ENV]}
                for container in spec[part]
            ]
    return kept


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: metadata[key] for key in _METADATA if key in metadata}
    if _LAST_APPLIED in (annotations := kept.get("annotations") or {}):
        kept["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    return kept


def _managed_fields(metadata: Mapping[str, Any]) -> list[dict[str, str]]:
    """Who owns what of the object itself; the status is its controller's."""
    owner = next(
        (each["uid"] for each in metadata.get("ownerReferences") or () if each.get("controller")), ""
    )
    return [
        {
            **{key: entry[key] for key in ("manager", "operation", "subresource") if entry.get(key)},
            "fieldsV1": _fields_text(entry["fieldsV1"], owner),
        }
        for entry in metadata.get("managedFields") or ()
        if entry.get("fieldsV1") and entry.get("subresource") != "status"
    ]


def _fields_text(fields: Any, owner: str) -> str:
    """Canonical JSON; the controller stands in it without its uid, by which no two children would be alike."""
    if isinstance(fields, str):
        return fields
    text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()
    return text.replace(f'"k:{{\\"uid\\":\\"{owner}\\"}}"', '"k:{}"') if owner else text
