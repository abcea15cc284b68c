"""The pod: fetch the model, then serve it. Meets Pod Security `restricted`; probes never touch what inference can block."""

from collections.abc import Iterable
from typing import Any, Final

from slm_contract import places
from slm_contract.config import AuthMode, RuntimeConfig
from slm_contract.report import ModelFacts
from slm_operator.crd.names import HARDWARE_LABEL, ca_bundle_name, claim_name, key_secret_name, labels
from slm_operator.crd.quantities import MIB, memory_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.spec import EnvironmentVariable
from slm_operator.desired.inputs import Rendering, uses_claim
from slm_operator.placement.history import Record
from slm_operator.settings import EnvVar, HardwareClass, Settings

TMP: Final = "/tmp"  # noqa: S108 - a volume of the pod's own
CPU_REQUEST: Final = "250m"
"""Small and fixed: what a model uses is bursts, and a request that follows the node's size would not schedule."""
FETCH_MEMORY: Final = "256Mi"
"""The fetcher streams: its memory doesn't grow with the model."""
UNKNOWN_MODEL_VOLUME: Final = "32Gi"
"""The largest model that this operator is made for, in 32 bits, where its size isn't known yet."""
READ_SPEED: Final = 25 * MIB
"""Bytes a second that a slow disk gives: the start-up budget of a model is its size by this."""
UNKNOWN_START_SECONDS: Final = 900
LEAST_START_SECONDS: Final = 120
STARTUP_PERIOD: Final = 2
GRACE_MARGIN: Final = 15
"""Seconds between the runtime's own end of grace and kubelet's."""

_RESTRICTED: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def start_seconds(facts: ModelFacts | None) -> int:
    """How long a model may take to load before kubelet starts the container anew."""
    if facts is None:
        return UNKNOWN_START_SECONDS
    return LEAST_START_SECONDS + facts.size_bytes // READ_SPEED


def pod_template(rendering: Rendering) -> dict[str, Any]:
    """The template of the serving pods."""
    resource, config = rendering.resource, rendering.config
    return {
        "metadata": {
            "labels": {**labels(resource.name), HARDWARE_LABEL: rendering.hardware_class.name},
            "annotations": {"kubectl.kubernetes.io/default-container": "serve"},
        },
        "spec": {
            **pod_basics(rendering.settings, resource, rendering.hardware_class),
            "terminationGracePeriodSeconds": int(config.grace_seconds) + GRACE_MARGIN,
            "initContainers": [
                fetch_container(
                    rendering.settings, resource, config, image=rendering.record.image, command="fetch"
                )
            ],
            "containers": [_serve_container(rendering)],
            "volumes": [
                *fetch_volumes(rendering.settings, resource, rendering.facts),
                *_key_volumes(resource),
            ],
        },
    }


def pod_basics(settings: Settings, resource: SLMDeployment, hardware_class: HardwareClass) -> dict[str, Any]:
    """What all our pods share: identity, security, and where they may run."""
    selector = {**hardware_class.node_selector, **resource.spec.hardware.node_selector}
    tolerations = [
        each.model_dump(by_alias=True, exclude_none=True)
        for each in (*hardware_class.tolerations, *resource.spec.hardware.tolerations)
    ]
    pull_secrets = [{"name": name} for name in settings.image_pull_secrets]
    optional = {"nodeSelector": selector, "tolerations": tolerations, "imagePullSecrets": pull_secrets}
    user = settings.run_as_user
    assigned = {} if user is None else {"runAsUser": user, "runAsGroup": user, "fsGroup": user}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **assigned,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **{key: value for key, value in optional.items() if value},
    }


def fetch_container(
    settings: Settings, resource: SLMDeployment, config: RuntimeConfig, *, image: str, command: str
) -> dict[str, Any]:
    """Runs `slm-runtime fetch` or `inspect`: reaches the source, and is the only one that does."""
    return {
        "name": command,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["slm-runtime", command],
        # The site's alone: pip and HTTP libraries have many variables that lead to another index, proxy or CA.
        "env": _environment(config, settings.fetch.env),
        "resources": {
            "requests": {"cpu": CPU_REQUEST, "memory": FETCH_MEMORY},
            "limits": {"memory": FETCH_MEMORY},
        },
        "securityContext": _RESTRICTED,
        "volumeMounts": [
            {"name": "models", "mountPath": places.MODEL_DIR},
            {"name": "tmp", "mountPath": TMP},
            *(
                {"name": name, "mountPath": path, "readOnly": True}
                for name, path, asked in (
                    ("credentials", places.CREDENTIALS_DIR, resource.spec.model.credentials is not None),
                    ("ca", places.CA_BUNDLE.rpartition("/")[0], _ca_source(settings, resource) is not None),
                )
                if asked
            ),
        ],
    }


def fetch_volumes(
    settings: Settings, resource: SLMDeployment, facts: ModelFacts | None
) -> list[dict[str, Any]]:
    """The volumes that :func:`fetch_container` mounts."""
    volumes: list[dict[str, Any]] = [
        _model_volume(resource, facts),
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]
    credentials = resource.spec.model.credentials
    if credentials is not None:
        volumes.append(
            {
                "name": "credentials",
                "secret": {"secretName": credentials.secret_ref.name, "defaultMode": 0o440},
            }
        )
    ca = _ca_source(settings, resource)
    if ca is not None:
        name, key = ca
        items = [{"key": key, "path": places.CA_BUNDLE.rpartition("/")[2]}]
        volumes.append({"name": "ca", "configMap": {"name": name, "items": items, "defaultMode": 0o444}})
    return volumes


def _serve_container(rendering: Rendering) -> dict[str, Any]:
    resource, config = rendering.resource, rendering.config
    mounts: list[dict[str, Any]] = [
        {"name": "models", "mountPath": places.MODEL_DIR, "readOnly": True},
        {"name": "tmp", "mountPath": TMP},
    ]
    if config.auth is AuthMode.API_KEY:
        mounts.append({"name": "keys", "mountPath": places.KEYS_DIR, "readOnly": True})
    return {
        "name": "serve",
        "image": rendering.record.image,
        "imagePullPolicy": rendering.settings.image_pull_policy,
        "command": ["slm-runtime", "serve"],
        "env": _environment(config, resource.spec.runtime.env),
        "ports": [
            {"name": "api", "containerPort": places.API_PORT, "protocol": "TCP"},
            {"name": "ops", "containerPort": places.OPS_PORT, "protocol": "TCP"},
        ],
        "resources": _serve_resources(resource, rendering.hardware_class, rendering.record),
        "securityContext": _RESTRICTED,
        "startupProbe": _probe(
            places.STARTUP_PATH,
            period=STARTUP_PERIOD,
            failures=start_seconds(rendering.facts) // STARTUP_PERIOD,
        ),
        "livenessProbe": _probe(places.LIVENESS_PATH, period=10, failures=3),
        "readinessProbe": _probe(places.READINESS_PATH, period=3, failures=2),
        "volumeMounts": mounts,
    }


def _serve_resources(
    resource: SLMDeployment, hardware_class: HardwareClass, record: Record
) -> dict[str, Any]:
    given = resource.spec.resources
    requests = {key: str(value) for key, value in given.requests.items()} if given else {}
    limits = {key: str(value) for key, value in given.limits.items()} if given else {}
    if "memory" not in requests and "memory" not in limits:
        requests["memory"] = limits["memory"] = record.memory.request
    requests.setdefault("memory", limits.get("memory", record.memory.request))
    limits.setdefault("memory", requests["memory"])
    if "cpu" not in limits:
        requests.setdefault("cpu", CPU_REQUEST)
    if hardware_class.resource is not None:
        requests[hardware_class.resource.name] = limits[hardware_class.resource.name] = str(
            hardware_class.resource.count
        )
    return {"requests": requests, "limits": limits}


def _model_volume(resource: SLMDeployment, facts: ModelFacts | None) -> dict[str, Any]:
    cache = resource.spec.cache
    if uses_claim(cache):
        return {
            "name": "models",
            "persistentVolumeClaim": {"claimName": cache.claim_name or claim_name(resource.name)},
        }
    if cache.size is not None:
        limit = str(cache.size)
    elif facts is not None:
        # A member of a wheel is packed as a rule: for a moment the volume holds it and the model.
        copies = 2 if resource.spec.model.source.startswith("pypi://") else 1
        limit = memory_quantity(copies * facts.size_bytes + facts.size_bytes // 8 + 64 * MIB)
    else:
        limit = UNKNOWN_MODEL_VOLUME
    return {"name": "models", "emptyDir": {"sizeLimit": limit}}


def _key_volumes(resource: SLMDeployment) -> list[dict[str, Any]]:
    auth = resource.spec.auth
    if auth.mode is AuthMode.NONE:
        return []
    name = auth.secret_ref.name if auth.secret_ref is not None else key_secret_name(resource.name)
    return [{"name": "keys", "secret": {"secretName": name, "defaultMode": 0o440, "optional": False}}]


def _ca_source(settings: Settings, resource: SLMDeployment) -> tuple[str, str] | None:
    """ConfigMap and entry with the CAs for the sources."""
    own = resource.spec.model.ca_bundle
    if own is not None:
        return own.config_map_ref.name, own.config_map_ref.key
    if settings.fetch.ca_bundle is not None:
        return ca_bundle_name(resource.name), places.CA_BUNDLE.rpartition("/")[2]
    return None


def _environment(
    config: RuntimeConfig, variables: Iterable[EnvVar | EnvironmentVariable]
) -> list[dict[str, str]]:
    merged = {**{each.name: each.value for each in variables}, places.CONFIG_ENV: config.to_json()}
    return [{"name": name, "value": value} for name, value in merged.items() if value]


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "ops", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
        "successThreshold": 1,
    }
