"""The model's tokens, as its tokenizer.json has them."""

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, TypedDict

import msgspec
from tokenizers import Tokenizer

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import InfillTokens
from slm_runtime.engine.onnx.folder import Folder, Model, text_of, tokens_of
from slm_runtime.engine.onnx.pieces import reader

# A text at a time is read, and no core that computes is to spare for it.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_INFILL: Final = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<repo_name>", "<file_sep>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>", "<reponame>", "<filename>"),
    ("<|fim_begin|>", "<|fim_end|>", "<|fim_hole|>", "", ""),
    ("<PRE>", "<SUF>", "<MID>", "", ""),
)
"""What families call the tokens around a gap: prefix, suffix, middle, repository, file."""
_SAMPLE: Final = "a"


class Described(TypedDict):
    """What Loaded says of a vocabulary."""

    bos: int | None
    eos: int | None
    bos_text: str
    eos_text: str
    add_bos: bool
    infill: InfillTokens | None


class OnnxVocabulary:
    """Reads only, from any thread. A tokenizer that isn't the graph's raises LoadError."""

    def __init__(self, folder: Folder, model: Model | None = None, size: int | None = None) -> None:
        """Read it.

        Parameters
        ----------
        model
            What genai_config.json says of one that generates.
        size
            Tokens that the graph tells apart; beyond those of the tokenizer they have no text. None: as many as it has.
        """
        self._source = folder.tokenizer().read_bytes()
        self._marked = self._read(special=True)
        known = self._marked.get_vocab_size(with_added_tokens=True)
        self.size = size = known if size is None else size
        if known > size:
            raise LoadError(
                "InvalidModel",
                f"tokenizer.json has {known} tokens, the graph {size}: they don't belong to each other",
            )
        config, generation = folder.tokenizer_config, folder.generation_config
        added = self._marked.get_added_tokens_decoder()
        self._special = {token for token, each in added.items() if each.special} | set(range(known, size))
        numbered = (generation,) if model is None else (model, generation)
        ends = [token for each in numbered for token in tokens_of(each.eos_token_id)]
        begins = [token for each in numbered for token in tokens_of(each.bos_token_id)]
        self.eos = self._first(text_of(config.eos_token), ends)
        self.bos = self._first(text_of(config.bos_token), begins)
        named = set(ends) if self.eos is None else {*ends, self.eos}
        self.end_tokens = frozenset(token for token in named if 0 <= token < size)
        self._before, self._after = self._around()
        self._pieces = self._read_pieces(added)

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        tokenizer = self._marked if parse_special else self._plain
        # Halves of characters are none; a batch, for only that lets other threads run meanwhile.
        readable = text.encode(errors="replace").decode()
        [found] = tokenizer.encode_batch_fast([readable], add_special_tokens=False)
        ids: list[int] = found.ids
        return ids

    def add_special(self, tokens: list[int]) -> list[int]:
        before, after = self._before, self._after
        if before and tokens[: len(before)] != before:
            tokens = [*before, *tokens]
        if after and tokens[-len(after) :] != after:
            tokens = [*tokens, *after]
        return tokens

    def add_special_to_pair(self, first: list[int], second: list[int]) -> list[int]:
        before, between, after = self._around_pair
        return [*before, *first, *between, *second, *after]

    def piece(self, token: int, *, special: bool) -> bytes:
        return b"" if not special and token in self._special else self._pieces[token]

    def is_special(self, token: int) -> bool:
        return token in self._special

    def described(self) -> Described:
        return Described(
            bos=self.bos,
            eos=self.eos,
            bos_text=self._text(self.bos),
            eos_text=self._text(self.eos),
            add_bos=self.bos is not None and self._before[:1] == [self.bos],
            infill=self._infill(),
        )

    @cached_property
    def _plain(self) -> Tokenizer:
        """To which special tokens are text as any other."""
        return self._read(special=False)

    def _read(self, *, special: bool) -> Tokenizer:
        try:
            tokenizer = Tokenizer.from_buffer(self._source)
        except Exception as error:  # it raises nothing but that
            raise LoadError("InvalidModel", f"tokenizer.json can't be read: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = not special
        return tokenizer

    def _read_pieces(self, added: Mapping[int, Any]) -> list[bytes]:
        read = reader(msgspec.json.decode(self._source))
        texts = [self._marked.id_to_token(token) for token in range(self.size)]
        return [
            added[token].content.encode() if token in added else b"" if text is None else read(text)
            for token, text in enumerate(texts)
        ]

    def _around(self) -> tuple[list[int], list[int]]:
        """What the model wants before a text, and after it."""
        bare = self._marked.encode(_SAMPLE, add_special_tokens=False).ids
        whole = self._marked.encode(_SAMPLE).ids
        start = _find(whole, bare, 0)
        return whole[:start], whole[start + len(bare) :]

    @cached_property
    def separator(self) -> list[int]:
        """What parts two texts that the model tells apart by more than that; empty where it doesn't."""
        return self._around_pair[1] if any(self._marked.encode(_SAMPLE, _SAMPLE).type_ids) else []

    @cached_property
    def _around_pair(self) -> tuple[list[int], list[int], list[int]]:
        bare = self._marked.encode(_SAMPLE, add_special_tokens=False).ids
        whole = self._marked.encode(_SAMPLE, _SAMPLE).ids
        first = _find(whole, bare, 0)
        second = _find(whole, bare, first + len(bare))
        return whole[:first], whole[first + len(bare) : second], whole[second + len(bare) :]

    def _first(self, text: str | None, tokens: list[int]) -> int | None:
        """The token that a configuration writes out, or else the first one that is numbered."""
        named = None if text is None else self._marked.token_to_id(text)
        if named is not None:
            return named
        return next((token for token in tokens if 0 <= token < self.size), None)

    def _text(self, token: int | None) -> str:
        return "" if token is None else self.piece(token, special=True).decode(errors="replace")

    def _infill(self) -> InfillTokens | None:
        for names in _INFILL:
            prefix, suffix, middle, repository, file = map(self._marked.token_to_id, names)
            if prefix is not None and suffix is not None and middle is not None:
                return InfillTokens(prefix, suffix, middle, repository, file)
        return None


def _find(whole: list[int], part: list[int], start: int) -> int:
    return next(at for at in range(start, len(whole)) if whole[at : at + len(part)] == part)
