"""Which parts of a spec, and of the operator's settings, a revision is made from: while they are the same, it stands."""

from collections.abc import Mapping
from typing import Any, Final

from slm_contract.config import ModelFormat
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.spec import Model, Spec
from slm_operator.digest import digest
from slm_operator.model.catalog import entries
from slm_operator.settings import DEFAULT_USER, HardwareClass, Settings

_NOT_OF_THE_POD: Final = ("image", "family", "engines", "provisionable", "quantizations", "reserved_memory")


def spec_digest(resource: SLMDeployment) -> str:
    """The parts of a spec that reach the pod template.

    What stands at its default doesn't count, so that a field which a later version adds rolls nothing.
    """
    spec = resource.spec
    parts = spec.model_dump(
        mode="json",
        exclude_defaults=True,
        include={"model", "runtime", "resources", "cache", "auth", "pod_template"},
        # What is fetched, and served, is the same.
        exclude={"model": {"refresh_policy"}, "cache": {"unused_models", "pre_pull"}},
    )
    if not parts.get("cache"):
        parts.pop("cache", None)
    hardware = spec.hardware.model_dump(
        mode="json", exclude_defaults=True, include={"on_degraded", "node_selector", "tolerations"}
    )
    cors = spec.endpoint.cors
    origins = None if cors is None else cors.allowed_origins
    answers = spec.endpoint.model_dump(
        mode="json",
        exclude_defaults=True,
        include={"unknown_fields", "trusted_proxies", "stored_responses", "image_origins"},
    )
    return digest(
        {
            "name": resource.model_name,
            "spec": parts,
            "hardware": hardware,
            **({"origins": origins} if origins else {}),
            **({"idle": spec.endpoint.idle_timeout} if spec.endpoint.idle_timeout else {}),
            **({"answers": answers} if answers else {}),
        }
    )


def placement_digest(spec: Spec) -> str:
    """The parts of a spec that a placement is decided from; while they are the same, it is kept."""
    hardware = spec.hardware
    return digest(
        {
            "preference": hardware.preference,
            "nodeSelector": hardware.node_selector,
            "tolerations": [
                each.model_dump(mode="json", exclude_defaults=True) for each in hardware.tolerations
            ],
            "engine": spec.runtime.engine,
            **({"format": spec.model.format} if spec.model.format is ModelFormat.ONNX else {}),
            "model": spec.model.model_dump(
                mode="json",
                include={
                    "source",
                    "sha256",
                    "quantization",
                    "variants",
                    "adapters",
                    "projector",
                    "verification",
                },
                exclude_defaults=True,
            ),
        }
    )


def bundle_digest(hardware_class: HardwareClass) -> str:
    """A class without its image, which has rules of its own, and without what only decides."""
    return digest(hardware_class.model_dump(mode="json", exclude_defaults=True, exclude=set(_NOT_OF_THE_POD)))


def site_digest(settings: Settings, model: Model) -> str:
    """What the site adds to a pod. It rolls nothing that runs; what fails is rendered anew when it changes.

    Fields that came later count where they are set, so that what was decided before them stands.
    """
    fetch: Mapping[str, Any] = settings.fetch.model_dump(mode="json", include={"env", "ca_bundle"})
    later = settings.fetch.model_dump(
        mode="json", include={"mirrors", "hosts", "bytes_per_second"}, exclude_defaults=True
    )
    listed = [
        each.model_dump(mode="json", exclude_defaults=True) for each in entries(model, settings.catalog)
    ]
    return digest(
        {
            "fetch": {**fetch, **later},
            **({"catalog": listed} if listed else {}),
            "image": settings.runtime_image,
            "images": [each.image for each in settings.classes],
            "pull": [settings.image_pull_policy, *settings.image_pull_secrets],
            **({} if settings.node_cache is None else {"nodeCache": settings.node_cache}),
            **({} if settings.run_as_user == DEFAULT_USER else {"user": settings.run_as_user}),
        }
    )
