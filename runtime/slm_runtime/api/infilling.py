"""A prompt whose answer stands between two texts, for models that were trained for it.

Prefix, suffix, middle, in this order: `[PRE]prefix[SUF]suffix[MID]`, before it other files of the repository.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from slm_runtime.api.http.problems import BadRequest
from slm_runtime.api.serving import Serving
from slm_runtime.engine.loading import InfillTokens
from slm_runtime.engine.messages import CHARACTERS_A_TOKEN

_NO_FILE_MARK: Final = "\n\n--- snippet ---\n\n"
"""What llama-server puts between files where the model has no token for it."""
_REPOSITORY: Final = "repository\n"
_FILE: Final = "file\n"


@dataclass(frozen=True)
class Extra:
    """A part of another file."""

    name: str
    text: str


def require_infill(serving: Serving, param: str) -> InfillTokens:
    """Raise BadRequest for models that have no tokens for it."""
    serving.require_chat()
    tokens = serving.engine.info.infill
    if tokens is None:
        raise BadRequest(
            f"{serving.name!r} does not support insert: its vocabulary has no tokens for what stands before and "
            "after a gap. Ask a model for code that was trained to fill in the middle.",
            param=param,
            code="unsupported_model",
        )
    return tokens


async def infill_prompt(
    serving: Serving,
    marks: InfillTokens,
    prefix: str | list[int],
    suffix: str,
    extras: Sequence[Extra] = (),
    *,
    answer: int | None = None,
) -> list[int]:
    """Make the prompt, cut to what the context holds.

    What is nearest to the gap stays: the prefix's end and the suffix's beginning, which has a quarter where both are long.
    Other files have what is left, the last ones first.

    Parameters
    ----------
    answer
        Tokens that the answer may have: there is room for them, for a quarter of the context where nothing is said.
    """
    info = serving.engine.info
    context = info.context_length
    begin = [info.bos] if info.add_bos and info.bos is not None else []
    most = CHARACTERS_A_TOKEN * context
    before = prefix if isinstance(prefix, list) else await _read(serving, prefix[-most:])
    after = await _read(serving, suffix[:most])
    room = max(2, context - min(answer or context // 4, context // 2) - len(begin) - 3)
    after = after[: max(room // 4, room - len(before))]
    before = before[-(room - len(after)) :]
    others = await _others(serving, marks, extras, room - len(before) - len(after))
    return [*begin, *others, marks.prefix, *before, marks.suffix, *after, marks.middle]


async def _others(serving: Serving, marks: InfillTokens, extras: Sequence[Extra], room: int) -> list[int]:
    """What stands before the file with the gap."""
    if not extras:
        return []
    head = [] if marks.repository is None else [marks.repository, *await _read(serving, _REPOSITORY)]
    end = [] if marks.file is None else [marks.file, *await _read(serving, _FILE)]
    room -= len(head) + len(end)
    parts: list[list[int]] = []
    for extra in reversed(extras):
        if len(extra.text) > CHARACTERS_A_TOKEN * max(0, room):
            break
        part = await _other(serving, marks, extra)
        if len(part) > room:
            break
        room -= len(part)
        parts.append(part)
    return [*head, *(token for part in reversed(parts) for token in part), *end] if parts else []


async def _other(serving: Serving, marks: InfillTokens, extra: Extra) -> list[int]:
    if marks.file is None:
        return await _read(serving, _NO_FILE_MARK + extra.text)
    return [marks.file, *await _read(serving, f"{extra.name}\n{extra.text}")]


async def _read(serving: Serving, text: str) -> list[int]:
    """A text of files, in which nothing is a special token."""
    return await serving.engine.tokenize(text, add_special=False, parse_special=False) if text else []
