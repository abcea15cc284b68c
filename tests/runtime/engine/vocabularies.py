"""Small vocabularies for each of llama.cpp's pre-tokenizers, ours and read as llama.cpp does.

Run as a module it reads long runs with the models that it is given, in a process of its own, since that may end it.
"""

import contextlib
import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from llama_cpp import llama_cpp as native

from slm_runtime.engine.llama_cpp.logs import NativeLog
from slm_runtime.engine.llama_cpp.vocabulary import LlamaVocabulary
from slm_runtime.engine.protocol import TOKENIZING_STACK_BYTES

Whole = Callable[[str], list[int]]

RUNS = ("A", " ", "\n", "-", "漢", "😀", "\x01", "1", "1a", "word ", "Ab+")


@contextlib.contextmanager
def vocabulary(path: Path) -> Iterator[tuple[LlamaVocabulary, Whole]]:
    """Ours, and llama.cpp's own way to read a text; the file is named by its pre-tokenizer."""
    log = NativeLog()
    params = native.llama_model_default_params()
    params.vocab_only = True
    model = native.llama_model_load_from_file(str(path).encode(), params)
    assert model, log.errors
    handle = native.llama_model_get_vocab(model)

    def whole(text: str) -> list[int]:
        data = text.encode(errors="replace")
        tokens = np.empty(len(data) + 8, np.int32)
        pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = native.llama_tokenize(handle, data, len(data), pointer, len(tokens), False, True)
        found: list[int] = tokens[:count].tolist()
        return found

    try:
        yield LlamaVocabulary(handle, path.stem), whole
    finally:
        native.llama_model_free(model)


def _read(how: str, paths: list[str]) -> None:
    for path in paths:
        with vocabulary(Path(path)) as (ours, whole):
            for run in RUNS:
                text = run * (40_000 // len(run))
                print(path, repr(run), flush=True)
                whole(text) if how == "whole" else ours.tokenize(text, parse_special=True)


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        threading.stack_size(TOKENIZING_STACK_BYTES)
    reading = threading.Thread(target=_read, args=(sys.argv[1], sys.argv[2:]))
    reading.start()
    reading.join()
    print("read")
