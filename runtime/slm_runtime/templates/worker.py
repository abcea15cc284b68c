"""The process that renders: requests come on stdin, answers go to stdout, each a length and a JSON document.

A request is `{"template": source, "variables": {...}}`; an answer `{"text": ...}` or `{"error": ...,
"kind": ...}` with kind `syntax`, `refused`, `render` or `size`. It ends when its stdin does, so it never
outlives the server.
"""

import resource
import struct
import sys
from functools import lru_cache
from typing import Any, BinaryIO, Final

import msgspec
from jinja2 import Template
from jinja2.exceptions import TemplateSyntaxError

from slm_runtime.templates.environment import TemplateRefusal, make_environment

MEMORY_BYTES: Final = 384 * 1024 * 1024
"""Address space of this process. Python and Jinja take some 60 MiB of it."""
OUTPUT_CHARS: Final = 16 * 1024 * 1024
LENGTH: Final = struct.Struct("<I")

_environment = make_environment()


@lru_cache(maxsize=16)
def _compiled(source: str) -> Template:
    return _environment.from_string(source)


def render(source: str, variables: dict[str, Any]) -> dict[str, str]:
    """Render, and turn whatever goes wrong into an answer."""
    try:
        pieces: list[str] = []
        size = 0
        for piece in _compiled(source).generate(variables):
            size += len(piece)
            if size > OUTPUT_CHARS:
                return _failed("size", f"the prompt would be longer than {OUTPUT_CHARS} characters")
            pieces.append(piece)
        return {"text": "".join(pieces)}
    except TemplateSyntaxError as error:
        return _failed("syntax", f"line {error.lineno}: {error.message}")
    except TemplateRefusal as error:
        return _failed("refused", str(error.message))
    except (MemoryError, RecursionError) as error:
        return _failed("size", f"it ran out of bounds ({type(error).__name__})")
    except Exception as error:  # a template can raise anything that Python's operators raise
        return _failed("render", f"{type(error).__name__}: {error}")


def _failed(kind: str, message: str) -> dict[str, str]:
    return {"error": message[:500], "kind": kind}


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    while head := requests.read(LENGTH.size):
        (length,) = LENGTH.unpack(head)
        request = msgspec.json.decode(requests.read(length))
        answer = render(request["template"], request["variables"])
        try:
            body = msgspec.json.encode(answer)
        except (UnicodeEncodeError, msgspec.MsgspecError):
            body = msgspec.json.encode(_failed("render", "it made text that is not valid Unicode"))
        answers.write(LENGTH.pack(len(body)) + body)
        answers.flush()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin.buffer, sys.stdout.buffer)
