"""A conversation: what was said, the parameters that are set, and the commands that change either. Pure."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

HELP: Final = """\
/set NAME VALUE   a parameter of requests: temperature 0, max_tokens 200, stop ["\\n"]; `/set` alone lists them
/set system TEXT  the system message
/unset NAME       as the model has it
/clear            forget what was said
/bye              leave; so does Ctrl-D. Ctrl-C ends an answer
\"\"\"               begins and ends a text of several lines"""
_OWN: Final = frozenset({"model", "messages", "stream", "stream_options", "n"})
"""Fields of a request that are the conversation's own business."""


@dataclass
class Conversation:
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    said: list[dict[str, str]] = field(default_factory=list)
    over: bool = False

    @property
    def messages(self) -> list[dict[str, str]]:
        """All that a request carries."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.said]

    def ask(self, text: str) -> None:
        self.said.append({"role": "user", "content": text})

    def answered(self, text: str) -> None:
        """Keep an answer, also one that was ended; a question that got none is as if it hadn't been asked."""
        if text:
            self.said.append({"role": "assistant", "content": text})
        else:
            self.said.pop()

    def command(self, line: str) -> str:
        """Do what a line says that begins with a slash; what to tell people of it."""
        name, _, rest = line.partition(" ")
        match name:
            case "/bye" | "/exit" | "/quit":
                self.over = True
                return ""
            case "/clear":
                self.said.clear()
                return "what was said is forgotten"
            case "/set":
                return self._set(rest.strip())
            case "/unset":
                self.system = None if rest.strip() == "system" else self.system
                self.parameters.pop(rest.strip(), None)
                return ""
            case "/help" | "/?":
                return HELP
            case _:
                return f"{name} is no command here\n{HELP}"

    def _set(self, rest: str) -> str:
        # Ollama's way of writing it has a word more.
        name, _, value = rest.removeprefix("parameter ").partition(" ")
        if not name:
            told = {**({"system": self.system} if self.system else {}), **self.parameters}
            return (
                "\n".join(f"{each} {json.dumps(value)}" for each, value in told.items()) or "nothing is set"
            )
        if not value.strip():
            return f"write a value behind it: /set {name} VALUE"
        if name == "system":
            self.system = value.strip()
        elif name in _OWN:
            return f"{name} is given by the conversation itself"
        else:
            self.parameters[name] = _read(value.strip())
        return ""


def _read(value: str) -> Any:
    """As JSON where it is some, else as the text that it is."""
    try:
        return json.loads(value)
    except ValueError:
        return value
