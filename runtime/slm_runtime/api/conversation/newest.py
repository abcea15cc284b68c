"""A conversation longer than the context, where the API says to shorten it: whole turns go, the oldest first."""

from collections.abc import Awaitable, Callable

from slm_runtime.api.answering import api_error
from slm_runtime.api.conversation.turn import Turn
from slm_runtime.api.serving import Serving
from slm_runtime.engine.client import RequestRefused
from slm_runtime.engine.messages import CHARACTERS_A_TOKEN
from slm_runtime.templates.messages import ChatMessage

Prepare = Callable[[list[ChatMessage]], Awaitable[Turn]]


async def newest_turns(
    serving: Serving, messages: list[ChatMessage], prepare: Prepare, max_tokens: int | None
) -> Turn:
    """Prepare as much of the conversation as the context holds.

    System messages stay, and so does all from the last user's message on: where that alone is too long, the engine cuts
    tokens. What remains begins with a user's message, as templates expect it.

    Parameters
    ----------
    max_tokens
        What the answer may have. A conversation that has to be shortened leaves room for it, for a quarter of the context
        where nothing is said, for half of it at most: otherwise it would be too long again at once.

    Raises
    ------
    ApiError
    """
    whole = await prepare(messages)
    context = serving.engine.info.context_length
    if await _fits(serving, whole, context - 1):
        return whole
    room = context - min(max_tokens or context // 4, context // 2)
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    first, last = 1, len(users) - 1
    if last < first:
        return whole
    while first < last:
        middle = (first + last) // 2
        if await _fits(serving, await prepare(_since(messages, users[middle])), room):
            last = middle
        else:
            first = middle + 1
    return await prepare(_since(messages, users[first]))


def _since(messages: list[ChatMessage], start: int) -> list[ChatMessage]:
    return [
        message for index, message in enumerate(messages) if index >= start or message["role"] == "system"
    ]


async def _fits(serving: Serving, turn: Turn, tokens: int) -> bool:
    texts = [part for part in turn.prompt if isinstance(part, str)]
    seen = len(texts) < len(turn.prompt)
    # A token stands for a byte at least, but for those that are put at the beginning and the end.
    if not seen and sum(len(text.encode()) for text in texts) + 2 <= tokens:
        return True
    if sum(map(len, texts)) > CHARACTERS_A_TOKEN * tokens:
        return False
    try:
        held = await serving.engine.tokenize(turn.prompt, add_special=True, parse_special=True)
    except RequestRefused as error:
        if error.code != "context_length_exceeded":
            raise api_error(error, {}) from error
        return False
    return len(held) <= tokens
