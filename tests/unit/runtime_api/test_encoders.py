"""What an encoder is asked for, and what it isn't made for."""

import math

import httpx
import msgspec
import pytest

from slm_runtime.engine.client import RequestRefused
from tests.unit.runtime_api.scripted import LOADED, Script, ScriptedEngine, running

EMBEDDER = msgspec.structs.replace(LOADED, generates=False)
RERANKER = msgspec.structs.replace(LOADED, generates=False, embeds=False, ranks=True)
HIGH, MIDDLE, LOW = 1 / (1 + math.exp(-2)), 0.5, 1 / (1 + math.exp(1))
"""What becomes of the scripted scores."""


@pytest.fixture
async def embedder():
    async with (
        running(ScriptedEngine(info=EMBEDDER)) as api,
        httpx.AsyncClient(base_url=api.base, trust_env=False) as client,
    ):
        yield api, client


@pytest.fixture
async def reranker():
    async with (
        running(ScriptedEngine(info=RERANKER)) as api,
        httpx.AsyncClient(base_url=api.base, trust_env=False) as client,
    ):
        yield api, client


CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"model": "tiny", "prompt": "Hi"}),
        ("/v1/responses", {"model": "tiny", "input": "Hi"}),
        ("/api/chat", CHAT),
        ("/api/generate", {"model": "tiny", "prompt": "Hi"}),
    ],
)
async def test_text_asked_of_an_encoder_is_refused_with_what_to_ask_instead(embedder, reranker, path, body):
    for (_, client), way in ((embedder, "/v1/embeddings"), (reranker, "/v1/rerank")):
        answer = await client.post(path, json=body)
        assert answer.status_code == 400
        said = answer.json()["error"]
        sentence = said if path.startswith("/api/") else said["message"]
        assert "does not support" in sentence
        assert way in sentence


async def test_each_is_asked_for_what_it_was_made_for_only(api, embedder, reranker):
    vectors = {"model": "tiny", "input": "Hi"}
    ranking = {"model": "tiny", "query": "Hi", "documents": ["a"]}
    scores = {"model": "tiny", "text_1": "Hi", "text_2": ["a"]}
    assert (await embedder[1].post("/v1/embeddings", json=vectors)).status_code == 200
    assert (await embedder[1].post("/api/embed", json=vectors)).status_code == 200
    assert (await reranker[1].post("/v1/embeddings", json=vectors)).status_code == 400
    async with httpx.AsyncClient(base_url=api.base, trust_env=False) as generator:
        for client in (generator, embedder[1]):
            for path, body in (("/v1/rerank", ranking), ("/v1/score", scores)):
                answer = await client.post(path, json=body)
                assert answer.status_code == 400
                assert "/v1/embeddings" in answer.json()["error"]["message"]


async def test_the_catalogue_tells_what_is_true(embedder, reranker):
    for (_, client), capabilities in ((embedder, ["embedding"]), (reranker, [])):
        shown = (await client.post("/api/show", json={"model": "tiny"})).json()
        assert (shown["capabilities"], shown["template"]) == (capabilities, "")
        assert (await client.get("/api/tags")).json()["models"][0]["capabilities"] == capabilities


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_documents_come_sorted_in_jinas_and_coheres_shape(reranker, path):
    api, client = reranker
    body = {"model": "tiny", "query": "q", "documents": ["a", {"text": "b"}, "c"], "max_tokens_per_doc": 4096}
    answer = (await client.post(path, json=body)).json()
    assert [(each["index"], each["relevance_score"]) for each in answer["results"]] == [
        (1, pytest.approx(HIGH)),
        (2, pytest.approx(MIDDLE)),
        (0, pytest.approx(LOW)),
    ]
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert answer["id"].startswith("rerank-")
    asked = api.engine.rankings[-1]
    assert (asked.queries, asked.documents, asked.truncate) == (["q"], ["a", "b", "c"], True)
    best = (await client.post(path, json={**body, "top_n": 1, "return_documents": True})).json()
    assert best["results"] == [
        {"index": 1, "relevance_score": pytest.approx(HIGH), "document": {"text": "b"}}
    ]


async def test_texts_come_in_the_shape_of_text_embeddings_inference(reranker):
    _, client = reranker
    body = {"query": "q", "texts": ["a", "b"], "raw_scores": True, "return_text": True}
    answer = await client.post("/rerank", json=body)
    assert answer.json() == [
        {"index": 1, "score": 2.0, "text": "b"},
        {"index": 0, "score": -1.0, "text": "a"},
    ]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
async def test_pairs_come_unsorted_in_vllms_shape(reranker, path):
    api, client = reranker
    answer = (await client.post(path, json={"model": "tiny", "text_1": "q", "text_2": ["a", "b"]})).json()
    assert answer["data"] == [
        {"index": 0, "object": "score", "score": pytest.approx(LOW)},
        {"index": 1, "object": "score", "score": pytest.approx(HIGH)},
    ]
    pairs = {"queries": ["p", "q"], "documents": ["a", "b"], "use_activation": False}
    answer = (await client.post(path, json=pairs)).json()
    assert [each["score"] for each in answer["data"]] == [-1.0, 2.0]
    assert api.engine.rankings[-1].queries == ["p", "q"]
    refused = await client.post(path, json={"text_1": ["p", "q"], "text_2": ["a"]})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "text_1"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": ["a"]}, "query"),
        ({"query": "q"}, "documents"),
        ({"query": "q", "documents": []}, "documents"),
        ({"query": "q", "documents": ["a"] * 2049}, "documents"),
        ({"query": "q", "documents": [1]}, "documents[0]"),
        ({"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
        ({"query": "q", "documents": ["a"], "model": "another"}, "model"),
    ],
)
async def test_what_cannot_be_ranked_names_its_field(reranker, body, param):
    answer = await reranker[1].post("/v1/rerank", json=body)
    assert answer.status_code == (404 if param == "model" else 400)
    assert answer.json()["error"]["param"] == param


async def test_the_engines_refusal_reaches_the_client():
    refused = RequestRefused("the query has 600 tokens", param="documents", code="context_length_exceeded")
    engine = ScriptedEngine(info=RERANKER)
    async with running(engine) as api, httpx.AsyncClient(base_url=api.base, trust_env=False) as client:
        engine.script = Script(refuse=refused)
        answer = await client.post("/v1/rerank", json={"query": "q", "documents": ["a"]})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
