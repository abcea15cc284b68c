"""What one reconcile sees and what it decides: plain data between the I/O in `reconcile` and the pure core.

One way only: `reconcile` observes a Snapshot, `decide(snapshot)` answers a Decision, `reconcile` acts on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from slm_contract.report import RuntimeReport
from slm_operator.nodes import Nodes
from slm_operator.scrapers import Scrapers
from slm_operator.settings import Settings

Document = Mapping[str, Any]
"""A Kubernetes object as JSON."""


class ChildRef(NamedTuple):
    """A child object of an SLMDeployment, in its namespace."""

    kind: str
    name: str


def ref_of(document: Document) -> ChildRef:
    return ChildRef(str(document["kind"]), str(document["metadata"]["name"]))


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
    """Live children, their managedFields reduced: Deployment, Service, Job, and what else was asked for."""
    pods: tuple[Document, ...]
    """Live pods of the Deployment and the Jobs, told by the instance label."""
    nodes: Nodes | None
    """None where the operator may not see nodes: then the scheduler alone decides."""
    settings: Settings
    """The operator's own configuration, hardware classes included."""
    now: datetime
    reports: Mapping[str, RuntimeReport] = field(default_factory=dict)
    """By pod uid; a pod that can't be reached is absent, and its fields stay unknown."""
    served: frozenset[str] = frozenset()
    """Kinds that a cluster may lack, and this one serves."""
    scrapers: Scrapers | None = None
    """Who might take ServiceMonitors; None: nobody has looked, or may."""
    new_key: str = ""
    """A fresh API key, in case one has to be made: the core has no randomness of its own."""
    clues: Mapping[str, str] = field(default_factory=dict)
    """By uid of a Job or pod: what its events say of why nothing comes to life."""
    may_upgrade: bool = True
    """Whether this one may take a new image or bundle now: over the whole cluster only a few do at a time."""
    yielding: frozenset[ChildRef] = frozenset()
    """Children that another writer keeps changing: left alone for a while."""
    refusals: tuple[Refusal, ...] = ()
    """Set only when the plan of this very snapshot was tried, and this much of it refused."""


@dataclass(frozen=True)
class Create:
    """By POST: what isn't known may be there all the same, and then it is somebody else's until it is looked at."""

    document: Document
    needs: frozenset[ChildRef] = frozenset()
    """Children that must be there before; where one of them was refused, this isn't tried."""
    once: bool = False
    """True: that it exists is success (a key Secret, which is never read)."""

    @property
    def ref(self) -> ChildRef:
        return ref_of(self.document)


@dataclass(frozen=True)
class Apply:
    """By server-side apply, the full intent, over the very object that was observed."""

    document: Document
    """Its metadata carries uid and resourceVersion."""
    needs: frozenset[ChildRef] = frozenset()
    consolidate: bool = False
    """True: fields go that our POST still owns; its ownership is made the apply's first."""

    @property
    def ref(self) -> ChildRef:
        return ref_of(self.document)


@dataclass(frozen=True)
class Delete:
    """Deleted only while it is still the object that was observed."""

    api_version: str
    ref: ChildRef
    uid: str
    resource_version: str
    needs: frozenset[ChildRef] = frozenset()


Step = Create | Apply | Delete


@dataclass(frozen=True)
class Plan:
    """What to do, in this order; empty at rest."""

    steps: tuple[Step, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.steps)


@dataclass(frozen=True)
class Decision:
    plan: Plan
    status: Document
    """The whole status; written once, only where it differs in meaning from the live one."""
    requeue_after: float | None = None
    """Seconds until the same snapshot would be decided otherwise, with time alone."""
    contested: tuple[ChildRef, ...] = ()
    """Children whose fields somebody else has taken: the plan takes them back."""
    at_rest: bool = True
    """Whether nothing is under way: what is asked for serves, or can't. What was rolled back isn't at rest."""
    upgrading: bool = False
    """Whether it is on its way to a revision that only the operator's configuration asks for."""
    awaits_turn: bool = False
    """Whether it would be on that way, if it might."""
    watches_nodes: bool = True
    """Whether it may be decided otherwise because of nodes that come, go or change."""
