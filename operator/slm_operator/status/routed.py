"""What gateways make of the route to the model."""

from collections.abc import Iterator

from slm_operator.status.view import View


def routed(view: View) -> tuple[bool | None, str, str] | None:
    """Whether it is so (None: not known yet), why, and why for people; None where no gateway is asked for."""
    wanted = view.resource.spec.endpoint.gateway
    if wanted is None:
        return None
    if not view.settings.gateways:
        return False, "NotOffered", "have gateway.enabled set in the operator's chart"
    kinds = ["HTTPRoute", *(["InferencePool"] if wanted.backend == "InferencePool" else [])]
    lacking = [each for each in kinds if each not in view.served]
    if lacking:
        crds = "the Gateway API's CRDs" if "HTTPRoute" in lacking else "the Inference Extension's CRDs"
        return False, "KindMissing", f"the cluster has no {' and no '.join(lacking)}: install {crds}"
    fault = view.about("Routed")
    if fault is not None:
        return False, fault.reason, f"{fault.message}; {fault.remedy}"
    told = list(_told(view))
    bad = next((each for each in told if each[1] == "False"), None)
    if bad is not None:
        return False, bad[2], bad[3]
    if {each[0] for each in told} < set(kinds):
        return None, "NotAccepted", "no gateway has said yet that it takes the route"
    return True, "Accepted", f"{' and '.join(kinds)}: accepted by {len(wanted.parent_refs)} gateway(s)"


def _told(view: View) -> Iterator[tuple[str, str, str, str]]:
    """Kind, status, reason and message of each condition that a gateway's controller has written."""
    for document in view.routes:
        kind, name = str(document["kind"]), document["metadata"]["name"]
        for parent in document.get("status", {}).get("parents") or ():
            gateway = (parent.get("parentRef") or {}).get("name", "?")
            for each in parent.get("conditions") or ():
                if each["type"] in {"Accepted", "ResolvedRefs"}:
                    reason = str(each.get("reason") or "NotAccepted")
                    message = f"{kind} {name} at {gateway}: {reason}: {each.get('message', '')}"
                    yield kind, str(each["status"]), reason, message
