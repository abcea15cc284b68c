"""The pod: fetch the model, then serve it. Meets Pod Security `restricted`; probes never touch what inference can block."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from slm_contract import places
from slm_contract.config import AuthMode, RuntimeConfig
from slm_contract.retention import Retention
from slm_contract.source import FetchConfig
from slm_operator.crd.cache import CacheMode
from slm_operator.crd.names import HARDWARE_LABEL, labels
from slm_operator.crd.quantities import memory_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.spec import EnvironmentVariable
from slm_operator.placement.devices import devices_wanted
from slm_operator.pod.budget import start_seconds
from slm_operator.pod.config import runtime_config
from slm_operator.pod.neighbours import beside_serving
from slm_operator.pod.overrides import overridden
from slm_operator.pod.volumes import (
    TMP_SIZE,
    ca_source,
    disk_wanted,
    fetch_volumes,
    key_volumes,
    mirrors_of,
    model_mount,
    node_retention,
    plain_volumes,
    shares_volumes,
    source_mounts,
)
from slm_operator.revision.revision import Revision
from slm_operator.settings import EnvVar, HardwareClass, Settings

TMP: Final = "/tmp"  # noqa: S108 - a volume of the pod's own
CPU_REQUEST: Final = "250m"
"""Small and fixed: what a model uses is bursts, and a request that follows the node's size would not schedule."""
FETCH_MEMORY: Final = "256Mi"
"""The fetcher streams: its memory doesn't grow with the model."""
QUANTIZING_MEMORY: Final = "512Mi"
"""With the quantizer beside it, whose buffers are bounded: only a vocabulary takes more of this, half of it at the most."""
NOTHING_SAID: Final = FetchConfig()
"""Left out of the pods: what was made before there was such a thing stays as it is."""
HOLD_MEMORY: Final = "64Mi"
DEVICE_CLAIM: Final = "device"
STARTUP_PERIOD: Final = 2
GRACE_MARGIN: Final = 15
"""Seconds between the runtime's own end of grace and kubelet's."""

_OWN_VOLUME: Final = {"name": "models", "mountPath": places.MODEL_DIR}
_RESTRICTED: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def pod_template(
    resource: SLMDeployment, settings: Settings, revision: Revision, *, key_owned: bool = True
) -> dict[str, Any]:
    """The template of the serving pods, for a revision that has none yet.

    Parameters
    ----------
    key_owned
        See :func:`~slm_operator.pod.volumes.key_volumes`.
    """
    config = runtime_config(resource, revision)
    serve = _serve_container(resource, settings, revision, config)
    hardware_class = revision.hardware_class
    template: dict[str, Any] = {
        "metadata": {
            "labels": {**labels(resource.name), HARDWARE_LABEL: hardware_class.name},
            "annotations": {"kubectl.kubernetes.io/default-container": "serve"},
        },
        "spec": {
            **pod_basics(settings, resource, hardware_class),
            **_device_access(hardware_class),
            "terminationGracePeriodSeconds": int(config.grace_seconds) + GRACE_MARGIN,
            "initContainers": [
                fetch_container(
                    settings,
                    resource,
                    config,
                    image=revision.image,
                    command="fetch",
                    disk=_disk_wanted(resource, revision),
                    decrypts_for=serve["resources"] if resource.spec.model.decryption else None,
                    retention=node_retention(resource.spec.cache, settings),
                )
            ],
            "containers": [serve],
            "volumes": [
                *fetch_volumes(
                    settings, resource, revision.artifact, revision.artifact_facts, revision.beside_bytes
                ),
                *plain_volumes(resource, revision.artifact_facts),
                *key_volumes(resource, owned=key_owned),
            ],
        },
    }
    if hardware_class.supplemental_groups:
        template["spec"]["securityContext"]["supplementalGroups"] = list(hardware_class.supplemental_groups)
    template = overridden(template, resource, settings)
    if not shares_volumes(resource.spec.cache, revision.artifact):
        template["spec"] = beside_serving(template["spec"], resource)
    return template


def pod_basics(settings: Settings, resource: SLMDeployment, hardware_class: HardwareClass) -> dict[str, Any]:
    """What all our pods share: identity, security, and where they may run."""
    selector = {**hardware_class.node_selector, **resource.spec.hardware.node_selector}
    tolerations = [
        each.model_dump(by_alias=True, exclude_none=True)
        for each in (*hardware_class.tolerations, *resource.spec.hardware.tolerations)
    ]
    own = resource.spec.model.credentials
    # Kubelet passes over a Secret that isn't one for image pulls.
    for_image = (
        () if own is None or resource.spec.cache.mode is not CacheMode.IMAGE else (own.secret_ref.name,)
    )
    names = dict.fromkeys((*settings.image_pull_secrets, *for_image))
    pull_secrets = [{"name": name} for name in names]
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


def _device_access(hardware_class: HardwareClass) -> dict[str, Any]:
    """What a pod needs beside resources to get at its device."""
    by_name, claimed = hardware_class.runtime_class_name, hardware_class.resource_claim_template
    claims = [{"name": DEVICE_CLAIM, "resourceClaimTemplateName": claimed}]
    return {
        **({"runtimeClassName": by_name} if by_name else {}),
        **({"resourceClaims": claims} if claimed else {}),
    }


def fetch_container(
    settings: Settings,
    resource: SLMDeployment,
    config: RuntimeConfig,
    *,
    image: str,
    command: str,
    disk: int = TMP_SIZE,
    decrypts_for: Mapping[str, Any] | None = None,
    retention: Retention | None = None,
) -> dict[str, Any]:
    """Runs `slm-runtime fetch` or `inspect`: reaches the source, and is the only one that does.

    Parameters
    ----------
    disk
        Bytes of the node's disk that the pod's own volumes are expected to take.
    decrypts_for
        Resources of the container for which it leaves the model in plain: that is memory of who writes it, and a pod asks
        for no more than the larger of the two.
    retention
        What of other models stays on the volume; None: all of them.
    """
    own = QUANTIZING_MEMORY if config.model.quantization or config.model.auto else FETCH_MEMORY
    memory = {
        kind: own if decrypts_for is None else decrypts_for[kind]["memory"] for kind in ("requests", "limits")
    }
    kept = [] if retention is None else [{"name": places.RETENTION_ENV, "value": retention.to_json()}]
    mount = model_mount(settings, resource) if command == "fetch" else _OWN_VOLUME
    return {
        "name": command,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["slm-runtime", command],
        # The site's alone: pip and HTTP libraries have many variables that lead to another index, proxy or CA.
        "env": [*_environment(config, settings.fetch.env, _fetch_config(settings, resource)), *kept],
        "resources": {
            "requests": {
                "cpu": CPU_REQUEST,
                "memory": memory["requests"],
                "ephemeral-storage": memory_quantity(disk),
            },
            "limits": {"memory": memory["limits"]},
        },
        "securityContext": _RESTRICTED,
        "volumeMounts": [
            mount,
            {"name": "tmp", "mountPath": TMP},
            *source_mounts(settings, resource, config.model),
            *([{"name": "plain", "mountPath": places.PLAIN_DIR}] if decrypts_for is not None else ()),
            *(
                {"name": name, "mountPath": path, "readOnly": True}
                for name, path, asked in (
                    ("credentials", places.CREDENTIALS_DIR, resource.spec.model.credentials is not None),
                    ("ca", places.CA_BUNDLE.rpartition("/")[0], ca_source(settings, resource) is not None),
                    (
                        "signers",
                        places.SIGNERS.rpartition("/")[0],
                        resource.spec.model.verification is not None,
                    ),
                    (
                        "identities",
                        places.IDENTITIES.rpartition("/")[0],
                        resource.spec.model.decryption is not None,
                    ),
                )
                if asked
            ),
        ],
    }


def hold_container(
    settings: Settings, resource: SLMDeployment, config: RuntimeConfig, *, image: str
) -> dict[str, Any]:
    """Runs `slm-runtime hold`: does nothing, and by that keeps a model on its node."""
    return {
        "name": "hold",
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["slm-runtime", "hold"],
        "env": _environment(config, ()),
        "resources": {"requests": {"cpu": "10m", "memory": HOLD_MEMORY}, "limits": {"memory": HOLD_MEMORY}},
        "securityContext": _RESTRICTED,
        "volumeMounts": [{**model_mount(settings, resource), "readOnly": True}],
    }


def _serve_container(
    resource: SLMDeployment, settings: Settings, revision: Revision, config: RuntimeConfig
) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [
        {**model_mount(settings, resource), "readOnly": True},
        {"name": "tmp", "mountPath": TMP},
        *source_mounts(settings, resource, config.model),
    ]
    variables = (EnvVar(name=name, value=value) for name, value in revision.hardware_class.env.items())
    if config.auth is AuthMode.API_KEY:
        mounts.append({"name": "keys", "mountPath": places.KEYS_DIR, "readOnly": True})
    if resource.spec.model.decryption is not None:
        mounts.append({"name": "plain", "mountPath": places.PLAIN_DIR, "readOnly": True})
    return {
        "name": "serve",
        "image": revision.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["slm-runtime", "serve"],
        "env": _environment(config, (*variables, *resource.spec.runtime.env)),
        "ports": [
            {"name": "api", "containerPort": places.API_PORT, "protocol": "TCP"},
            {"name": "ops", "containerPort": places.OPS_PORT, "protocol": "TCP"},
        ],
        "resources": _serve_resources(resource, revision),
        "securityContext": _RESTRICTED,
        "startupProbe": _probe(
            places.STARTUP_PATH,
            period=STARTUP_PERIOD,
            failures=start_seconds(revision.own_facts) // STARTUP_PERIOD,
        ),
        "livenessProbe": _probe(places.LIVENESS_PATH, period=10, failures=3),
        "readinessProbe": _probe(places.READINESS_PATH, period=3, failures=2),
        "volumeMounts": mounts,
    }


def _serve_resources(resource: SLMDeployment, revision: Revision) -> dict[str, Any]:
    given, device = resource.spec.resources, revision.hardware_class.resource
    requests = {key: str(value) for key, value in given.requests.items()} if given else {}
    limits = {key: str(value) for key, value in given.limits.items()} if given else {}
    if "memory" not in requests and "memory" not in limits:
        requests["memory"] = limits["memory"] = revision.memory.request
    requests.setdefault("memory", limits.get("memory", revision.memory.request))
    limits.setdefault("memory", requests["memory"])
    if "cpu" not in limits:
        requests.setdefault("cpu", CPU_REQUEST)
    if device is not None:
        requests[device.name] = limits[device.name] = str(devices_wanted(resource, revision.hardware_class))
    if "ephemeral-storage" not in limits:
        requests.setdefault("ephemeral-storage", memory_quantity(_disk_wanted(resource, revision)))
    claimed = revision.hardware_class.resource_claim_template is not None
    claims = {"claims": [{"name": DEVICE_CLAIM}]} if claimed else {}
    return {"requests": requests, "limits": limits, **claims}


def _disk_wanted(resource: SLMDeployment, revision: Revision) -> int:
    return disk_wanted(resource, revision.artifact, revision.artifact_facts, revision.beside_bytes)


def _fetch_config(settings: Settings, resource: SLMDeployment) -> FetchConfig:
    return FetchConfig(
        mirrors=mirrors_of(settings, resource),
        hosts=settings.fetch.hosts or None,
        bytes_per_second=settings.fetch.bytes_per_second,
    )


def _environment(
    config: RuntimeConfig,
    variables: Iterable[EnvVar | EnvironmentVariable],
    fetch: FetchConfig = NOTHING_SAID,
) -> list[dict[str, str]]:
    merged = {
        **{each.name: each.value for each in variables},
        places.CONFIG_ENV: config.to_json(),
        **({} if fetch == NOTHING_SAID else {places.FETCH_ENV: fetch.to_json()}),
    }
    return [{"name": name, "value": value} for name, value in merged.items() if value]


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "ops", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
        "successThreshold": 1,
    }
