"""POST /v1/chat/completions."""

import secrets
import time
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from slm_runtime.api.answering import LOGPROBS, Choice, Tracked, broken, gather, generating, of_text
from slm_runtime.api.conversation.parsing import OutputParser, Part, Reasoning, Text, ToolCall
from slm_runtime.api.conversation.turn import Turn, prepare_turn
from slm_runtime.api.http import sse
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.openai import fields, tooling
from slm_runtime.api.openai.answer import FINISH, chat_logprobs, usage
from slm_runtime.api.openai.conversation import Message, to_chat
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


class ChatRequest(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    model: str
    messages: list[Message]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    tools: tooling.Tools | None = None
    tool_choice: tooling.Choice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def logprob_count(self) -> int | None:
        """How many alternatives the engine should give; None: not even the chosen token's."""
        if not self.logprobs:
            if self.top_logprobs:
                raise BadRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
            return None
        return self.top_logprobs or 0

    def template_variables(self) -> dict[str, Any]:
        """What the template is told, beyond the conversation."""
        effort = {}
        if self.reasoning_effort is not None:
            effort = {
                "reasoning_effort": self.reasoning_effort,
                "enable_thinking": self.reasoning_effort != "none",
            }
        return {**effort, **(self.chat_template_kwargs or {})}


async def create(serving: Serving, exchange: Exchange) -> None:
    """Answer a chat completion, whole or as a stream."""
    wanted = fields.parse(await exchange.json(), ChatRequest, fields.CHAT)
    served = serving.require_model(wanted.model)
    include_usage = wanted.include_usage()
    tools, choice = tooling.offer(wanted.tools, wanted.tool_choice, wanted.parallel_tool_calls)
    turn = await prepare_turn(
        serving.require_chat(),
        to_chat(wanted.messages),
        tools=tools,
        choice=choice,
        constraint=constraint(wanted.response_format),
        variables=wanted.template_variables(),
    )
    request = GenerateRequest(
        prompt=[turn.prompt],
        max_tokens=wanted.max_completion_tokens or wanted.max_tokens or serving.parameters.max_tokens,
        n=wanted.n or 1,
        sampling=wanted.sampling(serving.parameters),
        stop=serving.stop_strings(wanted.stop_strings()),
        ignore_eos=bool(wanted.ignore_eos),
        logprobs=wanted.logprob_count(),
        most_logprobs=None if wanted.stream else LOGPROBS,
        constraint=turn.constraint,
        adapter=served.adapter,
        show_special=turn.show_special,
    )
    head = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": served.name,
        "system_fingerprint": serving.fingerprint,
    }
    async with generating(serving, exchange, request, {**_PARAMS, **turn.params}) as tracked:
        if wanted.stream:
            head["object"] = "chat.completion.chunk"
            await _stream(exchange, tracked, _ChunkWriter(head, turn, request.n, include_usage))
            return
        gathered = await gather(tracked, request.n)
        parsers = [turn.parser() for _ in gathered.choices]
        choices = [
            _choice(index, choice, parser.read(choice.pieces, cut=choice.reason == "length"), request)
            for index, (choice, parser) in enumerate(zip(gathered.choices, parsers, strict=True))
        ]
        used = usage(gathered.end.usage, sum(parser.reasoning_tokens for parser in parsers))
        await exchange.respond_json({**head, "choices": choices, "usage": used})


def _choice(index: int, choice: Choice, parts: list[Part], request: GenerateRequest) -> dict[str, Any]:
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
        "logprobs": None if request.logprobs is None else chat_logprobs(choice.text_logprobs),
        "finish_reason": "tool_calls" if calls else FINISH[choice.reason],
    }


def _tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments_text}
    return {"id": call.id, "type": "function", "function": function}


class _ChunkWriter:
    """Encodes the chunks of one stream; what stays the same from chunk to chunk, once."""

    def __init__(self, head: dict[str, Any], turn: Turn, n: int, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        self._parsers: list[OutputParser] = [turn.parser() for _ in range(n)]
        self._calls = [0] * n
        self._texts = [
            sse.TextEvent(self._chunk(index, {"content": sse.TextEvent.MARK})) for index in range(n)
        ]

    def role(self) -> bytes:
        first = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(sse.event(self._chunk(index, first)) for index in range(len(self._texts)))

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

    def finish(self, finished: ChoiceFinished) -> bytes:
        parser = self._parsers[finished.choice]
        rest = b"".join(
            self._part(finished.choice, part) for part in parser.finish(cut=finished.reason == "length")
        )
        reason = "tool_calls" if parser.called else FINISH[finished.reason]
        return rest + sse.event(self._chunk(finished.choice, {}, finish_reason=reason))

    def end(self, finished: RequestFinished) -> bytes:
        if not self._include_usage:
            return sse.DONE
        used = usage(finished.usage, sum(parser.reasoning_tokens for parser in self._parsers))
        return sse.event({**self._head, "choices": [], "usage": used}) + sse.DONE

    def _part(self, index: int, part: Part) -> bytes:
        if isinstance(part, Text):
            return self._texts[index].of(part.text)
        if isinstance(part, Reasoning):
            return sse.event(self._chunk(index, {"reasoning_content": part.text}))
        call = {"index": self._calls[index], **_tool_call(part)}
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
        chunk = {**self._head, "choices": [choice]}
        return {**chunk, "usage": None} if self._include_usage else chunk


async def _stream(exchange: Exchange, tracked: Tracked, chunks: _ChunkWriter) -> None:
    await exchange.start(200, sse.HEADERS)
    failed: ChoiceFinished | None = None
    # With the first token, by whose arrival clients measure how long they waited for it.
    role = chunks.role()
    async for events in tracked.batches():
        out = []
        for event in events:
            if isinstance(event, Delta):
                out.append(chunks.delta(event))
            elif isinstance(event, RequestFinished):
                if failed is not None:
                    await sse.write_failure(exchange, broken(failed.reason, event.message))
                    return
                await exchange.write(b"".join([role, *out, chunks.end(event)]), more=False)
                return
            elif event.reason in FINISH:
                out.append(chunks.finish(event))
            else:
                failed = event
        if written := b"".join(out):
            await exchange.write(role + written)
            role = b""
