"""A tiny random llama as a folder in onnxruntime-genai's layout: made in a moment, and equal arguments give equal bytes.

Its tokenizer reads bytes, so every text round-trips, and random output is often invalid UTF-8.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from tests.support.gguf import CHATML

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 320
"""More than the tokenizer has: graphs are padded."""
_BLOCKS, _WIDTH, _HEADS, _KV_HEADS, _HEAD, _INNER = 2, 64, 2, 1, 32, 128
_MICROSOFT = "com.microsoft"

Change = Callable[[onnx.ModelProto], None]


def write_tiny_onnx(
    folder: Path,
    *,
    context_length: int = 2048,
    element: int = TensorProto.FLOAT,
    hidden_states: bool = False,
    change: Change | None = None,
    bos: bool = False,
) -> Path:
    """Write about half a MiB into `folder` and return the graph's path.

    `element` is the type of what is computed and kept; `change` is made to the graph before it is written; with `bos`
    the tokenizer begins each prompt with that token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = _model(context_length, element, hidden_states=hidden_states)
    onnx.external_data_helper.convert_model_to_external_data(
        model, location="model.onnx.data", size_threshold=64
    )
    path = folder / "model.onnx"
    onnx.save_model(model, path)
    if change is not None:
        # What was saved has its weights where they were written to.
        model = onnx.load(path, load_external_data=False)
        change(model)
        path.write_bytes(model.SerializeToString())
    tokenizer(bos=bos).save(str(folder / "tokenizer.json"))
    texts = {"bos_token": MARKS[0], "eos_token": MARKS[2]}
    (folder / "tokenizer_config.json").write_text(json.dumps(texts))
    (folder / "chat_template.jinja").write_text(CHATML)
    (folder / "genai_config.json").write_text(json.dumps(_config(context_length)))
    return path


def tokenizer(*, bos: bool = False) -> Tokenizer:
    """All bytes, a few words, and marks."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a")]
    vocabulary = {text: place for place, text in enumerate([*letters, *("".join(pair) for pair in merges)])}
    made = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    made.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    if bos:
        first = MARKS[0]
        pair = f"{first} $A {first} $B"
        made.post_processor = TemplateProcessing(
            single=f"{first} $A", pair=pair, special_tokens=[(first, made.token_to_id(first))]
        )
    return made


def _config(context_length: int) -> dict[str, object]:
    marks = tokenizer()
    decoder = {
        "filename": "model.onnx",
        "head_size": _HEAD,
        "hidden_size": _WIDTH,
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _BLOCKS,
        "num_key_value_heads": _KV_HEADS,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    return {
        "model": {
            "type": "llama",
            "context_length": context_length,
            "vocab_size": VOCABULARY,
            "bos_token_id": marks.token_to_id(MARKS[0]),
            "eos_token_id": [marks.token_to_id(MARKS[2]), marks.token_to_id(MARKS[0])],
            "decoder": decoder,
        },
        "search": {"past_present_share_buffer": True},
    }


class _Builder:
    def __init__(self, element: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.element = element
        self._random = np.random.default_rng(0)

    def node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **fields: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=f"{kind}_{len(self.nodes)}", **fields))
        return outputs[0]

    def weight(self, name: str, value: np.ndarray) -> str:
        if value.dtype == np.float32 and self.element == TensorProto.FLOAT16:
            value = value.astype(np.float16)
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def matmul(self, name: str, value: str, rows: int, columns: int) -> str:
        scale = 1.6 / np.sqrt(rows)
        matrix = self._random.normal(0, scale, (rows, columns)).astype(np.float32)
        return self.node("MatMul", [value, self.weight(f"{name}.weight", matrix)], [name])


def _model(context_length: int, element: int, *, hidden_states: bool) -> onnx.ModelProto:
    build = _Builder(element)
    int64, int32 = TensorProto.INT64, TensorProto.INT32
    build.weight("one", np.array([1], np.int64))
    build.weight("at1", np.array(1, np.int64))
    build.node("ReduceSum", ["attention_mask", "one"], ["held"], keepdims=0)
    build.node("Sub", ["held", "one"], ["before"])
    build.node("Cast", ["before"], ["lengths"], to=int32)
    build.node("Shape", ["attention_mask"], ["shape"])
    build.node("Gather", ["shape", "at1"], ["longest"], axis=0)
    build.node("Cast", ["longest"], ["total"], to=int32)
    angles = np.outer(np.arange(context_length), 10_000.0 ** (-np.arange(0, _HEAD, 2) / _HEAD))
    build.weight("cos", np.cos(angles).astype(np.float32))
    build.weight("sin", np.sin(angles).astype(np.float32))
    table = np.random.default_rng(1).normal(0, 1, (VOCABULARY, _WIDTH)).astype(np.float32)
    value = build.node("Gather", [build.weight("embedding", table), "input_ids"], ["embedded"])
    for block in range(_BLOCKS):
        value = _block(build, block, value)
    normed = _norm(build, "last", value)
    if hidden_states:
        build.node("Identity", [normed], ["hidden_states"])
    build.matmul("logits", normed, _WIDTH, VOCABULARY)

    def floats(name: str, *shape: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, element, shape)

    names = [f"{block}.{kind}" for block in range(_BLOCKS) for kind in ("key", "value")]
    inputs = [
        helper.make_tensor_value_info("input_ids", int64, ["batch", "tokens"]),
        helper.make_tensor_value_info("attention_mask", int64, ["batch", "total"]),
        *(floats(f"past_key_values.{name}", "batch", _KV_HEADS, "past", _HEAD) for name in names),
    ]
    outputs = [
        floats("logits", "batch", "tokens", VOCABULARY),
        *([floats("hidden_states", "batch", "tokens", _WIDTH)] if hidden_states else []),
        *(floats(f"present.{name}", "batch", _KV_HEADS, "total", _HEAD) for name in names),
    ]
    graph = helper.make_graph(build.nodes, "tiny", inputs, outputs, build.weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _block(build: _Builder, block: int, value: str) -> str:
    name = f"block{block}"
    normed = _norm(build, f"{name}.before", value)
    sizes = {"q": _HEADS * _HEAD, "k": _KV_HEADS * _HEAD, "v": _KV_HEADS * _HEAD}
    projected = [build.matmul(f"{name}.{each}", normed, _WIDTH, size) for each, size in sizes.items()]
    kept = [f"{block}.key", f"{block}.value"]
    attended = build.node(
        "GroupQueryAttention",
        [*projected, *(f"past_key_values.{each}" for each in kept), "lengths", "total", "cos", "sin"],
        [f"{name}.attended", *(f"present.{each}" for each in kept)],
        domain=_MICROSOFT,
        num_heads=_HEADS,
        kv_num_heads=_KV_HEADS,
        do_rotary=1,
    )
    value = build.node(
        "Add", [value, build.matmul(f"{name}.o", attended, _HEADS * _HEAD, _WIDTH)], [f"{name}.middle"]
    )
    normed = _norm(build, f"{name}.after", value)
    gate = build.matmul(f"{name}.gate", normed, _WIDTH, _INNER)
    opened = build.node("Mul", [gate, build.node("Sigmoid", [gate], [f"{name}.open"])], [f"{name}.opened"])
    inner = build.node("Mul", [opened, build.matmul(f"{name}.up", normed, _WIDTH, _INNER)], [f"{name}.inner"])
    return build.node("Add", [value, build.matmul(f"{name}.down", inner, _INNER, _WIDTH)], [f"{name}.out"])


def _norm(build: _Builder, name: str, value: str) -> str:
    scale = build.weight(f"{name}.scale", np.ones(_WIDTH, np.float32))
    return build.node("SimplifiedLayerNormalization", [value, scale], [f"{name}.normed"], epsilon=1e-5)
