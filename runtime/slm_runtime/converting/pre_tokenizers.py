"""What llama.cpp's pre-tokenizers of byte pairs cut texts with, as steps of the `tokenizers` library."""

from typing import Any, Final

Step = dict[str, Any]


def _cut(expression: str) -> Step:
    """Matches apart from the rest."""
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def _bytes(*, words: bool) -> Step:
    """To letters for bytes; with `words` after GPT-2's own expression."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": words}


BYTES: Final = _bytes(words=False)
_WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS: Final = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED: Final = "|".join(
    rf"[^\r\n\p{{L}}\p{{N}}]?{upper}{lower}{_CONTRACTIONS}?"
    for upper, lower in ((f"{_UPPER}*", f"{_LOWER}+"), (f"{_UPPER}+", f"{_LOWER}*"))
)

_GPT2: Final = (_bytes(words=True),)
_DIGITS: Final = ({"type": "Digits", "individual_digits": True}, _bytes(words=True))
_LLAMA3: Final = (_cut(rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"), BYTES)
_QWEN2: Final = (_cut(rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}|{_REST}"), BYTES)
_GPT4O: Final = (
    _cut(rf"{_CASED}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    BYTES,
)
_DEFAULT: Final = (
    *map(_cut, (r"[\p{P}\$\+<=>\^~\|]+", _WORDS, r"\p{N}+", r"[0-9][0-9][0-9]")),
    BYTES,
)

WHOLE_FIRST: Final = ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0")
"""Those by which a word that is a token is that token, whatever pairs it has, and a text begins with one of its own."""
STEPS: Final[dict[str, tuple[Step, ...]]] = {
    "default": _DEFAULT,
    "gpt-4o": _GPT4O,
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling"), _GPT2),
    **dict.fromkeys((*WHOLE_FIRST, "dbrx", "smaug-bpe"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "megrez", "hunyuan", "stablelm2"), _QWEN2),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), _DIGITS
    ),
}
"""By the name that files have for it."""
