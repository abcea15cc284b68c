"""`spec.podTemplate`: the few fields of the pods that are the user's. Nothing here gives a pod more rights over its node."""

from typing import Annotated, Final

from pydantic import Field

from slm_operator.crd.affinity import Affinity, TopologySpreadConstraint
from slm_operator.crd.base import (
    OBJECT_NAME,
    OBJECT_NAME_MESSAGE,
    RULES,
    ApiModel,
    LocalReference,
    ObjectName,
    pattern,
    rule,
    rules,
)
from slm_operator.crd.names import (
    COMPONENT_LABEL,
    GROUP,
    INSTANCE_LABEL,
    MANAGED_BY_LABEL,
    NAME_LABEL,
    PART_OF_LABEL,
)

OWN_LABELS: Final = (NAME_LABEL, INSTANCE_LABEL, MANAGED_BY_LABEL, PART_OF_LABEL, COMPONENT_LABEL)
"""Selectors and dashboards go by them."""
OWN_PREFIX: Final = f"{GROUP}/"

LabelValue = Annotated[
    str,
    Field(
        max_length=63,
        json_schema_extra=pattern(
            "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
            "write a label's value: letters, digits, '-', '_' and '.', a letter or digit first and last",
        ),
    ),
]
AnnotationValue = Annotated[str, Field(max_length=4096)]

Labels = Annotated[
    dict[str, LabelValue],
    Field(
        default_factory=dict,
        max_length=32,
        json_schema_extra=rules(
            rule(
                f"self.all(key, !key.startsWith('{OWN_PREFIX}') && !(key in {list(OWN_LABELS)}))",
                f"labels under {OWN_PREFIX} and app.kubernetes.io/name, instance, managed-by, part-of and component are the "
                "operator's own: take other names",
            )
        ),
    ),
]
Annotations = Annotated[
    dict[str, AnnotationValue],
    Field(
        default_factory=dict,
        max_length=32,
        json_schema_extra=rules(
            rule(
                f"self.all(key, !key.startsWith('{OWN_PREFIX}'))",
                f"annotations under {OWN_PREFIX} are the operator's own: take other names",
            )
        ),
    ),
]
"""Of pods and of the Service."""

PriorityClassName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=rules(
            *pattern(OBJECT_NAME, OBJECT_NAME_MESSAGE)[RULES],
            rule(
                "!self.startsWith('system-')",
                "PriorityClasses that begin with system- are for the cluster's own parts: name another one",
            ),
        ),
    ),
]
Identity = Annotated[int, Field(ge=0, le=2147483647)]


class PodSecurity(ApiModel):
    run_as_user: Annotated[int, Field(ge=1, le=2147483647)] | None = None
    """User that the processes run as, never root. Absent: what the operator's configuration says."""
    run_as_group: Identity | None = None
    """Primary group of the processes. Absent: what the operator's configuration says."""
    fs_group: Identity | None = None
    """Group that owns the volumes. Absent: what the operator's configuration says."""


class PodTemplate(ApiModel):
    labels: Labels
    """Labels of the pods, beside the operator's own."""
    annotations: Annotations
    """Annotations of the pods, beside the operator's own."""
    priority_class_name: PriorityClassName | None = None
    """PriorityClass of the pods."""
    affinity: Affinity | None = None
    """Which nodes and which neighbours the pods want, on top of what hardware class and node selectors say; as in a Pod
    (`kubectl explain pod.spec.affinity`)."""
    topology_spread_constraints: Annotated[
        tuple[TopologySpreadConstraint, ...],
        Field(
            max_length=8,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["topologyKey", "whenUnsatisfiable"],
            },
        ),
    ] = ()
    """How replicas are spread. Absent: over nodes, where there is room."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods, one that the operator's configuration allows; no token of it is mounted."""
    image_pull_secrets: Annotated[
        tuple[LocalReference, ...],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Secrets to pull the runtime image with, beside those of the operator's configuration."""
    scheduler_name: ObjectName | None = None
    """Scheduler of the pods; absent: the cluster's own."""
    security_context: PodSecurity | None = None
    """User and groups of the pods, where the platform assigns them."""
