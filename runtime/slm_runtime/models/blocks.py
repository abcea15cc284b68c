"""What a model's blocks keep of a sequence, and how wide they are, as llama.cpp lays them out.

What a block is is told by its tensors rather than by a list of architectures: a newer hybrid is then counted right, too.
Lengths are in numbers, not bytes.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from slm_runtime.models.gguf import Tensor
from slm_runtime.models.metadata import Metadata

WINDOW_PERIODS: Final = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone-moe": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "mellum": 4,
    "olmo2": 4,
    "plamo3": 8,
}
"""Architectures whose files don't say which blocks see only a window: all but the last of so many."""
WINDOW_PERIODS_DENSE_FIRST: Final = {"cohere2moe": 4, "laguna": 4, "modern-bert": 3, "smallthinker": 4}
"""The same, but the first of so many sees everything."""
KEPT_FROM_START: Final = {"gemma3n": 20}
"""Blocks from the first that keep keys and values of their own; the others take theirs."""
_RECURRENT: Final = ("ssm_", "shortconv.", "time_mix_")
_STATE: Final = ("ssm_", "time_mix_")


@dataclass(frozen=True)
class Shape:
    """The lengths of one architecture that blocks are counted with."""

    architecture: str
    blocks: int
    embedding: int
    heads: int
    kv_heads: tuple[int, ...]
    """As the file has them."""
    key: int
    value: int
    feed_forward: int


@dataclass(frozen=True)
class Kept:
    """What the engine keeps and needs, over all blocks."""

    kv_heads: tuple[int, ...]
    """Key/value heads of each block; 0 where it keeps no keys and values of its own."""
    kv_elements: int
    """Keys and values of one token."""
    window_kv_elements: int
    """Of these, in blocks that see only the sliding window."""
    recurrent_blocks: int
    recurrent_elements: int
    """State of one sequence, whatever its length."""
    activations: int
    """The most that exists for one token of a step at once."""


def kept(metadata: Metadata, shape: Shape, tensors: Iterable[Tensor], *, remembers: bool) -> Kept:
    """Count a model's blocks.

    Parameters
    ----------
    remembers
        False for an encoder, which keeps nothing.
    """
    names = _by_block(tensors)
    trunk = shape.blocks - metadata.number(f"{shape.architecture}.nextn_predict_layers", 0)
    recurrent = [block for block in range(trunk) if _is_recurrent(names[block])]
    with_kv = [
        block
        for block in range(min(trunk, _own_kv(metadata, shape)))
        if shape.kv_heads[block] and _has_attention(names[block]) and remembers
    ]
    windowed = _windowed(metadata, shape)
    wide = {block: _row(metadata, shape, windowed=block in windowed) for block in with_kv}
    return Kept(
        kv_heads=tuple(heads if block in wide else 0 for block, heads in enumerate(shape.kv_heads)),
        kv_elements=sum(shape.kv_heads[block] * row for block, row in wide.items()),
        window_kv_elements=sum(
            shape.kv_heads[block] * row for block, row in wide.items() if block in windowed
        ),
        recurrent_blocks=len(recurrent),
        recurrent_elements=len(recurrent) * _state(metadata, shape),
        activations=max(
            _feed_forward(metadata, shape, names),
            5 * max(shape.heads * shape.key, shape.embedding),
            max((_recurrence(metadata, shape, names[block]) for block in recurrent[:1]), default=0),
        )
        + 2 * shape.blocks * metadata.number(f"{shape.architecture}.embedding_length_per_layer_input", 0),
    )


def _by_block(tensors: Iterable[Tensor]) -> defaultdict[int, dict[str, Tensor]]:
    """Tensors of each block by their name in it."""
    found: defaultdict[int, dict[str, Tensor]] = defaultdict(dict)
    for tensor in tensors:
        prefix, _, rest = tensor.name.partition(".")
        number, _, name = rest.partition(".")
        if prefix == "blk" and number.isascii() and number.isdigit() and len(number) <= 4:
            found[int(number)][name] = tensor
    return found


def _is_recurrent(block: dict[str, Tensor]) -> bool:
    return any(name.startswith(_RECURRENT) for name in block)


def _has_attention(block: dict[str, Tensor]) -> bool:
    """A block with a state has attention beside it only where it has keys of its own: fused ones are the state's."""
    return not _is_recurrent(block) or "attn_k.weight" in block


def _own_kv(metadata: Metadata, shape: Shape) -> int:
    """Blocks from the first that don't take the keys and values of earlier ones."""
    shared = metadata.number(f"{shape.architecture}.attention.shared_kv_layers", 0)
    return min(shape.blocks - shared, KEPT_FROM_START.get(shape.architecture, shape.blocks))


def _row(metadata: Metadata, shape: Shape, *, windowed: bool) -> int:
    """Key and value of one head."""
    attention = f"{shape.architecture}.attention"
    if metadata.has(f"{attention}.key_length_mla"):
        # Latent attention: the value is a part of the key. An indexer keeps a key of its own beside it.
        return shape.key + metadata.number(f"{attention}.indexer.key_length", 0)
    if not windowed:
        return shape.key + shape.value
    return metadata.number(f"{attention}.key_length_swa", shape.key) + metadata.number(
        f"{attention}.value_length_swa", shape.value
    )


def _windowed(metadata: Metadata, shape: Shape) -> frozenset[int]:
    """The blocks that see only the sliding window."""
    if not metadata.number(f"{shape.architecture}.attention.sliding_window", 0):
        return frozenset()
    key = f"{shape.architecture}.attention.sliding_window_pattern"
    if metadata.is_array(key):
        flags = metadata.each_block(key, shape.blocks, 0)
        return frozenset(block for block, flag in enumerate(flags) if flag)
    dense_first = WINDOW_PERIODS_DENSE_FIRST.get(shape.architecture)
    period = dense_first or WINDOW_PERIODS.get(shape.architecture)
    if period is None:
        return frozenset()
    period = metadata.number(key, period)
    dense = 0 if dense_first else period - 1
    return frozenset(block for block in range(shape.blocks) if not period or block % period != dense)


def _state(metadata: Metadata, shape: Shape) -> int:
    """State of one sequence in one recurrent block: of its convolution, and of what it remembers by."""
    name = shape.architecture
    if size := metadata.number(f"{name}.wkv.head_size", 0):
        return (metadata.number(f"{name}.token_shift_count", 2) + size) * shape.embedding
    if cache := metadata.number(f"{name}.shortconv.l_cache", 0):
        return (cache - 1) * shape.embedding
    kernel, inner, state, groups = _space(metadata, name)
    if size := metadata.number(f"{name}.kda.head_dim", 0):
        return (3 * ((kernel or 4) - 1) + size) * size * shape.heads
    return max(kernel - 1, 0) * (inner + 2 * groups * state) + state * inner


def _space(metadata: Metadata, name: str) -> tuple[int, int, int, int]:
    """Convolution, inner size, state size and groups of a state space."""
    kernel, inner, state, groups = (
        metadata.number(f"{name}.ssm.{key}", 0)
        for key in ("conv_kernel", "inner_size", "state_size", "group_count")
    )
    return kernel, inner, state, groups


def _feed_forward(metadata: Metadata, shape: Shape, names: dict[int, dict[str, Tensor]]) -> int:
    """The feed-forward part of the widest block: its two inputs and their product, and the embeddings around them."""
    gated = any(
        name.startswith("ffn_gate") or (name == "ffn_up.weight" and tensor.shape[-1] > shape.feed_forward)
        for block in names.values()
        for name, tensor in block.items()
    )
    around = 4 * shape.embedding
    dense = (3 if gated or not names else 1) * shape.feed_forward
    used = metadata.largest(f"{shape.architecture}.expert_used_count", 0)
    if not used:
        return dense + around
    width = metadata.largest(f"{shape.architecture}.expert_feed_forward_length", 0)
    lead = metadata.number(f"{shape.architecture}.leading_dense_block_count", 0)
    inner, outer = used * (width or shape.feed_forward), used * shape.embedding
    # What the experts give goes where their inputs were, if it is no larger than these.
    experts = 3 * inner + (outer + shape.embedding if outer > 2 * inner else 0)
    return max(experts, dense if lead else 0) + around


def _recurrence(metadata: Metadata, shape: Shape, block: dict[str, Tensor]) -> int:
    """A block with a state: what is projected, convolved and gated."""
    if not any(name.startswith(_STATE) for name in block):
        return 0
    _, inner, state, groups = _space(metadata, shape.architecture)
    convolved = inner + 2 * groups * state
    if "ssm_d" in block:
        return 3 * (convolved + inner) + 2 * shape.embedding
    return 3 * convolved + inner + shape.embedding
