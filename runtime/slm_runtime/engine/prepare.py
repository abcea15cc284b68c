"""Turns a request into what can be queued, or says why it can't be served: the step loop sees sound requests only."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from slm_runtime.engine.messages import (
    CHARACTERS_A_TOKEN,
    Embed,
    EmbedRequest,
    GenerateRequest,
    Picture,
    Prompt,
    Rank,
    RankRequest,
    Refused,
    Sampling,
    Score,
    ScoreRequest,
    Submit,
    Tokenize,
    Tokenized,
)
from slm_runtime.engine.protocol import (
    Capabilities,
    EncoderCapabilities,
    MediaReader,
    Medium,
    MediumInvalid,
    Tokens,
    Vocabulary,
)
from slm_runtime.sampling.constraint import GrammarMatcher, Grammars, InvalidConstraint
from slm_runtime.scheduler.plan import tokens_of

_MAX_CHOICES: Final = 128
_MAX_STOPS: Final = 64
_MAX_STOP_LENGTH: Final = 4096
_MAX_LOGPROBS: Final = 100
_EXTREME: Final = 1e6
"""What a logit may be changed by: far beyond that, numbers of 32 bits are no longer finite."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sound request."""

    id: int
    request: GenerateRequest
    tokens: Tokens
    limit: int
    """Tokens, prompt included, at which each choice must end."""
    matcher: GrammarMatcher | None
    media: tuple[Medium, ...] = ()
    """As of Sequence."""
    foretold: list[int] = field(default_factory=list)
    """What the answer is likely to be, in part."""


@dataclass(frozen=True, slots=True)
class PreparedEmbedding:
    """A sound request for embeddings."""

    id: int
    request: EmbedRequest
    inputs: list[Tokens]


@dataclass(frozen=True, slots=True)
class PreparedScoring:
    """A sound request for scores."""

    id: int
    request: ScoreRequest
    inputs: list[Tokens]


@dataclass(frozen=True, slots=True)
class PreparedRanking:
    """A sound request for scores of pairs."""

    id: int
    request: RankRequest
    inputs: list[Tokens]
    """A query and a document each."""


Sound = Prepared | PreparedEmbedding | PreparedRanking | PreparedScoring


class _Invalid(Exception):
    def __init__(self, param: str | None, message: str) -> None:
        super().__init__(message)
        self.param = param


class _TooLong(Exception):
    pass


class Preparer:
    """Tokenizes, checks and compiles, on threads that don't step. Constraints are compiled by one thread only."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        capabilities: Capabilities | EncoderCapabilities,
        media: MediaReader | None = None,
    ) -> None:
        self._vocabulary = vocabulary
        self._media = media
        self._can = capabilities
        self._context_length = capabilities.context_length
        self._adapters = capabilities.adapters
        self._grammars = Grammars(vocabulary)

    def read_vocabulary(self) -> None:
        """What the first constraint needs, ahead of it."""
        if self._can.generates:
            self._grammars.read_vocabulary()

    def prepare(self, submit: Submit) -> Prepared | Refused:
        request = submit.request
        if not self._can.generates:
            return Refused(submit.id, "this model is an encoder: it generates no text")
        try:
            self._check_adapter(request.adapter)
            _check_request(request)
            _check_sampling(request.sampling, self._vocabulary.size)
            tokens, media = self._prompt(request)
            limit = min(self._limit(request, len(tokens)), len(tokens) + _answer_room(request))
            matcher = self._grammars.compile(request.constraint) if request.constraint else None
            return Prepared(
                submit.id, request, tokens_of(tokens), limit, matcher, media, self._foretold(request)
            )
        except _Invalid as error:
            return Refused(submit.id, str(error), error.param)
        except InvalidConstraint as error:
            return Refused(submit.id, str(error), "constraint")
        except _TooLong as error:
            return Refused(submit.id, str(error), "prompt", "context_length_exceeded")

    def prepare_embedding(self, embed: Embed) -> PreparedEmbedding | Refused:
        if not self._can.embeds:
            return Refused(embed.id, "this model makes no embeddings")
        try:
            self._check_adapter(embed.request.adapter)
            inputs = [
                self._input(part, place, embed.request) for place, part in enumerate(embed.request.inputs)
            ]
        except _Invalid as error:
            return Refused(embed.id, str(error), "adapter" if error.param == "adapter" else "input")
        except _TooLong as error:
            return Refused(embed.id, str(error), "input", "context_length_exceeded")
        if not inputs:
            return Refused(embed.id, "there is no input", "input")
        return PreparedEmbedding(embed.id, embed.request, inputs)

    def prepare_scoring(self, score: Score) -> PreparedScoring | Refused:
        request = score.request
        if not self._can.scores:
            return Refused(score.id, "this engine has no log probabilities of prompts", "logprobs")
        try:
            self._check_adapter(request.adapter)
            _check_logprobs(request.top)
            inputs = [self._scored_input(part, request) for part in request.inputs]
            _check_amount(request, sum(map(len, inputs)))
        except _Invalid as error:
            return Refused(score.id, str(error), error.param)
        except _TooLong as error:
            return Refused(score.id, str(error), "prompt", "context_length_exceeded")
        return PreparedScoring(score.id, request, inputs)

    def prepare_ranking(self, rank: Rank) -> PreparedRanking | Refused:
        if not self._can.ranks:
            return Refused(rank.id, "this model scores no pairs of texts")
        request = rank.request
        try:
            inputs = self._pairs(request)
        except _Invalid as error:
            return Refused(rank.id, str(error), error.param)
        except _TooLong as error:
            return Refused(rank.id, str(error), "documents", "context_length_exceeded")
        return PreparedRanking(rank.id, request, inputs)

    def prepare_tokens(self, tokenize: Tokenize) -> Tokenized | Refused:
        try:
            tokens, _ = self._encode(
                tokenize.prompt, add_special=tokenize.add_special, parse_special=tokenize.parse_special
            )
        except _Invalid as error:
            return Refused(tokenize.id, str(error), error.param)
        except _TooLong as error:
            return Refused(tokenize.id, str(error), "prompt", "context_length_exceeded")
        return Tokenized(tokenize.id, tokens)

    def _encode(
        self, parts: Prompt, *, add_special: bool, parse_special: bool
    ) -> tuple[list[int], tuple[Medium, ...]]:
        tokens: list[int] = []
        media: list[Medium] = []
        for part in parts:
            if isinstance(part, str):
                tokens += self._vocabulary.tokenize(part, parse_special=parse_special)
            elif isinstance(part, Picture):
                self._see(part, tokens, media)
            else:
                for token in part:
                    if not 0 <= token < self._vocabulary.size:
                        raise _Invalid(
                            "prompt", f"token {token} isn't one of the model's {self._vocabulary.size} tokens"
                        )
                tokens += part
        if not add_special:
            return tokens, tuple(media)
        whole = self._vocabulary.add_special(tokens)
        before = whole.index(tokens[0]) if media else 0
        return whole, tuple(replace(each, start=each.start + before) for each in media)

    def _see(self, picture: Picture, tokens: list[int], media: list[Medium]) -> None:
        """Append what a picture takes in a prompt."""
        if self._media is None:
            raise _Invalid(picture.name, "this model sees no images: it has no projector")
        try:
            parts = self._media.read(picture.data)
        except MediumInvalid as error:
            raise _Invalid(picture.name, f"the image at {picture.name} can't be read: {error}") from None
        for part in parts:
            if isinstance(part, list):
                tokens += part
            else:
                media.append(Medium(len(tokens), len(part.tokens), part.content))
                tokens += part.tokens
        self._glance_at(tokens)

    def _glance_at(self, tokens: list[int]) -> None:
        """Refuse more images than can fit, without the time that reading all of them would take."""
        if len(tokens) >= self._context_length:
            raise _TooLong(
                f"the prompt's images, and the text before them, have {len(tokens)} tokens or more, and exceed the context "
                f"length of {self._context_length}: send fewer or smaller images, or raise the context length of the "
                "deployment"
            )

    def encode(self, parts: list[str | list[int]], *, add_special: bool, parse_special: bool) -> list[int]:
        """Tokens of what has no images."""
        tokens, _ = self._encode([*parts], add_special=add_special, parse_special=parse_special)
        return tokens

    def _foretold(self, request: GenerateRequest) -> list[int]:
        """As much as can come true; nothing for an engine that guesses nothing."""
        if not (isinstance(self._can, Capabilities) and self._can.draft_rows):
            return []
        text = request.foretold[: CHARACTERS_A_TOKEN * self._context_length]
        tokens = self._vocabulary.tokenize(text, parse_special=False) if text else []
        return tokens[: self._context_length]

    def _check_adapter(self, adapter: int) -> None:
        if not 0 <= adapter <= self._adapters:
            raise _Invalid(
                "adapter", f"adapter {adapter} isn't one of the {self._adapters} that the engine has"
            )

    def _glance(self, parts: Sequence[str | list[int] | Picture], what: str) -> None:
        """Refuse what can't fit, without the seconds that reading it would take."""
        characters = sum(len(part) for part in parts if isinstance(part, str))
        if characters > CHARACTERS_A_TOKEN * self._context_length:
            raise _TooLong(
                f"{what} has {characters} characters, and exceeds the context length of {self._context_length} tokens: "
                "shorten it, or raise the context length of the deployment"
            )

    def _input(self, part: str | list[int], place: int, request: EmbedRequest) -> Tokens:
        if request.truncate:
            part = part[: CHARACTERS_A_TOKEN * self._context_length]
        else:
            self._glance([part], f"input {place}")
        bare = self.encode([part], add_special=False, parse_special=False)
        tokens = self._vocabulary.add_special(bare)
        if not tokens:
            raise _Invalid("input", f"input {place} is empty")
        if len(tokens) > self._context_length and not request.truncate:
            raise _TooLong(
                f"input {place} has {len(tokens)} tokens, and exceeds the context length of {self._context_length}: "
                "shorten it, or raise the context length of the deployment"
            )
        if len(tokens) > self._context_length:
            # The model's own tokens stay: where the vector is that of the last one, it was trained to be it.
            room = self._context_length - len(self._vocabulary.add_special([]))
            tokens = self._vocabulary.add_special(bare[:room])
        return tokens_of(tokens[: self._context_length])

    def _pairs(self, request: RankRequest) -> list[Tokens]:
        queries = [self._query(text) for text in request.queries]
        if not request.documents or len(queries) not in (1, len(request.documents)):
            raise _Invalid(
                "documents",
                f"there are {len(queries)} queries and {len(request.documents)} documents; "
                "one query, or one for each document, can be scored",
            )
        if len(queries) == 1:
            queries *= len(request.documents)
        return [
            self._pair(query, text, place, truncate=request.truncate)
            for place, (query, text) in enumerate(zip(queries, request.documents, strict=True))
        ]

    def _query(self, text: str) -> list[int]:
        self._glance([text], "the query")
        query = self.encode([text], add_special=False, parse_special=False)
        if len(self._vocabulary.add_special_to_pair(query, [])) >= self._context_length:
            raise _TooLong(
                f"the query has {len(query)} tokens, and leaves no room for a document in the context of "
                f"{self._context_length}: shorten it"
            )
        return query

    def _pair(self, query: list[int], text: str, place: int, *, truncate: bool) -> Tokens:
        what = f"document {place}"
        if truncate:
            text = text[: CHARACTERS_A_TOKEN * self._context_length]
        else:
            self._glance([text], what)
        document = self.encode([text], add_special=False, parse_special=False)
        tokens = self._vocabulary.add_special_to_pair(query, document)
        over = len(tokens) - self._context_length
        if over <= 0:
            return tokens_of(tokens)
        if not truncate:
            raise _TooLong(
                f"{what} has {len(tokens)} tokens with its query, and exceeds the context length of {self._context_length}: "
                "shorten it, or raise the context length of the deployment"
            )
        return tokens_of(self._vocabulary.add_special_to_pair(query, document[:-over]))

    def _scored_input(self, part: str | list[int], request: ScoreRequest) -> Tokens:
        self._glance([part], "the prompt")
        tokens = self._begun(
            self.encode([part], add_special=request.add_special, parse_special=request.parse_special)
        )
        if len(tokens) > self._context_length:
            raise _TooLong(
                f"the prompt has {len(tokens)} tokens, and exceeds the context length of {self._context_length}: "
                "shorten it, or raise the context length of the deployment"
            )
        return tokens_of(tokens)

    def _begun(self, tokens: list[int]) -> list[int]:
        """A prompt that isn't empty."""
        if tokens:
            return tokens
        if self._vocabulary.bos is None:
            raise _Invalid("prompt", "the prompt is empty; this model needs at least one token to begin with")
        return [self._vocabulary.bos]

    def _prompt(self, request: GenerateRequest) -> tuple[list[int], tuple[Medium, ...]]:
        if request.keep_on_overflow is None:
            self._glance(request.prompt, "the prompt")
        tokens, media = self._encode(
            request.prompt, add_special=request.add_special, parse_special=request.parse_special
        )
        tokens = self._begun(tokens)
        most = self._context_length - 1
        # Where there are images, none of them may be cut.
        if len(tokens) > most and request.keep_on_overflow is not None and not media:
            keep = min(max(0, request.keep_on_overflow), most // 2)
            # Half of what remains is left for the answer, or the next token would overflow again.
            recent = max(1, (self._context_length - keep) // 2)
            tokens = tokens[:keep] + tokens[-recent:]
        if len(tokens) > most:
            raise _TooLong(
                f"the prompt has {len(tokens)} tokens, and exceeds the context length of {self._context_length}, of which "
                "at least one must be left for the answer: shorten it, or raise the context length of the deployment"
            )
        return tokens, media

    def _limit(self, request: GenerateRequest, prompt: int) -> int:
        if request.max_tokens is None:
            return self._context_length
        limit = prompt + request.max_tokens
        if request.require_room and limit > self._context_length:
            raise _TooLong(
                f"the prompt has {prompt} tokens and {request.max_tokens} are asked for: {limit} together, which exceeds "
                f"the context length of {self._context_length}: ask for at most {self._context_length - prompt}"
            )
        return min(limit, self._context_length)


def _check_request(request: GenerateRequest) -> None:
    if request.max_tokens is not None and request.max_tokens < 1:
        raise _Invalid("max_tokens", f"max_tokens is {request.max_tokens}; it must be at least 1")
    if not 1 <= request.n <= _MAX_CHOICES:
        raise _Invalid("n", f"n is {request.n}; it must be between 1 and {_MAX_CHOICES}")
    if len(request.stop) > _MAX_STOPS:
        raise _Invalid(
            "stop", f"there are {len(request.stop)} stop strings; at most {_MAX_STOPS} are possible"
        )
    if any(not 0 < len(stop) <= _MAX_STOP_LENGTH for stop in request.stop):
        raise _Invalid("stop", f"a stop string must have 1 to {_MAX_STOP_LENGTH} characters")
    if request.logprobs is not None:
        _check_logprobs(request.logprobs)


def _check_logprobs(top: int) -> None:
    if not 0 <= top <= _MAX_LOGPROBS:
        raise _Invalid("logprobs", f"logprobs is {top}; it must be between 0 and {_MAX_LOGPROBS}")


def _answer_room(request: GenerateRequest) -> int:
    """Tokens of each choice whose log probabilities one answer can hold; more are refused where they are asked for."""
    if request.logprobs is None or request.most_logprobs is None:
        return sys.maxsize
    room = request.most_logprobs // (request.n * (request.logprobs + 1))
    if request.max_tokens is not None and request.max_tokens > room:
        raise _Invalid(
            "max_tokens",
            f"{request.n} times {request.max_tokens} tokens with {request.logprobs + 1} log probabilities each are more "
            f"than the {request.most_logprobs} that one answer can hold: ask for at most {room} tokens, or let it stream",
        )
    return room


def _check_amount(request: ScoreRequest, tokens: int) -> None:
    amount = tokens * (request.top + 1)
    if request.most is not None and amount > request.most:
        raise _Invalid(
            "prompt",
            f"{tokens} tokens of prompts with {request.top + 1} log probabilities each are {amount}, more than the "
            f"{request.most} that one answer can hold: send fewer prompts at once, or ask for fewer logprobs",
        )


def _check_sampling(sampling: Sampling, vocabulary: int) -> None:
    """What is no number is in no range."""
    changes = f"between {-_EXTREME:g} and {_EXTREME:g}"
    checks = (
        ("temperature", 0 <= sampling.temperature <= _EXTREME, f"between 0 and {_EXTREME:g}"),
        ("top_k", sampling.top_k >= 0, "at least 0"),
        ("top_p", 0 <= sampling.top_p <= 1, "between 0 and 1"),
        ("min_p", 0 <= sampling.min_p <= 1, "between 0 and 1"),
        ("typical_p", 0 < sampling.typical_p <= 1, "above 0 and at most 1"),
        (
            "repeat_penalty",
            1 / _EXTREME <= sampling.repeat_penalty <= _EXTREME,
            f"between {1 / _EXTREME:g} and {_EXTREME:g}",
        ),
        ("frequency_penalty", abs(sampling.frequency_penalty) <= _EXTREME, changes),
        ("presence_penalty", abs(sampling.presence_penalty) <= _EXTREME, changes),
        ("penalty_window", sampling.penalty_window >= -1, "at least -1"),
    )
    for name, fine, bounds in checks:
        if not fine:
            raise _Invalid(name, f"{name} is {getattr(sampling, name)}; it must be {bounds}")
    for token, bias in sampling.logit_bias.items():
        if not 0 <= token < vocabulary:
            raise _Invalid("logit_bias", f"logit_bias names token {token}; the model has {vocabulary} tokens")
        if not abs(bias) <= _EXTREME:
            raise _Invalid("logit_bias", f"logit_bias of token {token} is {bias}; it must be {changes}")
