"""Foundry's hardware words, as classes and families of ours."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from kubectl_slm.others.converted import Draft

_CALLED: Final[Mapping[str, str]] = {"cuda": "gpu", "directml": "gpu", "webgpu": "gpu", "qnn": "npu"}
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MOST: Final = 8


def prefer(draft: Draft, line: int | None, what: str, said: Iterable[object]) -> None:
    """Add to the classes of hardware, after those that are there; each once."""
    names = [str(each).strip().lower() for each in said]
    there = list(draft.get("hardware.preference") or ())
    for each in names:
        name = _CALLED.get(each, each)
        if name == "auto":
            draft.note(
                line,
                what,
                "'auto' is what spec.hardware.preference means where it is left out: gpu, then cpu",
            )
        elif not _NAME.fullmatch(name) or len(there) == _MOST:
            draft.note(
                line,
                f"{what} {each}",
                "spec.hardware.preference takes eight classes or families: npu, gpu, cpu",
            )
        elif name not in there:
            there.append(name)
    if there:
        draft.put("hardware.preference", there)
