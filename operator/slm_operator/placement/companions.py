"""What is brought, looked at and kept as a model is, and served with it: its adapters, and its projector."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from slm_contract.config import AdapterConfig, ModelConfig, Part
from slm_contract.report import WITH_ARTICLE, ModelFacts
from slm_operator.crd.resource import SLMDeployment
from slm_operator.placement.rejection import Cause

PROJECTOR: Final = "projector"
"""How it is called where models have names; no client asks for it."""


class Mismatch(NamedTuple):
    cause: Cause
    reason: str


def adapters_of(resource: SLMDeployment) -> tuple[AdapterConfig, ...]:
    """The same for all classes."""
    model = resource.spec.model
    verification = None if model.verification is None else model.verification.config
    return tuple(
        AdapterConfig(
            name=each.name,
            source=each.source,
            sha256=each.sha256,
            verification=verification,
            scale=each.scale,
        )
        for each in model.adapters
    )


def projector_of(resource: SLMDeployment, artifact: ModelConfig) -> ModelConfig | None:
    """What pictures are read with: it may lie beside the artifact, and then it is another with each."""
    model, asked = resource.spec.model, resource.spec.model.projector
    if asked is None:
        return None
    own = asked.source is None
    return ModelConfig(
        name=PROJECTOR,
        source=asked.source or artifact.source,
        sha256=asked.sha256,
        verification=None if model.verification is None else model.verification.config,
        mounted=artifact.mounted if own else None,
        part=Part.OWN_PROJECTOR if own else Part.PROJECTOR,
    )


def companions_of(resource: SLMDeployment, artifact: ModelConfig) -> tuple[ModelConfig, ...]:
    """All that is brought and looked at as an artifact is, and served with it."""
    projector = projector_of(resource, artifact)
    return (*adapters_of(resource), *(() if projector is None else (projector,)))


def mismatch(
    header: ModelFacts, adapters: Mapping[str, ModelFacts], projector: ModelFacts | None
) -> Mismatch | None:
    """Why a model isn't served, or not with these adapters and this projector; None: it is."""
    wrong = _adapters(header, adapters)
    if wrong is not None:
        return Mismatch(Cause.MISMATCH, wrong)
    wrong = _projector(header, projector)
    return None if wrong is None else Mismatch(Cause.PROJECTOR_MISMATCH, wrong)


def _adapters(header: ModelFacts, adapters: Mapping[str, ModelFacts]) -> str | None:
    if header.adapter:
        return "spec.model.source names an adapter, and no model"
    for name, each in adapters.items():
        if each.kind != "adapter":
            return f"the adapter {name} is {WITH_ARTICLE[each.kind]} by itself"
        if each.architecture != header.architecture:
            return f"the adapter {name} is of a {each.architecture} model, and the model is a {header.architecture}"
    return None


def _projector(header: ModelFacts, projector: ModelFacts | None) -> str | None:
    if header.projector is not None:
        return f"spec.model.source names {header.file_name}, a projector, and no model"
    if projector is None:
        return None
    if projector.projector is None:
        return f"what spec.model.projector names, {projector.file_name}, is {WITH_ARTICLE[projector.kind]} and no projector"
    if header.encoder:
        return f"the model is an encoder ({header.architecture}), which reads text alone, and a projector is asked for"
    output = projector.projector.output_length
    if output not in {None, header.embedding_length}:
        return (
            f"the projector {projector.file_name} is for models with embeddings of {output}, and the model's have "
            f"{header.embedding_length}"
        )
    return None
