"""Templates of the shapes that Modelfiles have, conversations for them, and what Go makes of both.

`go_templates.json` was written by Ollama's own reader, and is held to it by tests/sources/test_modelfiles.py.
"""

import json
from pathlib import Path
from typing import Any

STORED = Path(__file__).with_name("go_templates.json")

Messages = list[dict[str, Any]]


def _said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Oslo", "at": 3}},
}
CONVERSATIONS: dict[str, Messages] = {
    "a question": [_said("user", "Hi\nyou")],
    "with a system message": [_said("system", "Be kind."), _said("user", "Hi")],
    "of turns": [
        _said("system", "Be."),
        _said("user", "Hi"),
        _said("assistant", "Yo"),
        _said("user", "More?"),
    ],
    "of the same roles": [
        *(_said("system", each) for each in "AB"),
        *(_said("user", each) for each in "12"),
        *(_said("assistant", each) for each in "xy"),
        _said("user", "3"),
    ],
    "with a late system message": [_said("user", "1"), _said("system", "late"), _said("user", "2")],
    "with two system messages": [
        _said("system", "A"),
        _said("user", "1"),
        _said("assistant", "x"),
        _said("system", "B"),
        _said("user", "2"),
    ],
    "that the assistant has begun": [_said("user", "1"), _said("assistant", "half")],
    "with a call": [
        _said("system", "A"),
        _said("user", "1"),
        _said("assistant", "", tool_calls=[_CALL]),
        _said("tool", "sunny", name="weather"),
        _said("tool", "dry", name="weather"),
        _said("user", "thanks"),
    ],
}
TOOLS: Messages = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "What it is like",
            "parameters": {
                "type": "object",
                "required": ["city"],
                "properties": {
                    "city": {"type": "string", "description": "Where"},
                    "at": {"type": "integer", "description": "Hour"},
                },
            },
        },
    }
]


def for_ollama(messages: Messages) -> Messages:
    """Its name for what a tool is called."""
    return [
        {"tool_name" if key == "name" else key: value for key, value in each.items()} for each in messages
    ]


def stored() -> dict[str, dict[str, Any]]:
    """By name: `template`, and `texts` by conversation, with tools after ` + tools`."""
    found: dict[str, dict[str, Any]] = json.loads(STORED.read_text())
    return found
