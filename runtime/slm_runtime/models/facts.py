"""From a GGUF header to the facts that memory is computed from."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from slm_contract.report import ModelFacts
from slm_runtime.errors import InvalidModel, UnsupportedArchitecture
from slm_runtime.models.blocks import Shape, kept
from slm_runtime.models.encoders import ENCODERS
from slm_runtime.models.ggml import BLOCKS, FILE_TYPES
from slm_runtime.models.metadata import MAX_NUMBER, Metadata
from slm_runtime.models.projectors import ARCHITECTURES, projector_facts
from slm_runtime.models.shards import MAX_NAME, File, Headers, read_headers

MAX_BLOCKS: Final = 512
"""What llama.cpp takes; the largest models have 126."""
MAX_HEADS: Final = 4096
"""Of one block: 512 blocks of other numbers must fit into a termination message."""
_RANK: Final = 4
"""`pooling_type` of a model that scores pairs of texts."""
UNSERVED: Final = frozenset({"llama-embed", "t5", "t5encoder"})
"""Architectures that see a text in both directions, though their files don't say so by `attention.causal`."""
_ARCHITECTURE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def model_facts(files: Sequence[File], adapters: Collection[str] = ()) -> ModelFacts:
    """Read as much of a model's files as their headers take, and say what it is: a model, or an adapter or projector of one.

    Parameters
    ----------
    files
        Path, size in bytes, and the bytes from the start; the first is what an engine opens, the others may be its shards.
    adapters
        Paths of those that are LoRA adapters and a part of the model.

    Raises
    ------
    InvalidModel
        No GGUF file, a damaged or incomplete one, or no language model.
    UnsupportedFormat
        A GGUF file that this runtime can't read.
    UnsupportedArchitecture
        A model that neither generates text token by token nor is an encoder, an adapter that isn't a LoRA, or a projector
        that reads no pictures.
    """
    headers = read_headers(files)
    metadata = Metadata(headers.first)
    if metadata.text("general.type") == "adapter":
        return _adapter_facts(files, headers)
    if {metadata.text("general.architecture"), metadata.text("general.type")} & ARCHITECTURES:
        return _projector_facts(files, headers)
    architecture = _architecture(metadata)
    encoder = architecture in ENCODERS
    if architecture in UNSERVED or not (
        encoder or metadata.flag(f"{architecture}.attention.causal", default=True)
    ):
        raise UnsupportedArchitecture(
            f"The model, of the architecture {architecture}, doesn't generate text token by token, and isn't one of the "
            "encoders that are served.",
            f"Choose a model that generates text, or an encoder ({', '.join(sorted(ENCODERS))}).",
        )
    facts = header_facts(files, headers)
    return _with_own(facts, [each for each in files if each[0] in adapters]) if adapters else facts


def _with_own(facts: ModelFacts, adapters: Sequence[File]) -> ModelFacts:
    """The model with adapters that are a part of it."""
    found = [model_facts([each]) for each in adapters]
    for each in found:
        if not each.adapter or each.architecture != facts.architecture:
            raise InvalidModel(
                f"{each.file_name} is no adapter of the model it comes with, which is a {facts.architecture}."
            )
    return facts.model_copy(
        update={
            "own_adapters": tuple(each.file_name for each in found),
            "weights_bytes": sum((each.weights_bytes for each in found), facts.weights_bytes),
        }
    )


def header_facts(files: Sequence[File], headers: Headers) -> ModelFacts:
    """What the headers say, of an encoder too.

    Raises
    ------
    InvalidModel
        They are no language model's.
    UnsupportedArchitecture
        A part of a model that is none by itself.
    """
    metadata = Metadata(headers.first)
    architecture = _architecture(metadata)
    encoder = architecture in ENCODERS
    if not headers.tensors:
        raise InvalidModel("The GGUF file has no tensors: it is only a vocabulary or a header.")
    shape = _shape(metadata, architecture)
    memory = kept(metadata, shape, headers.tensors, remembers=not encoder)
    if not memory.recurrent_blocks and not shape.heads:
        raise InvalidModel(f"The GGUF file has no {architecture}.attention.head_count, and no state instead.")
    if max(memory.kv_elements, memory.recurrent_elements, memory.activations) >= MAX_NUMBER:
        raise InvalidModel("The GGUF file's blocks keep more than any memory holds: its header is damaged.")
    if encoder and metadata.number(f"{architecture}.pooling_type", 0) == _RANK:
        _require_classifier(headers)
    trained = metadata.number(f"{architecture}.context_length")
    return ModelFacts(
        file_name=files[0][0],
        size_bytes=sum(size for _, size, _ in files),
        architecture=architecture,
        encoder=encoder,
        name=_printable(metadata.text("general.name")),
        quantization=_quantization(headers, metadata),
        parameter_count=sum(tensor.elements for tensor in headers.tensors),
        weights_bytes=headers.weights_bytes,
        context_length=trained,
        scaled_context_length=_scaled(metadata, architecture, trained),
        block_count=shape.blocks,
        embedding_length=shape.embedding,
        feed_forward_length=shape.feed_forward,
        head_count=shape.heads,
        kv_heads=memory.kv_heads,
        key_length=shape.key,
        value_length=shape.value,
        vocab_size=metadata.length("tokenizer.ggml.tokens")
        or metadata.number(f"{architecture}.vocab_size", 0),
        sliding_window=metadata.number(f"{architecture}.attention.sliding_window", 0) or None,
        expert_count=metadata.number(f"{architecture}.expert_count", 0),
        expert_used_count=metadata.largest(f"{architecture}.expert_used_count", 0),
        kv_elements=memory.kv_elements,
        window_kv_elements=memory.window_kv_elements,
        recurrent_blocks=memory.recurrent_blocks,
        recurrent_elements=memory.recurrent_elements,
        activations=memory.activations,
        has_chat_template=metadata.has("tokenizer.chat_template"),
    )


def _adapter_facts(files: Sequence[File], headers: Headers) -> ModelFacts:
    metadata = Metadata(headers.first)
    architecture = metadata.text("general.architecture") or ""
    if not _ARCHITECTURE.fullmatch(architecture) or not headers.tensors:
        raise InvalidModel(
            "The adapter doesn't name the general.architecture of its model, or has no tensors."
        )
    if metadata.text("adapter.type") != "lora" or metadata.is_array("adapter.alora.invocation_tokens"):
        raise UnsupportedArchitecture(
            "The adapter isn't a LoRA that counts from the first token on.",
            "Merge it into the model, and serve that.",
        )
    return _part_facts(files, headers, architecture).model_copy(update={"adapter": True})


def _projector_facts(files: Sequence[File], headers: Headers) -> ModelFacts:
    if not headers.tensors:
        raise InvalidModel("The projector has no tensors.")
    told = projector_facts(headers)
    return _part_facts(files, headers, "clip").model_copy(update={"projector": told})


def _part_facts(files: Sequence[File], headers: Headers, architecture: str) -> ModelFacts:
    """Of what belongs to a model: what isn't its file's is 0."""
    metadata = Metadata(headers.first)
    return ModelFacts(
        file_name=files[0][0],
        size_bytes=sum(size for _, size, _ in files),
        architecture=architecture,
        name=_printable(metadata.text("general.name")),
        quantization=_quantization(headers, metadata),
        parameter_count=sum(tensor.elements for tensor in headers.tensors),
        weights_bytes=headers.weights_bytes,
        context_length=0,
        block_count=0,
        embedding_length=0,
        head_count=0,
        kv_heads=(),
        key_length=0,
        value_length=0,
        vocab_size=0,
    )


def _architecture(metadata: Metadata) -> str:
    """The name that the other keys begin with, of a file that is a model."""
    architecture = metadata.text("general.architecture")
    if not architecture:
        raise InvalidModel("The GGUF file doesn't name its general.architecture.")
    kind = metadata.text("general.type")
    if kind not in {None, "model"}:
        raise InvalidModel(f"The GGUF file is of type {kind[:MAX_NAME]!r}, not a model.")
    if not _ARCHITECTURE.fullmatch(architecture):
        raise InvalidModel(f"general.architecture is {architecture[:MAX_NAME]!r}, no name of one.")
    return architecture


def _require_classifier(headers: Headers) -> None:
    if not any(tensor.name.startswith("cls.") for tensor in headers.tensors):
        raise InvalidModel(
            "The GGUF file is a reranker's by its pooling_type, and has no layer that scores (cls)."
        )


def _shape(metadata: Metadata, architecture: str) -> Shape:
    embedding = metadata.number(f"{architecture}.embedding_length")
    blocks = metadata.number(f"{architecture}.block_count")
    if not 1 <= blocks <= MAX_BLOCKS:
        raise InvalidModel(f"{architecture}.block_count is {blocks}; 1 to {MAX_BLOCKS} can be.")
    heads = metadata.largest(f"{architecture}.attention.head_count", 0)
    kv_heads = metadata.each_block(f"{architecture}.attention.head_count_kv", blocks, heads)
    if max(heads, *kv_heads) > MAX_HEADS:
        raise InvalidModel(f"{architecture}.attention has blocks of more than {MAX_HEADS} heads.")
    head = embedding // heads if heads else 0
    return Shape(
        architecture=architecture,
        blocks=blocks,
        embedding=embedding,
        heads=heads,
        kv_heads=kv_heads,
        key=metadata.number(f"{architecture}.attention.key_length", head),
        value=metadata.number(f"{architecture}.attention.value_length", head),
        feed_forward=metadata.largest(f"{architecture}.feed_forward_length", 0),
    )


def _scaled(metadata: Metadata, architecture: str, trained: int) -> int | None:
    """Tokens that the file's own RoPE scaling reaches, where these are more than it gives as its context."""
    scaling = f"{architecture}.rope.scaling"
    factor = metadata.factor(f"{scaling}.factor") or metadata.factor(f"{architecture}.rope.scale_linear")
    if factor is None or metadata.text(f"{scaling}.type") == "none":
        return None
    reached = int((metadata.number(f"{scaling}.original_context_length", 0) or trained) * factor)
    return reached if reached > trained else None


def _quantization(headers: Headers, metadata: Metadata) -> str | None:
    """The name of the whole file's quantization, else that of most of its parameters."""
    named = FILE_TYPES.get(metadata.number("general.file_type", -1))
    if named:
        return named
    weights: Counter[int] = Counter()
    for tensor in headers.tensors:
        weights[tensor.type] += tensor.elements
    kind = weights.most_common(1)[0][0]
    return BLOCKS[kind][0] if kind in BLOCKS else None


def _printable(text: str | None) -> str | None:
    """A name as it can be shown anywhere."""
    return "".join(filter(str.isprintable, (text or "")[:MAX_NAME])) or None
