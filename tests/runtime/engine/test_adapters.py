"""LoRA adapters in the real library: what they compute is what the merged weights compute, whoever else runs."""

import asyncio
from array import array

import numpy as np
import pytest

from slm_runtime.engine.client import RequestRefused
from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import AdapterFile, EngineConfig
from slm_runtime.engine.messages import Delta, EmbedRequest, GenerateRequest, Sampling, ScoreRequest
from slm_runtime.engine.protocol import Output, Span
from slm_runtime.engine.supervisor import EngineSupervisor
from tests.support.gguf import TinyLora, write_tiny_gguf

pytestmark = pytest.mark.runtime

TOKENS = [1, *range(20, 60)]
FIRST, SECOND = TinyLora(seed=1), TinyLora(seed=2, rank=8)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return [str(each.write(folder / f"{each.seed}.gguf")) for each in (FIRST, SECOND)]


@pytest.fixture
def engine(make_engine, tiny, adapters):
    files = [AdapterFile(adapters[0]), AdapterFile(adapters[1], scale=0.5)]
    engine = make_engine(tiny, adapters=files, parallel=2, batch_size=64, threads=1)
    yield engine
    engine.close()


@pytest.fixture
def merged(make_engine, tmp_path):
    def logits(changes, rows=1, output=Output.LOGITS):
        path = write_tiny_gguf(tmp_path / "merged.gguf", changes=changes)
        engine = make_engine(path, parallel=2, batch_size=64, threads=1)
        rows = computed(engine, 0, rows, output)
        engine.close()
        return rows

    return logits


def computed(engine, adapter, rows=1, output=Output.LOGITS, tokens=TOKENS):
    engine.cut(0, 0)
    part = tokens if rows == 1 else tokens[:rows]
    return engine.step([Span(0, 0, array("i", part), rows, adapter)], output).copy()


@pytest.mark.parametrize(
    ("rows", "output"), [(1, Output.LOGITS), (30, Output.LOGITS), (30, Output.HIDDEN_STATES)]
)
def test_an_adapter_gives_what_the_merged_weights_give(engine, merged, rows, output):
    expected = [
        merged(changes, rows, output) for changes in (None, FIRST.changes(), SECOND.changes(scale=0.5))
    ]
    # In turns, so that each comes after each other one.
    for adapter in (0, 1, 2, 0, 2, 1, 0):
        np.testing.assert_allclose(
            computed(engine, adapter, rows, output), expected[adapter], rtol=1e-3, atol=2e-3
        )
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    assert np.abs(expected[1] - expected[2]).max() > 0.1


def test_what_is_a_part_of_the_model_counts_whatever_else_does(make_engine, tiny, adapters, merged):
    own, named = AdapterFile(adapters[0]), AdapterFile(adapters[1])
    engine = make_engine(tiny, own_adapters=[own], adapters=[named], parallel=2, batch_size=64, threads=1)
    both = {
        name: change + SECOND.changes()[name] if name in SECOND.changes() else change
        for name, change in FIRST.changes().items()
    }
    expected = [merged(FIRST.changes()), merged(both)]
    for adapter in (0, 1, 0):
        np.testing.assert_allclose(computed(engine, adapter), expected[adapter], rtol=1e-3, atol=2e-3)
    engine.close()


def test_their_memory_is_part_of_the_weights(engine, make_engine, tiny):
    alone = make_engine(tiny, parallel=2, batch_size=64, threads=1)
    own = sum(a.nbytes + b.nbytes for each in (FIRST, SECOND) for a, b in each.pairs().values())
    assert engine.info.memory.weights - alone.info.memory.weights == pytest.approx(own, abs=2**15)
    alone.close()


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: TinyLora().write(path, architecture="qwen2"), "arch mismatch"),
        (write_tiny_gguf, "expect general.type"),
        (lambda path: path.write_bytes(b"GGUF") and path, "failed to load"),
        (lambda path: TinyLora().write(path, adapter__alora__invocation_tokens=[5, 6]), "activated LoRA"),
        (lambda path: path, "there is no adapter file"),
    ],
    ids=["of another model", "a model", "damaged", "activated", "missing"],
)
def test_what_is_no_adapter_of_the_model_is_refused_by_name(make_engine, tiny, tmp_path, write, says):
    path = write(tmp_path / "wrong.gguf")
    with pytest.raises(LoadError, match=says) as refused:
        make_engine(tiny, adapters=[AdapterFile(str(path))], parallel=1, batch_size=64, threads=1)
    assert "wrong.gguf" in str(refused.value)
    assert refused.value.failure.reason in {"InvalidModel", "UnsupportedArchitecture"}


async def test_together_each_gets_what_it_gets_alone(tiny, adapters):
    files = [AdapterFile(path) for path in adapters]
    config = EngineConfig(model_path=str(tiny), adapters=files, context_length=512, parallel=4, threads=1)
    supervisor = EngineSupervisor(config, backoff=0.01)

    async def answer(adapter):
        request = GenerateRequest(
            prompt=["the one and the other, and all that is of these"],
            sampling=Sampling(temperature=0),
            max_tokens=32,
            ignore_eos=True,
            adapter=adapter,
        )
        async with await supervisor.generate(request) as generation:
            return [token async for event in generation if isinstance(event, Delta) for token in event.tokens]

    await supervisor.start()
    try:
        await supervisor.ready()
        alone = [await answer(adapter) for adapter in range(3)]
        assert len({tuple(tokens) for tokens in alone}) == 3
        together = await asyncio.gather(*[answer(adapter) for adapter in (0, 1, 2, 1)])
        assert together == [alone[0], alone[1], alone[2], alone[1]]
        for request in (GenerateRequest(prompt=["a"], adapter=3), EmbedRequest(inputs=["a"], adapter=-1)):
            ask = supervisor.generate if isinstance(request, GenerateRequest) else supervisor.embed
            with pytest.raises(RequestRefused, match="isn't one of the 2"):
                await ask(request)
        vectors = [
            (await supervisor.embed(EmbedRequest(inputs=["of it"], adapter=n))).vectors for n in (0, 1)
        ]
        assert vectors[0] != vectors[1]
        scores = [(await supervisor.score(ScoreRequest(inputs=["of it"], adapter=n))).inputs for n in (0, 1)]
        assert scores[0] != scores[1]
    finally:
        await supervisor.close()
