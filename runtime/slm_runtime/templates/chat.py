"""From a conversation to a prompt, with the model's own template.

Templates differ in what they understand. What a template can't do is found out by rendering probes when
the model is loaded, not by knowing its name; :mod:`~slm_runtime.templates.adaptations` says what is done about it.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

import msgspec

from slm_contract.config import PromptConfig
from slm_runtime.engine.loading import Loaded
from slm_runtime.templates.adaptations import ADAPTATIONS, Adapt, calls_as_phi_writes_them, in_own_words
from slm_runtime.templates.messages import ChatMessage, Messages
from slm_runtime.templates.renderer import TemplateFailed, TemplateRenderer
from slm_runtime.templates.tools import teach

ToolStyle = Literal["variable", "system", "taught"]

CHATML: Final = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For a model that brings no template: the most common convention."""

_TOOL_VARIABLES: Final = ("tools", "xml_tools")
"""What templates call the tools that are offered; the second is SmolLM3's."""
_THINKING: Final = ("enable_thinking", "thinking")
"""What templates call the switch of reasoning; the second is Granite's and DeepSeek's."""
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
    adaptations: tuple[Adapt, ...] = ()
    """What a conversation goes through before it is rendered."""
    tool_adaptations: tuple[Adapt, ...] = ()
    """Likewise, with tools in the template's variable."""
    tools: ToolStyle = "taught"
    """Where the template looks for tools: in its variable, at the system message; else they are taught."""
    system: str | None = None
    """For conversations that bring no system message."""
    examples: Messages = field(default_factory=list)
    """Turns before those of every conversation."""
    typed: bool = False
    """The template takes a message's content as a list of parts only."""
    sees: bool = False
    """The model takes images: marks in the text stand for them."""
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
            examples=[{"role": each.role, "content": each.content} for each in prompt.messages or ()],
            sees=info.sees,
        )
        try:
            return await replace(plain, typed=await plain._wants_parts()).probed(prompt.system)
        except TemplateFailed as error:
            whose = "The model's chat template" if prompt.template is None else "spec.model.prompt.template"
            return replace(plain, system=prompt.system, problem=f"{whose} can't be used: {error.message}")

    async def probed(self, system: str | None) -> Self:
        """Find out what the template understands beside plain turns."""
        tools = await self._tool_style()
        needed = await self._needed([_PROBE_TOOL]) if tools == "variable" else ()
        return replace(
            self,
            tools=tools,
            adaptations=await self._needed(None),
            tool_adaptations=tuple(in_own_words(adapt, self.tool_template) for adapt in needed),
            system=system,
        )

    def by(self, template: str) -> Self:
        """The same conversations by another template, which takes them as they are."""
        return replace(
            self,
            template=template,
            tool_template=template,
            adaptations=(),
            tool_adaptations=(),
            typed=False,
            problem=None,
        )

    async def prompt(
        self,
        messages: Messages,
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
        messages = self._with_examples(messages)
        if tools and self.tools == "taught":
            messages, tools = teach(messages, tools), None
        elif tools and self.tools == "system":
            messages, tools = _with_tools_at_system(messages, tools), None
        for adapt in self.tool_adaptations if tools else self.adaptations:
            messages = adapt(messages)
        return await self._render(messages, tools, variables)

    def _with_examples(self, messages: Messages) -> Messages:
        if not self.examples:
            return messages
        led = next((at for at, each in enumerate(messages) if each["role"] != "system"), len(messages))
        return [*messages[:led], *self.examples, *messages[led:]]

    async def _render(
        self,
        messages: Messages,
        tools: list[dict[str, Any]] | None = None,
        variables: dict[str, Any] | None = None,
    ) -> str:
        context = {
            **self.variables,
            "messages": [_with_parts(message) for message in messages] if self.typed else messages,
            **dict.fromkeys(_TOOL_VARIABLES, tools),
            "add_generation_prompt": True,
            **(variables or {}),
        }
        switch = next((context[name] for name in _THINKING if name in context), None)
        if switch is not None:
            context = {**dict.fromkeys(_THINKING, switch), **context}
        return await self.renderer.render(self.tool_template if tools else self.template, context)

    async def _wants_parts(self) -> bool:
        asked = {"role": "user", "content": _PROBE}
        if _PROBE in await self._render([asked]):
            return False
        return await self._shows((_PROBE,), [_with_parts(asked)])

    async def _tool_style(self) -> ToolStyle:
        user = {"role": "user", "content": "x"}
        if await self._shows((_PROBE,), [user], tools=[_PROBE_TOOL]):
            return "variable"
        shown = await self._shows((_PROBE,), _with_tools_at_system([user], [_PROBE_TOOL]))
        return "system" if shown else "taught"

    async def _needed(self, tools: list[dict[str, Any]] | None) -> tuple[Adapt, ...]:
        """Which adaptations make the template show what it wouldn't without."""
        needed: list[Adapt] = []
        for one in ADAPTATIONS:
            probe = one.probe
            for adapt in needed:
                probe = adapt(probe)
            if not await self._shows(one.words, probe, tools) and await self._shows(
                one.words, one.adapt(probe), tools
            ):
                needed.append(one.adapt)
        return tuple(needed)

    async def _shows(
        self, words: tuple[str, ...], messages: Messages, tools: list[dict[str, Any]] | None = None
    ) -> bool:
        try:
            prompt = await self._render(messages, tools)
        except TemplateFailed as error:
            if error.kind == "time":
                # Each probe would take as long.
                raise
            return False
        return all(word in prompt for word in words)


def _with_parts(message: ChatMessage) -> ChatMessage:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _with_tools_at_system(messages: Messages, tools: list[dict[str, Any]]) -> Messages:
    """Phi-4-mini's way: the system message has a field `tools`, JSON text."""
    system: ChatMessage = {"role": "system", "content": ""}
    if messages and messages[0]["role"] == "system":
        system, messages = messages[0], messages[1:]
    text = msgspec.json.encode([tool["function"] for tool in tools]).decode()
    return [{**system, "tools": text}, *calls_as_phi_writes_them(messages)]
