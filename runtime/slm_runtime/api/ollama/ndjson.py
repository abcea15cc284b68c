"""Ollama's answers: the same pieces, one JSON object a line, or all at once."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from slm_runtime.api.answering import Tracked, broken, gather, of_text
from slm_runtime.api.conversation.parsing import OutputParser, Part, Reasoning, Text, ToolCall
from slm_runtime.api.http.exchange import Exchange, Headers
from slm_runtime.engine.messages import (
    ChoiceFinished,
    Delta,
    FinishReason,
    RequestFinished,
    TokenLogprob,
    TokenLogprobs,
)

HEADERS: Final[Headers] = [(b"content-type", b"application/x-ndjson"), (b"x-accel-buffering", b"no")]
_REASONS: Final = {"stop": "stop", "length": "length"}
_encode: Final = msgspec.json.Encoder().encode

Kind = Literal["chat", "generate"]


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def line(document: Any) -> bytes:
    return _encode(document) + b"\n"


class Answer:
    """Writes one answer in the shape of `kind`, as a stream or whole."""

    def __init__(self, kind: Kind, model: str, parser: OutputParser, *, hide_thinking: bool) -> None:
        self._kind = kind
        self._model = model
        self._parser = parser
        self._hide_thinking = hide_thinking
        self._head = b'{"model":' + _encode(model) + b',"created_at":"'
        opening: dict[Kind, bytes] = {
            "chat": b'","message":{"role":"assistant","content":',
            "generate": b'","response":',
        }
        closing: dict[Kind, bytes] = {"chat": b'},"done":false}\n', "generate": b',"done":false}\n'}
        self._before, self._after = opening[kind], closing[kind]
        self._calls = 0

    async def stream(self, exchange: Exchange, tracked: Tracked, context: list[int] | None) -> None:
        """Write a line for each piece as it comes, and the last with the counts.

        Raises
        ------
        ApiError
            It broke off before its first piece, so that its status can still be told.
        """
        reason: FinishReason = "error"
        async for events in tracked.batches():
            when = now()
            out = []
            for event in events:
                if isinstance(event, Delta):
                    out.append(self._delta(event, when))
                    if context is not None:
                        context += event.tokens
                elif isinstance(event, ChoiceFinished):
                    reason = event.reason
                else:
                    if reason in _REASONS:
                        out.append(self._end(_REASONS[reason], event, when, context))
                    elif exchange.started or any(out):
                        out.append(line(broken(reason, event.message).ollama()))
                    else:
                        raise broken(reason, event.message)
                    await _write(exchange, b"".join(out), more=False)
                    return
            if written := b"".join(out):
                await _write(exchange, written, more=True)

    async def whole(self, exchange: Exchange, tracked: Tracked, context: list[int] | None) -> None:
        """Write one object."""
        gathered = await gather(tracked, 1)
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
        if context is not None:
            document["context"] = context + choice.tokens
        await exchange.respond_json({**document, **_counts(_REASONS[choice.reason], gathered.end)})

    def _delta(self, delta: Delta, when: str) -> bytes:
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

    def _part(self, part: Part, when: str) -> bytes:
        if isinstance(part, Text):
            if not part.text:
                return b""
            return self._head + when.encode() + self._before + _encode(part.text) + self._after
        if isinstance(part, Reasoning):
            if self._hide_thinking:
                return b""
            return line({**self._document(when, "", part.text, []), "done": False})
        return line({**self._document(when, "", "", [part]), "done": False})

    def _end(self, reason: str, end: RequestFinished, when: str, context: list[int] | None) -> bytes:
        parts = self._parser.finish(cut=reason == "length")
        rest = b"".join(self._part(part, when) for part in parts)
        document = {**self._document(when, "", "", []), **_counts(reason, end)}
        if context is not None:
            document["context"] = context
        return rest + line(document)

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


async def _write(exchange: Exchange, chunk: bytes, *, more: bool) -> None:
    if not exchange.started:
        await exchange.start(200, HEADERS)
    await exchange.write(chunk, more=more)


def _counts(reason: str, end: RequestFinished) -> dict[str, Any]:
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
