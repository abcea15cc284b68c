"""What a graph that generates has to be: inputs and outputs by which its keys and values stay where they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from slm_runtime.engine.onnx.folder import Decoder, Inputs
from slm_runtime.engine.onnx.narrowing import ROWS, ROWS_AXIS
from slm_runtime.engine.onnx.session import Graph


@dataclass(frozen=True, slots=True)
class Cache:
    """Keys, or values, of one block."""

    past: str
    present: str
    heads: int
    size: int
    """Numbers of a head."""
    element: np.dtype[Any]

    @property
    def token_bytes(self) -> int:
        return self.heads * self.size * self.element.itemsize


@dataclass(frozen=True, slots=True)
class Given:
    """What a step yields: shape (sequences, tokens, width)."""

    name: str
    width: int
    element: np.dtype[Any]
    last_only: bool
    """Only of the last token."""
    flat: bool
    """Without the axis of tokens."""
    chosen: bool = False
    """Of the tokens that are asked for: shape (those, width)."""


@dataclass(frozen=True, slots=True)
class Signature:
    """Of a decoder."""

    inputs: Inputs
    caches: tuple[Cache, ...]
    logits: Given
    hidden_states: Given | None
    positions: bool
    """It wants to be told where tokens are."""

    @property
    def chooses(self) -> bool:
        """It wants to be told whose logits to give."""
        return self.logits.chosen


def signature(graph: Graph, decoder: Decoder, vocabulary: int) -> Signature:
    """Read it off; `vocabulary` is how many tokens the configuration counts.

    Raises
    ------
    LoadError
        The graph isn't one that can be driven: it says which input or output is to blame.
    """
    inputs, outputs = decoder.inputs, decoder.outputs
    blocks = range(decoder.num_hidden_layers)
    pairs = [
        (past % block, present % block)
        for block in blocks
        for past, present in (
            (inputs.past_key_names, outputs.present_key_names),
            (inputs.past_value_names, outputs.present_value_names),
        )
    ]
    caches = tuple(_cache(graph, past, present, decoder) for past, present in pairs)
    fed = {
        ROWS,
        inputs.input_ids,
        inputs.attention_mask,
        inputs.position_ids,
        *(cache.past for cache in caches),
    }
    for name in (inputs.input_ids, inputs.attention_mask):
        if name not in graph.inputs:
            raise graph.unusable(f"it has no input {name}")
    if strange := sorted(graph.inputs.keys() - fed):
        raise graph.unusable(f"it wants {', '.join(strange)}, which nothing here can give it")
    logits = _given(graph, outputs.logits)
    if logits is None:
        raise graph.unusable(f"it has no output {outputs.logits}, so it generates nothing")
    if logits.width != vocabulary:
        raise graph.unusable(
            f"{logits.name} is {logits.width} numbers wide, but genai_config.json counts {vocabulary} tokens"
        )
    return Signature(
        inputs=inputs,
        caches=caches,
        logits=logits,
        hidden_states=_given(graph, outputs.hidden_states),
        positions=inputs.position_ids in graph.inputs,
    )


def _cache(graph: Graph, past: str, present: str, decoder: Decoder) -> Cache:
    if past not in graph.inputs or present not in graph.outputs:
        raise graph.unusable(f"it has no {past if past not in graph.inputs else present}")
    shape = graph.inputs[past].shape
    if len(shape) != 4:
        raise graph.unusable(f"{past} has {len(shape)} axes instead of 4 (sequences, heads, tokens, numbers)")
    _, heads, _, size = shape
    if not isinstance(heads, int):
        raise graph.unusable(f"{past} doesn't say how many heads it has")
    element = graph.element(past)
    if element != graph.element(present):
        raise graph.unusable(f"{past} and {present} are of different types")
    return Cache(past, present, heads, size if isinstance(size, int) else decoder.head_size, element)


def _given(graph: Graph, name: str) -> Given | None:
    if name not in graph.outputs:
        return None
    shape = graph.outputs[name].shape
    if len(shape) not in (2, 3) or not isinstance(shape[-1], int):
        raise graph.unusable(f"{name} has the shape {shape} instead of (sequences, tokens, a number)")
    if shape[0] == ROWS_AXIS:
        return Given(name, shape[-1], graph.element(name), last_only=False, flat=True, chosen=True)
    flat = len(shape) == 2
    return Given(name, shape[-1], graph.element(name), flat or shape[1] == 1, flat)
