"""Of a source that has one model in several number formats, as their files' names say, the one to take."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from slm_contract.config import Quantization
from slm_runtime.models.quantization import larger_ones

MAX_NAMES: Final = 16
MAX_NAME: Final = 16
_FORMAT: Final = re.compile(
    r"(?<![a-z0-9])(?P<dynamic>ud-)?(?P<name>i?q[1-9](?:_[a-z0-9]+)*|tq[12]_0|mxfp4(?:_[a-z]+)*|bf16|f16|fp16|f32|fp32)(?![a-z0-9_])",
    re.IGNORECASE,
)


def format_of(path: str) -> str | None:
    """The number format that a file's name says, else that of its folder: the last one, as llama.cpp writes it."""
    for part in reversed(PurePosixPath(path).parts):
        found = list(_FORMAT.finditer(part))
        if found:
            name = found[-1]["name"].upper().replace("FP16", "F16").replace("FP32", "F32")
            # Others than the format's own mixture: not what somebody asks for who writes its name.
            return f"UD-{name}" if found[-1]["dynamic"] else name
    return None


def formats_of(paths: Iterable[str]) -> tuple[str, ...]:
    """Those that there are, by their names: as many as fit into a report, and as people call them."""
    names = {name for path in paths if (name := format_of(path)) is not None and len(name) <= MAX_NAME}
    return tuple(sorted(names)[:MAX_NAMES])


def first_of(
    offered: Mapping[str, Sequence[str]], formats: Iterable[Quantization]
) -> tuple[Quantization, Sequence[str]] | None:
    """The first format that is offered, or that can be derived of one that is; and what there is of it.

    Parameters
    ----------
    offered
        By format.
    """
    for wanted in formats:
        for name in (wanted.value, *larger_ones(wanted)):
            if name in offered:
                return wanted, offered[name]
    return None
