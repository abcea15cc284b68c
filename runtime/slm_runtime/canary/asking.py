"""Asks a model what it should know, now and then, and when nobody is kept waiting by it."""

import asyncio
import contextlib
import hashlib
import logging
import math
import sys
import time
from typing import Final

import msgspec

from slm_contract.config import CanaryConfig
from slm_contract.report import CANARY_ANSWER, CanaryReport
from slm_runtime.api.serving import Serving
from slm_runtime.engine.client import EngineError
from slm_runtime.engine.messages import ChoiceFinished, Delta, GenerateRequest, Sampling
from slm_runtime.templates.renderer import TemplateFailed

QUIET_SECONDS: Final = 1.0
"""Between two looks whether a place is free."""
AGAIN_SECONDS: Final = 10.0
"""After it gave way to a client."""
JUDGE_SECONDS: Final = 10.0
CLIENT: Final = "canary"
"""Who asks, to the engine's queue."""
_JUDGED_APART: Final = ("regex", "json_schema")

_log = logging.getLogger("slm.canary")


class JudgeFailed(Exception):
    """An expectation that can't be held against anything, in a sentence."""


class Canaries:
    """One question at a time.

    It takes no place that a client waits for: it begins only while one is free and nobody waits, and gives its own up as
    soon as somebody does. Nor does it keep a model in memory that would be unloaded (`keepAlive`): there it is asked no
    more often than clients ask.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._wanted = serving.config.canaries or ()
        self._first: dict[str, str] = {}
        """Digests of the first answers, by the canaries' names."""
        self._asked = -math.inf

    async def run(self) -> None:
        """For ever; at once where nothing is to be asked."""
        if not self._wanted:
            return
        if not self._serving.engine.info.generates:
            _log.warning("The model generates no text: its canaries aren't asked")
            return
        due = {each.name: time.monotonic() for each in self._wanted}
        while True:
            canary = min(self._wanted, key=lambda each: due[each.name])
            await asyncio.sleep(due[canary.name] - time.monotonic())
            while not self._quiet():  # noqa: ASYNC110 - the engine says how much it has to do, and sets no event
                await asyncio.sleep(QUIET_SECONDS)
            done = await self._ask(canary)
            due[canary.name] = time.monotonic() + (canary.every_seconds if done else AGAIN_SECONDS)

    def _quiet(self) -> bool:
        """Whether there is a place that nobody else wants now."""
        serving = self._serving
        if serving.engine.state != "Ready" or serving.draining:
            return False
        if serving.config.keep_alive_seconds is not None and serving.asked < self._asked:
            return False
        stats = serving.engine.stats
        return stats.waiting == 0 and stats.running < serving.config.parallel

    async def _ask(self, canary: CanaryConfig) -> bool:
        """Whether there was an answer; what became of it is in the report and the metrics then."""
        begun = self._asked = time.monotonic()
        try:
            answer = await self._answer(canary)
            if answer is None:
                return False
            seconds = time.monotonic() - begun
            digest = hashlib.sha256(answer.encode()).hexdigest()[:16]
            first = self._first.setdefault(canary.name, digest)
            passed = digest == first if canary.same_as_first else await _judge(canary, answer)
        except (EngineError, TemplateFailed, JudgeFailed, OSError) as error:
            # Not drift: the engine's own metrics and the pod's readiness tell of it, or the log of what was written wrong.
            _log.warning(
                "A canary can't be asked", extra={"fields": {"canary": canary.name, "cause": str(error)}}
            )
            return True
        self._serving.metrics.canary(canary.name, passed=passed, seconds=seconds)
        self._serving.canaries[canary.name] = CanaryReport(
            name=canary.name, key=canary.key, passed=passed, answer=answer[:CANARY_ANSWER], digest=digest
        )
        return True

    async def _answer(self, canary: CanaryConfig) -> str | None:
        """The likeliest answer; None where it gave way.

        Raises
        ------
        EngineError
        TemplateFailed
        """
        serving, pieces = self._serving, list[str]()
        chat = serving.require_chat()
        thinking = {"enable_thinking": False, "thinking": False}
        prompt = await chat.prompt([{"role": "user", "content": canary.prompt}], variables=thinking)
        request = GenerateRequest(
            prompt=[prompt],
            max_tokens=canary.max_tokens,
            sampling=Sampling(temperature=0),
            client=CLIENT,
        )
        async with await serving.engine.generate(request) as generation:
            async for event in generation:
                if serving.engine.stats.waiting or serving.draining:
                    return None
                if isinstance(event, Delta):
                    pieces.append(event.text)
                elif isinstance(event, ChoiceFinished) and event.reason not in {"stop", "length"}:
                    return None
        return "".join(pieces)


async def _judge(canary: CanaryConfig, answer: str) -> bool:
    """Hold an answer against what is expected.

    Raises
    ------
    JudgeFailed
    """
    if canary.contains is not None:
        return canary.contains in answer
    check = next((each for each in _JUDGED_APART if getattr(canary, each) is not None), None)
    if check is None:
        raise JudgeFailed("it says nothing of what is expected")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "slm_runtime.canary.judge"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    question = msgspec.json.encode([check, getattr(canary, check), answer])
    try:
        async with asyncio.timeout(JUDGE_SECONDS):
            verdict, complaint = await process.communicate(question)
    except TimeoutError:
        raise JudgeFailed(f"its {check} came to no end within {JUDGE_SECONDS:g} seconds") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise JudgeFailed(complaint.decode(errors="replace").strip()[-500:])
    return verdict.strip() == b"true"
