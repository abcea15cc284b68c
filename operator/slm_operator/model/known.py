"""What pods have been told, and what they said of their model when they ended."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from slm_contract import places
from slm_contract.config import AdapterConfig, ModelConfig, RuntimeConfig
from slm_contract.report import FetchReport, ModelFacts
from slm_contract.retention import Removed
from slm_contract.source import SourcePin
from slm_operator.model.formats import chosen
from slm_operator.model.source import says_it_all
from slm_operator.snapshot import Document

_Config = TypeVar("_Config", bound=ModelConfig)


def reported_facts(
    pods: Iterable[Document], commands: Collection[str] = ("fetch", "inspect")
) -> dict[str, ModelFacts]:
    """By model key, from the termination messages of `fetch` and `inspect`.

    Parameters
    ----------
    commands
        `inspect` alone tells what sources stand for, not what was pinned.
    """
    found: dict[str, ModelFacts] = {}
    for pod in pods:
        key = model_key(pod)
        if key is None:
            continue
        for report in _reports(pod):
            if report.model is not None and report.command in commands:
                found[key] = report.model
    return found


def pinned(artifact: _Config, facts: Mapping[str, ModelFacts]) -> _Config:
    """The artifact as its header was found: the source's bytes of that moment, unless its address names them for ever.

    Where its number format was to be chosen, the one that was.
    """
    known = facts.get(artifact.key)
    if known is None:
        return artifact
    found: dict[str, object] = {} if says_it_all(artifact) else {"pin": known.pin}
    if artifact.auto is not None:
        found["quantization"] = chosen(artifact, known)
    return artifact.model_copy(update=found)


def drifted(pods: Iterable[Document], artifact: ModelConfig) -> SourcePin | None:
    """What the source of a pinned artifact stands for now, where pods that fetched it found something else."""
    for pod in pods:
        config = runtime_config(pod.get("spec", {}))
        if config is None or config.model != artifact:
            continue
        for report in _reports(pod):
            if (
                report.latest is not None
                and artifact.pin is not None
                and report.latest.digest != artifact.pin.digest
            ):
                return report.latest
    return None


def drifted_companions(pods: Iterable[Document], companions: Collection[ModelConfig]) -> dict[str, SourcePin]:
    """By key: what the sources of pinned companions stand for now, where pods that fetched them found something else."""
    found: dict[str, SourcePin] = {}
    for pod in pods:
        config = runtime_config(pod.get("spec", {}))
        held = [] if config is None else [each for each in config.companions if each in companions]
        told: dict[str, ModelConfig] = {each.key: each for each in held}
        # As earlier versions report.
        told |= {each.name: each for each in held if isinstance(each, AdapterConfig)}
        for report in _reports(pod):
            for name, now in (report.moved or {}).items():
                pin = told[name].pin if name in told else None
                if pin is not None and now.digest != pin.digest:
                    found[told[name].key] = now
    return found


@dataclass(frozen=True)
class Removal:
    """Models that a fetch has taken off the volume, since nothing used them any more."""

    removed: Removed
    time: datetime


def newest_removal(pods: Iterable[Document]) -> Removal | None:
    """The last that the pods still tell of, whatever became of their fetch afterwards."""
    found = []
    for pod in pods:
        for status in container_statuses(pod):
            for state in (status.get("state"), status.get("lastState")):
                ended = (state or {}).get("terminated") or {}
                report = parse_fetch_report(ended.get("message"))
                if report is not None and report.removed is not None and ended.get("finishedAt"):
                    found.append(Removal(report.removed, datetime.fromisoformat(ended["finishedAt"])))
    return max(found, key=lambda each: each.time, default=None)


def model_key(pod: Document) -> str | None:
    """Which model the pod was told to fetch or inspect."""
    config = runtime_config(pod.get("spec", {}))
    return None if config is None else config.model.key


def runtime_config(pod_spec: Mapping[str, Any]) -> RuntimeConfig | None:
    """The RuntimeConfig in a pod spec; None where it has none that this version understands."""
    for container in (*pod_spec.get("initContainers", ()), *pod_spec.get("containers", ())):
        for variable in container.get("env", ()):
            if variable.get("name") == places.CONFIG_ENV:
                try:
                    return RuntimeConfig.model_validate_json(variable.get("value", ""))
                except ValidationError:
                    return None
    return None


def container_statuses(pod: Document) -> Iterator[Mapping[str, Any]]:
    """Init containers first, as they run."""
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses", ())
    yield from status.get("containerStatuses", ())


def parse_fetch_report(message: str | None) -> FetchReport | None:
    """A termination message as the runtime writes it; None for anything else (a native library's last words)."""
    if not message:
        return None
    try:
        return FetchReport.model_validate_json(message)
    except ValidationError:
        return None


def _reports(pod: Document) -> Iterator[FetchReport]:
    """Of its containers that ended well."""
    reports = (parse_fetch_report(_ended_well(status)) for status in container_statuses(pod))
    return (each for each in reports if each is not None)


def _ended_well(status: Mapping[str, Any]) -> str | None:
    ended = status.get("state", {}).get("terminated")
    return str(ended.get("message", "")) if ended and ended.get("exitCode") == 0 else None
