"""POST /v1/completions: a text goes on, no template between."""

import secrets
import time
from contextlib import aclosing
from typing import Annotated, Any, Final

from msgspec import Meta

from slm_runtime.api import sse
from slm_runtime.api.errors import BadRequest
from slm_runtime.api.generation import Choice, Tracked, broken, gather, generating_all, interleaved
from slm_runtime.api.http import Exchange
from slm_runtime.api.openai import fields
from slm_runtime.api.openai.answer import FINISH, completion_logprobs, total, usage
from slm_runtime.api.openai.prompts import Prompts, separate
from slm_runtime.api.openai.sampling import Positive, SamplingFields
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    GenerateRequest,
    RequestFinished,
    Usage,
)

CHOICES: Final = 128
"""Prompts times choices of one request."""
DEFAULT_TOKENS: Final = 16
"""OpenAI's."""


class CompletionRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    model: str
    prompt: Prompts
    max_tokens: Positive | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None

    def sampled(self) -> int:
        """How many completions of each prompt are made; `n` of them are returned."""
        n, best_of = self.n or 1, self.best_of or self.n or 1
        if best_of < n:
            raise BadRequest("'best_of' must be at least 'n'.", param="best_of")
        if best_of > n and self.stream:
            raise BadRequest("'best_of' can't be streamed: the best is known at the end.", param="best_of")
        if self.echo and self.logprobs is not None:
            raise BadRequest(
                "'echo' with 'logprobs' is not supported here: the prompt's own are not computed.",
                param="logprobs",
                code="unsupported_parameter",
            )
        return best_of


async def create(serving: Serving, exchange: Exchange) -> None:
    """Answer a completion, whole or as a stream."""
    wanted = fields.parse(await exchange.json(), CompletionRequest, fields.COMPLETION)
    serving.require_model(wanted.model)
    include_usage = wanted.include_usage()
    serving.require_chat()
    prompts, sampled = separate(wanted.prompt, "prompt"), wanted.sampled()
    if len(prompts) * sampled > CHOICES:
        raise BadRequest(f"Prompts times choices must not exceed {CHOICES}.", param="prompt")
    n = wanted.n or 1
    choosing = sampled > n and wanted.logprobs is None
    requests = [
        GenerateRequest(
            prompt=[prompt],
            add_special=isinstance(prompt, str),
            max_tokens=wanted.max_tokens or serving.parameters.max_tokens or DEFAULT_TOKENS,
            n=sampled,
            sampling=wanted.sampling(serving.parameters),
            stop=serving.stop_strings(wanted.stop_strings()),
            ignore_eos=bool(wanted.ignore_eos),
            logprobs=0 if choosing else wanted.logprobs,
        )
        for prompt in prompts
    ]
    echoes = [await _echo(serving, prompt) if wanted.echo else "" for prompt in prompts]
    head = {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": serving.name,
        "system_fingerprint": serving.fingerprint,
    }
    async with generating_all(serving, exchange, requests, {}) as tracked:
        if wanted.stream:
            await _stream(exchange, tracked, _Chunks(head, echoes, n, include_usage))
            return
        gathered = [await gather(one, sampled) for one in tracked]
    choices = []
    for prompt, (answer, echo) in enumerate(zip(gathered, echoes, strict=True)):
        for index, choice in enumerate(_best(answer.choices, n)):
            logprobs = None if choosing or wanted.logprobs is None else completion_logprobs(choice.logprobs)
            text, reason = echo + choice.text, FINISH[choice.reason]
            choices.append(_choice(prompt * n + index, text, logprobs=logprobs, finish_reason=reason))
    used = total([answer.end.usage for answer in gathered])
    await exchange.respond_json({**head, "choices": choices, "usage": usage(used)})


async def _echo(serving: Serving, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else await serving.engine.detokenize(prompt)


def _best(choices: list[Choice], n: int) -> list[Choice]:
    """The n with the highest mean log probability a token."""
    if len(choices) == n:
        return choices
    return sorted(choices, key=_mean_logprob, reverse=True)[:n]


def _mean_logprob(choice: Choice) -> float:
    return sum(token.chosen.logprob for token in choice.logprobs) / max(1, len(choice.logprobs))


def _choice(
    index: int, text: str, *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


class _Chunks:
    def __init__(self, head: dict[str, Any], echoes: list[str], n: int, include_usage: bool) -> None:
        self._head = head
        self._n = n
        self._include_usage = include_usage
        self._texts = [
            sse.TextEvent(self._chunk(_choice(index, sse.TextEvent.MARK))) for index in range(len(echoes) * n)
        ]
        self._lengths = [len(echo) for echo in echoes for _ in range(n)]
        self.echo = b"".join(
            self._texts[prompt * n + i].of(echo)
            for prompt, echo in enumerate(echoes)
            if echo
            for i in range(n)
        )

    def delta(self, prompt: int, delta: Delta) -> bytes:
        index = prompt * self._n + delta.choice
        if delta.logprobs is None:
            return self._texts[index].of(delta.text) if delta.text else b""
        logprobs = completion_logprobs(delta.logprobs, self._lengths[index])
        self._lengths[index] += len(delta.text)
        return sse.event(self._chunk(_choice(index, delta.text, logprobs=logprobs)))

    def finish(self, prompt: int, finished: ChoiceFinished) -> bytes:
        index = prompt * self._n + finished.choice
        return sse.event(self._chunk(_choice(index, "", finish_reason=FINISH[finished.reason])))

    def end(self, used: list[Usage]) -> bytes:
        if not self._include_usage:
            return sse.DONE
        return sse.event({**self._head, "choices": [], "usage": usage(total(used))}) + sse.DONE

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        chunk = {**self._head, "choices": [choice]}
        return {**chunk, "usage": None} if self._include_usage else chunk


async def _stream(exchange: Exchange, tracked: list[Tracked], chunks: _Chunks) -> None:
    await exchange.start(200, sse.HEADERS)
    if chunks.echo:
        await exchange.write(chunks.echo)
    used: list[Usage] = []
    failed: ChoiceFinished | None = None
    async with aclosing(interleaved(tracked)) as arriving:
        async for prompt, events in arriving:
            out = []
            for event in events:
                if isinstance(event, Delta):
                    out.append(chunks.delta(prompt, event))
                elif isinstance(event, RequestFinished):
                    if failed is not None:
                        await sse.write_failure(exchange, broken(failed.reason, event.message))
                        return
                    used.append(event.usage)
                elif event.reason in FINISH:
                    out.append(chunks.finish(prompt, event))
                else:
                    failed = event
            if written := b"".join(out):
                await exchange.write(written)
    await exchange.write(chunks.end(used), more=False)
