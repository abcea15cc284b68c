"""Prompts that no server has seen: no two share a prefix unless they should."""

import random

WORDS = tuple(
    """
    time year people way day man thing woman life child world school state family student group country problem hand
    part place case week company system program question work government number night point home water room mother
    area money story fact month lot right study book eye job word business issue side kind head house service friend
    father power hour game line end member law car city community name president team minute idea body information
    back parent face others level office door health person art war history party result change morning reason
    research girl guy moment air teacher force education
    """.split()
)


def words(count: int, seed: int) -> str:
    """*count* words; one is one token and a little more in the vocabularies of small models."""
    chooser = random.Random(seed)
    return " ".join(chooser.choice(WORDS) for _ in range(count))


def chat(text: str, max_tokens: int, *, system: str | None = None, **sampling: float) -> dict[str, object]:
    """A chat completion of exactly *max_tokens* tokens, greedy unless *sampling* says otherwise."""
    messages = [{"role": "user", "content": text}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return {
        "model": "bench",
        "messages": messages,
        "temperature": 0,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        **sampling,
    }
