"""A conversation as chat templates see it."""

from typing import Any

ChatMessage = dict[str, Any]
"""`role`, `content` and, where there are any, `reasoning_content`, `tool_calls`, `name`, `tool_call_id`."""
Messages = list[ChatMessage]
