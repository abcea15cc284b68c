"""A message as Anthropic's clients read it: blocks of content, and the events that tell of their growing."""

import hashlib
from typing import Any, ClassVar, Final, Literal

import msgspec
from typing_extensions import override

from slm_runtime.api.answering import Gathered
from slm_runtime.api.conversation.growing import CallPiece, ToolCall
from slm_runtime.api.conversation.parsing import OutputParser, Part, Reasoning, Text
from slm_runtime.api.delivery import Answer
from slm_runtime.api.http import sse
from slm_runtime.api.http.problems import ApiError
from slm_runtime.engine.messages import ChoiceFinished, Delta, FinishReason, RequestFinished, Usage

_PING: Final = sse.typed({"type": "ping"})

Kind = Literal["text", "thinking"]
_EMPTY: Final[dict[Kind, dict[str, Any]]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


class MessageAnswer(Answer):
    """One message, whole or as events."""

    HEADERS: ClassVar = sse.HEADERS

    def __init__(
        self, head: dict[str, Any], parser: OutputParser, prompt_tokens: int, stops: list[str]
    ) -> None:
        """`stops`: the request's own stop sequences, of which the answer tells; the deployment's just end it."""
        self._head = head
        self._parser = parser
        self._prompt_tokens = prompt_tokens
        self._stops = stops
        self._index = -1
        """Of the block that was begun last."""
        self._open: Kind | Literal["tool_use"] | None = None
        self._call = ""
        """The call whose block was begun last."""
        self._text = sse.TextEvent(_delta(0, "text_delta", "text", sse.TextEvent.MARK), sse.typed)
        self._thoughts = hashlib.sha256()
        self._stopped: dict[str, Any] = {}

    @override
    def whole(self, gathered: Gathered) -> dict[str, Any]:
        (choice,) = gathered.choices
        parts = self._parser.read(choice.pieces, cut=choice.reason == "length")
        stopped = self._stop(choice.reason, choice.stop)
        used = self._usage(gathered.end.usage)
        return {
            **self._head,
            "content": [_block(part) for part in parts if not isinstance(part, CallPiece)],
            **stopped,
            "usage": used,
        }

    @override
    def head(self) -> bytes:
        # What of the prompt is cached isn't known yet.
        used = self._usage(Usage(self._prompt_tokens, 0, 0))
        message = {**self._head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": used}
        return sse.typed({"type": "message_start", "message": message}) + _PING

    @override
    def sign(self) -> bytes:
        return _PING

    @override
    def delta(self, delta: Delta) -> bytes:
        if self._open == "text" and self._parser.plain:
            return self._text.of(delta.text) if delta.text else b""
        return b"".join([self._part(part) for part in self._parser.feed(delta.text, len(delta.tokens))])

    @override
    def finish(self, finished: ChoiceFinished) -> bytes:
        parts = self._parser.finish(cut=finished.reason == "length")
        self._stopped = self._stop(finished.reason, finished.stop)
        return b"".join([self._part(part) for part in parts]) + self._close()

    @override
    def end(self, end: RequestFinished) -> bytes:
        used = self._usage(end.usage)
        told = sse.typed({"type": "message_delta", "delta": self._stopped, "usage": used})
        return told + sse.typed({"type": "message_stop"})

    @override
    def failure(self, error: ApiError) -> bytes:
        return sse.typed(error.anthropic())

    def _part(self, part: Part) -> bytes:
        if isinstance(part, Text):
            return self._begun("text") + self._text.of(part.text)
        if isinstance(part, Reasoning):
            self._thoughts.update(part.text.encode())
            begun = self._begun("thinking")
            return begun + sse.typed(_delta(self._index, "thinking_delta", "thinking", part.text))
        if isinstance(part, CallPiece):
            return self._grow(part)
        whole = CallPiece(part.id, part.name, part.arguments_text)
        return (b"" if self._call == part.id else self._grow(whole)) + self._close()

    def _grow(self, piece: CallPiece) -> bytes:
        out = b""
        if self._call != piece.id:
            block = {"type": "tool_use", "id": _call_id(piece.id), "name": piece.name, "input": {}}
            out = self._close() + self._start(block)
            self._open, self._call = "tool_use", piece.id
        if not piece.text:
            return out
        return out + sse.typed(_delta(self._index, "input_json_delta", "partial_json", piece.text))

    def _begun(self, kind: Kind) -> bytes:
        """What comes before a piece of this kind: nothing, where such a block is open."""
        if self._open == kind:
            return b""
        out = self._close() + self._start(_EMPTY[kind])
        self._open = kind
        if kind == "text":
            mark = _delta(self._index, "text_delta", "text", sse.TextEvent.MARK)
            self._text = sse.TextEvent(mark, sse.typed)
        return out

    def _close(self) -> bytes:
        """End the block that is open."""
        if self._open is None:
            return b""
        signed = b""
        if self._open == "thinking":
            signature = self._thoughts.hexdigest()
            signed = sse.typed(_delta(self._index, "signature_delta", "signature", signature))
            self._thoughts = hashlib.sha256()
        self._open = None
        return signed + sse.typed({"type": "content_block_stop", "index": self._index})

    def _start(self, block: dict[str, Any]) -> bytes:
        self._index += 1
        return sse.typed({"type": "content_block_start", "index": self._index, "content_block": block})

    def _stop(self, reason: FinishReason, stop: str | None) -> dict[str, Any]:
        if self._parser.called:
            return {"stop_reason": "tool_use", "stop_sequence": None}
        if reason == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        if stop in self._stops:
            return {"stop_reason": "stop_sequence", "stop_sequence": stop}
        return {"stop_reason": "end_turn", "stop_sequence": None}

    def _usage(self, used: Usage) -> dict[str, Any]:
        """To Anthropic, what was cached is no part of the input."""
        return {
            "input_tokens": used.prompt_tokens - used.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": used.cached_tokens,
            "output_tokens": used.completion_tokens,
            "output_tokens_details": {"thinking_tokens": self._parser.reasoning_tokens},
        }


def _call_id(own: str) -> str:
    return f"toolu_{own}"


def _block(part: Text | Reasoning | ToolCall) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Reasoning):
        # Clients send a thought back only with its signature. Nobody checks it here.
        signature = hashlib.sha256(part.text.encode()).hexdigest()
        return {"type": "thinking", "thinking": part.text, "signature": signature}
    arguments = msgspec.Raw(part.arguments_text.encode())
    return {"type": "tool_use", "id": _call_id(part.id), "name": part.name, "input": arguments}


def _delta(index: int, kind: str, field: str, text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, field: text}}
