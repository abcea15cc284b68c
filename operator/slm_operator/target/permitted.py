"""What no waiting helps against, and the API server can't know."""

from slm_operator.crd.cache import CacheMode
from slm_operator.crd.resource import SLMDeployment
from slm_operator.faults import Fault
from slm_operator.model.allowed import image_allowed, source_allowed
from slm_operator.model.source import SourceError, parse_source
from slm_operator.settings import Settings


def refused(resource: SLMDeployment, settings: Settings) -> Fault | None:
    """Why the operator's configuration doesn't let this spec run; None where it does."""
    model = resource.spec.model
    for source in (model.source, *(variant.source for variant in model.variants)):
        try:
            parse_source(source)
        except SourceError as error:
            return Fault("SourceInvalid", str(error), "correct spec.model.source", "ModelReady", stalled=True)
        if not source_allowed(source, settings.fetch.allowed_sources):
            allowed = ", ".join(settings.fetch.allowed_sources)
            return Fault(
                "SourceNotAllowed",
                f"the operator's configuration doesn't allow {source}",
                f"name a source under one of {allowed}, or have fetch.allowedSources extended",
                "ModelReady",
                stalled=True,
            )
    if resource.spec.cache.mode is CacheMode.NODE_LOCAL and settings.node_cache is None:
        return Fault(
            "CacheNotOffered",
            "the operator's configuration has no directory of the nodes for models",
            "write another spec.cache.mode, or have nodeCache.path set in the operator's chart",
            stalled=True,
        )
    image = resource.spec.runtime.image
    own = {settings.runtime_image, *(each.image for each in settings.classes)}
    if image is not None and image not in own and not image_allowed(image, settings.allowed_image_prefixes):
        allowed = ", ".join(settings.allowed_image_prefixes) or "none"
        return Fault(
            "ImageNotAllowed",
            f"the operator's configuration doesn't allow the runtime image {image}",
            f"leave out spec.runtime.image, or name one under an allowed registry or repository ({allowed})",
            stalled=True,
        )
    return None
