"""The output of /v1/responses: items, and the events that tell of their growing."""

import secrets
import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from typing_extensions import override

from slm_runtime.api.answering import Gathered
from slm_runtime.api.conversation.growing import CallPiece, ToolCall
from slm_runtime.api.conversation.parsing import OutputParser, Part, Text
from slm_runtime.api.delivery import Answer
from slm_runtime.api.http import sse
from slm_runtime.api.http.problems import ApiError
from slm_runtime.engine.messages import ChoiceFinished, Delta, RequestFinished

Kind = Literal["message", "reasoning"]
"""Items that have content."""
_PREFIX: dict[Kind, str] = {"message": "msg", "reasoning": "rs"}
_PART: dict[Kind, str] = {"message": "output_text", "reasoning": "reasoning_text"}


class Output:
    """Grows by parts; gives the events of each step, encoded, and the items in the end."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._sequence = 0
        self._open: Kind | Literal["function_call"] | None = None
        self._pieces: list[str] = []

    def event(self, kind: str, **fields: Any) -> bytes:
        document = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return sse.typed(document)

    def add(self, part: Part) -> bytes:
        if isinstance(part, CallPiece):
            return self._grow(part)
        if isinstance(part, ToolCall):
            begun = self._open == "function_call" and self.items[-1]["call_id"] == part.id
            whole = CallPiece(part.id, part.name, part.arguments_text)
            return (b"" if begun else self._grow(whole)) + self.close()
        kind: Kind = "message" if isinstance(part, Text) else "reasoning"
        before = b"" if self._open == kind else self.close() + self._begin(kind)
        self._pieces.append(part.text)
        more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        return before + self.event(f"response.{_PART[kind]}.delta", **self._place(), delta=part.text, **more)

    def close(self, status: str = "completed") -> bytes:
        """Finish the item that is open."""
        if self._open is None:
            return b""
        kind, text = self._open, "".join(self._pieces)
        self._open, self._pieces = None, []
        if kind == "function_call":
            item = self.items[-1]
            place = {"item_id": item["id"], "output_index": len(self.items) - 1}
            out = self.event(
                "response.function_call_arguments.done", **place, name=item["name"], arguments=text
            )
            return out + self._done({**item, "arguments": text, "status": status})
        part, place = _part(kind, text), self._place()
        more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        out = self.event(f"response.{_PART[kind]}.done", **place, text=text, **more)
        out += self.event("response.content_part.done", **place, part=part)
        return out + self._done({**self.items[-1], "content": [part], "status": status})

    def _grow(self, piece: CallPiece) -> bytes:
        out = b""
        if self._open != "function_call" or self.items[-1]["call_id"] != piece.id:
            item = {
                "type": "function_call",
                "id": f"fc_{secrets.token_hex(12)}",
                "call_id": piece.id,
                "name": piece.name,
                "arguments": "",
                "status": "in_progress",
            }
            out = self.close() + self._append(item)
            self._open = "function_call"
        if not piece.text:
            return out
        self._pieces.append(piece.text)
        place = {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}
        return out + self.event("response.function_call_arguments.delta", **place, delta=piece.text)

    def _begin(self, kind: Kind) -> bytes:
        item: dict[str, Any] = {
            "type": kind,
            "id": f"{_PREFIX[kind]}_{secrets.token_hex(12)}",
            "status": "in_progress",
            "content": [],
        }
        own: dict[str, Any] = {"role": "assistant"} if kind == "message" else {"summary": []}
        item |= own
        out = self._append(item)
        self._open = kind
        return out + self.event("response.content_part.added", **self._place(), part=_part(kind, ""))

    def _append(self, item: dict[str, Any]) -> bytes:
        self.items.append(item)
        return self.event("response.output_item.added", output_index=len(self.items) - 1, item=item)

    def _done(self, item: dict[str, Any]) -> bytes:
        self.items[-1] = item
        return self.event("response.output_item.done", output_index=len(self.items) - 1, item=item)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1, "content_index": 0}


def _part(kind: Kind, text: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class ResponseAnswer(Answer):
    """A response, whole or as events."""

    HEADERS: ClassVar = sse.HEADERS

    def __init__(
        self, head: dict[str, Any], parser: OutputParser, keep: Callable[[dict[str, Any]], None]
    ) -> None:
        """`keep` takes the response when it is whole."""
        self._head = head
        self._keep = keep
        self._parser = parser
        self._output = Output()
        self._cut = False

    @override
    def whole(self, gathered: Gathered) -> dict[str, Any]:
        (choice,) = gathered.choices
        self._cut = choice.reason == "length"
        for part in self._parser.read(choice.pieces, cut=self._cut):
            self._output.add(part)
        self._output.close(self._status)
        return self._response(gathered.end)

    @override
    def head(self) -> bytes:
        event = self._output.event
        return event("response.created", response=self._head) + event(
            "response.in_progress", response=self._head
        )

    @override
    def sign(self) -> bytes:
        return sse.COMMENT

    @override
    def delta(self, delta: Delta) -> bytes:
        return b"".join([self._output.add(part) for part in self._parser.feed(delta.text, len(delta.tokens))])

    @override
    def finish(self, finished: ChoiceFinished) -> bytes:
        self._cut = finished.reason == "length"
        rest = [self._output.add(part) for part in self._parser.finish(cut=self._cut)]
        return b"".join(rest) + self._output.close(self._status)

    @override
    def end(self, end: RequestFinished) -> bytes:
        return self._output.event(f"response.{self._status}", response=self._response(end))

    @override
    def failure(self, error: ApiError) -> bytes:
        failure = {"code": "server_error", "message": error.message}
        failed = {**self._head, "status": "failed", "error": failure, "output": self._output.items}
        return self._output.event("response.failed", response=failed)

    @property
    def _status(self) -> Literal["incomplete", "completed"]:
        return "incomplete" if self._cut else "completed"

    def _response(self, end: RequestFinished) -> dict[str, Any]:
        used = end.usage
        response = {
            **self._head,
            "status": self._status,
            "completed_at": None if self._cut else int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if self._cut else None,
            "output": self._output.items,
            "usage": {
                "input_tokens": used.prompt_tokens,
                "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": used.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": self._parser.reasoning_tokens},
                "total_tokens": used.prompt_tokens + used.completion_tokens,
            },
        }
        self._keep(response)
        return response
