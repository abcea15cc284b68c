"""What the API server refuses of our kinds, and when it counts a new generation."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from slm_operator.cluster import errors
from slm_operator.crd import names
from slm_operator.crd.quantities import parse_quantity

Doc = dict[str, Any]


def generation(before: Doc | None, after: Doc) -> int | None:
    """The generation of a written object; None for kinds that have none."""
    parts = _GENERATIONS.get(after["kind"])
    if parts is None:
        return None
    if before is None:
        return 1
    count: int = before["metadata"]["generation"]
    return count + (parts(before) != parts(after))


_GENERATIONS: Final[Mapping[str, Callable[[Doc], Any]]] = {
    # The Deployment's counts annotations too, because its controller copies them to ReplicaSets.
    "Deployment": lambda each: (each["spec"], each["metadata"].get("annotations") or {}),
    "DaemonSet": lambda each: each["spec"],
    "Job": lambda each: each["spec"],
    "PodDisruptionBudget": lambda each: each["spec"],
    "ServiceMonitor": lambda each: each.get("spec"),
    names.KIND: lambda each: each.get("spec"),
}


def check(before: Doc | None, after: Doc) -> None:
    """Refuse what can't be.

    Raises
    ------
    InvalidError
        With the field's path and the reason, as the API server tells them.
    """
    causes = [*_metadata(after), *_CHECKS.get(after["kind"], lambda _before, _after: ())(before, after)]
    if causes:
        raise errors.InvalidError(
            f'{after["kind"]} "{after["metadata"]["name"]}" is invalid: {"; ".join(causes)}'
        )


def _metadata(after: Doc) -> Iterable[str]:
    owners = after["metadata"].get("ownerReferences") or ()
    if sum(bool(each.get("controller")) for each in owners) > 1:
        yield "metadata.ownerReferences: Invalid value: Only one reference can have Controller set to true"


def _workload(before: Doc | None, after: Doc) -> Iterable[str]:
    spec = after["spec"]
    if before is not None and before["spec"]["selector"] != spec["selector"]:
        yield "spec.selector: Invalid value: field is immutable"
    labels = spec["template"].get("metadata", {}).get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec["selector"].get("matchLabels") or {}).items()):
        yield "spec.template.metadata.labels: Invalid value: `selector` does not match template `labels`"
    strategy = spec.get("strategy") or {"type": ""}
    rolling = strategy.get("rollingUpdate")
    if strategy["type"] == "Recreate" and rolling is not None:
        yield "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"
    if rolling is not None and all(rolling[key] in {0, "0%"} for key in ("maxUnavailable", "maxSurge")):
        yield "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"


def _job(before: Doc | None, after: Doc) -> Iterable[str]:
    if before is not None:
        for part in ("template", "selector", "completions"):
            if before["spec"].get(part) != after["spec"].get(part):
                yield f"spec.{part}: Invalid value: field is immutable"


def _service(_: Doc | None, after: Doc) -> Iterable[str]:
    ports = after["spec"].get("ports") or []
    told = Counter(each.get("name") for each in ports)
    if len(ports) > 1 and told[None]:
        yield "spec.ports[0].name: Required value"
    yield from (
        f'spec.ports[1].name: Duplicate value: "{name}"'
        for name, count in told.items()
        if name is not None and count > 1
    )


def _claim(before: Doc | None, after: Doc) -> Iterable[str]:
    """A bound claim may ask for more, and take that back down to what it has; all else stays."""
    if before is None:
        return
    was, wanted, status = before["spec"], dict(after["spec"]), before.get("status") or {}
    if "volumeName" not in was:
        wanted.pop("volumeName", None)  # the binder fills it in
    if status.get("phase") == "Bound":
        old, new = (each["resources"]["requests"]["storage"] for each in (was, wanted))
        capacity = (status.get("capacity") or {}).get("storage", old)
        if parse_quantity(new) < parse_quantity(old) and parse_quantity(new) <= parse_quantity(capacity):
            yield "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
        wanted["resources"] = was["resources"]
    if was != wanted:
        yield _CLAIM_IS_FIXED


_CLAIM_IS_FIXED: Final = (
    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName"
    " for bound claims"
)


def _revision(before: Doc | None, after: Doc) -> Iterable[str]:
    if before is not None and before.get("data") != after.get("data"):
        yield "data: Invalid value: field is immutable"


_CHECKS: Final[Mapping[str, Callable[[Doc | None, Doc], Iterable[str]]]] = {
    "Deployment": _workload,
    "DaemonSet": _workload,
    "Job": _job,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "ControllerRevision": _revision,
}
