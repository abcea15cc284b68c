"""What becomes of a model and an image, told by their names: most are served, and some names stand for what goes wrong.

An image with the tag `bad` can't be pulled. A source with `checksum` in its name never passes its check, one with `crash`
ends as soon as it serves, one with `never-ready` loads for ever, and one with `oom-650Mi` is killed with a limit below that.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from slm_contract.places import CONFIG_ENV, ExitCode
from slm_contract.report import (
    Acceleration,
    Failure,
    FailureReason,
    FetchReport,
    ModelFacts,
    Performance,
    RuntimeReport,
)
from slm_contract.retention import Removed
from slm_operator.crd.quantities import parse_quantity
from tests.sim.cluster import Doc
from tests.sim.loop import wall_clock

FACTS = ModelFacts(
    file_name="model.gguf",
    size_bytes=98_000_000,
    sha256="0" * 64,
    architecture="llama",
    name="Model",
    quantization="Q4_1",
    parameter_count=135_000_000,
    weights_bytes=97_000_000,
    context_length=2048,
    block_count=30,
    embedding_length=576,
    feed_forward_length=1536,
    head_count=9,
    kv_heads=(3,) * 30,
    key_length=64,
    value_length=64,
    vocab_size=49152,
)
MISMATCH = Failure(
    reason=FailureReason.CHECKSUM_MISMATCH,
    message="m.gguf has another checksum than spec.model.sha256",
    remedy="correct spec.model.sha256 or the source",
    permanent=True,
)
RESTARTS = 5
"""After so many it is left as it is, so that a simulation comes to rest."""


class Fate(StrEnum):
    SERVES = "serves"
    NO_IMAGE = "no image"
    CHECKSUM = "checksum"
    SILENT = "silent"
    CRASHES = "crashes"
    KILLED = "killed"


@dataclass(frozen=True)
class Told:
    """What a pod was told, of its containers' environment."""

    source: str
    hardware_class: str
    context_length: int | None


def told(pod: Doc) -> Told:
    for container in containers(pod):
        for variable in container.get("env") or ():
            if variable["name"] == CONFIG_ENV:
                return _parsed(variable.get("value", "{}"))
    return Told("", "", None)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Told:
    config = json.loads(text)
    hardware = config.get("hardware") or {}
    return Told(config["model"]["source"], hardware.get("hardwareClass", ""), config.get("contextLength"))


def containers(pod: Doc) -> list[Doc]:
    return [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]


def fate(pod: Doc) -> Fate:
    source = told(pod).source
    if any(each["image"].endswith(":bad") for each in containers(pod)):
        return Fate.NO_IMAGE
    for word, end in (
        ("checksum", Fate.CHECKSUM),
        ("never-ready", Fate.SILENT),
        ("crash", Fate.CRASHES),
    ):
        if word in source:
            return end
    needed = re.search(r"oom-(\w+)", source)
    if needed is None:
        return Fate.SERVES
    limit = pod["spec"]["containers"][0]["resources"]["limits"]["memory"]
    return Fate.KILLED if parse_quantity(limit) < parse_quantity(needed[1]) else Fate.SERVES


def not_pulled(name: str, image: str) -> Doc:
    words = f'Back-off pulling image "{image}": ErrImagePull: not found'
    waiting = {"reason": "ImagePullBackOff", "message": words}
    return {"name": name, "image": image, "ready": False, "restartCount": 0, "state": {"waiting": waiting}}


def read(name: str, command: str, removed: Removed | None = None) -> Doc:
    """A container that has read a model and said what it is, and what went to make room for it."""
    report = FetchReport(command=command, model=FACTS, seconds=1.0, removed=removed)  # type: ignore[arg-type]
    ended = {"exitCode": 0, "reason": "Completed", "message": report.to_json()}
    if removed is not None:
        ended["finishedAt"] = wall_clock().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return {"name": name, "ready": False, "restartCount": 0, "state": {"terminated": ended}}


def mismatch(name: str, command: str, before: Doc) -> Doc:
    report = FetchReport(command=command, failure=MISMATCH, seconds=1.0)  # type: ignore[arg-type]
    ended = {"exitCode": int(ExitCode.FETCH_PERMANENT), "reason": "Error", "message": report.to_json()}
    return _again(name, ended, before)


def ended(name: str, how: Fate, before: Doc) -> Doc:
    """A serving container that has ended, and is started anew."""
    killed = {"exitCode": 137, "reason": "OOMKilled"}
    crashed = {"exitCode": int(ExitCode.ENGINE_FAILED), "reason": "Error", "message": ""}
    return _again(name, killed if how is Fate.KILLED else crashed, before)


def _again(name: str, last: Doc, before: Doc) -> Doc:
    waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
    return {
        "name": name,
        "ready": False,
        "restartCount": min(RESTARTS, before.get("restartCount", -1) + 1),
        "state": {"waiting": waiting},
        "lastState": {"terminated": last},
    }


def runtime_report(pod: Doc, *, ready: bool) -> bytes:
    """What `/report` answers."""
    config = told(pod)
    measured = Performance(
        load_seconds=1.0,
        first_token_ms=200.0,
        tokens_per_second=58.0,
        measured_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    seen: dict[str, Any] = {
        "acceleration": Acceleration(hardware_class="cpu", device="cpu (2 threads)", provider="cpu")
    }
    report = RuntimeReport(
        command="serve",
        phase="Ready" if ready else "Loading",
        model=FACTS,
        context_length=config.context_length or 2048,
        performance=measured if ready else None,
        **seen,
    )
    return report.to_json().encode()
