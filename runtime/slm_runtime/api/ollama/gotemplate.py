"""The simple Go templates of Modelfiles: three variables, with `if`, `else`, `end` around them."""

import re
from collections.abc import Iterator
from typing import Final

from slm_runtime.api.http.problems import BadRequest

_VARIABLE: Final = re.compile(r"\.(System|Prompt|Response)$")
_LIMIT: Final = 64 * 1024


def render(template: str, system: str, prompt: str) -> str:
    """Render up to where the response goes.

    Raises
    ------
    BadRequest
        The template needs more of Go's language than this.
    """
    if len(template) > _LIMIT:
        raise _unsupported(f"it is longer than {_LIMIT} characters")
    values = {"System": system, "Prompt": prompt, "Response": ""}
    out: list[str] = []
    # Of each open `if`: whether its branch is taken, and whether its `else` has come.
    branches: list[tuple[bool, bool]] = []
    for text, action in _pieces(template):
        shown = all(taken for taken, _ in branches)
        if shown:
            out.append(text)
        if action is None and branches:
            raise _unsupported("an `if` has no `end`")
        if action is None:
            break
        variable = _VARIABLE.match(action)
        if variable:
            if shown and variable[1] == "Response":
                break
            if shown:
                out.append(values[variable[1]])
        elif action.startswith("if ") and (condition := _VARIABLE.match(action[3:].strip())):
            branches.append((bool(values[condition[1]]), False))
        elif action == "else" and branches and not branches[-1][1]:
            branches[-1] = (not branches[-1][0], True)
        elif action == "end" and branches:
            branches.pop()
        elif not action.startswith("/*"):
            raise _unsupported(f"{{{{ {action[:60]} }}}} is not understood")
    return "".join(out)


def _pieces(template: str) -> Iterator[tuple[str, str | None]]:
    """Text and the action after it; None after the last text. `{{-` and `-}}` trim the text beside them."""
    text, *rest = template.split("{{")
    for part in rest:
        action, closed, following = part.partition("}}")
        if not closed:
            raise _unsupported("a {{ has no }}")
        if action.startswith("- "):
            action, text = action[2:], text.rstrip()
        if action.endswith(" -"):
            action, following = action[:-2], following.lstrip()
        yield text, action.strip()
        text = following
    yield text, None


def _unsupported(why: str) -> BadRequest:
    return BadRequest(
        f"template: {why}. Only .System, .Prompt and .Response with if, else and end are served; "
        "for anything else set a Jinja template in spec.model.prompt.template of the SLMDeployment.",
        param="template",
    )
