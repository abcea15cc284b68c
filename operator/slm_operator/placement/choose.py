"""The choice: the first preferred class that has an artifact, nodes and memory, and that the scheduler hasn't refused."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from slm_contract.config import EngineName, ModelConfig, ModelFormat, Quantization
from slm_contract.context import longest_context
from slm_contract.report import ModelFacts
from slm_operator.crd.cache import CacheMode
from slm_operator.crd.quantities import parse_quantity
from slm_operator.crd.resource import SLMDeployment
from slm_operator.crd.spec import AUTO, Engine, FlashAttention, Hardware
from slm_operator.model.catalog import entry_of
from slm_operator.model.engines import engine_of, format_of, unmet
from slm_operator.model.fit import Fit, fit
from slm_operator.model.formats import explained, smaller
from slm_operator.model.memory import DEFAULT_BATCH, DEFAULT_PARALLEL
from slm_operator.model.source import says_it_all
from slm_operator.nodes import Nodes
from slm_operator.placement.companions import adapters_of, companions_of, mismatch, projector_of
from slm_operator.placement.devices import devices_wanted
from slm_operator.placement.rejection import Cause, Rejected
from slm_operator.settings import CatalogEntry, CatalogVariant, HardwareClass, Settings
from slm_operator.snapshot import Snapshot


@dataclass(frozen=True)
class Candidate:
    """A class with the artifact that would run on it."""

    hardware_class: HardwareClass
    artifact: ModelConfig


@dataclass(frozen=True)
class Placement:
    """Where to run, or why nowhere; what was passed over either way."""

    rejected: tuple[Rejected, ...]
    selected: Candidate | None = None
    reason: str = ""
    format_reason: str = ""
    """Why this number format, where it was to be chosen."""
    fit: Fit | None = None
    """None where the model's header hasn't been read."""
    headers: tuple[Candidate, ...] = ()
    """Those whose artifact's header had a say, read or not: it must stay known until the choice is written down."""
    pending: bool = False
    """True where the header of the selected one hasn't been read, and `selected` may change with it."""


def artifact_for(
    resource: SLMDeployment, hardware_class: HardwareClass, catalog: Mapping[str, CatalogEntry]
) -> ModelConfig:
    """The variant for the class, else for its family, else the model itself; what the catalog has for it."""
    model = resource.spec.model
    chosen = _variant(model.variants, hardware_class) or model
    source, sha256, wanted, named = chosen.source, chosen.sha256, chosen.quantization, chosen.format
    auto = hardware_class.quantizations if wanted == AUTO else None
    quantization = wanted if isinstance(wanted, Quantization) else None
    entry = entry_of(source, catalog)
    if entry is not None:
        listed = _listed(entry, hardware_class, auto or ((quantization,) if quantization else ()))
        source, sha256 = listed.source, sha256 or listed.sha256
        named = listed.format if named is ModelFormat.AUTO else named
    return ModelConfig(
        name=resource.model_name,
        source=source,
        sha256=sha256,
        format=named,
        quantization=quantization,
        auto=auto,
        verification=None if model.verification is None else model.verification.config,
        mounted=True if resource.spec.cache.mode is CacheMode.IMAGE else None,
    )


def _listed(
    entry: CatalogEntry, hardware_class: HardwareClass, formats: Sequence[Quantization]
) -> CatalogEntry | CatalogVariant:
    """What an entry of the catalog has for a class: the first of some formats that it names, else what it has for all."""
    fitting = [
        each for each in entry.variants if each.hardware in {None, hardware_class.name, hardware_class.family}
    ]
    usual = _variant((each for each in fitting if each.quantization is None), hardware_class) or entry
    by_format: dict[str | None, CatalogEntry | CatalogVariant] = {usual.quantization: usual}
    by_format |= {each.quantization: each for each in fitting if each.quantization is not None}
    return next((by_format[each.value] for each in formats if each.value in by_format), usual)


class _ForHardware(Protocol):
    @property
    def hardware(self) -> str | None: ...


_Variant = TypeVar("_Variant", bound=_ForHardware)


def _variant(variants: Iterable[_Variant], hardware_class: HardwareClass) -> _Variant | None:
    found = {variant.hardware: variant for variant in variants}
    return found.get(hardware_class.name) or found.get(hardware_class.family)


def candidates(
    resource: SLMDeployment, settings: Settings
) -> tuple[tuple[Candidate, ...], tuple[Rejected, ...]]:
    """The classes that the preference names, in its order, and the names that stand for none."""
    classes = settings.classes
    found: dict[str, Candidate] = {}
    unknown: list[Rejected] = []
    for name in resource.spec.hardware.preference:
        matching = [each for each in classes if name in {each.name, each.family}]
        for each in matching:
            found.setdefault(each.name, Candidate(each, artifact_for(resource, each, settings.catalog)))
        if not matching:
            known = ", ".join(dict.fromkeys(each.family for each in classes))
            reason = f"the operator's configuration has no such class or family; it has {known}"
            unknown.append(Rejected(hardware=name, cause=Cause.UNKNOWN, reason=reason))
    return tuple(found.values()), tuple(unknown)


def place(
    snapshot: Snapshot,
    resource: SLMDeployment,
    facts: Mapping[str, ModelFacts],
    *,
    previous: str | None = None,
    barred: Mapping[str, Rejected] | None = None,
    decided: ModelConfig | None = None,
) -> Placement:
    """Select a class.

    Parameters
    ----------
    facts
        By model key: the headers that have been read.
    previous
        The class in use, where it was decided from the same parts of the spec: it is kept if it still can be.
    barred
        By class: what the scheduler has refused before, with its words.
    decided
        What runs on the previous class: its number format was chosen from what it says, not from what would be today.
    """
    classes, catalog = snapshot.settings.classes, snapshot.settings.catalog
    found, unknown = candidates(resource, snapshot.settings)
    refused = barred or {}
    for candidate in found:
        if candidate.hardware_class.name == previous and previous not in refused:
            answer, _ = _judge(
                snapshot, resource, facts, as_decided(candidate, decided, resource, catalog), standing=True
            )
            if isinstance(answer, Placement):
                return answer
    rejected = list(unknown)
    headers: list[Candidate] = []
    for candidate in found:
        name = candidate.hardware_class.name
        if name in refused:
            rejected.append(refused[name])
            continue
        answer, looked = _judge(snapshot, resource, facts, candidate)
        if isinstance(answer, Rejected):
            rejected.append(answer)
            headers += looked if answer.by_header else ()
            continue
        looked_at = {each.artifact.key for each in headers}
        return replace(
            answer,
            rejected=tuple(rejected),
            reason=_summary(resource, classes, answer.reason, rejected),
            headers=(*headers, *(each for each in answer.headers if each.artifact.key not in looked_at)),
        )
    return Placement(
        rejected=tuple(rejected), reason=_summary(resource, classes, "", rejected), headers=tuple(headers)
    )


def memory_given(resource: SLMDeployment) -> int | None:
    """Bytes that `spec.resources` gives a replica; None where they are fitted."""
    given = resource.spec.resources
    if given is None:
        return None
    text = given.limits.get("memory", given.requests.get("memory"))
    return None if text is None else int(parse_quantity(text))


def choosing_from(
    candidate: Candidate,
    formats: tuple[Quantization, ...],
    resource: SLMDeployment,
    catalog: Mapping[str, CatalogEntry],
) -> Candidate:
    """The same class, with what there is for it of other number formats."""
    chosen = candidate.hardware_class.model_copy(update={"quantizations": formats})
    return replace(candidate, artifact=artifact_for(resource, chosen, catalog))


def as_decided(
    candidate: Candidate,
    decided: ModelConfig | None,
    resource: SLMDeployment,
    catalog: Mapping[str, CatalogEntry],
) -> Candidate:
    """Choosing from what was chosen from, where its format was chosen before."""
    if decided is None or decided.auto is None or candidate.artifact.auto is None:
        return candidate
    return choosing_from(candidate, decided.auto, resource, catalog)


def looked_at(
    candidate: Candidate,
    resource: SLMDeployment,
    catalog: Mapping[str, CatalogEntry],
    facts: Mapping[str, ModelFacts],
) -> Iterator[ModelConfig]:
    """The artifact, and each that was asked for in its place for want of memory, as far as headers are known."""
    asked: Candidate | None = candidate
    while asked is not None:
        yield asked.artifact
        header = facts.get(asked.artifact.key)
        left = () if header is None else smaller(asked.artifact, header)
        asked = choosing_from(asked, left, resource, catalog) if left else None


def _judge(
    snapshot: Snapshot,
    resource: SLMDeployment,
    facts: Mapping[str, ModelFacts],
    candidate: Candidate,
    *,
    standing: bool = False,
) -> tuple[Placement | Rejected, tuple[Candidate, ...]]:
    """Hold one class against engine, nodes and memory, with the largest number format that fits where one is to be chosen.

    Beside it all whose headers had a say.
    """
    passed: list[str] = []
    looked: tuple[Candidate, ...] = ()
    while True:
        answer = _hold(snapshot, resource, facts, candidate, standing=standing)
        looked = (*looked, *(each for each in _with_companions(candidate, resource) if each not in looked))
        header = facts.get(candidate.artifact.key)
        if isinstance(answer, Placement):
            said = ""
            if candidate.artifact.auto is not None and header is not None:
                said = explained(candidate.artifact, header, candidate.hardware_class.name, passed)
            return replace(answer, headers=looked if answer.headers else (), format_reason=said), looked
        left = () if header is None else smaller(candidate.artifact, header)
        if header is None or not left or answer.cause is not Cause.NO_MEMORY:
            return answer, looked
        passed.append(f"{header.quantization} doesn't fit: {answer.reason}")
        candidate = choosing_from(candidate, left, resource, snapshot.settings.catalog)


def _hold(
    snapshot: Snapshot,
    resource: SLMDeployment,
    facts: Mapping[str, ModelFacts],
    candidate: Candidate,
    *,
    standing: bool,
) -> Placement | Rejected:
    """Hold one class against engine, nodes and memory; one that is in use isn't asked for its nodes again."""
    spec, chosen = resource.spec, candidate.hardware_class
    unrun = _unrun(resource, candidate, facts.get(candidate.artifact.key))
    if unrun is not None:
        return unrun
    asked = _as_asked(resource, chosen)
    available, seen = _memory(snapshot.nodes, asked, spec.hardware)
    if seen is not None and not standing:
        return Rejected(hardware=chosen.name, cause=Cause.NO_NODES, reason=seen)
    if chosen.image_required and chosen.image is None and spec.runtime.image is None and not standing:
        return Rejected(
            hardware=chosen.name,
            cause=Cause.NO_IMAGE,
            reason=f"it needs a runtime image with {chosen.provider}: "
            f"set hardwareClasses.{chosen.name}.image in the operator's chart",
        )
    artifact = candidate.artifact
    header, given = facts.get(artifact.key), memory_given(resource)
    headers = _with_companions(candidate, resource)
    unread = [each.artifact for each in headers if each.artifact.key not in facts]
    pending = any(given is None or each.quantization or each.auto or not says_it_all(each) for each in unread)
    reason = f"{chosen.name}: {_fitting(snapshot.nodes, asked, spec.hardware)}"
    if header is None or pending:
        return Placement(
            rejected=(),
            selected=candidate,
            reason=reason,
            headers=headers if pending else (),
            pending=pending,
        )
    adapters = {each.name: facts[each.key] for each in adapters_of(resource) if each.key in facts}
    asked_projector = projector_of(resource, artifact)
    projector = None if asked_projector is None else facts.get(asked_projector.key)
    wrong = mismatch(header, adapters, projector)
    if wrong is not None:
        return Rejected(hardware=chosen.name, cause=wrong.cause, reason=wrong.reason)
    if artifact.auto is not None and header.offered is None and header.sha256 is None:
        return Rejected(
            hardware=chosen.name,
            cause=Cause.NO_IMAGE,
            reason="its runtime image is of an earlier version, which chooses no number format",
            underived=header.quantization or "",
        )
    if artifact.quantization not in {None, header.quantization}:
        return Rejected(
            hardware=chosen.name,
            cause=Cause.NO_IMAGE,
            reason=f"its runtime image is of an earlier version, which derives no {artifact.quantization} of "
            f"{header.quantization or 'what the source has'}",
            underived=header.quantization or "",
        )
    longest = longest_context(header)
    if longest is not None and (spec.runtime.context_length or 0) > longest:
        return Rejected(
            hardware=chosen.name,
            cause=Cause.NO_ARTIFACT,
            reason=f"its model holds {longest} tokens, {_why(header)}, and "
            f"contextLength asks for {spec.runtime.context_length}",
            longest_context=longest,
        )
    kv_memory = spec.runtime.kv_cache_memory
    weights = header.weights_bytes + sum(each.weights_bytes for each in adapters.values())
    fitted = fit(
        header.model_copy(update={"weights_bytes": weights}),
        context_length=spec.runtime.context_length,
        parallel=spec.runtime.parallel or DEFAULT_PARALLEL,
        batch=spec.runtime.batch_size or DEFAULT_BATCH,
        flash_attention=spec.runtime.flash_attention is not FlashAttention.DISABLED,
        available=given if given is not None else available,
        kv_limit=None if kv_memory is None else int(parse_quantity(kv_memory)),
        projector=projector,
        **({"kv_type": spec.runtime.kv_cache_type} if spec.runtime.kv_cache_type else {}),
    )
    if not fitted.fits and (given is None or smaller(artifact, header)):
        return Rejected(hardware=chosen.name, cause=Cause.NO_MEMORY, reason=fitted.explanation)
    return Placement(rejected=(), selected=candidate, reason=reason, fit=fitted, headers=headers)


def _unrun(resource: SLMDeployment, candidate: Candidate, header: ModelFacts | None) -> Rejected | None:
    """Why no engine of a class can run its artifact as the spec asks; None: one can, or it isn't known yet."""
    asked, chosen, artifact = resource.spec.runtime.engine, candidate.hardware_class, candidate.artifact
    has = " and ".join(each.value for each in chosen.runs)
    engine, known = engine_of(artifact, header), format_of(artifact, header)
    said = f"its artifact is {known}, which {engine} runs"
    kept = None if header is None else header.kv_type
    missing = None if engine is None else unmet(resource.spec, artifact, engine, kept)
    if asked is not Engine.AUTO and EngineName(asked) not in chosen.runs:
        reason = f"it runs {has}, the spec asks for {asked.value}"
    elif engine is None:
        return None
    elif asked not in {Engine.AUTO, engine}:
        reason = f"{said}, and the spec asks for {asked.value}"
    elif engine not in chosen.runs:
        reason = f"{said}, and its image has {has}"
    elif missing is not None:
        reason = f"{said}, and {missing}"
    else:
        return None
    return Rejected(
        hardware=chosen.name,
        cause=Cause.NO_ENGINE,
        reason=reason,
        format=None if header is None else header.format,
    )


def _with_companions(candidate: Candidate, resource: SLMDeployment) -> tuple[Candidate, ...]:
    """All whose headers have a say where the candidate has one."""
    companions = companions_of(resource, candidate.artifact)
    return (candidate, *(Candidate(candidate.hardware_class, each) for each in companions))


def _why(header: ModelFacts) -> str:
    trained = f"for {header.context_length} of which it was trained"
    return "for which it was trained" if not header.scaled_context_length else f"{trained}, by RoPE scaling"


def _as_asked(resource: SLMDeployment, hardware_class: HardwareClass) -> HardwareClass:
    """The class with as many devices as a pod of this spec asks for."""
    device, wanted = hardware_class.resource, devices_wanted(resource, hardware_class)
    if device is None or device.count == wanted:
        return hardware_class
    return hardware_class.model_copy(update={"resource": device.model_copy(update={"count": wanted})})


def _memory(
    nodes: Nodes | None, hardware_class: HardwareClass, hardware: Hardware
) -> tuple[int | None, str | None]:
    """Memory of the largest node for the class, None where unknown; and why there is none."""
    if nodes is None:
        return None, None
    offered = nodes.offer(hardware_class, hardware)
    if offered.nodes:
        return offered.memory, None
    return None, None if hardware_class.provisionable else offered.problem


def _fitting(nodes: Nodes | None, hardware_class: HardwareClass, hardware: Hardware) -> str:
    count = 0 if nodes is None else nodes.offer(hardware_class, hardware).nodes
    if count == 0:
        return "the scheduler is asked for a node" if nodes is None else "its nodes are provisioned on demand"
    return "1 node fits" if count == 1 else f"{count} nodes fit"


def _summary(
    resource: SLMDeployment, known: Sequence[HardwareClass], selected: str, rejected: Iterable[Rejected]
) -> str:
    """One line: what was taken, then what wasn't; what nobody offers is named as the preference names it, in one go."""
    listed = list(rejected)
    missing = {
        each.hardware
        for each in listed
        if each.cause is Cause.NO_NODES and each.reason.startswith("no node offers")
    }
    names: list[str] = []
    for name in resource.spec.hardware.preference:
        classes = [each.name for each in known if name in {each.name, each.family}]
        names += (
            [name]
            if classes and missing.issuperset(classes)
            else [each for each in classes if each in missing]
        )
    others = [f"{each.hardware}: {each.reason}" for each in listed if each.hardware not in missing]
    grouped = [f"{', '.join(dict.fromkeys(names))}: no node offers one"] if names else []
    return "; ".join(part for part in (selected, *others, *grouped) if part)
