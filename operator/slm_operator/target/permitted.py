"""What no waiting helps against, and the API server can't know."""

from collections.abc import Iterable, Iterator

from slm_contract.config import told_apart
from slm_operator.crd.cache import CacheMode
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.source import ModelMirror
from slm_operator.faults import Fault
from slm_operator.model.allowed import image_allowed, mirror_allowed, source_allowed
from slm_operator.model.catalog import entries, entry_of, nearest, sources_of
from slm_operator.model.source import SourceError, name_in_catalog, parse_source
from slm_operator.settings import Settings


def refused(resource: SLMDeployment, settings: Settings) -> Fault | None:
    """Why the operator's configuration doesn't let this spec run; None where it does."""
    return next(_refusals(resource, settings), None)


def _refusals(resource: SLMDeployment, settings: Settings) -> Iterator[Fault]:
    model = resource.spec.model
    projector = None if model.projector is None else model.projector.source
    beside = (*(each.source for each in model.adapters), *(() if projector is None else (projector,)))
    written = (*sources_of(model), *beside)
    for source in written:
        yield from _source(source, settings)
    for each in model.mirrors:
        if not mirror_allowed(each.mirror, settings.fetch.allowed_sources):
            yield _not_allowed(f"the mirror {each.mirror}", settings)
    listed = [source for entry in entries(model, settings.catalog) for source in sources_of(entry)]
    for mirrored in _mirrored((*written, *listed), model.mirrors):
        if not source_allowed(mirrored, settings.fetch.allowed_sources):
            yield _not_allowed(f"{mirrored}, which is what a mirror makes of the source", settings)
    names = [resource.model_name, *(each.name for each in model.adapters)]
    if not told_apart(names):
        yield Fault(
            "NamesAlike",
            f"two of {', '.join(names)} are the same name to clients, who write it in any case and with :latest",
            "give the model and each of its adapters a name of its own in spec.model",
            stalled=True,
        )
    if resource.spec.cache.mode is CacheMode.NODE_LOCAL and settings.node_cache is None:
        yield Fault(
            "CacheNotOffered",
            "the operator's configuration has no directory of the nodes for models",
            "write another spec.cache.mode, or have nodeCache.path set in the operator's chart",
            stalled=True,
        )
    if resource.spec.cache.mode is CacheMode.IMAGE:
        yield from _no_image((*written, *listed))
    image = resource.spec.runtime.image
    own = {settings.runtime_image, *(each.image for each in settings.classes)}
    if image is not None and image not in own and not image_allowed(image, settings.allowed_image_prefixes):
        allowed = ", ".join(settings.allowed_image_prefixes) or "none"
        yield Fault(
            "ImageNotAllowed",
            f"the operator's configuration doesn't allow the runtime image {image}",
            f"leave out spec.runtime.image, or name one under an allowed registry or repository ({allowed})",
            stalled=True,
        )


def _no_image(sources: Iterable[str]) -> Iterator[Fault]:
    """What the API server refuses where the spec itself says it."""
    for source in sources:
        if name_in_catalog(source) is None and not source.startswith("oci://"):
            yield Fault(
                "CacheNotOffered",
                f"spec.cache.mode Image mounts images out of registries, and {source} is in none",
                "name an oci:// source, or write another spec.cache.mode",
                stalled=True,
            )


def _source(source: str, settings: Settings) -> Iterator[Fault]:
    try:
        parse_source(source)
    except SourceError as error:
        yield Fault("SourceInvalid", str(error), "correct spec.model.source", "ModelReady", stalled=True)
        return
    name, entry = name_in_catalog(source), entry_of(source, settings.catalog)
    if name is not None and entry is None:
        yield Fault(
            "NotInCatalog",
            f"the operator's catalog has no model {name}",
            f"write {' or '.join(f'catalog://{each}' for each in nearest(name, settings.catalog))}, or have {name} added to "
            "the catalog in the operator's configuration"
            if settings.catalog
            else "have it added to the catalog in the operator's configuration, or write its source",
            "ModelReady",
            stalled=True,
        )
        return
    rules = settings.fetch.allowed_sources
    if source_allowed(source, rules):
        return
    # Much of the catalog is the chart's word, not the site's: without a rule for it, it can't widen what the site allows.
    if entry is None or not all(source_allowed(each, rules) for each in sources_of(entry)):
        yield _not_allowed(source, settings)


def _not_allowed(what: str, settings: Settings) -> Fault:
    return Fault(
        "SourceNotAllowed",
        f"the operator's configuration doesn't allow {what}",
        f"name a source under one of {', '.join(settings.fetch.allowed_sources)}, or have fetch.allowedSources extended",
        "ModelReady",
        stalled=True,
    )


def _mirrored(sources: Iterable[str], mirrors: Iterable[ModelMirror]) -> Iterator[str]:
    """What the sources may become. A mirror that is allowed says nothing of a path that leads out of it."""
    for each in mirrors:
        for source in sources:
            if source.startswith(each.source):
                yield each.mirror + source[len(each.source) :]
