"""`prompt` and `input`: a text, tokens, or a list of either."""

from typing import Annotated

from msgspec import Meta

from slm_runtime.api.http.problems import BadRequest

Token = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Prompts = str | list[str | Token | list[Token]]


def separate(given: Prompts, param: str) -> list[str | list[int]]:
    """One text or list of tokens each.

    Raises
    ------
    BadRequest
        An empty list, or tokens and texts side by side.
    """
    if isinstance(given, str):
        return [given]
    if given and all(isinstance(token, int) for token in given):
        return [[token for token in given if isinstance(token, int)]]
    prompts = [prompt for prompt in given if not isinstance(prompt, int)]
    if not prompts or len(prompts) != len(given):
        raise BadRequest(
            f"'{param}' must be a text, a list of texts, a list of tokens, or a list of such lists.",
            param=param,
        )
    return prompts
