"""Folders of ONNX as builders lay them out, so small that they are made on the spot: read for their facts, not run."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BLOCKS, HEADS, KV_HEADS, HEAD, VOCABULARY = 2, 4, 2, 8, 64
WIDTH = HEADS * HEAD
BLOCK = 16
CONFIG: dict[str, Any] = {
    "model": {
        "type": "llama",
        "context_length": 1024,
        "vocab_size": VOCABULARY,
        "decoder": {
            "filename": "model.onnx",
            "head_size": HEAD,
            "hidden_size": WIDTH,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "num_hidden_layers": BLOCKS,
            "inputs": {
                "past_key_names": "past_key_values.%d.key",
                "past_value_names": "past_key_values.%d.value",
            },
        },
    }
}
ENCODER_CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "max_position_embeddings": 512,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "vocab_size": VOCABULARY,
}
TOKENIZER = {"model": {"type": "BPE", "vocab": {f"t{each}": each for each in range(VOCABULARY)}}}


def decoder(
    location: str = "model.onnx.data", *, kv: int = TensorProto.FLOAT, domain: str = ""
) -> onnx.ModelProto:
    """A graph with int4 blocks, past and present; `domain`: of an operator that it has beside others."""
    weights = np.zeros((VOCABULARY, WIDTH // BLOCK, BLOCK // 2), np.uint8)
    scales = np.ones((VOCABULARY, WIDTH // BLOCK), np.float32)
    packed, scale = numpy_helper.from_array(weights, "head"), numpy_helper.from_array(scales, "head.scale")
    length = len(packed.raw_data)
    packed.ClearField("raw_data")
    packed.data_location = TensorProto.EXTERNAL
    packed.external_data.extend(
        onnx.StringStringEntryProto(key=key, value=value)
        for key, value in {"location": location, "offset": "0", "length": str(length)}.items()
    )
    past = [f"past_key_values.{block}.{kind}" for block in range(BLOCKS) for kind in ("key", "value")]
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    "MatMulNBits",
                    ["hidden", "head", "head.scale"],
                    ["logits"],
                    domain="com.microsoft",
                    bits=4,
                    block_size=BLOCK,
                    K=WIDTH,
                    N=VOCABULARY,
                ),
                helper.make_node("Twist", ["logits"], ["twisted"], domain=domain),
            ],
            "decoder",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
                *(
                    helper.make_tensor_value_info(each, kv, ["batch", KV_HEADS, "past", HEAD])
                    for each in past
                ),
            ],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", VOCABULARY])],
            [packed, scale],
        )
    )


def encoder() -> onnx.ModelProto:
    """A graph that keeps nothing, with its weights in its own file."""
    weights = numpy_helper.from_array(np.zeros((WIDTH, 4 * WIDTH), np.float32), "up")
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["hidden", "up"], ["last_hidden_state"])],
            "encoder",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
            [
                helper.make_tensor_value_info(
                    "last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", WIDTH]
                )
            ],
            [weights],
        )
    )


def folder(graph: onnx.ModelProto | None = None, **changes: Any) -> dict[str, bytes]:
    """All files of a decoder, and two that nobody needs.

    Parameters
    ----------
    changes
        Of `model` in its configuration.
    """
    model = {**CONFIG["model"], **changes}
    return {
        "model.onnx": (graph or decoder()).SerializeToString(),
        "model.onnx.data": bytes(VOCABULARY * WIDTH // 2),
        "genai_config.json": _json({"model": model}),
        "tokenizer.json": _json(TOKENIZER),
        "tokenizer_config.json": _json({"eos_token": "t2"}),
        "chat_template.jinja": b"{{ messages[0].content }}",
        "README.md": b"# a model",
        "picture.png": b"PNG",
    }


def encoder_folder() -> dict[str, bytes]:
    """As exporters of sentence transformers lay it out."""
    return {
        "onnx/model.onnx": encoder().SerializeToString(),
        "onnx/model_quantized.onnx": encoder().SerializeToString(),
        "config.json": _json(ENCODER_CONFIG),
        "tokenizer.json": _json(TOKENIZER),
        "modules.json": b"[]",
        "1_Pooling/config.json": _json({"pooling_mode_mean_tokens": True}),
        "pytorch_model.bin": b"PK",
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()
