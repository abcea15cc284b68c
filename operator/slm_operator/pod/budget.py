"""How long a pod may take: start-up probe, progress deadline and the end of a rollout follow from the model's bytes."""

from typing import Final

from slm_contract.report import ModelFacts
from slm_operator.crd.quantities import FOREVER, MIB, parse_duration
from slm_operator.crd.resource import SLMDeployment
from slm_operator.pod.volumes import uses_claim

READ_SPEED: Final = 25 * MIB
"""Bytes a second that a slow disk gives: the time to load a model is its size by this."""
FETCH_SPEED: Final = 2 * MIB
"""Bytes a second that a slow line gives."""
QUANTIZE_SPEED: Final = MIB
"""Bytes a second of the source that a quarter of a CPU gets through, in the format that takes longest."""
UNKNOWN_START_SECONDS: Final = 900
LEAST_START_SECONDS: Final = 120
PULL_SECONDS: Final = 600
"""For the image, and for a node that has to come, where the spec doesn't wait longer for one."""
UNKNOWN_FETCH_SECONDS: Final = 3600


def start_seconds(facts: ModelFacts | None) -> int:
    """How long a model may take to load before kubelet starts the container anew."""
    if facts is None:
        return UNKNOWN_START_SECONDS
    return LEAST_START_SECONDS + facts.size_bytes // READ_SPEED


def rollout_seconds(resource: SLMDeployment, facts: ModelFacts | None) -> int:
    """How long a revision may take from the Deployment's change to its first token."""
    fetch = 0 if uses_claim(resource.spec.cache) else _fetch_seconds(facts)
    node = max(PULL_SECONDS, parse_duration(resource.spec.hardware.fallback.after))
    return min(FOREVER, int(node) + fetch + start_seconds(facts))


def _fetch_seconds(facts: ModelFacts | None) -> int:
    """With what is derived of it then."""
    if facts is None:
        return UNKNOWN_FETCH_SECONDS
    quantize = 0 if facts.origin is None else facts.source_bytes // QUANTIZE_SPEED
    return facts.source_bytes // FETCH_SPEED + quantize
