"""One turn of a conversation: what is asked of the engine, and how what it writes is to be read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from slm_runtime.api.conversation.parsing import OutputParser
from slm_runtime.api.conversation.pictures import put_in, taken_out
from slm_runtime.api.conversation.prompt import render_chat
from slm_runtime.api.conversation.schema import encoded, inside, schema_text
from slm_runtime.api.conversation.thoughts import thoughts
from slm_runtime.api.conversation.tool_formats import EITHER, FORCED, tool_formats
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.engine.messages import Constraint, Prompt
from slm_runtime.templates.chat import ChatFormat
from slm_runtime.templates.messages import ChatMessage

if TYPE_CHECKING:
    from slm_runtime.api.conversation.remote_pictures import RemotePictures

TOOLS: Final = 128

Tool = dict[str, Any]
"""`{"type": "function", "function": {"name": ..., "description": ..., "parameters": ...}}`"""


@dataclass(frozen=True)
class ToolChoice:
    """`auto`: the model decides; `none`: no tools; `required`: any one of them; or the name of one."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str = ""
    parallel: bool = True
    """False: an answer has one call at most; what a model calls beyond it is dropped."""


@dataclass(frozen=True)
class Turn:
    prompt: Prompt
    constraint: Constraint | None
    show_special: bool
    """Some families mark their calls or their reasoning with special tokens."""
    parser: Callable[[], OutputParser]
    """Makes one for each choice."""
    params: dict[str, str] = field(default_factory=dict)
    """The engine's names for what it refuses, where the tools are at fault, whatever the endpoint calls it."""


async def prepare_turn(
    chat: ChatFormat,
    messages: list[ChatMessage],
    *,
    tools: list[Tool],
    choice: ToolChoice,
    constraint: Constraint | None,
    variables: dict[str, Any] | None = None,
    continues: bool = False,
    remote: "RemotePictures | None" = None,
) -> Turn:
    """Render the prompt and choose constraint and parser.

    Parameters
    ----------
    continues
        Where the last message is the assistant's, the model goes on with it; else it begins a turn of its own.
    remote
        Fetches the images that are named by URLs; None: nobody does.

    Raises
    ------
    BadRequest
    """
    messages, images = taken_out(messages)
    if images and not chat.sees:
        raise _sees_nothing(next(iter(images.values())).name)
    if remote is not None:
        await remote.bring(images.values())
    if choice.mode == "none":
        tools = []
    forced = _forced(tools, choice)
    either = None if forced else _or_a_call(constraint, tools)
    constraint = forced or either or constraint
    if constraint is not None:
        # The answer has its form from its first token on: there is no room for reasoning before it.
        variables = {"enable_thinking": False, **(variables or {})}
    begun = _begun(messages) if continues else ""
    prompt = await render_chat(
        chat, messages[:-1] if begun else messages, tools=tools or None, variables=variables
    )
    thinks = thoughts(chat.template)
    thinking = thinks is not None and prompt.rstrip().endswith(thinks.begin)
    if thinks is not None and (constraint is not None or begun):
        prompt = f"{prompt.rstrip()}\n\n{thinks.end}\n\n" if thinking else prompt + thinks.answer
        thinks, thinking = None, False
    whole = put_in(prompt + begun, images)
    if forced is not None:
        return Turn(whole, forced, False, lambda: OutputParser((FORCED,)), {"constraint": "tools"})
    formats = (EITHER,) if either else tool_formats(chat) if tools else ()
    offered = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    return Turn(
        whole,
        constraint,
        bool(tools) or thinks is not None,
        lambda: OutputParser(formats, offered, thinks=thinks, thinking=thinking, parallel=choice.parallel),
    )


def _sees_nothing(name: str) -> BadRequest:
    return BadRequest(
        f"This model sees no images, and there is one at '{name}': it is served without a projector (spec.model.projector). "
        "Send text.",
        param=name,
        code="unsupported_content",
    )


def _begun(messages: list[ChatMessage]) -> str:
    """The text with which the assistant has begun its turn."""
    *before, last = messages
    plain = before and last["role"] == "assistant" and not last.get("tool_calls")
    return last.get("content") or "" if plain else ""


def _forced(tools: list[Tool], choice: ToolChoice) -> Constraint | None:
    """Constrain the answer to one call, where the client demands one."""
    if choice.mode in {"auto", "none"}:
        return None
    allowed = [
        tool["function"]
        for tool in tools
        if choice.mode == "required" or tool["function"]["name"] == choice.name
    ]
    if not allowed:
        raise BadRequest(
            f"'tool_choice' demands {choice.name or 'a tool'!r}, which is not among 'tools'.",
            param="tool_choice",
        )
    calls = _call_schemas(allowed)
    return (
        Constraint("json_schema", calls[0])
        if len(calls) == 1
        else Constraint("json_schemas", f"[{','.join(calls)}]")
    )


def _or_a_call(constraint: Constraint | None, tools: list[Tool]) -> Constraint | None:
    """A form is that of the answer: where tools are offered, the model may call one instead."""
    if constraint is None or constraint.kind != "json_schema" or not tools:
        return None
    functions = [tool["function"] for tool in tools]
    try:
        calls = _call_schemas(functions[:TOOLS])
    except BadRequest:
        # Nobody demands a call: what is too large or too deep to be followed is no reason to refuse.
        calls = [_call_schema({"enum": [each["name"] for each in functions]}, {"type": "object"})]
    return Constraint("json_schema_or", f"[{','.join([constraint.text, *calls])}]", constraint.strict)


def _call_schemas(functions: list[dict[str, Any]]) -> list[str]:
    encoded([each.get("parameters") for each in functions], "tools")
    return [
        _call_schema({"const": each["name"]}, each.get("parameters") or {"type": "object"})
        for each in functions
    ]


def _call_schema(name: dict[str, Any], arguments: dict[str, Any]) -> str:
    call = {
        "type": "object",
        "properties": {"name": name, "arguments": inside(arguments, "/properties/arguments", "tools")},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
    return schema_text(call, "tools")
