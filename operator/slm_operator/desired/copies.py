"""The DaemonSet that brings the model to the nodes of its class before a pod needs it there, and keeps it there."""

from typing import Any, Final

from slm_contract.config import HardwareConfig, RuntimeConfig
from slm_operator.crd.names import COMPONENT_LABEL, COPIES, copies_name, labels, selector
from slm_operator.crd.resource import SLMDeployment
from slm_operator.desired.child import child
from slm_operator.pod.overrides import overridden
from slm_operator.pod.template import fetch_container, hold_container, pod_basics
from slm_operator.pod.volumes import fetch_volumes, node_retention, on_node
from slm_operator.revision.revision import Revision
from slm_operator.settings import Settings

AT_ONCE: Final = "10%"
"""Of the nodes that fetch another model: sources and the network belong to others too."""


def copies(resource: SLMDeployment, settings: Settings, revision: Revision | None) -> dict[str, Any] | None:
    """None where nobody asks for it.

    Its pods go to all nodes that class and spec select by labels: they ask for no device, which is there to be served from.
    """
    cache = resource.spec.cache
    if revision is None or not cache.pre_pull or not on_node(cache, settings) or resource.spec.suspend:
        return None
    config = RuntimeConfig(
        model=revision.artifact,
        adapters=revision.adapters or None,
        projector=revision.projector,
        hardware=HardwareConfig(hardware_class=revision.hardware_class.name),
    )
    fetch = fetch_container(
        settings,
        resource,
        config,
        image=revision.image,
        command="fetch",
        retention=node_retention(cache, settings),
    )
    template = {
        "metadata": {"labels": labels(resource.name, COPIES)},
        "spec": {
            **pod_basics(settings, resource, revision.hardware_class),
            "initContainers": [fetch],
            "containers": [hold_container(settings, resource, config, image=revision.image)],
            "volumes": fetch_volumes(
                settings, resource, revision.artifact, revision.artifact_facts, revision.beside_bytes
            ),
        },
    }
    return {
        **child(resource, "apps/v1", "DaemonSet", copies_name(resource.name), COPIES),
        "spec": {
            "selector": {"matchLabels": {**selector(resource.name), COMPONENT_LABEL: COPIES}},
            "revisionHistoryLimit": 1,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": AT_ONCE}},
            "template": overridden(template, resource, settings),
        },
    }
