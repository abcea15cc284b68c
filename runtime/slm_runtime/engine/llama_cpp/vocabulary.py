"""The model's tokens, as llama.cpp knows them."""

import ctypes
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as native

from slm_runtime.engine.llama_cpp.bounding import Bounds
from slm_runtime.engine.llama_cpp.sentences import SHORT, Sentences
from slm_runtime.engine.llama_cpp.splitting import Splitter
from slm_runtime.engine.loading import InfillTokens
from slm_runtime.engine.protocol import EngineFault

# Calls of a microsecond keep the GIL: giving it away and fetching it back would cost more than they do.
_short: Final = ctypes.PyDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libllama.so"))
_token_to_piece: Final = _short.llama_token_to_piece
_token_to_piece.argtypes = [
    ctypes.c_void_p,
    ctypes.c_int32,
    ctypes.c_char_p,
    ctypes.c_int32,
    ctypes.c_int32,
    ctypes.c_bool,
]
_token_to_piece.restype = ctypes.c_int32

_USER_DEFINED: Final = native.LLAMA_TOKEN_ATTR_USER_DEFINED
_SPECIAL: Final = native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNKNOWN


class LlamaVocabulary:
    """Reads only; llama.cpp allows that from any thread."""

    def __init__(self, vocab: Any, pre: str | None) -> None:
        """`pre` is what the file calls its pre-tokenizer."""
        self._vocab = vocab
        self.size: int = native.llama_vocab_n_tokens(vocab)
        self.bos = _token(native.llama_vocab_bos(vocab))
        self.eos = _token(native.llama_vocab_eos(vocab))
        self.add_bos: bool = native.llama_vocab_get_add_bos(vocab)
        self.infill = _infill(vocab)
        self._suffix = self._own_suffix()
        self._between = self._own_separator()
        self.end_tokens = frozenset(t for t in range(self.size) if native.llama_vocab_is_eog(vocab, t))
        self._pieces: tuple[list[bytes | None], list[bytes | None]] = ([None] * self.size, [None] * self.size)
        """Those that were read, without and with the special ones."""
        self._marks = marks = self._read_marks()
        self._splitters = {special: _splitter(marks, special=special) for special in (True, False)}
        kind: int = native.llama_vocab_type(vocab)
        self._bounds = Bounds(pre, marks) if kind == native.LLAMA_VOCAB_TYPE_BPE else None
        self._of_sentences = kind == native.LLAMA_VOCAB_TYPE_SPM

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        tokens: list[int] = []
        for part in self._splitters[parse_special].pieces(text):
            if self._of_sentences and len(part) > SHORT:
                tokens += self._sentences.read(part, partial(self._tokenize, parse_special=parse_special))
                continue
            for piece in self._bounds.pieces(part) if self._bounds else (part,):
                tokens += self._tokenize(piece, parse_special=parse_special)
        return tokens

    def _tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        data = text.encode(errors="replace")
        capacity = len(data) + 8
        tokens = np.empty(capacity, np.int32)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = native.llama_tokenize(self._vocab, data, len(data), pointer, capacity, False, parse_special)
        if count < 0:
            raise EngineFault(f"llama_tokenize made {-count} tokens of {len(data)} bytes")
        found: list[int] = tokens[:count].tolist()
        return found

    def add_special(self, tokens: list[int]) -> list[int]:
        if self.add_bos and self.bos is not None and tokens[:1] != [self.bos]:
            tokens = [self.bos, *tokens]
        if self._suffix and tokens[-1:] != self._suffix:
            tokens = tokens + self._suffix
        return tokens

    def add_special_to_pair(self, first: list[int], second: list[int]) -> list[int]:
        """As cross-encoders were trained: `[CLS] first [SEP] second [SEP]`, `<s> first </s></s> second </s>`."""
        begin = [self.bos] if self.add_bos and self.bos is not None else []
        return [*begin, *first, *self._between, *second, *self._suffix]

    def piece(self, token: int, *, special: bool) -> bytes:
        pieces = self._pieces[special]
        found = pieces[token]
        if found is None:
            found = pieces[token] = self._read_piece(token, special=special)
        return found

    def is_special(self, token: int) -> bool:
        return bool(native.llama_vocab_get_attr(self._vocab, token) & _SPECIAL)

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        size = 256
        buffer = ctypes.create_string_buffer(size)
        length = _token_to_piece(self._vocab, token, buffer, size, 0, special)
        if length < 0:
            size = -length
            buffer = ctypes.create_string_buffer(size)
            length = _token_to_piece(self._vocab, token, buffer, size, 0, special)
        return buffer.raw[:length]

    @cached_property
    def _sentences(self) -> Sentences:
        """Made for the first long text: it takes a while."""
        return Sentences(self._texts(), self._marks)

    def _texts(self) -> list[str]:
        texts = (native.llama_vocab_get_text(self._vocab, token) for token in range(self.size))
        return [text.decode(errors="replace") for text in texts]

    def _read_marks(self) -> dict[str, int]:
        """The texts that llama.cpp takes out of a text before it reads the rest, with their tokens' attributes."""
        found = {}
        for token in range(self.size):
            kind: int = native.llama_vocab_get_attr(self._vocab, token)
            if kind & (_SPECIAL | _USER_DEFINED):
                found[native.llama_vocab_get_text(self._vocab, token).decode(errors="replace")] = kind
        return found

    def _own_suffix(self) -> list[int]:
        """What the model wants at the end of its input: nothing, for models that generate."""
        if native.llama_vocab_get_add_sep(self._vocab):
            return [native.llama_vocab_sep(self._vocab)]
        if native.llama_vocab_get_add_eos(self._vocab) and self.eos is not None:
            return [self.eos]
        return []

    def _own_separator(self) -> list[int]:
        """What the model wants between two texts: what ends the first, and what begins another."""
        between = []
        if native.llama_vocab_get_add_eos(self._vocab) and self.eos is not None:
            between.append(self.eos)
        if native.llama_vocab_get_add_sep(self._vocab):
            between.append(native.llama_vocab_sep(self._vocab))
        return between


def _splitter(marks: dict[str, int], *, special: bool) -> Splitter:
    """For texts in which `special` tokens are read, or only those that always are."""
    read = {text: kind for text, kind in marks.items() if special or not kind & _SPECIAL}
    strips_right = any(kind & native.LLAMA_TOKEN_ATTR_RSTRIP for kind in read.values())
    cuts = [
        text
        for text, kind in read.items()
        if not kind & native.LLAMA_TOKEN_ATTR_LSTRIP and not (strips_right and text[:1].isspace())
    ]
    return Splitter(list(read), cuts=cuts)


def _infill(vocab: Any) -> InfillTokens | None:
    """As the file says, or by the names that families give them."""
    prefix = _token(native.llama_vocab_fim_pre(vocab))
    suffix = _token(native.llama_vocab_fim_suf(vocab))
    middle = _token(native.llama_vocab_fim_mid(vocab))
    if prefix is None or suffix is None or middle is None:
        return None
    repository = _token(native.llama_vocab_fim_rep(vocab))
    return InfillTokens(prefix, suffix, middle, repository, _token(native.llama_vocab_fim_sep(vocab)))


def _token(value: int) -> int | None:
    return None if value < 0 else value
