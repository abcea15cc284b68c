"""The last words of a container: kubelet hands them to the operator."""

import contextlib
from pathlib import Path
from typing import Final

from slm_contract.places import TERMINATION_MESSAGE, TERMINATION_MESSAGE_LIMIT
from slm_contract.report import FetchReport, RuntimeReport

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
    """At most :data:`TERMINATION_MESSAGE_LIMIT` bytes of JSON that is still whole: what is too long is texts."""
    encoded = report.to_json().encode()
    message, remedy = MESSAGE_CHARACTERS, REMEDY_CHARACTERS
    while len(encoded) > TERMINATION_MESSAGE_LIMIT and report.failure is not None and message:
        shorter = {"message": report.failure.message[:message], "remedy": report.failure.remedy[:remedy]}
        cut = report.model_copy(update={"failure": report.failure.model_copy(update=shorter)})
        encoded = cut.to_json().encode()
        message, remedy = message // 2, remedy // 2
    return encoded
