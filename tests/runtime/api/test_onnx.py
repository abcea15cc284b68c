"""An ONNX folder served whole: the process as a pod runs it, asked by the vendor's client."""

import json

import openai
import pytest

from slm_contract.config import ModelConfig
from slm_contract.report import ModelFacts
from slm_contract.source import ModelFile
from slm_runtime.models.folder import ModelFolder
from tests.runtime.api.server import KEY, serving
from tests.support.onnx import VOCABULARY, write_tiny_onnx

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
    model = ModelConfig(name="tiny", source="https://example.org/tiny-onnx")
    place = ModelFolder(folder / "models", model)
    with place.locked():
        graph = write_tiny_onnx(place.path)
        files = [path for path in sorted(place.path.iterdir()) if not path.name.startswith(".")]
        place.publish(_facts(graph.name, {path.name: path.stat().st_size for path in files}))
    with serving(model, folder / "models", folder, parallel=4, context_length=1024) as server:
        yield server


def _facts(graph, sizes):
    return ModelFacts(
        format="ONNX",
        file_name=graph,
        size_bytes=sum(sizes.values()),
        files=tuple(ModelFile(path=name, size_bytes=size) for name, size in sizes.items()),
        architecture="llama",
        weights_bytes=sizes[f"{graph}.data"],
        context_length=2048,
        block_count=2,
        embedding_length=64,
        head_count=2,
        kv_heads=(1, 1),
        key_length=32,
        value_length=32,
        vocab_size=VOCABULARY,
        has_chat_template=True,
    )


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
