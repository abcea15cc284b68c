"""`tokenizer.json` of a GGUF file's vocabulary: reads texts as llama.cpp does."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from slm_runtime.converting.pre_tokenizers import BYTES, STEPS, WHOLE_FIRST
from slm_runtime.errors import InvalidModel, UnsupportedArchitecture
from slm_runtime.models.gguf import Array, Header
from slm_runtime.models.metadata import Metadata

BLANK: Final = "\u2581"
ENDS: Final = frozenset(
    "<|eot_id|> <|im_end|> <|end|> <end_of_turn> <|endoftext|> </s> <|eom_id|> <EOT> <|end_of_text|> <eos>".split()
)
"""Tokens that end an answer whatever the file says, as llama.cpp has it."""
_REMEDY: Final = "Convert the model's Hugging Face folder, which has its tokenizer, instead of the GGUF file."


class Kind(IntEnum):
    """What a token is."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """A file's tokens."""

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    blank_before: bool
    """Whether a blank is put before every text, and before what follows a token of a meaning."""
    strips: bool
    """Whether tokens of a meaning take the blanks behind them along."""
    bos: int | None
    eos: int | None
    padding: int | None
    unknown: int | None
    add_bos: bool
    ends: tuple[int, ...]
    """Tokens that end an answer; the file's own first."""

    def text(self, token: int | None) -> str | None:
        return None if token is None else self.tokens[token]


def read_vocabulary(header: Header) -> Vocabulary:
    """Read a header's vocabulary, whose keys were asked for whole.

    Raises
    ------
    InvalidModel
        It has none, or what it says makes no sense.
    UnsupportedArchitecture
        A kind of tokenizer that isn't exported.
    """
    metadata = Metadata(header)
    model = metadata.text("tokenizer.ggml.model") or "none"
    pre = metadata.text("tokenizer.ggml.pre") or "default"
    if model not in {"llama", "gpt2"}:
        raise UnsupportedArchitecture(
            f"The model's tokenizer is {model!r}; llama and gpt2 are exported.", _REMEDY
        )
    if model == "gpt2" and pre not in STEPS:
        raise UnsupportedArchitecture(
            f"The model's pre-tokenizer is {pre!r}; {', '.join(sorted(STEPS))} are exported.", _REMEDY
        )
    tokens, kinds, scores, merges = (
        _items(header, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "scores", "merges")
    )
    kinds = kinds or (Kind.NORMAL,) * len(tokens)
    if not tokens or len(kinds) != len(tokens) or (model == "llama" and len(scores) != len(tokens)):
        raise InvalidModel("The model's vocabulary is missing or not whole.", _REMEDY)

    def token(name: str, default: int | None = None) -> int | None:
        if not metadata.has(key := f"tokenizer.ggml.{name}_token_id"):
            return default
        number = metadata.number(key)
        if number >= len(tokens):
            raise InvalidModel(f"{key} is {number}, and the vocabulary has {len(tokens)} tokens.", _REMEDY)
        return number

    sentences = model == "llama"
    eos = token("eos", 2 if sentences else None)
    ends = [eos, token("eot"), token("eom"), *(number for number, text in enumerate(tokens) if text in ENDS)]
    name = (metadata.text("general.name") or "").lower()
    return Vocabulary(
        model=model,
        pre=pre,
        tokens=tuple(map(str, tokens)),
        kinds=tuple(map(int, kinds)),
        scores=tuple(map(float, scores)),
        merges=tuple(map(str, merges)),
        blank_before=sentences and metadata.flag("tokenizer.ggml.add_space_prefix", default=True),
        strips="phi-3" in name or "phi3" in name,
        bos=token("bos", 1 if sentences else None),
        eos=eos,
        padding=token("padding"),
        unknown=token("unknown", 0 if sentences else None),
        add_bos=metadata.flag("tokenizer.ggml.add_bos_token", default=sentences or pre in WHOLE_FIRST),
        ends=tuple(dict.fromkeys(number for number in ends if number is not None)),
    )


def _items(header: Header, key: str) -> Sequence[Any]:
    value = header.metadata.get(key)
    return value.whole if isinstance(value, Array) else ()


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """As the `tokenizers` library reads it."""
    sentences = vocabulary.model == "llama"
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(vocabulary, number) for number in _with_a_meaning(vocabulary)],
        "normalizer": _normalizer(vocabulary) if sentences else None,
        "pre_tokenizer": None
        if sentences
        else {"type": "Sequence", "pretokenizers": [*STEPS[vocabulary.pre]]},
        "post_processor": _template(vocabulary),
        "decoder": _sentence_decoder(vocabulary) if sentences else BYTES,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": vocabulary.text(vocabulary.unknown) if sentences else None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": sentences,
            "byte_fallback": sentences,
            "ignore_merges": vocabulary.pre in WHOLE_FIRST and not sentences,
            "vocab": {text: number for number, text in enumerate(vocabulary.tokens)},
            "merges": _merges_by_score(vocabulary) if sentences else _pairs(vocabulary.merges),
        },
    }


def _with_a_meaning(vocabulary: Vocabulary) -> list[int]:
    meant = {Kind.CONTROL, Kind.USER_DEFINED, Kind.UNKNOWN}
    return [
        number
        for number, (kind, text) in enumerate(zip(vocabulary.kinds, vocabulary.tokens, strict=True))
        if text and (kind in meant or text in ENDS)
    ]


def _added(vocabulary: Vocabulary, number: int) -> dict[str, Any]:
    own = {vocabulary.text(each) for each in (vocabulary.unknown, vocabulary.bos)} | {"<|endoftext|>"}
    text = vocabulary.tokens[number]
    return {
        "id": number,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": vocabulary.strips and text not in own,
        "normalized": False,
        "special": vocabulary.kinds[number] != Kind.USER_DEFINED,
    }


def _normalizer(vocabulary: Vocabulary) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": BLANK}]
    if vocabulary.blank_before:
        steps.insert(0, {"type": "Prepend", "prepend": BLANK})
    return {"type": "Sequence", "normalizers": steps}


def _sentence_decoder(vocabulary: Vocabulary) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": BLANK}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if vocabulary.blank_before:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def _template(vocabulary: Vocabulary) -> dict[str, Any]:
    first = {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 0}}
    begin = vocabulary.text(vocabulary.bos) if vocabulary.add_bos else None
    if begin is None:
        return {
            "type": "TemplateProcessing",
            "single": [first],
            "pair": [first, second],
            "special_tokens": {},
        }
    mark = {"SpecialToken": {"id": begin, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [mark, first],
        "pair": [mark, first, mark, second],
        "special_tokens": {begin: {"id": begin, "ids": [vocabulary.bos], "tokens": [begin]}},
    }


def _pairs(merges: Sequence[str]) -> list[list[str]]:
    """Both halves of each; a blank at its beginning belongs to the first."""
    return [[left[:1] + first, second] for left in merges for first, _, second in [left[1:].partition(" ")]]


def _merges_by_score(vocabulary: Vocabulary) -> list[list[str]]:
    """Every way to make a token of two others; those with the best score are merged first."""
    known = {
        text
        for text, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if kind in {Kind.NORMAL, Kind.USER_DEFINED, Kind.UNUSED}
    }
    order = sorted(range(len(vocabulary.tokens)), key=lambda number: -vocabulary.scores[number])
    return [
        [text[:place], text[place:]]
        for text in (vocabulary.tokens[number] for number in order)
        if text in known
        for place in range(1, len(text))
        if text[:place] in known and text[place:] in known
    ]
