"""The last words of a container: kubelet hands them to the operator."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from slm_contract.places import TERMINATION_MESSAGE, TERMINATION_MESSAGE_LIMIT
from slm_contract.report import Failure, FetchReport, ModelFacts, RuntimeReport

MESSAGE_CHARACTERS: Final = 1000
REMEDY_CHARACTERS: Final = 500


Report = FetchReport | RuntimeReport


def leave(report: Report, path: Path) -> None:
    """Write the report where kubelet looks, if there is a kubelet."""
    if str(path) == TERMINATION_MESSAGE and not path.exists():
        return
    with contextlib.suppress(OSError):
        path.write_bytes(bounded_json(report))


def bounded_json(report: Report) -> bytes:
    """At most :data:`TERMINATION_MESSAGE_LIMIT` bytes of JSON that is still whole: what can be spared goes first."""
    encoded = report.to_json().encode()
    for shorter in _shorter(report):
        if len(encoded) <= TERMINATION_MESSAGE_LIMIT:
            break
        encoded = shorter.to_json().encode()
    return encoded


def _shorter(report: Report) -> Iterator[Report]:
    """The same with ever less of it: the list of files, which the pin stands for, then texts, then names."""
    if report.model is not None:
        for model in _fewer_files(report.model):
            report = report.model_copy(update={"model": model})
            yield report
    message, remedy = MESSAGE_CHARACTERS, REMEDY_CHARACTERS
    while report.failure is not None and message:
        yield report.model_copy(update={"failure": _cut(report.failure, message, remedy)})
        message, remedy = message // 2, remedy // 2
    if report.model is not None:
        report = report.model_copy(update={"model": report.model.model_copy(update={"name": None})})
        yield report
    if isinstance(report, FetchReport) and report.moved:
        yield report.model_copy(update={"moved": None})


def _fewer_files(model: ModelFacts) -> Iterator[ModelFacts]:
    """Without those that it was derived from, without checksums, then the first half of them, and so on."""
    if model.origin is not None and model.origin.files:
        model = model.model_copy(update={"origin": model.origin.model_copy(update={"files": ()})})
        yield model
    files = tuple(each.model_copy(update={"sha256": None}) for each in model.files)
    while files:
        yield model.model_copy(update={"files": files})
        files = files[: len(files) // 2]
    yield model.model_copy(update={"files": ()})


def _cut(failure: Failure, message: int, remedy: int) -> Failure:
    return failure.model_copy(
        update={"message": failure.message[:message], "remedy": failure.remedy[:remedy]}
    )
