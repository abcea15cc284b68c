"""POST /v1/chat/completions."""

import secrets
import time
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta
from typing_extensions import override

from slm_runtime.api.answering import LOGPROBS, Choice, Gathered, generating, of_text
from slm_runtime.api.conversation.growing import CallPiece, ToolCall
from slm_runtime.api.conversation.parsing import OutputParser, Part, Reasoning, Text
from slm_runtime.api.conversation.turn import Turn, prepare_turn
from slm_runtime.api.delivery import Answer, deliver
from slm_runtime.api.http import sse
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import ApiError, BadRequest
from slm_runtime.api.openai import fields, tooling
from slm_runtime.api.openai.answer import chat_logprobs, usage
from slm_runtime.api.openai.conversation import ContentPart, Message, to_chat
from slm_runtime.api.openai.requests import read
from slm_runtime.api.openai.sampling import Positive, SamplingFields
from slm_runtime.api.openai.structured import ResponseFormat, constraint
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import ChoiceFinished, Delta, GenerateRequest, RequestFinished

_PARAMS: Final = {
    "prompt": "messages",
    "constraint": "response_format",
    "max_tokens": "max_completion_tokens",
}
"""The engine's names for what it refuses, in this endpoint's words."""


class Prediction(msgspec.Struct):
    """What the answer is likely to be, in large parts."""

    content: str | list[ContentPart]
    type: Literal["content"] = "content"

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text or "" for part in self.content)


class ChatRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    model: str
    messages: list[Message]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    prediction: Prediction | None = None
    tools: tooling.Tools | None = None
    tool_choice: tooling.Choice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    thinking: bool | dict[str, Any] | None = None
    think: bool | str | None = None
    reasoning: bool | dict[str, Any] | None = None
    continue_final_message: bool | None = None

    def logprob_count(self) -> int | None:
        """How many alternatives the engine should give; None: not even the chosen token's."""
        if not self.logprobs:
            if self.top_logprobs:
                raise BadRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
            return None
        return self.top_logprobs or 0

    def template_variables(self) -> dict[str, Any]:
        """What the template is told, beyond the conversation."""
        return {**self._thinking(), **(self.chat_template_kwargs or {})}

    def _thinking(self) -> dict[str, Any]:
        """Whether to think, and how much, in whichever words it is said."""
        said = self.reasoning if isinstance(self.reasoning, dict) else {"enabled": self.reasoning}
        kind = self.thinking.get("type") if isinstance(self.thinking, dict) else self.thinking
        level = self.think if isinstance(self.think, str) else None
        effort = self.reasoning_effort or said.get("effort") or level
        switches = (
            self.enable_thinking,
            kind if isinstance(kind, bool) else {"enabled": True, "disabled": False}.get(str(kind)),
            self.think if isinstance(self.think, bool) else None,
            said.get("enabled"),
            None if effort is None else effort != "none",
        )
        switch = next((one for one in switches if isinstance(one, bool)), None)
        return {
            **({} if effort is None else {"reasoning_effort": effort}),
            **({} if switch is None else {"enable_thinking": switch}),
        }


async def create(serving: Serving, exchange: Exchange) -> None:
    """Answer a chat completion, whole or as a stream."""
    wanted = await read(serving, exchange, ChatRequest, fields.CHAT)
    served = serving.require_model(wanted.model)
    include_usage = wanted.include_usage()
    tools, choice = tooling.offer(wanted.tools, wanted.tool_choice, wanted.parallel_tool_calls)
    turn = await prepare_turn(
        serving.require_chat(),
        to_chat(wanted.messages),
        tools=tools,
        choice=choice,
        constraint=constraint(wanted.response_format) or wanted.constraint(),
        variables=wanted.template_variables(),
        continues=bool(wanted.continue_final_message),
        remote=serving.remote_pictures,
    )
    request = GenerateRequest(
        prompt=turn.prompt,
        max_tokens=wanted.max_completion_tokens or wanted.max_tokens or serving.parameters.max_tokens,
        n=wanted.n or 1,
        sampling=wanted.sampling(serving.parameters),
        stop=serving.stop_strings(wanted.stop_strings()),
        stop_tokens=wanted.stop_token_ids or [],
        ignore_eos=bool(wanted.ignore_eos),
        logprobs=wanted.logprob_count(),
        foretold=wanted.prediction.text if wanted.prediction else "",
        most_logprobs=None if wanted.stream else LOGPROBS,
        constraint=turn.constraint,
        adapter=served.adapter,
        show_special=turn.show_special or wanted.skip_special_tokens is False,
    )
    head = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": serving.fingerprint,
    }
    answer = _Completion(head, turn, request, include_usage=include_usage)
    async with generating(serving, exchange, [request], {**_PARAMS, **turn.params}) as tracked:
        await deliver(exchange, tracked, answer, stream=bool(wanted.stream))


def _tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments_text}
    return {"id": call.id, "type": "function", "function": function}


class _Completion(Answer):
    """Whole, or in chunks; what stays the same from chunk to chunk is encoded once."""

    HEADERS: ClassVar = sse.HEADERS

    def __init__(
        self, head: dict[str, Any], turn: Turn, request: GenerateRequest, *, include_usage: bool
    ) -> None:
        self._head = head
        self._chunk_head = {**head, "object": "chat.completion.chunk"}
        self._include_usage = include_usage
        self._logprobs = request.logprobs is not None
        self._parsers: list[OutputParser] = [turn.parser() for _ in range(request.n)]
        self._calls = [0] * request.n
        self._begun: set[str] = set()
        """Calls that come in pieces."""
        self._texts = [
            sse.TextEvent(self._chunk(index, {"content": sse.TextEvent.MARK})) for index in range(request.n)
        ]

    @override
    def whole(self, gathered: Gathered) -> dict[str, Any]:
        choices = [self._choice(index, choice) for index, choice in enumerate(gathered.choices)]
        return {**self._head, "choices": choices, "usage": self._usage(gathered.end)}

    @override
    def opening(self) -> bytes:
        first = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(sse.event(self._chunk(index, first)) for index in range(len(self._texts)))

    @override
    def sign(self) -> bytes:
        return sse.COMMENT

    @override
    def delta(self, delta: Delta) -> bytes:
        parser = self._parsers[delta.choice]
        if parser.plain and delta.logprobs is None:
            return self._texts[delta.choice].of(delta.text) if delta.text else b""
        parts: list[Part] = [Text(delta.text)] if parser.plain else parser.feed(delta.text, len(delta.tokens))
        if delta.logprobs is None:
            return b"".join(self._part(delta.choice, part) for part in parts)
        own = of_text(delta.logprobs, delta.tokens)
        if not own and not delta.text:
            return b""
        logprobs = chat_logprobs(own) if own else None
        chunk = sse.event(self._chunk(delta.choice, {}, logprobs=logprobs))
        if len(parts) == 1 and isinstance(parts[0], Text):
            chunk = sse.event(self._chunk(delta.choice, {"content": parts[0].text}, logprobs=logprobs))
            parts = []
        return chunk + b"".join(self._part(delta.choice, part) for part in parts)

    @override
    def finish(self, finished: ChoiceFinished) -> bytes:
        parser = self._parsers[finished.choice]
        rest = b"".join(
            self._part(finished.choice, part) for part in parser.finish(cut=finished.reason == "length")
        )
        reason = "tool_calls" if parser.called else finished.reason
        return rest + sse.event(self._chunk(finished.choice, {}, finish_reason=reason))

    @override
    def end(self, end: RequestFinished) -> bytes:
        if not self._include_usage:
            return sse.DONE
        return sse.event({**self._chunk_head, "choices": [], "usage": self._usage(end)}) + sse.DONE

    @override
    def failure(self, error: ApiError) -> bytes:
        return sse.event(error.openai())

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        parts = self._parsers[index].read(choice.pieces, cut=choice.reason == "length")
        text = "".join(part.text for part in parts if isinstance(part, Text))
        reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
        calls = [part for part in parts if isinstance(part, ToolCall)]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text if text or not calls else None,
            "refusal": None,
            "annotations": [],
        }
        if reasoning:
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = [_tool_call(call) for call in calls]
        return {
            "index": index,
            "message": message,
            "logprobs": chat_logprobs(choice.text_logprobs) if self._logprobs else None,
            "finish_reason": "tool_calls" if calls else choice.reason,
        }

    def _part(self, index: int, part: Part) -> bytes:
        if isinstance(part, Text):
            return self._texts[index].of(part.text)
        if isinstance(part, Reasoning):
            return sse.event(self._chunk(index, {"reasoning_content": part.text}))
        if isinstance(part, CallPiece):
            return self._piece(index, part)
        if part.id in self._begun:
            return b""
        call = {"index": self._calls[index], **_tool_call(part)}
        self._calls[index] += 1
        return sse.event(self._chunk(index, {"tool_calls": [call]}))

    def _piece(self, index: int, piece: CallPiece) -> bytes:
        if piece.id in self._begun:
            more = {"index": self._calls[index] - 1, "function": {"arguments": piece.text}}
            return sse.event(self._chunk(index, {"tool_calls": [more]}))
        self._begun.add(piece.id)
        function = {"name": piece.name, "arguments": piece.text}
        call = {"index": self._calls[index], "id": piece.id, "type": "function", "function": function}
        self._calls[index] += 1
        return sse.event(self._chunk(index, {"tool_calls": [call]}))

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunk = {**self._chunk_head, "choices": [choice]}
        return {**chunk, "usage": None} if self._include_usage else chunk

    def _usage(self, end: RequestFinished) -> dict[str, Any]:
        return usage(end.usage, sum(parser.reasoning_tokens for parser in self._parsers))
