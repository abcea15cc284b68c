"""A real model: greedy answers of its fp32 folder are llama.cpp's on the same weights."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, dequantize
from jinja2 import Template
from tokenizers import Tokenizer

from slm_runtime.__main__ import main
from tests.runtime.converting.judges import generated, llama
from tests.support.models import smollm2

pytestmark = [pytest.mark.runtime, pytest.mark.by_hand]

BEGINNINGS = [
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):",
    "Water boils at",
    "The quick brown fox",
    "In 1969, humans",
    "My favourite food is",
    "To be or not to be,",
    "The largest planet is",
    "Photosynthesis is",
]
PROMPTS = [
    f"{begin} {more}".strip()
    for begin in BEGINNINGS
    for more in ("", "very", "not only", "in the year", "because")
]
ROUNDING = 1e-3


def in_f32(source: Path, target: Path) -> Path:
    """The same numbers without blocks: llama.cpp then rounds no activation either."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", "general.file_type"}:
            continue
        if field.types[0] is GGUFValueType.ARRAY:
            writer.add_array(name, field.contents())
        else:
            writer.add_key_value(name, field.contents(), field.types[0])
    writer.add_file_type(LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_fifty_answers_are_llama_cpps(tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    assert main(["convert", str(smollm2()), str(folder), "--precision", "fp32"]) == 0
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    with llama(in_f32(smollm2(), tmp_path / "f32.gguf")) as whole:
        for prompt in PROMPTS:
            tokens = tokenizer.encode(prompt).ids
            written = generated(folder, tokens, 24)
            # Each token is what llama.cpp would have written after those before it, or as good as that.
            logits = whole(written[:-1])[len(tokens) - 1 :]
            chosen = logits[np.arange(len(logits)), written[len(tokens) :]]
            assert (logits.max(axis=1) - chosen < ROUNDING).all(), prompt


def test_four_bits_still_know_the_capital_of_france(tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    assert main(["convert", str(smollm2()), str(folder)]) == 0
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    template = Template((folder / "chat_template.jinja").read_text())
    asked = template.render(
        messages=[{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True
    )
    tokens = tokenizer.encode(asked).ids
    answer = tokenizer.decode(generated(folder, tokens, 12)[len(tokens) :])
    assert "The capital of France is Paris" in answer
