"""The whole status, in the shape that is written."""

from datetime import datetime
from typing import Any

from slm_operator.crd.names import selector, selector_text
from slm_operator.crd.status import FailureStatus, Status
from slm_operator.status import details, history, places
from slm_operator.status.canaries import canaries
from slm_operator.status.conditions import condition, conditions
from slm_operator.status.view import View


def report(view: View) -> dict[str, Any]:
    """The status as JSON; nothing in it depends on when it is asked for, except the times of what has changed."""
    return as_document(
        Status(
            observed_generation=view.generation,
            conditions=conditions(view),
            endpoint=_endpoint(view),
            address=places.address(view),
            key_secret=places.key_secret(view),
            model=details.model(view),
            download=details.download(view),
            placement=details.placement(view),
            attempts=history.attempts(view) or None,
            revisions=history.revisions(view) or None,
            image_digest=places.image_digest(view),
            nodes=places.nodes(view) or None,
            cache=places.cache(view),
            acceleration=details.acceleration(view),
            memory=details.memory(view),
            performance=details.performance(view),
            canaries=canaries(view) or None,
            last_failure=details.last_failure(view),
            replicas=view.observed_replicas,
            ready_replicas=view.ready_replicas,
            selector=selector_text(selector(view.resource.name)),
            display=details.display(view),
        )
    )


def _endpoint(view: View) -> str | None:
    """Base URL for OpenAI clients inside the cluster; None while the Service of that name isn't ours."""
    if view.service is None:
        return None
    metadata, port = view.resource.metadata, view.resource.spec.endpoint.port
    return f"http://{metadata.name}.{metadata.namespace}.svc.{view.settings.cluster_domain}:{port}/v1"


def unreadable(live: Status, generation: int, now: datetime, message: str) -> dict[str, Any]:
    """The status of a spec that can't be read: what was made before is left as it is."""
    remedy = "correct the spec: `kubectl explain slmdeployment.spec` says what each field may be"
    words = f"{message}; {remedy}"
    kept = [each for each in live.conditions if each.type == "Available"]
    failure = live.last_failure
    if failure is None or failure.message != message[:4096]:
        failure = FailureStatus(time=now, reason="SpecInvalid", message=message[:4096], remedy=remedy)
    return as_document(
        live.model_copy(
            update={
                "observed_generation": generation,
                "conditions": (
                    condition(live, generation, now, "Ready", ("False", "SpecInvalid", words)),
                    condition(live, generation, now, "Stalled", ("True", "SpecInvalid", words)),
                    *kept,
                ),
                "last_failure": failure,
            }
        )
    )


def as_document(status: Status) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
