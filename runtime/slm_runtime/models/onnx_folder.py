"""From an ONNX model folder to the facts that memory is computed from.

Two layouts are read: that of onnxruntime-genai (`genai_config.json` beside the graph), and that of Hugging Face's exporters
(`config.json`, with the graph beside it or in `onnx/`), which embedding models come in.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from slm_contract.report import ModelFacts
from slm_runtime.errors import InvalidModel, UnsupportedArchitecture, UnsupportedFormat
from slm_runtime.models.facts import MAX_BLOCKS, MAX_HEADS
from slm_runtime.models.metadata import MAX_NUMBER
from slm_runtime.models.onnx_graph import MAX_SHOWN, Graph, folder_path, read_graph
from slm_runtime.models.shards import File
from slm_runtime.models.sources.folders import GENAI, is_graph

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
TEMPLATE: Final = "chat_template.jinja"
MAX_JSON: Final = 8 << 20
MAX_TOKENIZER: Final = 64 << 20
"""Bytes; 262,144 tokens with their merges take 34 MiB."""
KV_TYPES: Final[Mapping[int, str]] = {1: "f32", 10: "f16", 16: "bf16"}
"""As TensorProto numbers them: what keys and values are kept in."""
_ENCODED: Final = frozenset(
    {"last_hidden_state", "token_embeddings", "sentence_embedding", "pooler_output", "logits"}
)
"""Outputs of graphs that read a text whole."""
_ELSEWHERE: Final = {"vision": "pictures", "speech": "sound", "encoder": "texts", "embedding": "embeddings"}
"""Parts of a model that onnxruntime-genai keeps in graphs of their own."""
_NUMBERED: Final = re.compile(rb'(?<!\\)"\s*:\s*([0-9]{1,9})\b')
"""A token of a vocabulary, and its number; a vocabulary that is a list numbers none."""
_ADDED: Final = re.compile(rb'"id"\s*:\s*([0-9]{1,9})\b')
_REMEDY: Final = "Publish the whole folder as its builder wrote it; nothing was kept of this one."


class _Model(msgspec.Struct):
    vocab: msgspec.Raw = msgspec.Raw(b"{}")


class _Tokenizer(msgspec.Struct):
    """As far as it is looked at: of a hostile one, objects would take a gigabyte."""

    model: _Model
    added_tokens: msgspec.Raw = msgspec.Raw(b"[]")


class _Cache(NamedTuple):
    """What one token leaves."""

    kv_heads: tuple[int, ...]
    head: int
    type: str | None


def onnx_facts(files: Sequence[File]) -> ModelFacts:
    """Read the configuration and the graph of a folder, and say what it is.

    Parameters
    ----------
    files
        Path, size in bytes, and the bytes from the start; of weights beside the graph only the size is asked for.

    Raises
    ------
    InvalidModel
        A file is missing or damaged, reads outside of the folder, or doesn't go with the others.
    UnsupportedFormat
        A graph that onnxruntime can't run.
    UnsupportedArchitecture
        A model that neither generates text token by token nor is an encoder.
    """
    by_path = {path: (size, chunks) for path, size, chunks in files}
    said = _configuration(by_path)
    name = said.graph or next((path for path, _, _ in files if is_graph(path)), None)
    if name is None or name not in by_path:
        raise InvalidModel(f"The folder has no {name or 'model.onnx'}.", _REMEDY)
    size, chunks = by_path[name]
    graph = read_graph(chunks, size, name)
    _check_weights(name, graph, {path: size for path, (size, _) in by_path.items()})
    if "input_ids" not in graph.inputs:
        raise UnsupportedArchitecture(
            f"{name} reads no input_ids: it is a part of a model, or no language model.",
            "Choose a model that reads tokens.",
        )
    cache = _cache(name, graph, said)
    encoder = cache is None
    if encoder and (not _ENCODED & graph.outputs.keys() or said.generates):
        raise UnsupportedArchitecture(
            f"{name} keeps no keys and values, and is no encoder: each token would read the whole text anew.",
            "Export the model with its past (onnxruntime-genai's builder does, or the task text-generation-with-past).",
        )
    blocks = said.number("num_hidden_layers", "n_layers", "n_layer")
    kv_heads, head, kv_type = cache or _Cache((0,) * blocks, 0, None)
    vocabulary = said.number("vocab_size")
    _check_tokenizer(by_path, vocabulary)
    heads = said.number("num_attention_heads", "n_heads", "n_head")
    embedding = said.number("hidden_size", "dim", "n_embd", "d_model")
    formats = [kind for kind, _ in graph.elements.most_common(1)]
    return ModelFacts(
        format="ONNX",
        file_name=name,
        size_bytes=sum(size for _, size, _ in files),
        architecture=said.architecture,
        encoder=encoder,
        quantization=formats[0] if formats else None,
        parameter_count=graph.elements.total(),
        weights_bytes=graph.weights_bytes,
        resident_bytes=graph.resident_bytes,
        context_length=said.number("context_length", "max_position_embeddings", "n_positions", "max_seq_len"),
        block_count=blocks,
        embedding_length=embedding,
        feed_forward_length=max((each for each in graph.widths if each != vocabulary), default=0),
        head_count=heads,
        kv_heads=kv_heads,
        key_length=head or embedding // heads,
        value_length=head or embedding // heads,
        vocab_size=vocabulary,
        kv_elements=2 * head * sum(kv_heads),
        kv_type=kv_type,
        has_chat_template=_has_template(by_path),
    )


class _Said:
    """What the folder's configuration says, of whichever layout."""

    def __init__(self, where: str, values: Mapping[str, Any]) -> None:
        self._where = where
        self._values = values
        graph = values.get("filename")
        self.graph = graph if isinstance(graph, str) else None
        named = values.get("type") or values.get("model_type")
        if not isinstance(named, str) or not named.isascii() or not named.isprintable() or len(named) > 64:
            raise InvalidModel(f"{where} doesn't name the model's type.", _REMEDY)
        self.architecture = named

    @property
    def generates(self) -> bool:
        """Whether it is a model that writes, by what its configuration calls it."""
        named = self._values.get("architectures")
        listed = named if isinstance(named, list) else []
        return GENAI in self._where or any("CausalLM" in str(each) for each in listed)

    def number(self, *names: str) -> int:
        """The first of some names that there is."""
        for name in names:
            value = self._values.get(name)
            if type(value) is int and 0 < value < MAX_NUMBER:
                return value
            if value is not None:
                raise InvalidModel(f"{name} in {self._where} is {value!r:.40}, no sensible number.", _REMEDY)
        raise InvalidModel(f"{self._where} has no {names[0]}.", _REMEDY)

    def optional(self, *names: str) -> int | None:
        return self.number(*names) if any(self._values.get(each) is not None for each in names) else None

    def pattern(self, name: str, default: str) -> str:
        """What inputs of a kind are called: `%d` stands for the block."""
        inputs = self._values.get("inputs")
        found = inputs.get(name) if isinstance(inputs, dict) else None
        return found if isinstance(found, str) and found.count("%") == 1 and "%d" in found else default


def _configuration(files: Mapping[str, tuple[int, Iterable[bytes]]]) -> _Said:
    found = {each: _json(each, *files[each]) for each in (CONFIG, GENAI) if each in files}
    if not found:
        raise InvalidModel(
            f"The folder has neither {GENAI} nor {CONFIG}: they say what the model is.", _REMEDY
        )
    values = dict(found.get(CONFIG, {}))
    if GENAI in found:
        model = found[GENAI].get("model")
        decoder = model.get("decoder") if isinstance(model, dict) else None
        if not isinstance(model, dict) or not isinstance(decoder, dict):
            raise InvalidModel(f"{GENAI} has no model.decoder.", _REMEDY)
        beside = next((what for key, what in _ELSEWHERE.items() if key in model), None)
        if beside is not None or "pipeline" in decoder:
            raise UnsupportedArchitecture(
                f"The model has graphs of its own for {beside or 'parts of its decoder'}, which aren't run here.",
                "Choose a model whose decoder is one graph that reads tokens.",
            )
        values |= {**model, **decoder}
    return _Said(GENAI if GENAI in found else CONFIG, values)


def _json(name: str, size: int, chunks: Iterable[bytes]) -> dict[str, Any]:
    data = _all(name, size, chunks, MAX_JSON)
    try:
        # Not by pydantic: of a hostile document it would make a gigabyte of complaints.
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidModel(f"{name} can't be read: {str(error)[:MAX_SHOWN]}.", _REMEDY) from None


def _all(name: str, size: int, chunks: Iterable[bytes], limit: int) -> bytes:
    if size > limit:
        raise InvalidModel(f"{name} has {size:,} bytes, more than any model's ({limit:,}).", _REMEDY)
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > size:
            break
    if len(data) != size:
        raise InvalidModel(f"{name} has {size:,} bytes by its source, and others come.", _REMEDY)
    return bytes(data)


def _check_weights(name: str, graph: Graph, sizes: Mapping[str, int]) -> None:
    """Hold what a graph names against the files that there are."""
    for each in graph.external:
        path = folder_path(name, each.location)
        size = sizes.get(path)
        if size is None:
            raise InvalidModel(
                f"{name} has its weights in {path[:MAX_SHOWN]}, and that isn't there.",
                f"Publish it beside the graph; its name begins with the graph's, as in {name}.data, or ends in .data.",
            )
        if each.offset + each.length > size:
            raise InvalidModel(
                f"{path[:MAX_SHOWN]} has {size:,} bytes, and {name} reads up to byte {each.offset + each.length:,}: it is"
                " cut off, or another graph's.",
                _REMEDY,
            )


def _cache(name: str, graph: Graph, said: _Said) -> _Cache | None:
    """Keys and values as the graph takes them; None: it takes none."""
    keys = said.pattern("past_key_names", "past_key_values.%d.key")
    values = said.pattern("past_value_names", "past_key_values.%d.value")
    blocks = said.number("num_hidden_layers", "n_layers", "n_layer")
    if blocks > MAX_BLOCKS:
        raise InvalidModel(f"num_hidden_layers is {blocks}; 1 to {MAX_BLOCKS} can be.", _REMEDY)
    pairs = [(graph.inputs.get(keys % each), graph.inputs.get(values % each)) for each in range(blocks)]
    found = [each for pair in pairs for each in pair if each is not None]
    if not found:
        return None
    if keys % blocks in graph.inputs:
        raise InvalidModel(f"{name} has more blocks than the {blocks} of its configuration.", _REMEDY)
    types = {each.element for each in found}
    if len(types) > 1 or not types <= KV_TYPES.keys():
        raise UnsupportedFormat(
            f"{name} keeps keys and values in a number format that isn't known here.",
            "Export the model with keys and values in fp32, fp16 or bf16.",
        )
    heads = said.optional("num_key_value_heads") or said.number("num_attention_heads", "n_head")
    head = said.optional("head_size", "head_dim") or said.number("hidden_size", "n_embd") // said.number(
        "num_attention_heads", "n_head"
    )
    for each in found:
        if len(each.shape) != 4 or each.shape[1] not in {heads, *_named(each.shape[1])}:
            raise InvalidModel(
                f"{name} takes keys and values of the shape {list(each.shape)!r:.80}, and its configuration says {heads}"
                f" heads of {head}.",
                _REMEDY,
            )
        if isinstance(each.shape[3], int) and each.shape[3] != head:
            raise InvalidModel(
                f"{name} takes heads of {each.shape[3]}, and its configuration says {head}.", _REMEDY
            )
    if heads > MAX_HEADS or heads * head >= MAX_NUMBER // MAX_BLOCKS:
        raise InvalidModel(f"{heads} heads of {head} are more than any model has.", _REMEDY)
    kv_heads = tuple(0 if key is None else heads for key, _ in pairs)
    return _Cache(kv_heads, head, KV_TYPES[types.pop()])


def _named(size: int | str) -> tuple[str, ...]:
    """A size that isn't fixed is any."""
    return (size,) if isinstance(size, str) else ()


def _check_tokenizer(files: Mapping[str, tuple[int, Iterable[bytes]]], vocabulary: int) -> None:
    if TOKENIZER not in files:
        raise InvalidModel(
            f"The folder has no {TOKENIZER}.", "Publish the tokenizer's files beside the graph."
        )
    data = _all(TOKENIZER, *files[TOKENIZER], MAX_TOKENIZER)
    try:
        read = msgspec.json.decode(data, type=_Tokenizer)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidModel(f"{TOKENIZER} can't be read: {str(error)[:MAX_SHOWN]}.", _REMEDY) from None
    found = chain(
        _NUMBERED.finditer(memoryview(read.model.vocab)), _ADDED.finditer(memoryview(read.added_tokens))
    )
    largest = max((int(each[1]) for each in found), default=0)
    if largest >= vocabulary:
        raise InvalidModel(
            f"{TOKENIZER} has tokens up to {largest}, and the model knows {vocabulary}: they don't belong together.",
            _REMEDY,
        )


def _has_template(files: Mapping[str, tuple[int, Iterable[bytes]]]) -> bool:
    if TEMPLATE in files:
        return True
    named = "tokenizer_config.json"
    return named in files and bool(_json(named, *files[named]).get("chat_template"))
