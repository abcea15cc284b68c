"""Where it is: nodes, addresses, the key, the image by its digest, the claim."""

from collections.abc import Mapping
from typing import Any

from slm_contract.config import AuthMode
from slm_operator.crd.cache import CacheStatus, CopiesStatus, RemovedStatus
from slm_operator.crd.names import key_secret_name
from slm_operator.model.known import container_statuses
from slm_operator.observed.pods import is_ready, nodes_of
from slm_operator.pod.volumes import claim_of
from slm_operator.snapshot import Document
from slm_operator.status.view import View

NODES = 16


def nodes(view: View) -> tuple[str, ...]:
    """Of the pods that are ready: those that come and go on the way are no news."""
    return nodes_of(pod for pod in view.pods if is_ready(pod))[:NODES]


def image_digest(view: View) -> str | None:
    """Of the serving container; as last seen while nothing new is ready."""
    for pod in view.pods:
        if is_ready(pod):
            for container in container_statuses(pod):
                if container.get("name") == "serve" and container.get("imageID"):
                    return str(container["imageID"]).removeprefix("docker-pullable://")[:512]
    return view.resource.status.image_digest if view.available else None


def key_secret(view: View) -> str | None:
    auth = view.resource.spec.auth
    if auth.mode is AuthMode.NONE:
        return None
    return auth.secret_ref.name if auth.secret_ref is not None else key_secret_name(view.resource.name)


def address(view: View) -> str | None:
    """Host or IP of the load balancer, with the port; or the port on every node."""
    if view.service is None:
        return None
    spec, status = view.service.get("spec", {}), view.service.get("status", {})
    for each in status.get("loadBalancer", {}).get("ingress", ()):
        host = each.get("hostname") or each.get("ip")
        if host:
            return f"{host}:{view.resource.spec.endpoint.port}"[:253]
    ports = [each["nodePort"] for each in spec.get("ports", ()) if each.get("nodePort")]
    return f"NODE:{ports[0]}" if ports and spec.get("type") == "NodePort" else None


def cache(view: View) -> CacheStatus | None:
    """The claim that the model is kept in, of which the size is known where it is our own; or its copies on nodes."""
    name = claim_of(view.resource)
    if name is None:
        return None if view.copies is None else CacheStatus(copies=_copies(view, view.copies))
    live = {} if view.claim is None or view.resource.spec.cache.claim_name is not None else view.claim
    capacity = (live.get("status") or {}).get("capacity") or {}
    size = capacity.get("storage")
    return CacheStatus(
        claim=name, size=None if size is None else str(size)[:32], removed=_removed(view, name)
    )


def _copies(view: View, daemon_set: Document) -> CopiesStatus:
    """As its controller counts them; that each node comes for itself would be a write a node."""
    status = daemon_set.get("status") or {}
    wanted, ready = int(status.get("desiredNumberScheduled") or 0), int(status.get("numberReady") or 0)
    step = max(1, wanted // 20)
    failed = sum(any(map(_has_failed, container_statuses(pod))) for pod in view.copiers)
    return CopiesStatus(
        wanted=wanted, ready=ready if ready >= wanted else ready // step * step, failed=failed
    )


def _has_failed(container: Mapping[str, Any]) -> bool:
    """One that ended in vain and waits for its next try, or has begun it."""
    ended = (container.get("lastState") or {}).get("terminated") or {}
    return not container.get("ready") and bool(ended.get("exitCode"))


def _removed(view: View, claim: str) -> RemovedStatus | None:
    """The last removal from this claim: it outlives the Job that tells of it."""
    known = view.resource.status.cache
    live = known.removed if known is not None and known.claim == claim else None
    seen = view.removal
    if seen is None or (live is not None and live.time >= seen.time):
        return live
    return RemovedStatus(models=seen.removed.models, bytes=seen.removed.bytes, time=seen.time)
