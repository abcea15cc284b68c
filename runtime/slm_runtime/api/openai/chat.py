"""POST /v1/chat/completions."""

import secrets
import time
from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from slm_runtime.api import sse
from slm_runtime.api.errors import BadRequest
from slm_runtime.api.generation import Choice, Tracked, broken, gather, generating
from slm_runtime.api.http import Exchange
from slm_runtime.api.openai import fields
from slm_runtime.api.openai.answer import FINISH, chat_logprobs, usage
from slm_runtime.api.openai.conversation import Message, to_chat
from slm_runtime.api.openai.sampling import Positive, SamplingFields
from slm_runtime.api.openai.structured import ResponseFormat, constraint
from slm_runtime.api.prompt import render_chat
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
    chat_template_kwargs: dict[str, Any] | None = None

    def logprob_count(self) -> int | None:
        """How many alternatives the engine should give; None: not even the chosen token's."""
        if not self.logprobs:
            if self.top_logprobs:
                raise BadRequest("'top_logprobs' needs 'logprobs': true.", param="top_logprobs")
            return None
        return self.top_logprobs or 0


async def create(serving: Serving, exchange: Exchange) -> None:
    """Answer a chat completion, whole or as a stream."""
    wanted = fields.parse(await exchange.json(), ChatRequest, fields.CHAT)
    serving.require_model(wanted.model)
    include_usage = wanted.include_usage()
    chat = serving.require_chat()
    prompt = await render_chat(chat, to_chat(wanted.messages), variables=wanted.chat_template_kwargs)
    request = GenerateRequest(
        prompt=[prompt],
        max_tokens=wanted.max_completion_tokens or wanted.max_tokens,
        n=wanted.n or 1,
        sampling=wanted.sampling(),
        stop=wanted.stop_strings(),
        logprobs=wanted.logprob_count(),
        constraint=constraint(wanted.response_format),
    )
    head = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": serving.name,
        "system_fingerprint": serving.fingerprint,
    }
    async with generating(serving, exchange, request, _PARAMS) as tracked:
        if wanted.stream:
            head["object"] = "chat.completion.chunk"
            await _stream(exchange, tracked, _ChunkWriter(head, request.n, include_usage))
            return
        gathered = await gather(tracked, request.n)
        await exchange.respond_json(
            {
                **head,
                "choices": [_choice(index, choice, request) for index, choice in enumerate(gathered.choices)],
                "usage": usage(gathered.end.usage),
            }
        )


def _choice(index: int, choice: Choice, request: GenerateRequest) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []},
        "logprobs": None if request.logprobs is None else chat_logprobs(choice.logprobs),
        "finish_reason": FINISH[choice.reason],
    }


class _ChunkWriter:
    """Encodes the chunks of one stream; what stays the same from chunk to chunk, once."""

    def __init__(self, head: dict[str, Any], n: int, include_usage: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        self._texts = [
            sse.TextEvent(self._chunk(index, {"content": sse.TextEvent.MARK})) for index in range(n)
        ]

    def role(self) -> bytes:
        first = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(sse.event(self._chunk(index, first)) for index in range(len(self._texts)))

    def delta(self, delta: Delta) -> bytes:
        if delta.logprobs is None:
            return self._texts[delta.choice].of(delta.text) if delta.text else b""
        logprobs = chat_logprobs(delta.logprobs)
        return sse.event(self._chunk(delta.choice, {"content": delta.text}, logprobs=logprobs))

    def finish(self, finished: ChoiceFinished) -> bytes:
        return sse.event(self._chunk(finished.choice, {}, finish_reason=FINISH[finished.reason]))

    def end(self, finished: RequestFinished) -> bytes:
        if not self._include_usage:
            return sse.DONE
        return sse.event({**self._head, "choices": [], "usage": usage(finished.usage)}) + sse.DONE

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
    await exchange.write(chunks.role())
    failed: ChoiceFinished | None = None
    async for events in tracked.batches():
        out = []
        for event in events:
            if isinstance(event, Delta):
                out.append(chunks.delta(event))
            elif isinstance(event, RequestFinished):
                if failed is not None:
                    await sse.write_failure(exchange, broken(failed.reason, event.message))
                    return
                await exchange.write(b"".join([*out, chunks.end(event)]), more=False)
                return
            elif event.reason in FINISH:
                out.append(chunks.finish(event))
            else:
                failed = event
        if written := b"".join(out):
            await exchange.write(written)
