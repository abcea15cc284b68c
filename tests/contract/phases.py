"""An SLMDeployment in every phase of its life, with what GitOps tools have to make of it."""

from dataclasses import dataclass
from typing import Any

from slm_operator.crd.schema import crd
from tests.unit.operator_core.test_going_back import OTHER, fail_for_good, served
from tests.unit.operator_core.world import GIVEN, World, spec


@dataclass(frozen=True)
class Phase:
    name: str
    object: dict[str, Any]
    argocd: str
    """Health by docs/gitops/health.lua."""
    kstatus: str
    """Status by the library that Flux and Helm use."""


def phases() -> list[Phase]:
    """From the moment that the API server has taken it in."""
    unseen = World(spec(resources=GIVEN))
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    unseen.resource["status"] = schema["properties"]["status"]["default"]
    inspecting = World(spec())
    inspecting.settle()
    starting = World(spec(resources=GIVEN))
    starting.settle()
    failing = World(spec(resources=GIVEN))
    failing.settle()
    fail_for_good(failing)
    failing.settle()
    refused = World(spec(resources=GIVEN, hardware={"preference": ["unknown"]}))
    refused.settle()
    unscheduled = World(spec(resources=GIVEN))
    unscheduled.settle()
    unscheduled.run_pods(ready=False)
    unscheduled.leave_unscheduled()
    unscheduled.settle()
    serving = served()
    edited = served()
    edited.edit(model=OTHER)
    rolling = served()
    rolling.edit(model=OTHER)
    rolling.settle()
    rolled_back = served()
    rolled_back.edit(model=OTHER)
    rolled_back.settle()
    fail_for_good(rolled_back)
    rolled_back.settle()
    rolled_back.run_pods()
    rolled_back.settle()
    suspended = served()
    suspended.edit(suspend=True)
    suspended.settle()
    suspended.run_pods()
    suspended.settle()
    unreadable = served()
    unreadable.edit(replicas="three")
    unreadable.settle()
    table = {
        "taken in": (unseen, "Progressing", "InProgress"),
        "header is read": (inspecting, "Progressing", "InProgress"),
        "pods start": (starting, "Progressing", "InProgress"),
        "never will": (failing, "Degraded", "Failed"),
        "no such class": (refused, "Degraded", "Failed"),
        "no room yet": (unscheduled, "Progressing", "InProgress"),
        "serves": (serving, "Healthy", "Current"),
        "edited": (edited, "Progressing", "InProgress"),
        "rolls out": (rolling, "Progressing", "InProgress"),
        "rolled back": (rolled_back, "Degraded", "Failed"),
        "suspended": (suspended, "Suspended", "Current"),
        "not to be read": (unreadable, "Degraded", "Failed"),
    }
    return [Phase(name, world.resource, *expected) for name, (world, *expected) in table.items()]
