"""The Encoder protocol on onnxruntime: graphs of BERT and its kin, with what sentence-transformers writes beside them."""

import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from slm_contract import context
from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import EngineConfig, Loaded, MemoryBreakdown
from slm_runtime.engine.onnx.folder import (
    EncoderConfig,
    Folder,
    Module,
    PoolingConfig,
    SentenceConfig,
)
from slm_runtime.engine.onnx.session import Graph
from slm_runtime.engine.onnx.vocabulary import OnnxVocabulary
from slm_runtime.engine.protocol import EncoderCapabilities, EngineFault, Rows, Tokens
from slm_runtime.engine.resident import resident_bytes

INPUTS: Final = 64
"""In one step."""
_PADDING: Final = 1.25
"""Places for each token that a run may have: texts of like length go together."""
_AFTER_PADDING: Final = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"})
"""Families whose first position comes after the padding token's number."""

_IDS, _MASK, _SEGMENTS, _POSITIONS = "input_ids", "attention_mask", "token_type_ids", "position_ids"
_WHOLE: Final = ("sentence_embedding", "pooler_output")
"""Outputs that are a text's vector already; the second only where there is nothing else."""
_STATES: Final = ("last_hidden_state", "token_embeddings")
_SCORES: Final = "logits"

_Pool = Callable[[NDArray[Any], NDArray[np.bool_]], Rows]


class OnnxEncoder:
    """See Encoder. A folder that isn't for it raises LoadError."""

    def __init__(self, config: EngineConfig, folder: Folder) -> None:
        began, before = time.monotonic(), resident_bytes()
        self._graph = graph = Graph(folder.graph, config.threads)
        weights = max(resident_bytes() - before, folder.graph_bytes())
        if strange := sorted(graph.inputs.keys() - {_IDS, _MASK, _SEGMENTS, _POSITIONS}):
            raise graph.unusable(
                f"it wants {', '.join(strange[:3])}, so it reads no text whole, and there is no genai_config.json beside "
                "it, which says how it generates: export it in the layout of onnxruntime-genai"
            )
        self._output, ranks = _output(graph)
        width = graph.outputs[self._output].shape[-1]
        if ranks and width != 1:
            raise graph.unusable(
                f"it sorts texts into {width} classes; what is served here scores pairs of texts"
            )
        self._pool = _pooling(folder, graph, self._output)
        self.vocabulary = OnnxVocabulary(folder)
        trained = _trained(folder)
        context_length = min(config.context_length or context.ENCODER, trained)
        self.capabilities = EncoderCapabilities(
            context_length=context_length, inputs=INPUTS, step_tokens=config.batch_size, ranks=ranks
        )
        self._separator = self.vocabulary.separator if ranks else []
        try:
            row = self.encode([array("i", [0, 0])])
        except EngineFault as fault:
            raise graph.unusable(str(fault)) from fault
        self.info = Loaded(
            engine="onnxruntime",
            context_length=context_length,
            trained_context_length=trained,
            parallel=INPUTS,
            kv_cells=0,
            vocab_size=self.vocabulary.size,
            embedding_length=row.shape[1],
            chat_templates={},
            description=f"{folder.optional('config.json', EncoderConfig).model_type or 'encoder'} (ONNX)",
            device=f"cpu (onnxruntime {ort.__version__}, {graph.threads} threads)",
            provider="cpu",
            variant=f"onnxruntime {ort.__version__}",
            threads=graph.threads,
            layers_offloaded=0,
            layers_total=0,
            flash_attention=False,
            memory=MemoryBreakdown(weights=weights, kv_cache=0, compute=0, resident=resident_bytes()),
            load_seconds=time.monotonic() - began,
            generates=False,
            embeds=not ranks,
            ranks=ranks,
            **self.vocabulary.described(),
        )

    def encode(self, inputs: Sequence[Tokens]) -> Rows:
        rows: list[Rows | None] = [None] * len(inputs)
        for places in together([len(tokens) for tokens in inputs]):
            for place, row in zip(places, self._run([inputs[place] for place in places]), strict=True):
                rows[place] = row
        return np.stack([row for row in rows if row is not None])

    def close(self) -> None:
        """All memory goes with the encoder itself."""

    def _run(self, inputs: Sequence[Tokens]) -> Rows:
        longest = max(map(len, inputs))
        ids = np.zeros((len(inputs), longest), np.int64)
        seen = np.zeros(ids.shape, np.bool_)
        segments = np.zeros(ids.shape, np.int64)
        for place, tokens in enumerate(inputs):
            ids[place, : len(tokens)] = tokens
            seen[place, : len(tokens)] = True
            segments[place, _second(tokens, self._separator) : len(tokens)] = 1
        positions = np.broadcast_to(np.arange(longest), ids.shape)
        fed = {_IDS: ids, _MASK: seen, _SEGMENTS: segments, _POSITIONS: positions}
        given = {
            name: value.astype(self._graph.element(name))
            for name, value in fed.items()
            if name in self._graph.inputs
        }
        try:
            [found] = self._graph.session.run([self._output], given)
        except Exception as error:  # onnxruntime's own have no common base, and it raises others, too
            raise EngineFault(f"onnxruntime can't encode texts: {error}") from error
        return self._pool(found, seen).astype(np.float32, copy=False)


def together(lengths: Sequence[int]) -> list[list[int]]:
    """Places of texts that are computed in one run each, padded to its longest one."""
    runs: list[list[int]] = []
    total = 0
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        length = lengths[place]
        if runs and (len(runs[-1]) + 1) * length <= _PADDING * (total + length):
            runs[-1].append(place)
            total += length
        else:
            runs.append([place])
            total = length
    return runs


def _second(tokens: Tokens, separator: list[int]) -> int:
    """Where the second of two texts begins; behind the end where there is one only."""
    size = len(separator)
    for place in range(len(tokens) - size) if size else ():
        if tokens[place : place + size].tolist() == separator:
            return place + size
    return len(tokens)


def _output(graph: Graph) -> tuple[str, bool]:
    """Which output is wanted, and whether it is a score."""
    for name in (*_STATES, _WHOLE[0], _SCORES, _WHOLE[1]):
        if name in graph.outputs:
            graph.element(name)
            return name, name == _SCORES
    raise graph.unusable(
        f"it gives {', '.join(sorted(graph.outputs))}: no hidden states, no vector of a text and no score"
    )


def _pooling(folder: Folder, graph: Graph, output: str) -> _Pool:
    """What a text's vector is made of, as the folder says; the mean of its tokens' where it says nothing."""
    if len(graph.outputs[output].shape) == 2:
        return lambda found, _seen: found
    modules = folder.read("modules.json", list[Module]) or []
    if strange := [each.kind for each in modules if each.kind not in {"Transformer", "Pooling", "Normalize"}]:
        raise graph.unusable(
            f"modules.json has its vectors go through {', '.join(strange)}, which isn't computed here"
        )
    path = next((each.path for each in modules if each.kind == "Pooling"), "1_Pooling")
    config = folder.read(f"{path}/config.json", PoolingConfig) or PoolingConfig(pooling_mode_mean_tokens=True)
    if config.pooling_mode_mean_tokens:
        return _mean
    if config.pooling_mode_cls_token:
        return _first
    if config.pooling_mode_lasttoken:
        return _last
    raise LoadError(
        "UnsupportedArchitecture",
        f"{path}/config.json makes vectors of neither the first, the last nor the mean of the tokens",
    )


def _mean(states: NDArray[Any], seen: NDArray[np.bool_]) -> Rows:
    counted = seen[:, :, None]
    means: Rows = (states * counted).sum(axis=1, dtype=np.float32) / counted.sum(axis=1)
    return means


def _first(states: NDArray[Any], _seen: NDArray[np.bool_]) -> Rows:
    first: Rows = states[:, 0]
    return first


def _last(states: NDArray[Any], seen: NDArray[np.bool_]) -> Rows:
    last: Rows = states[np.arange(len(states)), seen.sum(axis=1) - 1]
    return last


def _trained(folder: Folder) -> int:
    """Tokens of a text at most."""
    config = folder.optional("config.json", EncoderConfig)
    longest = folder.optional("sentence_bert_config.json", SentenceConfig).max_seq_length
    reach = config.max_position_embeddings
    if reach is not None and config.model_type in _AFTER_PADDING:
        reach -= (config.pad_token_id or 0) + 1
    known = [each for each in (longest, reach) if each]
    return min(known, default=context.ENCODER)
