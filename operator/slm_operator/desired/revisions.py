"""ControllerRevisions: what was decided, whole, so that going back is looking up."""

from typing import Any

from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child
from slm_operator.revision.revision import Revision


def controller_revision(resource: SLMDeployment, revision: Revision) -> dict[str, Any]:
    return {
        **child(resource, "apps/v1", "ControllerRevision", revision.name),
        "revision": revision.number,
        "data": revision.data,
    }
