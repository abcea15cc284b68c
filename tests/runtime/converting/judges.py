"""What a converted folder is held against: llama.cpp on the same weights, and onnxruntime's own two ways to run it."""

import contextlib
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import onnxruntime
import onnxruntime_genai

from slm_runtime.engine.llama_cpp.backends import load_backends

Logits = Callable[[Sequence[int]], Any]


@contextlib.contextmanager
def llama(path: Path) -> Iterator[Logits]:
    """Of tokens their logits, `[tokens, vocabulary]`, with keys and values in float32."""
    load_backends()
    model = llama_cpp.Llama(
        str(path),
        n_ctx=256,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        type_k=0,
        type_v=0,
        verbose=False,
    )

    def logits(tokens: Sequence[int]) -> Any:
        model.reset()
        model.eval(tokens)
        return np.array(model.scores[: len(tokens)])

    try:
        yield logits
    finally:
        model.close()


class Folder:
    """A folder in plain onnxruntime."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path / "model.onnx"), options)
        self.inputs = {each.name: each for each in self._session.get_inputs()}
        self.outputs = [each.name for each in self._session.get_outputs()]

    def logits(self, tokens: Sequence[int], steps: int = 1) -> Any:
        """`[tokens, vocabulary]`, computed in so many steps."""
        kept = {
            name: np.zeros(
                (1, each.shape[1], 0, each.shape[3]), np.float16 if "16" in each.type else np.float32
            )
            for name, each in self.inputs.items()
            if name.startswith("past_key_values.")
        }
        found, done = [], 0
        for part in np.array_split(np.array([tokens], np.int64), steps, axis=1):
            done += part.shape[1]
            fed = {"input_ids": part, "attention_mask": np.ones((1, done), np.int64)} | kept
            answer = dict(zip(self.outputs, self._session.run(None, fed), strict=True))
            found.append(answer["logits"][0])
            kept = {name: answer[name.replace("past_key_values", "present")] for name in kept}
        return np.concatenate(found).astype(np.float32)

    def greedy(self, tokens: Sequence[int], count: int, ends: Container[int] = ()) -> list[int]:
        """The tokens and so many more, or as many as there are before one of `ends`."""
        written = list(tokens)
        for _ in range(count):
            token = int(self.logits(written)[-1].argmax())
            if token in ends:
                break
            written.append(token)
        return written


def generated(path: Path, tokens: Sequence[int], count: int) -> list[int]:
    """What onnxruntime-genai's generator makes of a folder."""
    model = onnxruntime_genai.Model(str(path))
    params = onnxruntime_genai.GeneratorParams(model)
    params.set_search_options(max_length=len(tokens) + count)
    generator = onnxruntime_genai.Generator(model, params)
    generator.append_tokens(np.array(tokens, np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)]
