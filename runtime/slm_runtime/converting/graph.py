"""The graph of a decoder, as onnxruntime-genai's own builder makes it for CPUs.

Inputs are `input_ids` and `attention_mask` (`[batch, tokens]`, int64) and each block's past keys and values
(`[batch, heads, positions, head]`); outputs are `logits` (`[batch, tokens, vocabulary]`) and each block's present ones,
which may lie in the past ones' memory.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from itertools import chain
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from slm_runtime.converting.data import Array, DataFile
from slm_runtime.converting.decoder import Block, Decoder
from slm_runtime.converting.dequantizing import Floats
from slm_runtime.converting.matrix import Matrix
from slm_runtime.converting.quantizing import BLOCK, Bits, has_zeros, quantized

MICROSOFT: Final = "com.microsoft"
OPSET: Final = 22
IR_VERSION: Final = 10
INT8_ACTIVATIONS: Final = 4
"""MatMulNBits' accuracy level: products in eight bits, sums in 32."""


class Precision(StrEnum):
    INT4 = "int4"
    INT8 = "int8"
    FP16 = "fp16"
    FP32 = "fp32"


_BITS: Final[dict[Precision, Bits]] = {Precision.INT4: 4, Precision.INT8: 8}


class Graph:
    """A model's graph while it is made: its weights go to the data file as soon as they are known."""

    def __init__(self, decoder: Decoder, precision: Precision, data: DataFile) -> None:
        self._decoder = decoder
        self._shape = decoder.shape
        self._data = data
        self._bits = _BITS.get(precision)
        self._float = np.dtype(np.float16 if precision is Precision.FP16 else np.float32)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def build(self, progress: Callable[[int], None]) -> onnx.ModelProto:
        """Make the model; `progress` is told how many blocks are done."""
        hidden = self._embeddings()
        lengths = self._lengths()
        self._rotations()
        added = ""
        for number, block in enumerate(self._decoder.blocks):
            hidden, added = self._block(number, block, hidden, added, lengths)
            progress(number + 1)
        normed, _ = self._norm(
            f"layers.{self._shape.blocks}/final_norm_layernorm", self._decoder.norm, hidden, added, last=True
        )
        self._head(normed)
        return self._model()

    def _embeddings(self) -> str:
        """Rows of the vocabulary's matrix; where that makes the logits, too, it is there once."""
        matrix, name = self._decoder.embeddings, "/model/embed_tokens"
        if self._bits is None:
            self._matrix_as_it_is("model.embed_tokens.weight", matrix)
            return self._node(f"{name}/Gather", "Gather", ["model.embed_tokens.weight", "input_ids"])
        weight = "lm_head.MatMul" if self._decoder.head is None else "model.embed_tokens"
        bits = vocabulary_bits(matrix, self._bits)
        inputs = self._codes(weight, matrix, bits)
        flat = f"{weight}.weight_rows_Q{bits}"
        self._data.again(inputs[0], flat, (matrix.rows, matrix.columns * bits // 8))
        return self._node(
            f"{name}/GatherBlockQuantized",
            "GatherBlockQuantized",
            [flat, "input_ids", *inputs[1:]],
            domain=MICROSOFT,
            bits=bits,
            block_size=BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )

    def _lengths(self) -> tuple[str, str]:
        """Of each sequence the last position's number, and how many positions there are at most."""
        name, one = "/model/attn_mask_reformat/attn_mask_subgraph", self._constant([1])
        total = self._node(f"{name}/ReduceSum", "ReduceSum", ["attention_mask", one], keepdims=0)
        last = self._node(f"{name}/Sub", "Sub", [total, one])
        last = self._node(f"{name}/Sub/Cast", "Cast", [last], to=TensorProto.INT32)
        mask = self._node(f"{name}/Shape", "Shape", ["attention_mask"])
        longest = self._node(f"{name}/Gather", "Gather", [mask, self._constant(1)], axis=0)
        return last, self._node(f"{name}/Gather/Cast", "Cast", [longest], to=TensorProto.INT32)

    def _rotations(self) -> None:
        positions = np.arange(self._shape.context_length, dtype=np.float32)
        angles = np.outer(positions, self._shape.frequencies)
        for name, function in (("cos_cache", np.cos), ("sin_cache", np.sin)):
            self._array(name, function(angles) * np.float32(self._shape.rotation_scale))

    def _block(
        self, number: int, block: Block, hidden: str, added: str, lengths: tuple[str, str]
    ) -> tuple[str, str]:
        layer = f"layers.{number}"
        normed, hidden = self._norm(f"{layer}/input_layernorm", block.attention_norm, hidden, added)
        added = self._attention(number, block, normed, lengths)
        normed, hidden = self._norm(
            f"{layer}/post_attention_layernorm", block.feed_forward_norm, hidden, added
        )
        return hidden, self._feed_forward(f"{layer}/mlp", block, normed)

    def _attention(self, number: int, block: Block, normed: str, lengths: tuple[str, str]) -> str:
        shape, path = self._shape, f"layers.{number}/attn"
        qkv = [self._product(f"{path}/qkv_proj/MatMul", block.qkv, normed), "", ""]
        if block.qkv_bias is not None:
            self._array(f"{_dotted(path)}.qkv_proj.Add.bias", block.qkv_bias)
            bias = f"{_dotted(path)}.qkv_proj.Add.bias"
            qkv[0] = self._node(f"/model/{path}/qkv_proj/Add", "Add", [qkv[0], bias])
        if block.q_norm is not None or block.k_norm is not None:
            qkv = self._normed_heads(path, block, qkv[0])
        keys, values = (f"past_key_values.{number}.{what}" for what in ("key", "value"))
        attended = f"/model/{path}/GroupQueryAttention/output_0"
        self._nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                [*qkv, keys, values, *lengths, "cos_cache", "sin_cache", "", "", ""],
                [attended, f"present.{number}.key", f"present.{number}.value"],
                f"/model/{path}/GroupQueryAttention",
                domain=MICROSOFT,
                num_heads=shape.heads,
                kv_num_heads=shape.kv_heads,
                scale=shape.head**-0.5,
                local_window_size=shape.window or -1,
                softcap=0.0,
                do_rotary=1,
                rotary_interleaved=0,
            )
        )
        return self._product(f"{path}/o_proj/MatMul", block.output, attended)

    def _normed_heads(self, path: str, block: Block, qkv: str) -> list[str]:
        """Queries and keys, each head normed by itself."""
        shape = self._shape
        lengths = [shape.heads * shape.head, shape.kv_heads * shape.head, shape.kv_heads * shape.head]
        name = f"/model/{path}/qkv_proj/Split"
        parts = [f"{name}/output_{place}" for place in range(3)]
        self._nodes.append(helper.make_node("Split", [qkv, self._constant(lengths)], parts, name, axis=-1))
        for place, (what, weight) in enumerate((("q_norm", block.q_norm), ("k_norm", block.k_norm))):
            if weight is None:
                continue
            scale = f"{_dotted(path)}.{what}.layernorm.weight"
            self._array(scale, weight)
            within, name = parts[place], f"/model/{path}/{what}"
            within = self._node(f"{name}/Reshape_1", "Reshape", [within, self._constant([0, -1, shape.head])])
            within = self._simple_norm(f"{name}/SimplifiedLayerNormalization", within, scale)
            parts[place] = self._node(
                f"{name}/Reshape_2", "Reshape", [within, self._constant([0, -1, lengths[place]])]
            )
        return parts

    def _feed_forward(self, path: str, block: Block, normed: str) -> str:
        gate = self._product(f"{path}/gate_proj/MatMul", block.gate, normed)
        up = self._product(f"{path}/up_proj/MatMul", block.up, normed)
        name = f"/model/{path}"
        sigmoid = self._node(f"{name}/act_fn/Sigmoid", "Sigmoid", [gate])
        active = self._node(f"{name}/act_fn/Mul", "Mul", [gate, sigmoid])
        product = self._node(f"{name}/Mul", "Mul", [active, up])
        return self._product(f"{path}/down_proj/MatMul", block.down, product)

    def _head(self, normed: str) -> None:
        own, name = self._decoder.head, "lm_head.MatMul"
        matrix = own or self._decoder.embeddings
        if self._bits is not None:
            bits = vocabulary_bits(matrix, self._bits)
            codes = self._codes(name, matrix, bits) if own else _coded(name, matrix, bits)
            self._multiply("/lm_head/MatMul", matrix, bits, [normed, *codes], "logits")
            return
        if own:
            self._matrix_turned(f"{name}.weight", own)
            weight = f"{name}.weight"
        else:
            weight = self._node("/lm_head/Transpose", "Transpose", ["model.embed_tokens.weight"], perm=[1, 0])
        self._node("/lm_head/MatMul", "MatMul", [normed, weight], output="logits")

    def _norm(
        self, path: str, weight: Floats, hidden: str, added: str, *, last: bool = False
    ) -> tuple[str, str]:
        """The sum of both inputs normed, and the sum itself."""
        scale = f"{_dotted(path)}.weight"
        self._array(scale, weight)
        name = f"/model/{path}"
        if not added:
            return self._simple_norm(f"{name}/LayerNorm", hidden, scale, f"{name}/output_0"), hidden
        outputs = [f"{name}/output_0"] if last else [f"{name}/output_0", "", "", f"{name}/output_3"]
        self._nodes.append(
            helper.make_node(
                "SkipSimplifiedLayerNormalization",
                [hidden, added, scale],
                outputs,
                f"{name}/SkipLayerNorm",
                domain=MICROSOFT,
                epsilon=self._shape.epsilon,
            )
        )
        return outputs[0], outputs[-1]

    def _simple_norm(self, name: str, hidden: str, scale: str, output: str | None = None) -> str:
        return self._node(
            name,
            "SimplifiedLayerNormalization",
            [hidden, scale],
            output=output,
            epsilon=self._shape.epsilon,
            axis=-1,
            stash_type=1,
        )

    def _product(self, path: str, matrix: Matrix, hidden: str) -> str:
        """Multiply by a matrix of a block's."""
        name, dotted = f"/model/{path}", _dotted(path)
        if self._bits is None:
            self._matrix_turned(f"{dotted}.weight", matrix)
            return self._node(name, "MatMul", [hidden, f"{dotted}.weight"])
        codes = self._codes(dotted, matrix, self._bits)
        return self._multiply(name, matrix, self._bits, [hidden, *codes], f"{name}/output_0")

    def _multiply(self, name: str, matrix: Matrix, bits: Bits, inputs: Sequence[str], output: str) -> str:
        return self._node(
            f"{name}_Q{bits}",
            "MatMulNBits",
            inputs,
            output=output,
            domain=MICROSOFT,
            K=matrix.columns,
            N=matrix.rows,
            accuracy_level=INT8_ACTIVATIONS,
            bits=bits,
            block_size=BLOCK,
        )

    def _codes(self, name: str, matrix: Matrix, bits: Bits) -> list[str]:
        """Write a matrix's codes, scales and zeros; how these are called."""
        names, blocks = _coded(name, matrix, bits), matrix.columns // BLOCK
        scales: list[Array] = []
        zeros: list[Array] = []

        def codes() -> Iterator[Array]:
            for part in quantized(matrix, bits):
                scales.append(part.scales.astype(self._float))
                if part.zeros is not None:
                    zeros.append(part.zeros)
                yield part.codes

        self._data.add(names[0], np.dtype(np.uint8), (matrix.rows, blocks, BLOCK * bits // 8), codes())
        self._data.add(names[1], self._float, (matrix.rows, blocks), scales)
        if zeros:
            self._data.add(names[2], np.dtype(np.uint8), (matrix.rows, -(-blocks // 2)), zeros)
        return names

    def _matrix_as_it_is(self, name: str, matrix: Matrix) -> None:
        self._data.add(name, self._float, (matrix.rows, matrix.columns), matrix.numbers())

    def _matrix_turned(self, name: str, matrix: Matrix) -> None:
        """With a column for each output: whole in memory, once, in the precision that is written."""
        turned = np.empty((matrix.columns, matrix.rows), self._float)
        first = 0
        for part in matrix.numbers():
            turned[:, first : first + len(part)] = part.T
            first += len(part)
        self._data.add(name, self._float, turned.shape, [turned])

    def _array(self, name: str, numbers: Floats) -> None:
        self._data.add(name, self._float, numbers.shape, [numbers])

    def _constant(self, value: int | Sequence[int]) -> str:
        name = f"/model/constants/INT64/{value}"
        if name not in self._constants:
            self._constants[name] = onnx.numpy_helper.from_array(np.array(value, np.int64), name)
        return name

    def _node(
        self,
        name: str,
        kind: str,
        inputs: Sequence[str],
        *,
        output: str | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        output = output or f"{name}/output_0"
        self._nodes.append(helper.make_node(kind, inputs, [output], name, domain=domain, **attributes))
        return output

    def _model(self) -> onnx.ModelProto:
        shape, kind = self._shape, helper.np_dtype_to_tensor_dtype(self._float)

        def kept(name: str, positions: str) -> list[onnx.ValueInfoProto]:
            dims: list[str | int | None] = ["batch_size", shape.kv_heads, positions, shape.head]
            return [
                helper.make_tensor_value_info(f"{name}.{number}.{what}", kind, dims)
                for number, what in chain.from_iterable(
                    ((number, "key"), (number, "value")) for number in range(shape.blocks)
                )
            ]

        tokens = ["batch_size", "sequence_length"]
        graph = helper.make_graph(
            self._nodes,
            "main_graph",
            [
                helper.make_tensor_value_info("input_ids", TensorProto.INT64, tokens),
                helper.make_tensor_value_info(
                    "attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"]
                ),
                *kept("past_key_values", "past_sequence_length"),
            ],
            [
                helper.make_tensor_value_info("logits", kind, [*tokens, self._decoder.embeddings.rows]),
                *kept("present", "total_sequence_length"),
            ],
            [*self._constants.values(), *self._data.tensors],
        )
        return helper.make_model(
            graph,
            producer_name="slm-runtime",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
        )


def vocabulary_bits(matrix: Matrix, bits: Bits) -> Bits:
    """Of the matrices that read and write tokens: eight, unless their source has no more than four itself.

    A model is more sensitive to them than to all others, as whoever quantizes GGUF files knows.
    """
    return bits if all(kind.startswith("Q4") for kind in matrix.kinds) else 8


def _coded(name: str, matrix: Matrix, bits: Bits) -> list[str]:
    """How a quantized matrix's tensors are called."""
    names = [f"{name}.weight_Q{bits}", f"{name}.weight_scales"]
    return [*names, f"{name}.weight_zp"] if has_zeros(matrix, bits) else names


def _dotted(path: str) -> str:
    return "model." + path.replace("/", ".")
