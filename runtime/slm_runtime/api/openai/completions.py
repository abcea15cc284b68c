"""POST /v1/completions: a text goes on, no template between."""

import secrets
import time
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from msgspec import Meta
from msgspec.structs import replace
from typing_extensions import override

from slm_runtime.api.answering import LOGPROBS, Choice, Gathered, Tracked, generating
from slm_runtime.api.delivery import Answer, deliver
from slm_runtime.api.http import sse
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import ApiError, BadRequest
from slm_runtime.api.infilling import infill_prompt, require_infill
from slm_runtime.api.openai import fields
from slm_runtime.api.openai.answer import CompletionLogprobs, prompt_logprobs, usage
from slm_runtime.api.openai.prompts import Prompts, separate
from slm_runtime.api.openai.requests import read
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
    suffix: str | None = None

    def sampled(self) -> int:
        """How many completions of each prompt are made; `n` of them are returned."""
        n, best_of = self.n or 1, self.best_of or self.n or 1
        if best_of < n:
            raise BadRequest("'best_of' must be at least 'n'.", param="best_of")
        if best_of > n and self.stream:
            raise BadRequest("'best_of' can't be streamed: the best is known at the end.", param="best_of")
        return best_of

    def check_suffix(self) -> None:
        """Refuse what isn't told of a gap's two sides."""
        if self.suffix and (self.echo or self.max_tokens == 0):
            raise BadRequest("'suffix' can't be used with 'echo' or 'max_tokens': 0.", param="suffix")

    @property
    def tells_of_prompt(self) -> bool:
        """Whether the log probabilities of the prompt's own tokens are part of the answer."""
        return bool(self.echo) and self.logprobs is not None


async def create(serving: Serving, exchange: Exchange) -> None:
    """Answer a completion, whole or as a stream."""
    wanted = await read(serving, exchange, CompletionRequest, fields.COMPLETION)
    served = serving.require_model(wanted.model)
    serving.require_chat()
    wanted.check_suffix()
    prompts, sampled = separate(wanted.prompt, "prompt"), wanted.sampled()
    if len(prompts) * sampled > CHOICES:
        raise BadRequest(f"Prompts times choices must not exceed {CHOICES}.", param="prompt")
    n = wanted.n or 1
    choosing = sampled > n and wanted.logprobs is None
    max_tokens = first(wanted.max_tokens, serving.parameters.max_tokens, DEFAULT_TOKENS)
    if wanted.suffix:
        marks = require_infill(serving, "suffix")
        prompts = [
            await infill_prompt(serving, marks, one, wanted.suffix, answer=max_tokens) for one in prompts
        ]
    requests = [
        GenerateRequest(
            prompt=[prompt],
            add_special=isinstance(prompt, str),
            max_tokens=max_tokens,
            n=sampled,
            sampling=wanted.sampling(serving.parameters),
            stop=serving.stop_strings(wanted.stop_strings()),
            stop_tokens=wanted.stop_token_ids or [],
            constraint=wanted.constraint(),
            show_special=wanted.skip_special_tokens is False,
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
    answer = _Completion(head, wanted, answered, sampled, scored=bool(scored))
    if max_tokens == 0:
        nothing = [NoTokens(prompt, sampled) for prompt in scored]
        tracked = [
            Tracked(one, serving.metrics, exchange.outcome, began, n=sampled, first=place * sampled)
            for place, one in enumerate(nothing)
        ]
        await deliver(exchange, tracked, answer, stream=bool(wanted.stream))
        return
    async with generating(serving, exchange, requests, {}, began) as tracked:
        await deliver(exchange, tracked, answer, stream=bool(wanted.stream))


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


def _choice(
    index: int, text: str, *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


class _Completion(Answer):
    """Whole, or in chunks: choice i of prompt p has the index p * n + i."""

    HEADERS: ClassVar = sse.HEADERS

    def __init__(
        self,
        head: dict[str, Any],
        wanted: CompletionRequest,
        prompts: list[_Prompt],
        sampled: int,
        *,
        scored: bool,
    ) -> None:
        self._head = head
        self._n = wanted.n or 1
        self._sampled = sampled
        self._prompts = prompts
        self._scored = scored
        self._told = wanted.logprobs is not None
        self._include_usage = wanted.include_usage()
        choices = [prompt for prompt in prompts for _ in range(self._n)]
        self._texts = [
            sse.TextEvent(self._chunk(_choice(index, sse.TextEvent.MARK))) for index in range(len(choices))
        ]
        self._logprobs = [CompletionLogprobs(len(prompt.echo)) for prompt in choices]
        self._echoes = b"".join(self._echo(index, prompt) for index, prompt in enumerate(choices))

    @override
    def whole(self, gathered: Gathered) -> dict[str, Any]:
        choices = []
        for place, prompt in enumerate(self._prompts):
            own = gathered.choices[place * self._sampled :][: self._sampled]
            for index, choice in enumerate(_best(own, self._n)):
                logprobs = _logprobs(prompt, choice) if self._told else None
                text = prompt.echo + choice.text
                choices.append(
                    _choice(place * self._n + index, text, logprobs=logprobs, finish_reason=choice.reason)
                )
        return {**self._head, "choices": choices, "usage": self._usage(gathered.end)}

    @override
    def head(self) -> bytes:
        return self._echoes

    @override
    def sign(self) -> bytes:
        return sse.COMMENT

    @override
    def delta(self, delta: Delta) -> bytes:
        index = delta.choice
        if delta.logprobs is None:
            return self._texts[index].of(delta.text) if delta.text else b""
        logprobs = self._logprobs[index].of(delta.logprobs)
        return sse.event(self._chunk(_choice(index, delta.text, logprobs=logprobs)))

    @override
    def finish(self, finished: ChoiceFinished) -> bytes:
        return sse.event(self._chunk(_choice(finished.choice, "", finish_reason=finished.reason)))

    @override
    def end(self, end: RequestFinished) -> bytes:
        if not self._include_usage:
            return sse.DONE
        return sse.event({**self._head, "choices": [], "usage": self._usage(end)}) + sse.DONE

    @override
    def failure(self, error: ApiError) -> bytes:
        return sse.event(error.openai())

    def _usage(self, end: RequestFinished) -> dict[str, Any]:
        """What was found in the cache was computed by the scoring before it, if there was one: nothing was spared."""
        return usage(replace(end.usage, cached_tokens=0) if self._scored else end.usage)

    def _echo(self, index: int, prompt: _Prompt) -> bytes:
        if prompt.logprobs is not None:
            return sse.event(self._chunk(_choice(index, prompt.echo, logprobs=prompt.logprobs)))
        return self._texts[index].of(prompt.echo) if prompt.echo else b""

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        chunk = {**self._head, "choices": [choice]}
        return {**chunk, "usage": None} if self._include_usage else chunk
