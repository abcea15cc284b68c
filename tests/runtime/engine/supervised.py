"""A supervisor with the deterministic engine behind it, and what is to be expected of that."""

import contextlib
import sys

from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.messages import ChoiceFinished, Delta, GenerateRequest, Sampling
from slm_runtime.engine.supervisor import EngineSupervisor
from tests.unit.runtime_engine.playing import Letters, next_token

COMMAND = (sys.executable, "-m", "tests.runtime.engine.played_process")
GREEDY = Sampling(temperature=0)


@contextlib.asynccontextmanager
async def engine(*, settings=None, **config):
    """`settings` are the supervisor's own."""
    supervisor = EngineSupervisor(
        EngineConfig(**{"model_path": "letters", "parallel": 2, **config}),
        command=COMMAND,
        backoff=0.01,
        **(settings or {}),
    )
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.close()


def ask(text="hello", **fields):
    return GenerateRequest(prompt=[text], sampling=GREEDY, **{"max_tokens": 8, **fields})


async def answer(supervisor, request):
    async with await supervisor.generate(request) as generation:
        return [event async for event in generation]


def text_of(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


def reasons(events):
    return [event.reason for event in events if isinstance(event, ChoiceFinished)]


def expected(text, count):
    letters = Letters()
    held = letters.add_special(letters.tokenize(text, parse_special=True))
    pieces = []
    for _ in range(count):
        held.append(next_token(held))
        pieces.append(letters.piece(held[-1], special=False))
    return b"".join(pieces).decode()
