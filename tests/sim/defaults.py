"""What the API server adds to our objects by itself: defaults, which belong to whoever POSTs, and what it allocates.

Kinds that aren't ours are stored as they come.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from slm_operator.crd.quantities import parse_quantity

Doc = dict[str, Any]
_JOB_LABELS: Final = {
    "controller-uid": "uid",
    "batch.kubernetes.io/controller-uid": "uid",
    "job-name": "name",
    "batch.kubernetes.io/job-name": "name",
}
_BINARY: Final = tuple(
    (f"{unit}i", 1024**power) for power, unit in ((5, "P"), (4, "T"), (3, "G"), (2, "M"), (1, "K"))
)
_DECIMAL: Final = (("G", 1000**3), ("M", 1000**2), ("k", 1000))


def fill_in(document: Doc) -> Doc:
    """The defaults of the schema; the document is changed in place."""
    fill = _DEFAULTS.get(document["kind"])
    if fill is not None:
        fill(document)
    return document


def _deployment(document: Doc) -> None:
    spec = document["spec"]
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    _pod(spec["template"]["spec"])
    document.setdefault("status", {})


def _daemon_set(document: Doc) -> None:
    spec = document["spec"]
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    _pod(spec["template"]["spec"])
    document.setdefault("status", {})


def _job(document: Doc) -> None:
    spec = document["spec"]
    spec.setdefault("completions", 1)
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    spec.setdefault("manualSelector", False)
    _pod(spec["template"]["spec"])
    _label_job(document)
    document.setdefault("status", {})


def _label_job(document: Doc) -> None:
    """A Job without labels has its pods'."""
    labels = (document["spec"]["template"].get("metadata") or {}).get("labels")
    if labels and not document["metadata"].get("labels"):
        document["metadata"]["labels"] = dict(labels)


def _pod(pod: Doc) -> None:
    pod.setdefault("dnsPolicy", "ClusterFirst")
    pod.setdefault("restartPolicy", "Always")
    pod.setdefault("schedulerName", "default-scheduler")
    pod.setdefault("securityContext", {})
    pod.setdefault("terminationGracePeriodSeconds", 30)
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        _container(container)
    for volume in pod.get("volumes", ()):
        _volume(volume)


def _container(container: Doc) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault(
        "imagePullPolicy", "Always" if _is_latest(container.get("image", "")) else "IfNotPresent"
    )
    _quantities(container.setdefault("resources", {}))
    for port in container.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        if name in container:
            probe = container[name]
            for key, value in (
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ):
                probe.setdefault(key, value)
            if "httpGet" in probe:
                probe["httpGet"].setdefault("scheme", "HTTP")
                probe["httpGet"].setdefault("path", "/")


def _is_latest(image: str) -> bool:
    name = image.rpartition("/")[2]
    return "@" not in name and (":" not in name or name.endswith(":latest"))


def _volume(volume: Doc) -> None:
    for kind in ("secret", "configMap"):
        if kind in volume:
            volume[kind].setdefault("defaultMode", 0o644)
    empty = volume.get("emptyDir")
    if empty and "sizeLimit" in empty:
        empty["sizeLimit"] = canonical(empty["sizeLimit"])


def _service(document: Doc) -> None:
    spec = document["spec"]
    kind = spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind in {"NodePort", "LoadBalancer"}:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    else:
        spec.pop("externalTrafficPolicy", None)
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    document.setdefault("status", {"loadBalancer": {}})


def _claim(document: Doc) -> None:
    document["spec"].setdefault("volumeMode", "Filesystem")
    _quantities(document["spec"].setdefault("resources", {}))


def _secret(document: Doc) -> None:
    document.setdefault("type", "Opaque")
    for key, text in document.pop("stringData", {}).items():
        document.setdefault("data", {})[key] = b64encode(text.encode()).decode()


_DEFAULTS: Final[Mapping[str, Callable[[Doc], None]]] = {
    "Deployment": _deployment,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "Secret": _secret,
}


def allocate(document: Doc, before: Doc | None, number: int) -> None:
    """What only the API server knows; nobody owns it. What it gave before stays."""
    spec = document.get("spec") or {}
    match document["kind"]:
        case "Service" if spec.get("type") != "ExternalName":
            given = (before or {}).get("spec") or {
                "clusterIP": f"10.0.{number // 250}.{number % 250 + 1}",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
            }
            spec.setdefault("clusterIP", given["clusterIP"])
            spec.setdefault("clusterIPs", [spec["clusterIP"]])
            for key in ("ipFamilies", "ipFamilyPolicy"):
                spec.setdefault(key, given[key])
            if spec["type"] in {"NodePort", "LoadBalancer"}:
                for offset, port in enumerate(spec.get("ports", ())):
                    port.setdefault("nodePort", 30000 + (number * 8 + offset) % 2768)
        case "PersistentVolumeClaim" if before is None:
            document["metadata"].setdefault("finalizers", []).append("kubernetes.io/pvc-protection")
            document.setdefault("status", {"phase": "Pending"})
        case "Job" if before is None:
            metadata = document["metadata"]
            labels = {label: metadata[key] for label, key in _JOB_LABELS.items()}
            template = spec["template"].setdefault("metadata", {})
            template["labels"] = {**template.get("labels", {}), **labels}
            uid = "batch.kubernetes.io/controller-uid"
            spec["selector"] = {"matchLabels": {uid: metadata["uid"]}}
            _label_job(document)
        case "PodDisruptionBudget":
            counts = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")
            document["status"] = {**dict.fromkeys(counts, 0), **document.get("status", {})}


def _quantities(resources: Doc) -> None:
    for part in ("requests", "limits"):
        for key, value in (resources.get(part) or {}).items():
            resources[part][key] = canonical(value)


@lru_cache(maxsize=1024)
def canonical(text: str | float) -> str:
    """A quantity as the API server writes it: without a factor that a larger unit has room for."""
    value = parse_quantity(text)
    if value == value.to_integral_value():
        units, number = (_BINARY if str(text).endswith("i") and value >= 1024 else _DECIMAL), int(value)
        for unit, size in units:
            if number and number % size == 0:
                return f"{number // size}{unit}"
        return str(number)
    return f"{int(value * 1000)}m"
