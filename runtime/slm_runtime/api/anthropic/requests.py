"""What `/v1/messages` is asked, checked. As Anthropic's clients grow fields, those that aren't known here are let pass."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from slm_runtime.api.conversation.schema import schema_text
from slm_runtime.api.conversation.turn import TOOLS, Tool, ToolChoice
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.openai import fields
from slm_runtime.api.openai.sampling import STOP_STRINGS, Positive, SamplingFields, StopString, Unit
from slm_runtime.api.openai.tooling import Name
from slm_runtime.engine.messages import Constraint


class Block(msgspec.Struct):
    """One block of content, of any kind: what a kind has beyond these isn't read."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str = ""
    name: str = ""
    input: Any = None
    tool_use_id: str = ""
    tool_name: str = ""
    content: "str | list[Block] | None" = None
    source: dict[str, Any] | None = None


class MessageParam(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ToolParam(msgspec.Struct):
    name: Name
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None

    def to_tool(self, where: str) -> Tool:
        """As templates know it.

        Raises
        ------
        BadRequest
            It is one of those that run at Anthropic, or that its models know without a schema.
        """
        if self.input_schema is None and self.type not in {None, "custom"}:
            raise BadRequest(
                f"{where}: a tool of type {self.type[:50]!r} isn't known to the model here; "
                "describe it with 'input_schema', or leave it out.",
                param=where,
            )
        parameters = self.input_schema or {"type": "object", "properties": {}}
        function = {"name": self.name, "description": self.description or "", "parameters": parameters}
        return {"type": "function", "function": function}


class ToolChoiceParam(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"] = "auto"
    name: str = ""
    disable_parallel_tool_use: bool | None = None

    def to_choice(self) -> ToolChoice:
        several = not self.disable_parallel_tool_use
        if self.type == "any":
            return ToolChoice("required", parallel=several)
        if self.type == "tool":
            return ToolChoice("named", self.name)
        return ToolChoice(self.type, parallel=several)


class Thinking(msgspec.Struct):
    type: str
    """`enabled`, `adaptive`, `disabled`; a budget of tokens can't be given to the models here."""


class OutputFormat(msgspec.Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class MessagesRequest(msgspec.Struct, kw_only=True):
    model: str
    messages: list[MessageParam]
    max_tokens: Positive | None = None
    system: str | list[Block] | None = None
    stream: bool | None = None
    stop_sequences: Annotated[list[StopString], Meta(max_length=STOP_STRINGS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31)] | None = None
    tools: Annotated[list[ToolParam], Meta(max_length=TOOLS)] | None = None
    tool_choice: ToolChoiceParam | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    def offered(self) -> list[Tool]:
        """The tools that the model is shown."""
        return [tool.to_tool(f"tools[{index}]") for index, tool in enumerate(self.tools or [])]

    def constraint(self) -> Constraint | None:
        wanted = self.output_config.format if self.output_config else None
        if wanted is None:
            return None
        return Constraint("json_schema", schema_text(wanted.schema, "output_config.format.schema"))

    def sampling(self) -> SamplingFields:
        return SamplingFields(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)

    def stops(self) -> list[str] | None:
        return None if self.stop_sequences is None else [stop for stop in self.stop_sequences if stop]

    def template_variables(self) -> dict[str, Any]:
        """What the template is told; where nothing is said of thinking, it is as the template has it."""
        variables: dict[str, Any] = {}
        if self.output_config is not None and self.output_config.effort is not None:
            variables["reasoning_effort"] = self.output_config.effort
        if self.thinking is not None:
            variables["enable_thinking"] = self.thinking.type != "disabled"
        return variables


def parse(document: dict[str, Any]) -> MessagesRequest:
    """Check a request; null is what isn't there.

    Raises
    ------
    BadRequest
    """
    document = {name: value for name, value in document.items() if value is not None}
    try:
        return msgspec.convert(document, MessagesRequest)
    except msgspec.ValidationError as error:
        raise fields.invalid(error) from None
    except RecursionError:
        raise BadRequest("The request is nested too deeply.") from None
