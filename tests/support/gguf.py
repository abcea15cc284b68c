"""A tiny random llama model as a real GGUF file: llama.cpp loads it, and equal arguments give equal bytes.

The tokenizer is SentencePiece-like with all 256 byte tokens, so every text round-trips, and random output is often
invalid UTF-8, cut inside characters: what streaming has to cope with.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, LlamaFileType, PoolingType, TokenType

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = (
    " the of and a to in is you that it he was for on are as with his they I at be this have from or one had by"
    " word but not what all were we when your can said there use an each which she do how their if will up other"
)


def write_tiny_gguf(
    path: Path,
    *,
    seed: int = 0,
    blocks: int = 2,
    context_length: int = 2048,
    chat_template: str | None = CHATML,
    name: str = "tiny",
    sliding_window: int | None = None,
    pooling: PoolingType | None = None,
    architecture: str = "llama",
) -> Path:
    """Write about half a MiB to `path` and return it; with a sliding window it is a Gemma 3, whose layers differ."""
    embedding, heads, kv_heads, feed_forward = 64, 2, 1, 128
    head = embedding // heads
    tokens, scores, types = _vocabulary()
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return random.normal(0, 0.4 / np.sqrt(columns) * 4, (rows, columns)).astype(np.float32)

    writer = GGUFWriter(path, architecture if sliding_window is None else "gemma3")
    if sliding_window is not None:
        writer.add_sliding_window(sliding_window)
        writer.add_key_length(head)
        writer.add_value_length(head)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    writer.add_name(name)
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_context_length(context_length)
    writer.add_embedding_length(embedding)
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(feed_forward)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(tokens.index(b"<|im_end|>"))
    writer.add_add_bos_token(True)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    writer.add_tensor("token_embd.weight", matrix(len(tokens), embedding))
    for block in range(blocks):
        prefix = f"blk.{block}"
        writer.add_tensor(f"{prefix}.attn_norm.weight", np.ones(embedding, np.float32))
        writer.add_tensor(f"{prefix}.attn_q.weight", matrix(embedding, embedding))
        writer.add_tensor(f"{prefix}.attn_k.weight", matrix(kv_heads * head, embedding))
        writer.add_tensor(f"{prefix}.attn_v.weight", matrix(kv_heads * head, embedding))
        writer.add_tensor(f"{prefix}.attn_output.weight", matrix(embedding, embedding))
        if sliding_window is not None:
            writer.add_tensor(f"{prefix}.attn_q_norm.weight", np.ones(head, np.float32))
            writer.add_tensor(f"{prefix}.attn_k_norm.weight", np.ones(head, np.float32))
            writer.add_tensor(f"{prefix}.post_attention_norm.weight", np.ones(embedding, np.float32))
            writer.add_tensor(f"{prefix}.post_ffw_norm.weight", np.ones(embedding, np.float32))
        writer.add_tensor(f"{prefix}.ffn_norm.weight", np.ones(embedding, np.float32))
        writer.add_tensor(f"{prefix}.ffn_gate.weight", matrix(feed_forward, embedding))
        writer.add_tensor(f"{prefix}.ffn_up.weight", matrix(feed_forward, embedding))
        writer.add_tensor(f"{prefix}.ffn_down.weight", matrix(embedding, feed_forward))
    writer.add_tensor("output_norm.weight", np.ones(embedding, np.float32))
    writer.add_tensor("output.weight", matrix(len(tokens), embedding))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> tuple[list[bytes], list[float], list[int]]:
    control = [b"<s>", b"</s>", b"<|im_start|>", b"<|im_end|>"]
    letters = ["▁", *(chr(c) for c in range(33, 127)), "\n"]
    pieces = list(dict.fromkeys([*letters, *("▁" + word for word in WORDS.split())]))
    tokens = [b"<unk>", *control, *(b"<0x%02X>" % byte for byte in range(256)), *(p.encode() for p in pieces)]
    scores = [0.0] * (1 + len(control) + 256) + [-float(rank) for rank in range(len(pieces))]
    types = [
        int(TokenType.UNKNOWN),
        *[int(TokenType.CONTROL)] * len(control),
        *[int(TokenType.BYTE)] * 256,
        *[int(TokenType.NORMAL)] * len(pieces),
    ]
    return tokens, scores, types
