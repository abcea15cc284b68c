"""Jobs that run before the Deployment: `inspect` reads a model's header, `pull` fills a claim.

A Job's template can't change, so its name carries a digest of it. Both restart for ever at kubelet's pace (ten seconds to
five minutes): a source that comes back is noticed by itself, and the reason stays in the pod's status meanwhile.
"""

from typing import Any, Final

from slm_contract.config import AdapterConfig, HardwareConfig, ModelConfig, RuntimeConfig
from slm_operator.crd.names import MODEL_LABEL, job_name, labels
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child
from slm_operator.digest import digest
from slm_operator.pod.neighbours import beside_serving
from slm_operator.pod.overrides import overridden
from slm_operator.pod.template import fetch_container, pod_basics
from slm_operator.pod.volumes import fetch_volumes
from slm_operator.settings import HardwareClass, Settings

RESTARTS: Final = 2_147_483_647
"""The most that a Job can count: it never gives up."""


def inspect_job(
    resource: SLMDeployment,
    settings: Settings,
    hardware_class: HardwareClass,
    artifact: ModelConfig,
    image: str,
    *,
    beside_pods: bool = False,
) -> dict[str, Any]:
    """Reads the header of one artifact and writes what it says to its termination message.

    It asks for none of the class's devices, but runs on such a node: the image is there when the pod comes.

    Parameters
    ----------
    beside_pods
        As that of a pull, where the artifact lies on such a claim.
    """
    return _job(
        resource,
        settings,
        hardware_class,
        artifact,
        image,
        command="inspect",
        volume=False,
        beside_pods=beside_pods,
    )


def pull_job(
    resource: SLMDeployment,
    settings: Settings,
    hardware_class: HardwareClass,
    artifact: ModelConfig,
    image: str,
    *,
    adapters: tuple[AdapterConfig, ...] = (),
    projector: ModelConfig | None = None,
    beside_pods: bool = False,
) -> dict[str, Any]:
    """Fetches the model and its companions into the claim, on a node of the class: a volume is bound where it is first used.

    Parameters
    ----------
    beside_pods
        Whether serving pods have the claim already, which only one node can have: the Job's pod goes to theirs.
    """
    return _job(
        resource,
        settings,
        hardware_class,
        artifact,
        image,
        adapters,
        projector,
        command="fetch",
        volume=True,
        beside_pods=beside_pods,
    )


def _job(
    resource: SLMDeployment,
    settings: Settings,
    hardware_class: HardwareClass,
    artifact: ModelConfig,
    image: str,
    adapters: tuple[AdapterConfig, ...] = (),
    projector: ModelConfig | None = None,
    *,
    command: str,
    volume: bool,
    beside_pods: bool,
) -> dict[str, Any]:
    purpose = "pull" if volume else "inspect"
    config = RuntimeConfig(
        model=artifact,
        adapters=adapters or None,
        projector=projector,
        hardware=HardwareConfig(hardware_class=hardware_class.name),
    )
    volumes = fetch_volumes(settings, resource, artifact, None)
    if not volume:
        volumes[0] = {"name": "models", "emptyDir": {"sizeLimit": "256Mi"}}
    template: dict[str, Any] = {
        "metadata": {"labels": {**labels(resource.name, purpose), MODEL_LABEL: artifact.key}},
        "spec": {
            **pod_basics(settings, resource, hardware_class),
            "restartPolicy": "OnFailure",
            "containers": [fetch_container(settings, resource, config, image=image, command=command)],
            "volumes": volumes,
        },
    }
    template = overridden(template, resource, settings)
    if beside_pods:
        template["spec"] = beside_serving(template["spec"], resource)
    name = job_name(resource.name, purpose, digest(template))
    return {
        **child(resource, "batch/v1", "Job", name, purpose),
        "spec": {"backoffLimit": RESTARTS, "template": template},
    }
