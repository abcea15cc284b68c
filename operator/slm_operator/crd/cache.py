"""`spec.cache` and `status.cache`: where the model file is kept."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from slm_operator.crd.base import ApiModel, ObjectName, Quantity, rule, rules


class CacheMode(StrEnum):
    AUTO = "Auto"
    PVC = "PVC"
    EPHEMERAL = "Ephemeral"
    NODE_LOCAL = "NodeLocal"
    IMAGE = "Image"


AccessMode = Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]


class Cache(ApiModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.mode != 'PVC' || has(self.claimName) || has(self.size)",
                "mode PVC needs claimName, the name of an existing claim, or size for a claim of its own",
            ),
            rule(
                "!has(self.claimName) || !(has(self.size) || has(self.storageClassName))",
                "claimName names an existing claim: leave out size and storageClassName",
            ),
            rule(
                "!has(self.storageClassName) || has(self.size)",
                "storageClassName makes a claim: write its size too, for example 5Gi",
            ),
            rule(
                "self.mode != 'Ephemeral' || !(has(self.claimName) || has(self.storageClassName))",
                "mode Ephemeral keeps the model in the pod: leave out claimName and storageClassName, or write mode PVC",
            ),
            rule(
                "self.mode != 'NodeLocal' || !(has(self.claimName) || has(self.storageClassName) || has(self.size))",
                "mode NodeLocal keeps models in a directory of the node: leave out claimName, storageClassName and size",
            ),
            rule(
                "self.mode != 'Image' || !(has(self.claimName) || has(self.storageClassName) || has(self.size))",
                "mode Image serves the model out of its image: leave out claimName, storageClassName and size",
            ),
            rule(
                "!self.prePull || self.mode == 'NodeLocal'",
                "prePull brings models to nodes: write mode NodeLocal, or leave it out",
            ),
            rule(
                "has(self.claimName) || !has(self.size) || self.accessModes != ['ReadOnlyMany']",
                "nobody could fill a claim that is only read: add ReadWriteOnce or ReadWriteMany, or name a filled one in "
                "claimName",
            ),
            rule(
                "has(self.claimName) || has(oldSelf.claimName) || self.mode in ['Ephemeral', 'NodeLocal', 'Image'] "
                "|| oldSelf.mode == 'Ephemeral' || !has(oldSelf.size) "
                "|| (has(self.storageClassName) ? self.storageClassName : '') == "
                "(has(oldSelf.storageClassName) ? oldSelf.storageClassName : '') && self.accessModes == oldSelf.accessModes",
                "a claim can't change its storage class or access modes: make another claim and name it in claimName",
            ),
        )
    )

    mode: CacheMode = CacheMode.AUTO
    """Where the model file is kept. `PVC`: in a claim, filled once by a Job. `Ephemeral`: in each pod. `NodeLocal`: in a
    directory of the node, once for all pods of a namespace there, where the operator's configuration has such a directory.
    `Image`: in the image that an `oci://` source names, which the node pulls once and mounts; needs Kubernetes 1.35, and
    containerd 2.1 or CRI-O 1.31. `Auto`: `PVC` where claimName or storageClassName is given, else `Ephemeral`."""
    claim_name: ObjectName | None = None
    """An existing PersistentVolumeClaim to keep models in; several SLMDeployments may share it."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the claim that is made; absent: the cluster's default."""
    size: Quantity | None = None
    """Size of the claim, or the most that the pod's own volume may hold. A claim only grows: below its present size it keeps
    that."""
    access_modes: Annotated[
        tuple[AccessMode, ...],
        Field(min_length=1, max_length=4, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ("ReadWriteOnce",)
    """Access modes of the claim, or of the one that a `pvc://` source names; more than one replica on several nodes needs
    `ReadWriteMany`, or `ReadOnlyMany` alone for a claim that others fill. Pods that share a `ReadWriteOnce` claim run on one
    node."""
    pre_pull: bool = False
    """With mode `NodeLocal`: whether the model is brought to all nodes that hardware class and spec select by labels, before
    a pod needs it there, and kept there."""
    unused_models: Literal["Delete", "Retain"] | None = None
    """What becomes of models in the claim that this SLMDeployment has no use for any more, when another one is fetched.
    Absent: `Delete`, but `Retain` in a claim that claimName names. With `Delete` that one, as a node, keeps what anybody
    serves, and for a day what was found without use."""


class RemovedStatus(ApiModel):
    models: int
    """How many."""
    bytes: Annotated[int, Field(json_schema_extra={"format": "int64"})]
    """What they took of the volume."""
    time: datetime
    """When."""


class CopiesStatus(ApiModel):
    wanted: int
    """Nodes that shall have one."""
    ready: int
    """Nodes that have one, in steps of a twentieth."""
    failed: int
    """Nodes where the last try to fetch it has failed."""


class CacheStatus(ApiModel):
    claim: Annotated[str, Field(max_length=253)] | None = None
    """PersistentVolumeClaim that keeps the model."""
    size: Annotated[str, Field(max_length=32)] | None = None
    """What it really holds at most."""
    copies: CopiesStatus | None = None
    """Copies of the model on nodes, with `prePull`."""
    removed: RemovedStatus | None = None
    """Models that were last removed from it, since nothing uses them any more."""
