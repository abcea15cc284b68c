"""POST /v1/completions: a text goes on, no template between."""

import secrets
import time
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Final

from msgspec import Meta
from msgspec.structs import replace

from slm_runtime.api.answering import LOGPROBS, Choice, Tracked, broken, gather, generating_all, interleaved
from slm_runtime.api.http import sse
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.openai import fields
from slm_runtime.api.openai.answer import FINISH, CompletionLogprobs, prompt_logprobs, total, usage
from slm_runtime.api.openai.prompts import Prompts, separate
from slm_runtime.api.openai.sampling import SamplingFields, first
from slm_runtime.api.prompt_scores import NoTokens, score
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    GenerateRequest,
    RequestFinished,
    ScoredInput,
    ScoreRequest,
    Usage,
)

CHOICES: Final = 128
"""Prompts times choices of one request."""
DEFAULT_TOKENS: Final = 16
"""OpenAI's."""
PROMPT_LOGPROBS: Final = 1 << 18
"""Log probabilities of prompts in one answer: some 8 MB of JSON. A default context with 20 a token has two thirds."""


class CompletionRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    model: str
    prompt: Prompts
    max_tokens: Annotated[int, Meta(ge=0, le=2**31)] | None = None
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
        return best_of

    @property
    def tells_of_prompt(self) -> bool:
        """Whether the log probabilities of the prompt's own tokens are part of the answer."""
        return bool(self.echo) and self.logprobs is not None


async def create(serving: Serving, exchange: Exchange) -> None:
    """Answer a completion, whole or as a stream."""
    wanted = fields.parse(await exchange.json(), CompletionRequest, fields.COMPLETION)
    served = serving.require_model(wanted.model)
    include_usage = wanted.include_usage()
    serving.require_chat()
    prompts, sampled = separate(wanted.prompt, "prompt"), wanted.sampled()
    if len(prompts) * sampled > CHOICES:
        raise BadRequest(f"Prompts times choices must not exceed {CHOICES}.", param="prompt")
    n = wanted.n or 1
    choosing = sampled > n and wanted.logprobs is None
    max_tokens = first(wanted.max_tokens, serving.parameters.max_tokens, DEFAULT_TOKENS)
    requests = [
        GenerateRequest(
            prompt=[prompt],
            add_special=isinstance(prompt, str),
            max_tokens=max_tokens,
            n=sampled,
            sampling=wanted.sampling(serving.parameters),
            stop=serving.stop_strings(wanted.stop_strings()),
            ignore_eos=bool(wanted.ignore_eos),
            logprobs=0 if choosing else wanted.logprobs,
            adapter=served.adapter,
            most_logprobs=None if wanted.stream else LOGPROBS // len(prompts),
        )
        for prompt in prompts
    ]
    began = time.monotonic()
    echoes = [await _echo(serving, prompt) if wanted.echo else "" for prompt in prompts]
    scored: list[ScoredInput] = []
    if max_tokens == 0 or wanted.tells_of_prompt:
        scored = await score(serving, exchange, _score_request(wanted, prompts, served.adapter), began)
    answered = [_Prompt(echo) for echo in echoes]
    if wanted.tells_of_prompt:
        answered = [
            _Prompt(echo, prompt_logprobs(prompt, echo)) for echo, prompt in zip(echoes, scored, strict=True)
        ]
    head = {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": serving.fingerprint,
    }
    async with AsyncExitStack() as stack:
        if max_tokens == 0:
            nothing = [NoTokens(prompt, sampled) for prompt in scored]
            tracked = [Tracked(one, serving.metrics, exchange.outcome, began) for one in nothing]
        else:
            generating = generating_all(serving, exchange, requests, {}, began)
            tracked = await stack.enter_async_context(generating)
        if wanted.stream:
            chunks = _Chunks(head, answered, n, include_usage=include_usage, scored=bool(scored))
            await _stream(exchange, tracked, chunks)
            return
        gathered = [await gather(one, sampled) for one in tracked]
    choices = []
    for place, (answer, prompt) in enumerate(zip(gathered, answered, strict=True)):
        for index, choice in enumerate(_best(answer.choices, n)):
            logprobs = None if choosing or wanted.logprobs is None else _logprobs(prompt, choice)
            text, reason = prompt.echo + choice.text, FINISH[choice.reason]
            choices.append(_choice(place * n + index, text, logprobs=logprobs, finish_reason=reason))
    used = _usage([answer.end.usage for answer in gathered], scored=bool(scored))
    await exchange.respond_json({**head, "choices": choices, "usage": used})


@dataclass(frozen=True)
class _Prompt:
    """What is part of each of its answers."""

    echo: str
    logprobs: dict[str, Any] | None = None


async def _echo(serving: Serving, prompt: str | list[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    if len(prompt) > (most := serving.engine.info.context_length):
        raise BadRequest(
            f"The prompt has {len(prompt)} tokens, which exceeds the context length of {most}.",
            param="prompt",
            code="context_length_exceeded",
        )
    return await serving.engine.detokenize(prompt)


def _score_request(wanted: CompletionRequest, prompts: list[str | list[int]], adapter: int) -> ScoreRequest:
    told = wanted.tells_of_prompt
    return ScoreRequest(
        inputs=prompts,
        top=(wanted.logprobs or 0) if told else 0,
        most=PROMPT_LOGPROBS // (wanted.n or 1) if told else PROMPT_LOGPROBS,
        add_special=isinstance(prompts[0], str),
        adapter=adapter,
    )


def _best(choices: list[Choice], n: int) -> list[Choice]:
    """The n with the highest mean log probability a token."""
    if len(choices) == n:
        return choices
    return sorted(choices, key=_mean_logprob, reverse=True)[:n]


def _mean_logprob(choice: Choice) -> float:
    return sum(token.chosen.logprob for token in choice.logprobs) / max(1, len(choice.packed))


def _logprobs(prompt: _Prompt, choice: Choice) -> dict[str, Any]:
    """Of the prompt, if they were asked for, and of what follows it."""
    own = CompletionLogprobs(len(prompt.echo)).of(list(choice.logprobs))
    return own if prompt.logprobs is None else {name: prompt.logprobs[name] + own[name] for name in own}


def _usage(used: list[Usage], *, scored: bool) -> dict[str, Any]:
    """What a generation finds in the cache was computed by the scoring before it, if there was one: nothing was spared."""
    together = total(used)
    return usage(replace(together, cached_tokens=0) if scored else together)


def _choice(
    index: int, text: str, *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


class _Chunks:
    def __init__(
        self, head: dict[str, Any], prompts: list[_Prompt], n: int, *, include_usage: bool, scored: bool
    ) -> None:
        self._head = head
        self._n = n
        self._include_usage = include_usage
        self._scored = scored
        choices = [prompt for prompt in prompts for _ in range(n)]
        self._texts = [
            sse.TextEvent(self._chunk(_choice(index, sse.TextEvent.MARK))) for index in range(len(choices))
        ]
        self._logprobs = [CompletionLogprobs(len(prompt.echo)) for prompt in choices]
        self.echo = b"".join(self._echo(index, prompt) for index, prompt in enumerate(choices))

    def delta(self, prompt: int, delta: Delta) -> bytes:
        index = prompt * self._n + delta.choice
        if delta.logprobs is None:
            return self._texts[index].of(delta.text) if delta.text else b""
        logprobs = self._logprobs[index].of(delta.logprobs)
        return sse.event(self._chunk(_choice(index, delta.text, logprobs=logprobs)))

    def finish(self, prompt: int, finished: ChoiceFinished) -> bytes:
        index = prompt * self._n + finished.choice
        return sse.event(self._chunk(_choice(index, "", finish_reason=FINISH[finished.reason])))

    def end(self, used: list[Usage]) -> bytes:
        if not self._include_usage:
            return sse.DONE
        return sse.event({**self._head, "choices": [], "usage": _usage(used, scored=self._scored)}) + sse.DONE

    def _echo(self, index: int, prompt: _Prompt) -> bytes:
        if prompt.logprobs is not None:
            return sse.event(self._chunk(_choice(index, prompt.echo, logprobs=prompt.logprobs)))
        return self._texts[index].of(prompt.echo) if prompt.echo else b""

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
