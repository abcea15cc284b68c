"""What the operator would do with an SLMDeployment: its own decisions, carried out on paper until nothing is left. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from slm_contract.config import ModelConfig
from slm_contract.report import FetchReport, ModelFacts
from slm_operator.crd.names import COMPONENT_LABEL
from slm_operator.decide import decide
from slm_operator.model.known import runtime_config
from slm_operator.nodes import Nodes
from slm_operator.settings import Settings
from slm_operator.snapshot import ChildRef, Create, Decision, Delete, Document, Snapshot

SERVED: Final = frozenset({"ServiceMonitor", "ScaledObject", "HTTPRoute", "InferencePool"})
"""What a plan takes a cluster to serve: what it lacks is a condition, and changes nothing else."""
ROUNDS: Final = 12
"""Inspections, a change of mind for what they have found, a pull, the Deployment: more than any spec takes."""

Known = Callable[[ModelConfig], ModelFacts | None]
"""What the header of an artifact says, where somebody has read it."""


@dataclass(frozen=True)
class Rehearsal:
    decision: Decision
    """The last one: its status says what was decided and what stands in the way."""
    children: Mapping[ChildRef, Document]
    """What the operator would have made."""
    unread: tuple[ModelConfig, ...]
    """Artifacts that have to be inspected first; what is decided after that isn't known here."""

    @property
    def deployment(self) -> Document | None:
        """None where none would be made, or not before a header is read."""
        return next((each for ref, each in self.children.items() if ref.kind == "Deployment"), None)


def rehearse(
    resource: Document, *, nodes: Nodes | None, settings: Settings, now: datetime, known: Known
) -> Rehearsal:
    """Decide, carry out, and decide again, as for an SLMDeployment that is new in its cluster.

    Parameters
    ----------
    nodes
        None where nobody may see them: the scheduler alone decides then.
    """
    metadata = {"namespace": "default", "generation": 1, "uid": "planned", **resource["metadata"]}
    asked = {**resource, "metadata": metadata, "status": {}}
    children: dict[ChildRef, Document] = {}
    pods: list[Document] = []
    unread: dict[str, ModelConfig] = {}
    for _ in range(ROUNDS):
        decision = decide(
            Snapshot(
                resource=asked,
                children=children,
                pods=tuple(pods),
                nodes=nodes,
                settings=settings,
                now=now,
                served=SERVED,
                new_key="planned",
            )
        )
        if not decision.plan:
            break
        for step in decision.plan.steps:
            match step:
                case Delete(ref=ref):
                    children.pop(ref, None)
                case Create(once=True):
                    pass
                case _:
                    made = _made(step.document)
                    children[step.ref] = made
                    if step.ref.kind == "Job":
                        pod, missing = _finished(made, known)
                        pods += [] if pod is None else [pod]
                        unread |= {} if missing is None else {missing.key: missing}
    return Rehearsal(decision, children, tuple(unread.values()))


def _made(document: Document) -> dict[str, Any]:
    """As the API server gives it back; without managedFields, so that nothing can be said of who owns what."""
    name = document["metadata"]["name"]
    metadata = {**document["metadata"], "uid": f"of-{name}", "resourceVersion": "1", "generation": 1}
    return {**document, "metadata": metadata}


def _finished(job: dict[str, Any], known: Known) -> tuple[Document | None, ModelConfig | None]:
    """The pod of a Job that has done its work; else the artifact whose header nobody knows."""
    template = job["spec"]["template"]
    config = runtime_config(template["spec"])
    if config is None:
        return None, None
    inspects = template["metadata"]["labels"][COMPONENT_LABEL] == "inspect"
    command: Literal["fetch", "inspect"] = "inspect" if inspects else "fetch"
    facts = known(config.model)
    if facts is None and command == "inspect":
        return None, config.model
    job["status"] = {"succeeded": 1}
    report = FetchReport(command=command, model=facts)
    ended = {"terminated": {"exitCode": 0, "message": report.to_json()}}
    name = f"{job['metadata']['name']}-planned"
    pod = {
        "metadata": {"name": name, "uid": f"of-{name}", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
        "status": {
            "phase": "Succeeded",
            "containerStatuses": [{"name": command, "ready": False, "state": ended}],
        },
    }
    return pod, None
