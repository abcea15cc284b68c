"""The status beyond its conditions. What changes without meaning is rounded or kept: each difference is a write."""

from slm_contract.report import Download, ModelFacts
from slm_operator.crd.status import (
    AccelerationStatus,
    AdapterStatus,
    DisplayStatus,
    DownloadStatus,
    FailureStatus,
    MemoryStatus,
    ModelFileStatus,
    ModelStatus,
    OriginStatus,
    PerformanceStatus,
    PlacementStatus,
    ProjectorStatus,
    Rejection,
)
from slm_operator.model.engines import ENGINES
from slm_operator.model.source import file_name, public
from slm_operator.revision.revision import Revision
from slm_operator.status.view import View

PERCENT_STEP = 5


def model(view: View) -> ModelStatus:
    facts, live, pin = view.facts, view.live_model, view.artifact.pin
    context = next(
        (each.context_length for each in view.current_reports if each.context_length is not None), None
    )
    if context is None and view.revision is not None:
        context = view.resource.spec.runtime.context_length or view.revision.context_length
    if context is None and view.rolled_out:
        context = live.context_length
    if facts is None:
        known = live
    else:
        known = ModelStatus(
            sha256=facts.sha256 or live.sha256,
            signed_by=(facts.signed_by or live.signed_by) if view.artifact.verification else None,
            format=facts.format,
            engine=ENGINES[facts.format].value,
            architecture=facts.architecture[:128],
            quantization=facts.quantization[:64] if facts.quantization else None,
            size_bytes=facts.size_bytes,
            files=_files(facts),
            origin=_origin(facts),
        )
    entry = view.catalog_entry
    return known.model_copy(
        update={
            "source": view.artifact.source[:1024],
            "resolved": ((None if pin is None else pin.path) or file_name(view.artifact.source))[:1024],
            # What a spec gives is of what the source has.
            "sha256": (None if view.artifact.quantization else view.artifact.sha256) or known.sha256,
            "quantization_reason": (view.revision.format_reason[:1024] or None) if view.revision else None,
            "revision": None if pin is None or pin.revision is None else pin.revision[:1024],
            "digest": None if pin is None else pin.digest,
            "context_length": context,
            "adapters": _adapters(view.revision),
            "projector": _projector(view.revision),
            "license": None if entry is None else entry.license[:1024],
            "gated": None if entry is None else entry.gated,
        }
    )


def _adapters(revision: Revision | None) -> tuple[AdapterStatus, ...] | None:
    if revision is None or not revision.adapters:
        return None
    known = [revision.facts.get(each.key) for each in revision.adapters]
    return tuple(
        AdapterStatus(
            name=each.name,
            source=public(each.source)[:1024],
            sha256=each.sha256 or (facts.files[0].sha256 if facts is not None and facts.files else None),
            size_bytes=None if facts is None else facts.size_bytes,
            revision=None if each.pin is None or each.pin.revision is None else each.pin.revision[:1024],
            digest=None if each.pin is None else each.pin.digest,
        )
        for each, facts in zip(revision.adapters, known, strict=True)
    )


def _projector(revision: Revision | None) -> ProjectorStatus | None:
    if revision is None or revision.projector is None:
        return None
    taken = revision.projector
    facts = revision.facts.get(taken.key)
    told = None if facts is None else facts.projector
    return ProjectorStatus(
        source=public(taken.source)[:1024],
        resolved=None if facts is None else facts.file_name[:1024],
        kind=None if told is None else told.kind[:64],
        sha256=taken.sha256 or (facts.files[0].sha256 if facts is not None and facts.files else None),
        size_bytes=None if facts is None else facts.size_bytes,
        revision=None if taken.pin is None or taken.pin.revision is None else taken.pin.revision[:1024],
        digest=None if taken.pin is None else taken.pin.digest,
    )


def _files(facts: ModelFacts) -> tuple[ModelFileStatus, ...] | None:
    """Where there is but one, it is what the rest tells of."""
    if len(facts.files) < 2:
        return None
    return tuple(
        ModelFileStatus(path=each.path[:1024], size_bytes=each.size_bytes, sha256=each.sha256)
        for each in facts.files[:16]
    )


def _origin(facts: ModelFacts) -> OriginStatus | None:
    origin = facts.origin
    if origin is None:
        return None
    return OriginStatus(
        quantization=origin.quantization[:64], size_bytes=origin.size_bytes, sha256=origin.sha256
    )


def download(view: View) -> DownloadStatus | None:
    """The slowest of the fetches that run; gone when the last has ended well."""
    running = [each.download for each in view.current_reports if each.download is not None]
    unfinished = [each for each in running if each.state != "Complete"]
    if not unfinished or view.ready:
        return None
    slowest = min(unfinished, key=lambda each: (each.bytes_done, each.state))
    percent = _percent(slowest)
    live = view.resource.status.download
    if live is not None and live.state == slowest.state and live.percent == percent:
        return live
    return DownloadStatus(
        url=public(view.artifact.source)[:1024],
        state=slowest.state,
        percent=percent,
        bytes_per_second=None if slowest.bytes_per_second is None else int(slowest.bytes_per_second),
        eta_seconds=None if slowest.eta_seconds is None else round(slowest.eta_seconds),
    )


def _percent(progress: Download) -> int | None:
    if not progress.bytes_total:
        return None
    return min(100, 100 * progress.bytes_done // progress.bytes_total // PERCENT_STEP * PERCENT_STEP)


def placement(view: View) -> PlacementStatus | None:
    """What was decided for the pods; where nothing was, what was tried."""
    if view.revision is not None:
        selected: str | None = view.revision.hardware_class.name
        reason, rejected = view.revision.reason, view.revision.rejected
    elif view.placement is not None:
        selected = None
        reason, rejected = view.placement.reason, view.placement.rejected
    else:
        return view.resource.status.placement
    return PlacementStatus(
        selected=selected,
        reason=reason[:1024],
        rejected=tuple(
            Rejection(hardware=each.hardware, reason=each.reason[:1024]) for each in rejected[:64]
        ),
    )


def acceleration(view: View) -> AccelerationStatus | None:
    """As the runtime last said; its silence (an operator's restart) takes nothing back while it serves."""
    for report in view.current_reports:
        seen = report.acceleration
        if seen is not None:
            return AccelerationStatus(
                device=seen.device[:1024],
                provider=seen.provider[:63],
                layers=seen.layers,
                degraded=seen.degraded,
            )
    return view.resource.status.acceleration if view.rolled_out and view.available else None


def memory(view: View) -> MemoryStatus | None:
    if view.revision is None:
        tried = [] if view.placement is None else view.placement.rejected
        short = next((each.reason for each in tried if each.by_header), None)
        return None if short is None else MemoryStatus(explanation=short[:1024])
    given = view.revision.memory
    return MemoryStatus(
        weights=given.weights,
        kv_cache=given.kv_cache,
        recurrent_state=given.recurrent_state,
        snapshots=given.snapshots,
        compute=given.compute,
        outputs=given.outputs,
        process=given.process,
        projector=given.projector,
        headroom=given.headroom,
        request=given.request,
        explanation=given.explanation[:1024],
    )


def performance(view: View) -> PerformanceStatus | None:
    for report in view.current_reports:
        seen = report.performance
        if seen is not None:
            return PerformanceStatus(
                load_seconds=round(seen.load_seconds, 1),
                first_token_ms=round(seen.first_token_ms),
                tokens_per_second=round(seen.tokens_per_second, 1),
                measured_at=seen.measured_at.replace(microsecond=0),
            )
    return view.resource.status.performance if view.rolled_out and view.available else None


def last_failure(view: View) -> FailureStatus | None:
    """The last failure since it was ready: it stays between two tries, and goes when it is ready again."""
    fault = view.given_up if view.ready else view.fault
    if view.ready and fault is None:
        return None
    live = view.resource.status.last_failure
    if fault is None:
        return live
    known = live is not None and (live.reason, live.message) == (fault.reason, fault.message[:4096])
    time = live.time if live is not None and known else fault.time or view.now
    return FailureStatus(
        time=time.replace(microsecond=0),
        pod=fault.pod,
        reason=fault.reason,
        message=fault.message[:4096],
        exit_code=fault.exit_code,
        remedy=fault.remedy[:1024],
    )


def display(view: View) -> DisplayStatus:
    parts = [view.artifact.name, model(view).quantization]
    return DisplayStatus(
        model=" ".join(part for part in parts if part)[:1024],
        ready=f"{view.ready_replicas}/{view.resource.replicas}",
    )
