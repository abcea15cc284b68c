"""Encoders on real, tiny files: what llama.cpp gives is what the architecture says, however inputs are put together."""

import asyncio
import contextlib
import time
from array import array

import numpy as np
import pytest
from gguf import PoolingType

from slm_runtime.engine.client import DeadlineExceeded, RequestRefused
from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.messages import EmbedRequest, GenerateRequest, RankRequest
from slm_runtime.engine.supervisor import EngineSupervisor
from tests.support.encoders import CLS, PIECES, SEP, TinyEncoder

pytestmark = pytest.mark.runtime

MEAN, FIRST, LAST, RANK = PoolingType.MEAN, PoolingType.CLS, PoolingType.LAST, PoolingType.RANK


def inputs(seed=0, lengths=(1, 3, 17, 40, 64, 7)):
    random = np.random.default_rng(seed)
    return [[CLS, *random.integers(5, len(PIECES), length).tolist(), SEP] for length in lengths]


def encode(engine, batch):
    return engine.encode([array("i", tokens) for tokens in batch])


def assert_like(found, expected):
    """Half of the numbers on the way have 16 bits."""
    scale = np.abs(np.asarray(expected)).max()
    np.testing.assert_allclose(np.asarray(found) / scale, np.asarray(expected) / scale, atol=0.02)


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [
        ("bert", MEAN),
        ("bert", FIRST),
        ("bert", LAST),
        ("bert", None),
        ("nomic-bert", MEAN),
        ("nomic-bert-moe", MEAN),
        ("jina-bert-v2", MEAN),
    ],
)
def test_vectors_are_those_of_the_architecture_alone_and_together(
    make_engine, tmp_path, architecture, pooling
):
    model = TinyEncoder(tmp_path / "m.gguf", architecture, pooling)
    engine = make_engine(model.write(), threads=1)
    try:
        assert (engine.info.generates, engine.info.embeds, engine.info.ranks) == (False, True, False)
        batch = inputs()
        together = encode(engine, batch)
        assert_like(together, [model.row(tokens) for tokens in batch])
        for row, tokens in zip(together, batch, strict=True):
            np.testing.assert_allclose(encode(engine, [tokens])[0], row, atol=2e-3 * np.abs(row).max())
    finally:
        engine.close()


@pytest.mark.parametrize("pooler", [False, True])
def test_scores_are_those_of_the_classifier(make_engine, tmp_path, pooler):
    model = TinyEncoder(tmp_path / "m.gguf", "bert", RANK, pooler=pooler)
    engine = make_engine(model.write(), threads=1)
    try:
        assert (engine.info.generates, engine.info.embeds, engine.info.ranks) == (False, False, True)
        batch = inputs()
        assert_like(encode(engine, batch), [model.row(tokens) for tokens in batch])
    finally:
        engine.close()


def test_a_classifier_of_many_classes_is_refused(make_engine, tmp_path):
    path = TinyEncoder(tmp_path / "m.gguf", "bert", RANK, labels=("good", "bad", "ugly")).write()
    with pytest.raises(LoadError, match="3 classes"):
        make_engine(path, threads=1)


def test_no_context_is_longer_than_the_trained_one(make_engine, tmp_path):
    path = TinyEncoder(tmp_path / "m.gguf", context_length=100).write()
    engine = make_engine(path, context_length=4096, threads=1)
    try:
        assert engine.capabilities.context_length == engine.info.context_length == 100
        assert encode(engine, [[CLS, *[9] * 98, SEP]]).shape == (1, 64)
    finally:
        engine.close()


def test_the_models_own_tokens_stand_around_texts_and_between_them(make_engine, tmp_path):
    engine = make_engine(TinyEncoder(tmp_path / "m.gguf").write(), threads=1)
    try:
        vocabulary = engine.vocabulary
        text = vocabulary.tokenize("The word was a cat.", parse_special=False)
        assert [PIECES[token] for token in text] == ["▁the", "▁word", "▁was", "▁a", "▁c", "a", "t", "▁."]
        assert vocabulary.add_special(text) == [CLS, *text, SEP]
        assert vocabulary.add_special_to_pair(text[:2], text[2:]) == [CLS, *text[:2], SEP, *text[2:], SEP]
    finally:
        engine.close()


@pytest.fixture
async def embedder(tmp_path):
    async with started(TinyEncoder(tmp_path / "m.gguf", "nomic-bert")) as supervisor:
        yield supervisor


@pytest.fixture
async def reranker(tmp_path):
    async with started(TinyEncoder(tmp_path / "m.gguf", "bert", RANK)) as supervisor:
        yield supervisor


@contextlib.asynccontextmanager
async def started(model):
    supervisor = EngineSupervisor(EngineConfig(model_path=str(model.write()), threads=1))
    supervisor.model = model
    await supervisor.start()
    try:
        await supervisor.ready()
        yield supervisor
    finally:
        await supervisor.close()


async def test_a_text_has_the_same_vector_whoever_else_asks(embedder):
    texts = [f"the {word} was in the house of words" for word in ("cat", "dog", "x" * 30, "one")]
    alone = [(await embedder.embed(EmbedRequest(inputs=[text]))).vectors[0] for text in texts]
    many = EmbedRequest(inputs=texts * 200, client="many")
    single = [EmbedRequest(inputs=[text], client="single") for text in texts]
    first, *others = await asyncio.gather(embedder.embed(many), *map(embedder.embed, single))
    for found in (first.vectors[-4:], [each.vectors[0] for each in others]):
        for vector, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(
                np.frombuffer(vector, "<f4"), np.frombuffer(expected, "<f4"), atol=2e-3
            )
    assert np.linalg.norm(np.frombuffer(alone[0], "<f4")) == pytest.approx(1, abs=1e-5)
    plain = await embedder.embed(EmbedRequest(inputs=["the"], normalize=False))
    assert_like(np.frombuffer(plain.vectors[0], "<f4"), embedder.model.row([CLS, PIECES.index("▁the"), SEP]))
    assert plain.prompt_tokens == 3


async def test_what_an_encoder_cannot_do_is_refused_with_a_sentence(embedder, reranker):
    with pytest.raises(RequestRefused, match="it generates no text"):
        await embedder.generate(GenerateRequest(prompt=["Hello"]))
    with pytest.raises(RequestRefused, match="scores no pairs"):
        await embedder.rank(RankRequest(queries=["a"], documents=["b"]))
    with pytest.raises(RequestRefused, match="makes no embeddings"):
        await reranker.embed(EmbedRequest(inputs=["a"]))


async def test_a_text_too_long_is_refused_or_cut_before_its_last_token(embedder):
    long = "a " * 300
    with pytest.raises(RequestRefused, match=r"302 tokens.* 128") as refused:
        await embedder.embed(EmbedRequest(inputs=[long]))
    assert refused.value.code == "context_length_exceeded"
    cut = await embedder.embed(EmbedRequest(inputs=[long], truncate=True, normalize=False))
    expected = embedder.model.row([CLS, *[PIECES.index("▁a")] * 126, SEP])
    assert_like(np.frombuffer(cut.vectors[0], "<f4"), expected)


async def test_documents_are_scored_each_with_its_query(reranker):
    row = reranker.model.row
    the, word, a = (PIECES.index(f"▁{each}") for each in ("the", "word", "a"))
    ranked = await reranker.rank(RankRequest(queries=["the"], documents=["word", "a a"]))
    assert ranked.prompt_tokens == 5 + 6
    assert_like(ranked.scores, [row([CLS, the, SEP, word, SEP])[0], row([CLS, the, SEP, a, a, SEP])[0]])
    pairs = await reranker.rank(RankRequest(queries=["the", "a"], documents=["word", "word"]))
    assert_like(pairs.scores, [row([CLS, the, SEP, word, SEP])[0], row([CLS, a, SEP, word, SEP])[0]])
    cut = await reranker.rank(RankRequest(queries=["the"], documents=["a " * 300]))
    assert_like(cut.scores, [row([CLS, the, SEP, *[a] * 124, SEP])[0]])
    for request, words in (
        (RankRequest(queries=["the"], documents=["a " * 300], truncate=False), "document 0 has 304 tokens"),
        (RankRequest(queries=["a " * 300], documents=["a"]), "the query has 300 tokens"),
        (RankRequest(queries=["a", "b"], documents=["c"]), "2 queries and 1 documents"),
        (RankRequest(queries=["a"], documents=[]), "0 documents"),
    ):
        with pytest.raises(RequestRefused, match=words):
            await reranker.rank(request)


async def test_whoever_goes_leaves_nothing(embedder):
    slowly = asyncio.create_task(embedder.embed(EmbedRequest(inputs=["the word " * 50] * 2000)))
    while not embedder.stats.steps:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    slowly.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slowly
    with pytest.raises(DeadlineExceeded):
        await embedder.embed(EmbedRequest(inputs=["the"] * 2000, deadline=time.monotonic() - 1))
    assert len((await embedder.embed(EmbedRequest(inputs=["the"]))).vectors) == 1
    async with asyncio.timeout(30):
        while embedder.stats.running or embedder.stats.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
