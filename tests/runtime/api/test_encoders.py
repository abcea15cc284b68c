"""Encoders served as a pod serves them, asked by the vendors' clients."""

import httpx
import numpy as np
import ollama
import openai
import pytest
from gguf import PoolingType

from tests.runtime.api.server import HEADERS, KEY, linked, serving
from tests.support.encoders import CLS, PIECES, SEP, TinyEncoder

pytestmark = pytest.mark.runtime


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedder")
    model = TinyEncoder(folder / "tiny.gguf", "nomic-bert", context_length=128)
    with serving(
        linked(model.write(), folder), folder / "models", folder, context_length=128, threads=1
    ) as server:
        yield model, server


def ids(text):
    return [CLS, *(PIECES.index(f"▁{word}") for word in text.split()), SEP]


def normalized(row):
    return row / np.linalg.norm(row)


def test_openais_client_gets_the_models_vectors(embedder):
    model, server = embedder
    texts = ["the word was one", "i have", "not the"]
    with openai.OpenAI(
        base_url=f"{server.base}/v1", api_key=KEY, http_client=httpx.Client(trust_env=False)
    ) as client:
        answer = client.embeddings.create(model="tiny", input=texts)
        assert answer.usage.prompt_tokens == sum(len(ids(text)) for text in texts)
        for found, text in zip(answer.data, texts, strict=True):
            np.testing.assert_allclose(found.embedding, normalized(model.row(ids(text))), atol=0.01)
        short = client.embeddings.create(model="tiny", input=texts[0], dimensions=8).data[0].embedding
        np.testing.assert_allclose(short, normalized(model.row(ids(texts[0]))[:8]), atol=0.02)
        many = client.embeddings.create(model="tiny", input=texts * 600)
        np.testing.assert_allclose(many.data[-1].embedding, answer.data[-1].embedding, atol=2e-3)
        with pytest.raises(openai.BadRequestError, match="does not support"):
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])


def test_ollamas_client_gets_them_too(embedder):
    model, server = embedder
    vector = normalized(model.row(ids("the word")))
    with ollama.Client(host=server.base, headers=HEADERS, trust_env=False) as client:
        np.testing.assert_allclose(client.embed("tiny", ["the word"]).embeddings[0], vector, atol=0.01)
        plain = np.array(client.embeddings("tiny", "the word").embedding)
        np.testing.assert_allclose(normalized(plain), vector, atol=0.01)
        assert client.show("tiny").capabilities == ["embedding"]
        with pytest.raises(ollama.ResponseError, match="does not support"):
            client.generate("tiny", "Hi")


def test_ready_means_that_a_vector_was_made(embedder):
    _, server = embedder
    report = server.report()
    assert report.phase == "Ready"
    assert report.performance.first_token_ms > 0
    assert report.memory.kv_cache == 0
    assert report.context_length == 128


def test_a_reranker_sorts_documents(tmp_path):
    model = TinyEncoder(tmp_path / "tiny.gguf", "bert", PoolingType.RANK)
    documents = ["word", "a a", "not the word"]
    expected = [model.row([*ids("the"), *ids(text)[1:]])[0] for text in documents]
    with serving(
        linked(model.write(), tmp_path), tmp_path / "models", tmp_path, context_length=128, threads=1
    ) as server:
        body = {"model": "tiny", "query": "the", "documents": documents}
        answer = httpx.post(f"{server.base}/v1/rerank", json=body, headers=HEADERS, trust_env=False).json()
        assert [each["index"] for each in answer["results"]] == sorted(range(3), key=lambda i: -expected[i])
        pairs = {"model": "tiny", "text_1": "the", "text_2": documents}
        answer = httpx.post(f"{server.base}/v1/score", json=pairs, headers=HEADERS, trust_env=False).json()
        scores = 1 / (1 + np.exp(-np.array(expected)))
        assert [each["score"] for each in answer["data"]] == pytest.approx(scores, abs=0.02)
        refused = httpx.post(
            f"{server.base}/api/embed", json={"model": "tiny", "input": "a"}, headers=HEADERS
        )
        assert refused.status_code == 400
