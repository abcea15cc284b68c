"""Converted folders compute what llama.cpp computes of the same weights, however they are run."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from slm_runtime.__main__ import main
from tests.runtime.converting.judges import Folder, generated, llama
from tests.support.decoders import TinyDecoder
from tests.support.gguf import write_tiny_gguf

pytestmark = pytest.mark.runtime

DECODERS = {
    "llama": TinyDecoder("llama"),
    "llama-tied": TinyDecoder("llama", tied=True),
    "llama-scaled": TinyDecoder("llama", llama3_scaling=True),
    "llama-wide-heads": TinyDecoder("llama", head=64),
    "qwen2": TinyDecoder("qwen2", heads=6, head=16, tied=True),
    "qwen3": TinyDecoder("qwen3", head=64, tied=True),
    "phi3": TinyDecoder("phi3", heads=6, head=16),
    "phi3-partly-rotated": TinyDecoder("phi3", heads=3, kv_heads=1, head=32, rotated=16),
}
TOKENS = [1, *range(270, 340), *range(20, 60), 3, 9]


def converted(source: Path, target: Path, precision: str = "fp32") -> Path:
    assert main(["convert", str(source), str(target), "--precision", precision]) == 0
    return target


@pytest.fixture(params=DECODERS)
def decoder(request: pytest.FixtureRequest) -> TinyDecoder:
    return DECODERS[request.param]


def test_logits_are_llama_cpps(decoder: TinyDecoder, tmp_path: Path) -> None:
    source = decoder.write_gguf(tmp_path / "tiny.gguf")
    folder = Folder(converted(source, tmp_path / "onnx"))
    with llama(source) as logits:
        theirs = logits(TOKENS)
    assert np.abs(theirs).max() > 2
    np.testing.assert_allclose(folder.logits(TOKENS), theirs, atol=2e-4)
    np.testing.assert_allclose(folder.logits(TOKENS, steps=5), theirs, atol=2e-4)


def test_a_hugging_face_folder_makes_the_same_graph(decoder: TinyDecoder, tmp_path: Path) -> None:
    of_gguf = converted(decoder.write_gguf(tmp_path / "tiny.gguf"), tmp_path / "onnx")
    tokenizer = (of_gguf / "tokenizer.json").read_text()
    known = json.loads((of_gguf / "genai_config.json").read_text())["model"]["vocab_size"]
    of_folder = converted(decoder.write_folder(tmp_path / "hf", tokenizer, known), tmp_path / "other")
    assert (of_folder / "model.onnx").read_bytes() == (of_gguf / "model.onnx").read_bytes()
    weights = [np.fromfile(folder / "model.onnx.data", np.float32) for folder in (of_folder, of_gguf)]
    np.testing.assert_allclose(*weights, atol=1e-4)
    assert json.loads((of_folder / "genai_config.json").read_text())["model"]["eos_token_id"] == [4, 2]


def test_onnxruntime_genai_writes_the_same(decoder: TinyDecoder, tmp_path: Path) -> None:
    folder = converted(decoder.write_gguf(tmp_path / "tiny.gguf"), tmp_path / "onnx")
    texts = [TOKENS[:length] for length in (40, 41, 42)]
    assert [generated(folder, text, 12) for text in texts] == [
        Folder(folder).greedy(text, 12, {2, 4}) for text in texts
    ]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.98), ("int8", 0.95), ("int4", 0.8)])
def test_smaller_precisions_stay_near(precision: str, least: float, tied: bool, tmp_path: Path) -> None:
    source = TinyDecoder("qwen3", tied=tied).write_gguf(tmp_path / "tiny.gguf")
    folder = Folder(converted(source, tmp_path / "onnx", precision))
    with llama(source) as logits:
        assert np.corrcoef(folder.logits(TOKENS).ravel(), logits(TOKENS).ravel())[0, 1] > least


def test_a_folder_says_what_a_client_needs(tmp_path: Path) -> None:
    folder = converted(write_tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "onnx")
    model = json.loads((folder / "genai_config.json").read_text())["model"]
    assert (model["type"], model["bos_token_id"], model["context_length"]) == ("llama", 1, 2048)
    assert model["eos_token_id"] == [4, 2]
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text()
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "<|im_end|>"
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    offsets = [
        int(entry.value)
        for each in graph.initializer
        for entry in each.external_data
        if entry.key == "offset"
    ]
    assert offsets
    assert not any(offset % 4096 for offset in offsets)
