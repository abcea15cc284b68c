"""`python -m bench.onnx FOLDER [ROUNDS]`: our ONNX engine beside onnxruntime-genai's generator and Engine, on one folder.

Each round has all sides, one after the other, in a process of its own each; what counts are the ratios within a round. All
answer the same prompts greedily, with as many tokens, and with THREADS threads.
"""

import json
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime_genai as genai

from bench.servers import THREADS
from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.loop import StepLoop
from slm_runtime.engine.messages import GenerateRequest, Sampling, StepOutput
from slm_runtime.engine.onnx.load import load
from slm_runtime.engine.prepare import Prepared
from slm_runtime.engine.protocol import Encoder
from slm_runtime.engine.structs import Message

PROMPT, TOKENS, STREAMS, CONTEXT = 50, 64, 8, 1024


def prompts(vocabulary: int) -> list[list[int]]:
    drawn = np.random.default_rng(0)
    return [drawn.integers(5, min(vocabulary, 5000), PROMPT).tolist() for _ in range(STREAMS)]


def ours(folder: Path, streams: int) -> float:
    """Tokens/s of so many streams at once, by the scheduler and sampler that serve; the prompts' time is included."""
    engine, info = load(
        EngineConfig(
            model_path=str(folder / "model.onnx"), parallel=streams, context_length=CONTEXT, threads=THREADS
        )
    )
    if isinstance(engine, Encoder):
        raise SystemExit(f"{folder} holds a model that generates nothing")
    made = 0

    def count(message: Message) -> None:
        nonlocal made
        if isinstance(message, StepOutput):
            made += sum(len(delta.tokens) for delta in message.deltas)

    loop = StepLoop(engine, count, queue_limit=streams)
    request = GenerateRequest(
        prompt=[], max_tokens=TOKENS, ignore_eos=True, sampling=Sampling(temperature=0, seed=1)
    )
    began = 0.0
    for warm in (True, False):
        asked, made, began = prompts(info.vocab_size), 0, time.perf_counter()
        for number, tokens in enumerate(asked[:streams]):
            begun = [tokens[0] + warm, *tokens[1:]]
            loop.submit(
                Prepared(number, request, array("i", begun), PROMPT + (2 if warm else TOKENS), matcher=None)
            )
        while not loop.idle:
            loop.step()
    return streams * TOKENS / (time.perf_counter() - began)


def _model(folder: Path) -> tuple[genai.Model, int]:
    genai.disable_telemetry_events()
    config = genai.Config(str(folder))
    threads = {"intra_op_num_threads": THREADS}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
    document = json.loads((folder / "genai_config.json").read_text())
    return genai.Model(config), document["model"]["vocab_size"]


def generator(folder: Path, streams: int) -> float:
    """Tokens/s of the generator: one stream after the other."""
    model, vocabulary = _model(folder)

    def answer(tokens: list[int], count: int) -> None:
        params = genai.GeneratorParams(model)
        params.set_search_options(max_length=PROMPT + count, min_length=PROMPT + count, do_sample=False)
        made = genai.Generator(model, params)
        made.append_tokens(np.array(tokens, np.int32))
        while not made.is_done():
            made.generate_next_token()

    asked = prompts(vocabulary)
    answer(asked[-1], 2)
    began = time.perf_counter()
    for tokens in asked[:streams]:
        answer(tokens, TOKENS)
    return streams * TOKENS / (time.perf_counter() - began)


def batched(folder: Path, streams: int) -> float:
    """Tokens/s of the Engine, which has its own batching."""
    model, vocabulary = _model(folder)
    engine = genai.Engine(model)
    events = engine.create_event_buffer(64)
    made = 0

    def answer(asked: list[list[int]], count: int) -> None:
        nonlocal made
        requests = [engine.create_request() for _ in asked]
        for request, tokens in zip(requests, asked, strict=True):
            turn = genai.TurnOptions(request)
            turn.set_do_sample(False)
            turn.set_max_generated_tokens(count)
            turn.set_min_generated_tokens(count)
            request.begin_turn(np.array(tokens, np.int32), turn)
        while engine.has_pending_requests():
            for event in engine.run(events):
                made += bool(event.flags & genai.EngineEventFlags.TOKEN)
        for request in requests:
            request.close()

    asked = prompts(vocabulary)
    answer(asked[-1:], 2)
    made, began = 0, time.perf_counter()
    answer(asked[:streams], TOKENS)
    return made / (time.perf_counter() - began)


SIDES: dict[str, Callable[[Path, int], float]] = {
    "ours": ours,
    "generator": generator,
    "engine": batched,
}
ROWS = [(1, "generator"), (STREAMS, "generator"), (STREAMS, "engine")]


def measured(side: str, folder: Path, streams: int) -> float:
    command = [sys.executable, "-m", "bench.onnx", str(folder), side, str(streams)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    folder = Path(sys.argv[1])
    if len(sys.argv) > 3:
        print(SIDES[sys.argv[2]](folder, int(sys.argv[3])))
        return
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    for streams, other in ROWS:
        pairs = []
        for number in range(rounds):
            speeds = {
                side: measured(side, folder, streams)
                for side in sorted(("ours", other), reverse=bool(number % 2))
            }
            pairs.append((speeds["ours"], speeds[other]))
        ratio = statistics.median(mine / theirs for mine, theirs in pairs)
        each = ", ".join(f"{mine:.0f} / {theirs:.0f}" for mine, theirs in pairs)
        print(f"{streams} streams, ours / {other}: {each} tokens/s, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
