"""An ONNX folder served whole: the process as a pod runs it, asked by the vendor's client."""

import json

import numpy as np
import openai
import pytest

from slm_contract.config import ModelConfig
from slm_contract.report import ModelFacts
from slm_contract.source import ModelFile
from slm_runtime.models.folder import ModelFolder
from tests.runtime.api.server import KEY, serving
from tests.support.onnx import VOCABULARY, write_tiny_onnx
from tests.support.onnx_encoders import CLS, SEP, WORDS, TinyOnnxEncoder

pytestmark = pytest.mark.runtime

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": CITY}}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    model = published("tiny", folder / "models", write_tiny_onnx)
    with serving(model, folder / "models", folder, parallel=4, context_length=1024) as server:
        yield server


def published(name, models, write):
    """A model's folder as a fetch would have left it; `write` makes its files and returns the graph."""
    model = ModelConfig(name=name, source=f"https://example.org/{name}-onnx")
    place = ModelFolder(models, model)
    with place.locked():
        graph = write(place.path)
        files = [path for path in sorted(place.path.rglob("[!.]*")) if path.is_file()]
        sizes = {str(path.relative_to(place.path)): path.stat().st_size for path in files}
        place.publish(_facts(str(graph.relative_to(place.path)), sizes, encoder=name == "encoder"))
    return model


def _facts(graph, sizes, *, encoder):
    return ModelFacts(
        format="ONNX",
        file_name=graph,
        encoder=encoder,
        size_bytes=sum(sizes.values()),
        files=tuple(ModelFile(path=name, size_bytes=size) for name, size in sizes.items()),
        architecture="llama",
        weights_bytes=sizes.get(f"{graph}.data", sizes[graph]),
        context_length=64 if encoder else 2048,
        block_count=2,
        embedding_length=64,
        head_count=2,
        kv_heads=(1, 1),
        key_length=32,
        value_length=32,
        vocab_size=VOCABULARY,
        has_chat_template=True,
    )


def test_an_encoder_is_asked_for_vectors(tmp_path):
    tiny = TinyOnnxEncoder()
    model = published("encoder", tmp_path / "models", tiny.write)
    with (
        serving(model, tmp_path / "models", tmp_path, context_length=None) as server,
        openai.OpenAI(base_url=f"{server.base}/v1", api_key=KEY, max_retries=0, timeout=60) as client,
    ):
        texts = ["a cat sleeps on the sofa", "what is it"]
        answer = client.embeddings.create(model="encoder", input=texts, encoding_format="float")
    for found, text in zip(answer.data, texts, strict=True):
        expected = tiny.states([CLS, *(WORDS.index(word) for word in text.split()), SEP]).mean(axis=0)
        np.testing.assert_allclose(found.embedding, expected / np.linalg.norm(expected), atol=1e-5)


@pytest.fixture
def chat(served):
    client = openai.OpenAI(base_url=f"{served.base}/v1", api_key=KEY, max_retries=0, timeout=60)
    question = [{"role": "user", "content": "Where?"}]

    def ask(**fields):
        return client.chat.completions.create(**{"model": "tiny", "messages": question, "seed": 1, **fields})

    with client:
        yield ask


def test_what_runs_stands_in_the_report(served):
    report = served.report()
    assert report.phase == "Ready"
    assert report.acceleration is not None
    assert "onnxruntime" in report.acceleration.device
    assert not report.acceleration.degraded
    assert report.memory is not None
    assert report.memory.kv_cache == 4 * 1024 * 2 * 2 * 32 * 4
    assert served.metric("slm_runtime_kv_cells") == 4 * 1024


def test_a_stream_is_the_answer_in_parts(chat):
    whole = chat(temperature=0, max_tokens=24)
    parts = list(chat(temperature=0, max_tokens=24, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert text == whole.choices[0].message.content
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens > 0


def test_it_ends_before_a_stop_string(chat):
    text = chat(temperature=0, max_tokens=40).choices[0].message.content
    stop = text[3:5]
    stopped = chat(temperature=0, max_tokens=40, stop=[stop])
    assert stopped.choices[0].message.content == text[: text.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"


def test_a_schema_is_kept_to(chat):
    schema = {"name": "city", "strict": True, "schema": CITY}
    answer = chat(
        temperature=1.5, max_tokens=400, response_format={"type": "json_schema", "json_schema": schema}
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"city"}


def test_a_tool_is_called_as_it_wants_to_be(chat):
    answer = chat(temperature=1, max_tokens=400, tools=[TOOL], tool_choice="required")
    [call] = answer.choices[0].message.tool_calls
    assert call.function.name == "look_up"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_log_probabilities_are_those_of_a_distribution(chat):
    answer = chat(temperature=0, max_tokens=8, logprobs=True, top_logprobs=5)
    for entry in answer.choices[0].logprobs.content:
        tops = [top.logprob for top in entry.top_logprobs]
        assert tops == sorted(tops, reverse=True)
        assert entry.logprob == tops[0] <= 0


def test_what_comes_again_is_remembered(chat):
    again = chat(temperature=0, max_tokens=4)
    again = chat(temperature=0, max_tokens=4)
    assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens - 1
