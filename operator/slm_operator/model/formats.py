"""`quantization: Auto`: what is looked at after a format that doesn't fit, and what is said of the one that was chosen."""

from collections.abc import Mapping, Sequence
from typing import Final

from slm_contract.config import ModelConfig, Quantization
from slm_contract.report import ModelFacts

STEP: Final = 0.9
"""What doesn't fit is tried again in a format that has a tenth less at least: each costs a Job that reads a header."""
BITS: Final[Mapping[str, float]] = {
    "F32": 32.0,
    "F16": 16.0,
    "BF16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.6,
    "Q5_1": 6.0,
    "Q5_K_M": 5.7,
    "Q5_K_S": 5.5,
    "Q5_0": 5.5,
    "Q4_1": 5.0,
    "Q4_K_M": 4.9,
    "Q4_K_S": 4.6,
    "Q4_0": 4.6,
    "IQ4_NL": 4.5,
    "IQ4_XS": 4.3,
    "Q3_K_L": 4.3,
    "Q3_K_M": 3.9,
}
"""Of one weight, over a whole file."""


def smaller(artifact: ModelConfig, header: ModelFacts) -> tuple[Quantization, ...]:
    """What to choose from in place of what its header was read of; none: there is nothing smaller.

    Always fewer: what was chosen isn't among them.
    """
    found = chosen(artifact, header)
    if found is None:
        # Served as the source has it, since there was nothing to choose.
        return ()
    most = STEP * BITS[found.value]
    return tuple(each for each in artifact.auto or () if BITS[each.value] <= most)


def chosen(artifact: ModelConfig, header: ModelFacts) -> Quantization | None:
    """The format that was chosen; None where the source has it in another one, and nothing to choose from."""
    return next((each for each in artifact.auto or () if each.value == header.quantization), None)


def explained(artifact: ModelConfig, header: ModelFacts, hardware_class: str, passed: Sequence[str]) -> str:
    """Say which format it is, and why.

    Parameters
    ----------
    passed
        Why larger ones don't fit.
    """
    formats = artifact.auto or ()
    name, found = header.quantization or "a format without a name", chosen(artifact, header)
    parts = []
    if found is None:
        parts.append(
            f"Auto serves {name}, as the source has it: none of {_listed(formats)} is there or can be derived of it"
        )
    else:
        before = formats[: formats.index(found)]
        others = [each for each in header.offered or () if each not in {name, _origin(header)}]
        beside = f" (it also has {', '.join(others)})" if others else ""
        how = (
            f"the source has it{beside}"
            if header.origin is None
            else f"derived of the source's {_origin(header)}{beside}"
        )
        first = f"the first choice of the class {hardware_class}" + (
            " of those that are smaller" if passed else ""
        )
        why = (
            f"what the class {hardware_class} would rather have ({_listed(before)}) is neither there nor can be derived"
            if before
            else first
        )
        parts.append(f"Auto chose {name}: {how}; {why}")
    return "; ".join((*parts, *passed))


def _origin(header: ModelFacts) -> str | None:
    return None if header.origin is None else header.origin.quantization


def _listed(formats: Sequence[Quantization]) -> str:
    return ", ".join(each.value for each in formats)
