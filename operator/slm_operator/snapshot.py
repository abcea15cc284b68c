"""What one reconcile sees and what it decides: plain data between the I/O in `reconcile` and the pure core.

One way only: `reconcile` observes a Snapshot, `decide(snapshot)` answers a Decision, `reconcile` acts on it.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from slm_contract.report import RuntimeReport
from slm_operator.nodes import Nodes
from slm_operator.settings import Settings

Document = Mapping[str, Any]
"""A Kubernetes object as JSON."""


class ChildRef(NamedTuple):
    """A child object of an SLMDeployment, in its namespace."""

    kind: str
    name: str


@dataclass(frozen=True)
class Refusal:
    """A write of the plan that the API server has just refused: status has to say why nothing happens."""

    ref: ChildRef
    reason: str
    """Of the Ready condition: `WriteForbidden`, `WriteInvalid`, `NameTaken`, `NamespaceMissing`."""
    message: str
    """The API server's own words."""
    permanent: bool
    """True: trying again can't help, so the deployment is Stalled; False: it is tried again with backoff."""


@dataclass(frozen=True)
class Snapshot:
    """Everything that a decision may depend on; equal snapshots give equal decisions."""

    resource: Document
    """The SLMDeployment as the API server has it: metadata, spec, status."""
    children: Mapping[ChildRef, Document]
    """Live children, without managedFields: Deployment, Service, Job, and what else was asked for."""
    pods: tuple[Document, ...]
    """Live pods of the Deployment and the Jobs, told by the instance label."""
    nodes: Nodes | None
    """None where the operator may not see nodes: then the scheduler alone decides."""
    settings: Settings
    """The operator's own configuration, hardware classes included."""
    now: datetime
    reports: Mapping[str, RuntimeReport] = field(default_factory=dict)
    """By pod uid; a pod that can't be reached is absent, and its fields stay unknown."""
    monitoring: bool = False
    """Whether the cluster serves ServiceMonitor."""
    new_key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """A fresh API key, in case one has to be made: the core has no randomness of its own."""
    refusal: Refusal | None = None
    """Set only when the plan of this very snapshot was tried and refused."""


@dataclass(frozen=True)
class Delete:
    """Deleted only while it is still the object that was observed."""

    api_version: str
    ref: ChildRef
    uid: str
    resource_version: str


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: create, apply, delete. Empty at rest."""

    create: tuple[Document, ...] = ()
    """By POST; a 409 is success (the key Secret: random content can't be applied twice)."""
    apply: tuple[Document, ...] = ()
    """By server-side apply, the full intent, forced."""
    delete: tuple[Delete, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.create or self.apply or self.delete)


@dataclass(frozen=True)
class Decision:
    plan: Plan
    status: Document
    """The whole status; written once, only where it differs in meaning from the live one."""
    requeue_after: float | None = None
    """Seconds until the same snapshot would be decided otherwise, with time alone."""
    watches_nodes: bool = True
    """Whether it may be decided otherwise because of nodes that come, go or change."""
