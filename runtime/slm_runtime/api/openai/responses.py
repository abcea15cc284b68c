"""POST /v1/responses: text, tools, reasoning, and their events."""

import secrets
import time
from functools import partial
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from slm_runtime.api.answering import generating
from slm_runtime.api.conversation.newest import newest_turns
from slm_runtime.api.conversation.turn import prepare_turn
from slm_runtime.api.delivery import deliver
from slm_runtime.api.http.exchange import Exchange
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.openai import fields, tooling
from slm_runtime.api.openai.requests import read
from slm_runtime.api.openai.responses_input import conversation, items_of, named
from slm_runtime.api.openai.responses_output import ResponseAnswer
from slm_runtime.api.openai.responses_stored import previous, resolved
from slm_runtime.api.openai.sampling import Positive, SamplingFields, StreamOptions, Unit
from slm_runtime.api.openai.stored import Kept
from slm_runtime.api.openai.structured import JsonSchema, ResponseFormat, constraint
from slm_runtime.api.serving import Serving
from slm_runtime.engine.messages import GenerateRequest, Sampling

_PARAMS: Final = {"prompt": "input", "constraint": "text.format", "max_tokens": "max_output_tokens"}


class TextFormat(msgspec.Struct):
    """`json_schema` without the envelope that chat completions put around it."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "response"
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None

    def to_response_format(self) -> ResponseFormat:
        schema = (
            JsonSchema(self.name, self.schema, strict=self.strict) if self.type == "json_schema" else None
        )
        return ResponseFormat(self.type, schema)

    def told(self) -> dict[str, Any]:
        """As the response gives it back: the other formats have a type and nothing else."""
        return msgspec.structs.asdict(self) if self.type == "json_schema" else {"type": self.type}


class TextOptions(msgspec.Struct):
    format: TextFormat | None = None


class ReasoningOptions(msgspec.Struct):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class ResponseTool(msgspec.Struct):
    name: tooling.Name
    type: Literal["function"] = "function"
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def to_chat(self) -> tooling.FunctionTool:
        return tooling.FunctionTool(tooling.Function(self.name, self.description, self.parameters))


class FunctionChoice(msgspec.Struct, tag_field="type", tag="function"):
    name: str

    def to_chat(self) -> tooling.NamedChoice:
        return tooling.NamedChoice(tooling.NamedFunction(self.name))


class AllowedChoice(msgspec.Struct, tag_field="type", tag="allowed_tools"):
    mode: Literal["auto", "required"]
    tools: list[FunctionChoice]

    def to_chat(self) -> tooling.AllowedChoice:
        return tooling.AllowedChoice(tooling.AllowedTools(self.mode, [tool.to_chat() for tool in self.tools]))


class ResponseRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    tools: Annotated[list[ResponseTool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | AllowedChoice | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    ignore_eos: bool | None = None

    def choice(self) -> tooling.Choice | None:
        if isinstance(self.tool_choice, FunctionChoice | AllowedChoice):
            return self.tool_choice.to_chat()
        # Unlike a chat completion, a response may say "auto" without any tools.
        return None if self.tool_choice == "auto" else self.tool_choice

    def check_include(self) -> None:
        """Refuse what could be asked for and isn't there."""
        if "message.output_text.logprobs" in (self.include or []):
            raise BadRequest(
                "'include' can't hold 'message.output_text.logprobs' here: use /v1/chat/completions for them.",
                param="include",
                code="unsupported_parameter",
            )

    def template_variables(self) -> dict[str, Any]:
        effort = self.reasoning.effort if self.reasoning else None
        return {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}


async def create(serving: Serving, exchange: Exchange) -> None:
    """Answer, whole or as a stream of events."""
    wanted = await read(serving, exchange, ResponseRequest, fields.RESPONSE)
    served = serving.require_model(wanted.model)
    wanted.check_include()
    tools, choice = tooling.offer(
        [tool.to_chat() for tool in wanted.tools or []], wanted.choice(), wanted.parallel_tool_calls
    )
    output_format = wanted.text.format if wanted.text else None
    prepare = partial(
        prepare_turn,
        serving.require_chat(),
        tools=tools,
        choice=choice,
        constraint=constraint(output_format.to_response_format() if output_format else None),
        variables=wanted.template_variables(),
        remote=serving.remote_pictures,
    )
    before = previous(serving, exchange, wanted.previous_response_id) if wanted.previous_response_id else []
    given = resolved(serving, exchange, items_of(wanted.input))
    messages = conversation([*before, *given], wanted.instructions)
    max_tokens = wanted.max_output_tokens or serving.parameters.max_tokens
    if wanted.truncation == "auto":
        turn = await newest_turns(serving, messages, prepare, max_tokens)
    else:
        turn = await prepare(messages)
    sampling = SamplingFields(temperature=wanted.temperature, top_p=wanted.top_p).sampling(serving.parameters)
    request = GenerateRequest(
        prompt=turn.prompt,
        max_tokens=max_tokens,
        sampling=sampling,
        stop=serving.stop_strings(None),
        ignore_eos=bool(wanted.ignore_eos),
        constraint=turn.constraint,
        adapter=served.adapter,
        show_special=turn.show_special,
        keep_on_overflow=4 if wanted.truncation == "auto" else None,
    )
    stores = bool(serving.stored.most) and wanted.store is not False

    def keep(response: dict[str, Any]) -> None:
        if stores:
            serving.stored.keep(exchange.key_name, Kept(response, before, named(given)))

    answer = ResponseAnswer(_head(served.name, wanted, sampling, stores=stores), turn.parser(), keep)
    async with generating(serving, exchange, [request], {**_PARAMS, **turn.params}) as tracked:
        await deliver(exchange, tracked, answer, stream=bool(wanted.stream))


def _head(name: str, wanted: ResponseRequest, sampling: Sampling, *, stores: bool) -> dict[str, Any]:
    """What is known of a response when it begins."""
    output_format = wanted.text.format if wanted.text else None
    return {
        "id": f"resp_{secrets.token_hex(12)}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "model": name,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "instructions": wanted.instructions,
        "max_output_tokens": wanted.max_output_tokens,
        "max_tool_calls": None,
        "metadata": wanted.metadata or {},
        "parallel_tool_calls": wanted.parallel_tool_calls is not False,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "previous_response_id": wanted.previous_response_id,
        "prompt_cache_key": None,
        "reasoning": {"effort": wanted.reasoning.effort if wanted.reasoning else None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": stores,
        "temperature": sampling.temperature,
        "text": {"format": (output_format or TextFormat("text")).told()},
        "tool_choice": wanted.tool_choice or "auto",
        "tools": wanted.tools or [],
        "top_logprobs": 0,
        "top_p": sampling.top_p,
        "truncation": wanted.truncation or "disabled",
        "usage": None,
    }
