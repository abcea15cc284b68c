"""Tools for models whose template knows none: taught in the system message, answered in the user's turn."""

from typing import Any, Final

import msgspec

from slm_runtime.templates.adaptations import calls_as_text, join_systems, join_turns, results_as_text
from slm_runtime.templates.messages import ChatMessage, Messages

_TEACHING: Final = """\
You can call functions. These are their JSON schemas:
<tools>
{tools}
</tools>
To call a function, write its name and arguments as one JSON object between tags, and nothing else:
<tool_call>
{{"name": "function-name", "arguments": {{"argument": "value"}}}}
</tool_call>
Its result comes back between <tool_response> tags. Without need of a function, answer as usual."""


def teach(messages: Messages, tools: list[dict[str, Any]]) -> Messages:
    """Rewrite a conversation with tools as one that any template renders.

    The tools go to the head of the conversation; earlier calls and their results become the text that the
    model would have written and read.
    """
    listed = "\n".join(msgspec.json.encode(tool["function"]).decode() for tool in tools)
    teaching: ChatMessage = {"role": "system", "content": _TEACHING.format(tools=listed)}
    head = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    rest = join_turns(results_as_text(calls_as_text(messages[head:])))
    return [*join_systems([*messages[:head], teaching]), *rest]
