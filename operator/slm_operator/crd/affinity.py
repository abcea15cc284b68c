"""Affinity and topology spread as Kubernetes has them, typed: what is wrong is refused with the spec, not with the pods."""

from typing import Annotated, Any, Literal

from pydantic import Field

from slm_operator.crd.base import ApiModel

ATOMIC: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}

Weight = Annotated[int, Field(ge=1, le=100)]
Key = Annotated[str, Field(min_length=1, max_length=316)]
Values = Annotated[
    tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=32, json_schema_extra=ATOMIC)
]
Namespaces = Annotated[
    tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=16, json_schema_extra=ATOMIC)
]
LabelKeys = Annotated[tuple[Key, ...], Field(max_length=16, json_schema_extra=ATOMIC)]


class LabelRequirement(ApiModel):
    key: Key
    """Label that is compared."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is compared."""
    values: Values = ()
    """What it is compared with, for `In` and `NotIn`."""


class LabelSelector(ApiModel):
    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(default_factory=dict, max_length=16)
    ]
    """Labels that must be there with these values."""
    match_expressions: Annotated[
        tuple[LabelRequirement, ...], Field(max_length=16, json_schema_extra=ATOMIC)
    ] = ()
    """Further requirements; all must hold."""


class NodeRequirement(ApiModel):
    key: Key
    """Label or field that is compared."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    """How it is compared."""
    values: Values = ()
    """What it is compared with; one number for `Gt` and `Lt`."""


NodeRequirements = Annotated[tuple[NodeRequirement, ...], Field(max_length=16, json_schema_extra=ATOMIC)]


class NodeTerm(ApiModel):
    match_expressions: NodeRequirements = ()
    """Requirements on the node's labels; all must hold."""
    match_fields: NodeRequirements = ()
    """Requirements on the node's fields, such as metadata.name; all must hold."""


class NodeTerms(ApiModel):
    node_selector_terms: Annotated[
        tuple[NodeTerm, ...], Field(min_length=1, max_length=16, json_schema_extra=ATOMIC)
    ]
    """Terms, of which one must hold."""


class PreferredNodes(ApiModel):
    weight: Weight
    """How much it counts beside the others."""
    preference: NodeTerm
    """Nodes that are preferred."""


class NodeAffinity(ApiModel):
    required_during_scheduling_ignored_during_execution: NodeTerms | None = None
    """Nodes that pods may run on, on top of the node selectors."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredNodes, ...], Field(max_length=16, json_schema_extra=ATOMIC)
    ] = ()
    """Nodes that pods had rather run on."""


class PodTerm(ApiModel):
    topology_key: Key
    """Node label whose value makes one place of nodes."""
    label_selector: LabelSelector | None = None
    """Pods that are meant; absent: none."""
    namespaces: Namespaces = ()
    """Namespaces of these pods; absent: that of the SLMDeployment."""
    namespace_selector: LabelSelector | None = None
    """Namespaces of these pods, by their labels."""
    match_label_keys: LabelKeys = ()
    """Labels in which these pods must equal ours; needs Kubernetes 1.31."""
    mismatch_label_keys: LabelKeys = ()
    """Labels in which these pods must differ from ours; needs Kubernetes 1.31."""


class PreferredPods(ApiModel):
    weight: Weight
    """How much it counts beside the others."""
    pod_affinity_term: PodTerm
    """Pods whose neighbourhood counts."""


RequiredPods = Annotated[tuple[PodTerm, ...], Field(max_length=16, json_schema_extra=ATOMIC)]
PreferredPodsList = Annotated[tuple[PreferredPods, ...], Field(max_length=16, json_schema_extra=ATOMIC)]


class PodAffinity(ApiModel):
    required_during_scheduling_ignored_during_execution: RequiredPods = ()
    """Pods beside which ours must run."""
    preferred_during_scheduling_ignored_during_execution: PreferredPodsList = ()
    """Pods beside which ours had rather run."""


class PodAntiAffinity(ApiModel):
    required_during_scheduling_ignored_during_execution: RequiredPods = ()
    """Pods beside which ours must not run."""
    preferred_during_scheduling_ignored_during_execution: PreferredPodsList = ()
    """Pods beside which ours had rather not run."""


class Affinity(ApiModel):
    node_affinity: NodeAffinity | None = None
    """Which nodes."""
    pod_affinity: PodAffinity | None = None
    """Beside which pods."""
    pod_anti_affinity: PodAntiAffinity | None = None
    """Away from which pods."""


class TopologySpreadConstraint(ApiModel):
    max_skew: Annotated[int, Field(ge=1, le=1000)]
    """How many pods more one place may have than another."""
    topology_key: Key
    """Node label whose value makes one place of nodes."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """Whether a pod that would break it waits or is scheduled all the same."""
    label_selector: LabelSelector | None = None
    """Pods that are counted; absent: the serving pods of this SLMDeployment, each revision for itself."""
    match_label_keys: LabelKeys = ()
    """Labels in which the counted pods must equal the new one."""
    min_domains: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Places that there must be at least."""
    node_affinity_policy: Literal["Honor", "Ignore"] | None = None
    """Whether places are those of the nodes that the pod may run on; absent: `Honor`."""
    node_taints_policy: Literal["Honor", "Ignore"] | None = None
    """Whether nodes with taints that the pod doesn't tolerate count; absent: `Ignore`."""
