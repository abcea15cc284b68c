"""Tools for models whose template knows none: taught in the system message, answered in the user's turn."""

from typing import Any, Final

import msgspec

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

Messages = list[dict[str, Any]]


def teach(messages: Messages, tools: list[dict[str, Any]]) -> Messages:
    """Rewrite a conversation with tools as one that any template renders.

    The tools go to the head of the conversation; earlier calls and their results become the text that the
    model would have written and read.
    """
    listed = "\n".join(_json(tool["function"]) for tool in tools)
    taught: Messages = [{"role": "system", "content": _TEACHING.format(tools=listed)}]
    for message in messages:
        if message["role"] == "system" and len(taught) == 1:
            taught[0] = {"role": "system", "content": f"{message['content']}\n\n{taught[0]['content']}"}
        else:
            _append(taught, _as_text(message))
    return taught


def _as_text(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    texts = [f"<tool_call>\n{_json(call['function'])}\n</tool_call>" for call in calls]
    content = "\n".join([message["content"], *texts] if message["content"] else texts)
    return {"role": "assistant", "content": content}


def _append(messages: Messages, message: dict[str, Any]) -> None:
    """Join what would be two turns of one speaker: many templates insist on turns that alternate."""
    last = messages[-1]
    if message["role"] == last["role"] == "user":
        messages[-1] = {**last, "content": f"{last['content']}\n{message['content']}"}
    else:
        messages.append(message)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
