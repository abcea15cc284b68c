"""What scheduling, sampling and sending take of a step, and the total tokens/s, without HTTP.

    python -m bench.runtime.engine_share [--model FILE] [--tokens 64]

Prints a line a load: streams, sampling, tokens/s, and the share of the step loop's time outside the engine's own step.
"""

import argparse
import asyncio
import time
from pathlib import Path

from slm_runtime.engine.messages import EngineConfig, GenerateRequest, Sampling
from slm_runtime.engine.supervisor import EngineSupervisor
from tests.support.models import smollm2

SAMPLINGS = {
    "greedy": Sampling(temperature=0),
    "ollama": Sampling(temperature=0.8, top_k=40, top_p=0.9, temperature_last=True, seed=1),
    "temperature 1": Sampling(seed=1),
    "top_p 0.9": Sampling(top_p=0.9, seed=1),
    "logprobs 5": Sampling(temperature=0),
}


async def stream(engine: EngineSupervisor, name: str, number: int, tokens: int) -> None:
    request = GenerateRequest(
        prompt=[f"{name}, story number {number}: once upon a time"],
        sampling=SAMPLINGS[name],
        max_tokens=tokens,
        ignore_eos=True,
        logprobs=5 if name.startswith("logprobs") else None,
    )
    async with await engine.generate(request) as generation:
        async for _ in generation:
            pass


async def measure(model: Path, tokens: int) -> None:
    engine = EngineSupervisor(EngineConfig(model_path=str(model), context_length=1024, parallel=16))
    await engine.start()
    try:
        info = await engine.ready()
        print(f"{info.description} on {info.device}")
        print(f"{'streams':>7}  {'sampling':<14} {'tokens/s':>9} {'outside':>8}")
        for name in SAMPLINGS:
            for streams in (1, 4, 8, 16):
                before, began = engine.stats, time.monotonic()
                await asyncio.gather(*[stream(engine, name, number, tokens) for number in range(streams)])
                seconds, after = time.monotonic() - began, engine.stats
                busy = after.busy_seconds - before.busy_seconds
                outside = 1 - (after.engine_seconds - before.engine_seconds) / busy
                print(f"{streams:>7}  {name:<14} {streams * tokens / seconds:>9.1f} {outside:>8.2%}")
    finally:
        await engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file; default: the tests' SmolLM2")
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.model or smollm2(), arguments.tokens))
