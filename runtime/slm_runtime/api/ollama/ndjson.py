"""Ollama's answers: the same pieces, one JSON object a line, or all at once."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal

import msgspec
from typing_extensions import override

from slm_runtime.api.answering import Gathered, of_text
from slm_runtime.api.conversation.growing import CallPiece, ToolCall
from slm_runtime.api.conversation.parsing import OutputParser, Part, Reasoning, Text
from slm_runtime.api.delivery import Answer
from slm_runtime.api.http.exchange import Headers
from slm_runtime.api.http.problems import ApiError
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    FinishReason,
    RequestFinished,
    TokenLogprob,
    TokenLogprobs,
)

HEADERS: Final[Headers] = [(b"content-type", b"application/x-ndjson"), (b"x-accel-buffering", b"no")]
_encode: Final = msgspec.json.Encoder().encode

Kind = Literal["chat", "generate"]


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def line(document: Any) -> bytes:
    return _encode(document) + b"\n"


class Lines(Answer):
    """One answer in the shape of `kind`, as a stream or whole."""

    HEADERS: ClassVar = HEADERS

    def __init__(
        self,
        kind: Kind,
        model: str,
        parser: OutputParser,
        *,
        hide_thinking: bool,
        context: list[int] | None = None,
    ) -> None:
        """`context`: the prompt's tokens, where the answer tells of those that the conversation has by then."""
        self._kind = kind
        self._model = model
        self._parser = parser
        # Ollama knows whole calls.
        parser.whole_calls = True
        self._hide_thinking = hide_thinking
        self._context = context
        self._head = b'{"model":' + _encode(model) + b',"created_at":"'
        opening: dict[Kind, bytes] = {
            "chat": b'","message":{"role":"assistant","content":',
            "generate": b'","response":',
        }
        closing: dict[Kind, bytes] = {"chat": b'},"done":false}\n', "generate": b',"done":false}\n'}
        self._before, self._after = opening[kind], closing[kind]
        self._calls = 0
        self._reason: FinishReason = "stop"

    @override
    def whole(self, gathered: Gathered) -> dict[str, Any]:
        (choice,) = gathered.choices
        parts = self._parser.read(choice.pieces, cut=choice.reason == "length")
        document = self._document(
            now(),
            "".join(part.text for part in parts if isinstance(part, Text)),
            "".join(part.text for part in parts if isinstance(part, Reasoning)),
            [part for part in parts if isinstance(part, ToolCall)],
        )
        if logprobs := _logprobs(choice.text_logprobs):
            document["logprobs"] = logprobs
        if self._context is not None:
            document["context"] = self._context + choice.tokens
        return {**document, **_counts(choice.reason, gathered.end)}

    @override
    def sign(self) -> bytes:
        """A piece without text: clients read each line as JSON, so that an empty one would be an error to them."""
        return self._head + now().encode() + self._before + b'""' + self._after

    @override
    def delta(self, delta: Delta) -> bytes:
        when = now()
        if self._context is not None:
            self._context += delta.tokens
        parts: list[Part] = [Text(delta.text)] if self._parser.plain else self._parser.feed(delta.text)
        if delta.logprobs is None:
            return b"".join(self._part(part, when) for part in parts)
        text = "".join(part.text for part in parts if isinstance(part, Text))
        document = self._document(when, text, "", [])
        others = [part for part in parts if not isinstance(part, Text)]
        own = of_text(delta.logprobs, delta.tokens)
        if not own and not delta.text:
            return b""
        logprobs = {"done": False, "logprobs": _logprobs(own)}
        return line({**document, **logprobs}) + b"".join(self._part(part, when) for part in others)

    @override
    def finish(self, finished: ChoiceFinished) -> bytes:
        self._reason = finished.reason
        when = now()
        parts = self._parser.finish(cut=finished.reason == "length")
        return b"".join(self._part(part, when) for part in parts)

    @override
    def end(self, end: RequestFinished) -> bytes:
        document = {**self._document(now(), "", "", []), **_counts(self._reason, end)}
        if self._context is not None:
            document["context"] = self._context
        return line(document)

    @override
    def failure(self, error: ApiError) -> bytes:
        return line(error.ollama())

    def _part(self, part: Part, when: str) -> bytes:
        if isinstance(part, Text):
            if not part.text:
                return b""
            return self._head + when.encode() + self._before + _encode(part.text) + self._after
        if isinstance(part, Reasoning):
            if self._hide_thinking:
                return b""
            return line({**self._document(when, "", part.text, []), "done": False})
        if isinstance(part, CallPiece):
            # Ollama knows whole calls.
            return b""
        return line({**self._document(when, "", "", [part]), "done": False})

    def _document(self, when: str, text: str, thinking: str, calls: list[ToolCall]) -> dict[str, Any]:
        said: dict[str, Any] = (
            {"role": "assistant", "content": text} if self._kind == "chat" else {"response": text}
        )
        if thinking and not self._hide_thinking:
            said["thinking"] = thinking
        if calls:
            said["tool_calls"] = [
                {"id": call.id, "function": {"index": index, "name": call.name, "arguments": call.arguments}}
                for index, call in enumerate(calls, self._calls)
            ]
            self._calls += len(calls)
        head = {"model": self._model, "created_at": when}
        return {**head, "message": said} if self._kind == "chat" else {**head, **said}


def _counts(reason: FinishReason, end: RequestFinished) -> dict[str, Any]:
    """What ends an answer; durations in nanoseconds, of which waiting is what Ollama calls loading."""
    times = end.timings
    return {
        "done": True,
        "done_reason": reason,
        "total_duration": nanoseconds(times.queue + times.prefill + times.decode),
        "load_duration": nanoseconds(times.queue),
        "prompt_eval_count": end.usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(times.prefill),
        "eval_count": end.usage.completion_tokens,
        "eval_duration": nanoseconds(times.decode),
    }


def nanoseconds(seconds: float) -> int:
    """Never zero: clients in Go take that for missing."""
    return max(1, round(seconds * 1e9))


def _logprobs(tokens: Iterable[TokenLogprobs]) -> list[msgspec.Raw]:
    return [
        msgspec.Raw(
            _encode(
                {
                    **_logprob(token.chosen),
                    **({"top_logprobs": [_logprob(one) for one in token.top]} if token.top else {}),
                }
            )
        )
        for token in tokens
    ]


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    text = token.text.decode(errors="replace")
    return {"token": text, "logprob": max(token.logprob, -9999.0), "bytes": list(token.text)}
