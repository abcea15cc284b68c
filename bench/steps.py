"""The engine's own batch step, alone in its process: `python -m bench.steps MODEL STREAMS` prints its speed as JSON.

It does what llama-batched-bench does: a prompt of random tokens for each sequence, then one more token of each, again and
again; no token is chosen, no text made.
"""

import json
import random
import sys
import time
from array import array

from slm_runtime.engine.llama_cpp.engine import LlamaCppEngine
from slm_runtime.engine.llama_cpp.model import LlamaModel
from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.protocol import Span

PROMPT = 64
TOKENS = 128
CONTEXT = 512
"""Tokens a sequence."""


def measure(model: str, streams: int, threads: int) -> dict[str, float]:
    config = EngineConfig(model_path=model, context_length=CONTEXT, parallel=streams, threads=threads)
    engine = LlamaCppEngine(LlamaModel(config))
    chooser = random.Random(0)

    def some(count: int) -> "array[int]":
        return array("i", (chooser.randrange(engine.vocabulary.size) for _ in range(count)))

    for sequence in range(streams):
        engine.step([Span(sequence, 0, some(PROMPT), True)])
    begin = time.perf_counter()
    for position in range(PROMPT, PROMPT + TOKENS):
        engine.step([Span(sequence, position, some(1), True) for sequence in range(streams)])
    seconds = time.perf_counter() - begin
    engine.close()
    return {"tokens/s": streams * TOKENS / seconds}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
