"""How each family of models marks its reasoning, recognised by what its chat template says.

Adding a family is adding an entry.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Thoughts:
    """What stands around a model's reasoning."""

    begin: str
    end: str
    anywhere: bool = False
    """The marks are tokens of their own and mean one thing wherever they come; else only the answer's head is looked at."""
    silent: tuple[str, ...] = ()
    """Marks of the family's that stand around what is meant for people: they go, and what is between them stays."""
    answer: str = ""
    """What a prompt ends with where the answer itself shall begin."""
    sign: str = ""
    """Text in a chat template that tells the family; none: `end` does."""


THINK: Final = Thoughts("<think>", "</think>")
MISTRAL: Final = Thoughts("[THINK]", "[/THINK]")
HARMONY: Final = Thoughts(
    "<|channel|>analysis<|message|>",
    "<|end|>",
    anywhere=True,
    silent=(
        "<|start|>assistant",
        "<|channel|>final<|message|>",
        "<|channel|>final <|constrain|>json<|message|>",
        "<|channel|>commentary<|message|>",
        "<|end|>",
        "<|return|>",
    ),
    answer="<|channel|>final<|message|>",
    sign="<|channel|>analysis",
)
"""gpt-oss: a channel of its own for what it thinks, for what it calls, and for what it says."""

FAMILIES: Final = (
    HARMONY,
    Thoughts(
        "<|channel>thought",
        "<channel|>",
        anywhere=True,
        silent=("<|channel>final", "<|tool_response>", "<turn|>"),
    ),
    Thoughts(
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        anywhere=True,
        silent=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    Thoughts("<|inner_prefix|>", "<|inner_suffix|>", anywhere=True),
    Thoughts("<seed:think>", "</seed:think>"),
    Thoughts("<thinking>", "</thinking>"),
    THINK,
    MISTRAL,
)
"""gpt-oss, Gemma 4, Command, Apertus, Seed, Apriel, most others, Mistral."""


def thoughts(template: str) -> Thoughts | None:
    """How the model marks its reasoning, if it does: its template says it."""
    return next((family for family in FAMILIES if (family.sign or family.end) in template), None)
