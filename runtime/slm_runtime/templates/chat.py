"""From a conversation to a prompt, with the model's own template.

Templates differ in what they understand. What a template can't do is found out by rendering probes when
the model is loaded, not by knowing its name: one that drops or refuses a system message gets it at the
head of the first user message, and one that can't write out an object of tool arguments gets it as JSON text.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

import msgspec

from slm_contract.config import PromptConfig
from slm_runtime.engine.messages import Loaded
from slm_runtime.templates.renderer import TemplateFailed, TemplateRenderer
from slm_runtime.templates.tools import teach

ChatMessage = dict[str, Any]
"""As templates see it: `role`, `content` and, where there are any, `tool_calls`, `name`, `tool_call_id`."""

ToolStyle = Literal["variable", "system", "taught"]

CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For a model that brings no template: the most common convention."""

_PROBE: Final = "a1b2c3"
_PROBE_TOOL: Final = {
    "type": "function",
    "function": {
        "name": _PROBE,
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    },
}


@dataclass(frozen=True)
class ChatFormat:
    renderer: TemplateRenderer
    template: str
    tool_template: str
    variables: dict[str, Any] = field(default_factory=dict)
    """What every rendering gets: `bos_token`, `eos_token`."""
    system_role: bool = True
    tools: ToolStyle = "taught"
    """Where the template looks for tools: in its variable, at the system message; else they are taught."""
    system: str | None = None
    """For conversations that bring no system message."""
    problem: str | None = None
    """Why no conversation can be rendered at all."""

    @classmethod
    async def of(cls, info: Loaded, renderer: TemplateRenderer, prompt: PromptConfig | None = None) -> Self:
        """Choose among the model's templates, or take the deployment's, and probe what it understands."""
        prompt = prompt or PromptConfig()
        template = prompt.template or info.chat_templates.get("default", CHATML)
        plain = cls(
            renderer=renderer,
            template=template,
            tool_template=prompt.template or info.chat_templates.get("tool_use", template),
            variables={"bos_token": info.bos_text, "eos_token": info.eos_text},
        )
        problem = None
        try:
            await plain._render([{"role": "user", "content": _PROBE}])
        except TemplateFailed as error:
            whose = "The model's chat template" if prompt.template is None else "spec.model.prompt.template"
            problem = f"{whose} can't be used: {error.message}"
        user = {"role": "user", "content": "x"}
        return cls(
            renderer=renderer,
            template=plain.template,
            tool_template=plain.tool_template,
            variables=plain.variables,
            system_role=await plain._shows([{"role": "system", "content": _PROBE}, user]),
            tools=await plain._tool_style(user),
            system=prompt.system,
            problem=problem,
        )

    async def prompt(
        self,
        messages: list[ChatMessage],
        *,
        tools: list[dict[str, Any]] | None = None,
        variables: dict[str, Any] | None = None,
    ) -> str:
        """Render a conversation up to where the assistant's turn begins.

        Raises
        ------
        TemplateFailed
            The template refuses these messages, can't render them, or ran out of its bounds.
        """
        if self.system is not None and not any(message["role"] == "system" for message in messages):
            messages = [{"role": "system", "content": self.system}, *messages]
        if tools and self.tools == "taught":
            messages, tools = teach(messages, tools), None
        elif tools and self.tools == "system":
            messages, tools = _with_tools_at_system(messages, tools), None
        if not self.system_role:
            messages = fold_system(messages)
        try:
            return await self._render(messages, tools, variables)
        except TemplateFailed as error:
            if error.kind != "render" or not any(message.get("tool_calls") for message in messages):
                raise
            # Some templates (DeepSeek's) concatenate the arguments as text.
            return await self._render(_with_text_arguments(messages), tools, variables)

    async def _render(
        self,
        messages: list[ChatMessage],
        tools: list[dict[str, Any]] | None = None,
        variables: dict[str, Any] | None = None,
    ) -> str:
        context = {
            **self.variables,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": True,
            **(variables or {}),
        }
        return await self.renderer.render(self.tool_template if tools else self.template, context)

    async def _tool_style(self, user: ChatMessage) -> ToolStyle:
        if await self._shows([user], tools=[_PROBE_TOOL]):
            return "variable"
        shown = await self._shows(_with_tools_at_system([user], [_PROBE_TOOL]))
        return "system" if shown else "taught"

    async def _shows(self, messages: list[ChatMessage], tools: list[dict[str, Any]] | None = None) -> bool:
        try:
            return _PROBE in await self._render(messages, tools)
        except TemplateFailed:
            return False


def fold_system(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Put system messages at the head of the user message that follows them."""
    folded: list[ChatMessage] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            folded.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            folded.append(message)
    if waiting:
        folded.append({"role": "user", "content": "\n\n".join(waiting)})
    return folded


def _with_tools_at_system(messages: list[ChatMessage], tools: list[dict[str, Any]]) -> list[ChatMessage]:
    """Phi-4-mini's way: the system message has a field `tools`, JSON text."""
    system: ChatMessage = {"role": "system", "content": ""}
    if messages and messages[0]["role"] == "system":
        system, messages = messages[0], messages[1:]
    text = msgspec.json.encode([tool["function"] for tool in tools]).decode()
    return [{**system, "tools": text}, *messages]


def _with_text_arguments(messages: list[ChatMessage]) -> list[ChatMessage]:
    def call(one: dict[str, Any]) -> dict[str, Any]:
        function = one["function"]
        text = msgspec.json.encode(function["arguments"]).decode()
        return {**one, "function": {**function, "arguments": text}}

    return [
        {**message, "tool_calls": [call(one) for one in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]
