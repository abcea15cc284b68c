"""Models of many architectures that people run, with the numbers of their published configurations."""

from typing import Final

from tests.support.headers import Model, Tensors


def _attention(model: Model, block: int, *, query: int = 1, norms: bool = False) -> Tensors:
    """Separate projections; `query`: how often the query is as wide as its heads."""
    keys, queries = model.kv_heads_of(block) * model.width, model.heads * model.width
    yield "attn_q.weight", (model.embedding, query * queries)
    yield "attn_k.weight", (model.embedding, keys)
    yield "attn_v.weight", (model.embedding, keys)
    yield "attn_output.weight", (queries, model.embedding)
    if norms:
        yield "attn_q_norm.weight", (model.width,)
        yield "attn_k_norm.weight", (model.width,)


def _feed_forward(model: Model, *, width: int = 0, name: str = "") -> Tensors:
    inner = width or model.feed_forward
    yield f"ffn_gate{name}.weight", (model.embedding, inner)
    yield f"ffn_up{name}.weight", (model.embedding, inner)
    yield f"ffn_down{name}.weight", (inner, model.embedding)


def _experts(model: Model, count: int, width: int) -> Tensors:
    yield "ffn_gate_inp.weight", (model.embedding, count)
    yield "ffn_gate_exps.weight", (model.embedding, width, count)
    yield "ffn_up_exps.weight", (model.embedding, width, count)
    yield "ffn_down_exps.weight", (width, model.embedding, count)


def _norms(model: Model, *names: str) -> Tensors:
    for name in names:
        yield f"{name}.weight", (model.embedding,)


def _dense(model: Model, block: int) -> Tensors:
    yield from _norms(model, "attn_norm", "ffn_norm")
    yield from _attention(model, block)
    yield from _feed_forward(model)


def _qwen2(model: Model, block: int) -> Tensors:
    yield from _dense(model, block)
    yield "attn_q.bias", (model.heads * model.width,)
    yield "attn_k.bias", (model.kv_heads_of(block) * model.width,)
    yield "attn_v.bias", (model.kv_heads_of(block) * model.width,)


def _qwen3(model: Model, block: int) -> Tensors:
    yield from _norms(model, "attn_norm", "ffn_norm")
    yield from _attention(model, block, norms=True)
    yield from _feed_forward(model)


def _gemma2(model: Model, block: int) -> Tensors:
    yield from _dense(model, block)
    yield from _norms(model, "post_attention_norm", "post_ffw_norm")


def _gemma3(model: Model, block: int) -> Tensors:
    yield from _qwen3(model, block)
    yield from _norms(model, "post_attention_norm", "post_ffw_norm")


def _gemma4(model: Model, block: int) -> Tensors:
    """Every fifth block sees everything, with wider heads; the last blocks take the keys and values of earlier ones."""
    head = 512 if block % 5 == 4 else 256
    yield from _norms(model, "attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "post_norm")
    yield "attn_q.weight", (model.embedding, model.heads * head)
    yield "attn_q_norm.weight", (head,)
    yield "attn_k.weight", (model.embedding, head)
    yield "attn_k_norm.weight", (head,)
    yield "attn_v.weight", (model.embedding, head)
    yield "attn_output.weight", (model.heads * head, model.embedding)
    yield from _feed_forward(model)
    yield "inp_gate.weight", (model.embedding, 256)
    yield "proj.weight", (256, model.embedding)


def _gemma4_whole(model: Model) -> Tensors:
    yield "rope_freqs.weight", (256,)
    yield "per_layer_token_embd.weight", (256 * model.blocks, model.vocabulary)
    yield "per_layer_model_proj.weight", (model.embedding, 256 * model.blocks)
    yield "per_layer_proj_norm.weight", (256,)


def _phi3(model: Model, block: int) -> Tensors:
    yield from _norms(model, "attn_norm", "ffn_norm")
    yield "attn_qkv.weight", (model.embedding, 3 * model.embedding)
    yield "attn_output.weight", (model.embedding, model.embedding)
    yield "ffn_up.weight", (model.embedding, 2 * model.feed_forward)
    yield "ffn_down.weight", (model.feed_forward, model.embedding)


def _phi3_whole(model: Model) -> Tensors:
    for name in ("rope_factors_long", "rope_factors_short"):
        yield f"{name}.weight", (model.width // 2,)


def _deepseek2(model: Model, block: int) -> Tensors:
    """Multi-head latent attention: keys and values are kept as one vector of 512 + 64."""
    yield from _norms(model, "attn_norm", "ffn_norm")
    yield "attn_q.weight", (model.embedding, model.heads * 192)
    yield "attn_kv_a_norm.weight", (512,)
    yield "attn_kv_a_mqa.weight", (model.embedding, 576)
    yield "attn_k_b.weight", (128, 512, model.heads)
    yield "attn_v_b.weight", (512, 128, model.heads)
    yield "attn_output.weight", (model.heads * 128, model.embedding)
    if block == 0:
        yield from _feed_forward(model)
    else:
        yield from _experts(model, 64, 1408)
        yield from _feed_forward(model, width=2 * 1408, name="_shexp")


def _qwen3moe(model: Model, block: int) -> Tensors:
    yield from _norms(model, "attn_norm", "ffn_norm")
    yield from _attention(model, block, norms=True)
    yield from _experts(model, 128, 768)


def _olmoe(model: Model, block: int) -> Tensors:
    yield from _norms(model, "attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm")
    yield from _attention(model, block)
    yield from _experts(model, 64, model.feed_forward)


def _lfm2(model: Model, block: int) -> Tensors:
    yield from _norms(model, "attn_norm", "ffn_norm")
    if model.kv_heads_of(block):
        yield from _attention(model, block, norms=True)
    else:
        yield "shortconv.conv.weight", (3, model.embedding)
        yield "shortconv.in_proj.weight", (model.embedding, 3 * model.embedding)
        yield "shortconv.out_proj.weight", (model.embedding, model.embedding)
    yield from _feed_forward(model)


def _mamba(model: Model) -> Tensors:
    heads, inner, state, groups = (
        model.more[f"ssm.{key}"] for key in ("time_step_rank", "inner_size", "state_size", "group_count")
    )
    convolved = inner + 2 * groups * state
    yield "ssm_in.weight", (model.embedding, inner + convolved + heads)
    yield "ssm_conv1d.weight", (4, convolved)
    yield "ssm_conv1d.bias", (convolved,)
    yield "ssm_dt.bias", (heads,)
    yield "ssm_a", (1, heads)
    yield "ssm_d", (1, heads)
    yield "ssm_norm.weight", (inner // groups, groups)
    yield "ssm_out.weight", (inner, model.embedding)


def _mamba2(model: Model, _block: int) -> Tensors:
    yield from _norms(model, "attn_norm")
    yield from _mamba(model)


def _granite_hybrid(model: Model, block: int) -> Tensors:
    yield from _norms(model, "attn_norm", "ffn_norm")
    if model.kv_heads_of(block):
        yield from _attention(model, block)
    else:
        yield from _mamba(model)
    yield from _feed_forward(model)


def _falcon_h1(model: Model, block: int) -> Tensors:
    """Attention and a state space beside each other in every block."""
    yield from _norms(model, "attn_norm")
    yield "ffn_norm", (model.embedding,)
    yield from _attention(model, block)
    yield from _mamba(model)
    yield from _feed_forward(model)


def _qwen35(model: Model, block: int) -> Tensors:
    """Three blocks of four keep a state (gated delta net), the fourth has attention."""
    yield from _norms(model, "attn_norm", "post_attention_norm")
    if block % 4 == 3:
        yield from _attention(model, block, query=2, norms=True)
    else:
        heads, state = model.more["ssm.time_step_rank"], model.more["ssm.state_size"]
        yield "attn_qkv.weight", (model.embedding, 3 * heads * state)
        yield "attn_gate.weight", (model.embedding, heads * state)
        yield "ssm_conv1d.weight", (4, 3 * heads * state)
        yield "ssm_dt.bias", (heads,)
        yield "ssm_a", (heads,)
        yield "ssm_beta.weight", (model.embedding, heads)
        yield "ssm_alpha.weight", (model.embedding, heads)
        yield "ssm_norm.weight", (state,)
        yield "ssm_out.weight", (heads * state, model.embedding)
    yield from _feed_forward(model)


def _bert(model: Model, block: int) -> Tensors:
    yield from _norms(model, "attn_output_norm", "layer_output_norm")
    for name in ("attn_output_norm", "layer_output_norm"):
        yield f"{name}.bias", (model.embedding,)
    yield from _attention(model, block)
    yield "ffn_up.weight", (model.embedding, model.feed_forward)
    yield "ffn_down.weight", (model.feed_forward, model.embedding)


def _bert_whole(model: Model) -> Tensors:
    yield "position_embd.weight", (model.embedding, model.context)
    yield "token_embd_norm.weight", (model.embedding,)
    yield "token_embd_norm.bias", (model.embedding,)


def _nomic_bert(model: Model, block: int) -> Tensors:
    for name in ("attn_output_norm", "layer_output_norm"):
        yield from _norms(model, name)
        yield f"{name}.bias", (model.embedding,)
    yield "attn_qkv.weight", (model.embedding, 3 * model.embedding)
    yield "attn_output.weight", (model.embedding, model.embedding)
    yield from _feed_forward(model)


def _nomic_bert_whole(model: Model) -> Tensors:
    yield "token_types.weight", (model.embedding, 2)
    yield "token_embd_norm.weight", (model.embedding,)
    yield "token_embd_norm.bias", (model.embedding,)


def _ssm(*, inner: int, state: int, heads: int, groups: int = 1) -> dict[str, int]:
    return {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": heads,
        "ssm.group_count": groups,
    }


def _some(count: int, heads: int, blocks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(heads if block in blocks else 0 for block in range(count))


MODELS: Final[dict[str, Model]] = {
    "llama": Model("llama", 128256, 2048, 16, _dense, 131072, 32, 8, feed_forward=8192),
    "mistral3": Model("mistral3", 131072, 3072, 26, _dense, 262144, 32, 8, 128, 9216),
    "qwen2": Model("qwen2", 151936, 896, 24, _qwen2, 32768, 14, 2, feed_forward=4864),
    "qwen3": Model("qwen3", 151936, 1024, 28, _qwen3, 40960, 16, 8, 128, 3072),
    "qwen35": Model(
        "qwen35",
        248320,
        1024,
        24,
        _qwen35,
        262144,
        8,
        2,
        256,
        3584,
        more={
            **_ssm(inner=2048, state=128, heads=16, groups=16),
            "full_attention_interval": 4,
            "rope.dimension_sections": (11, 11, 10, 0),
            "rope.dimension_count": 64,
        },
    ),
    "gemma2": Model(
        "gemma2", 256000, 2304, 26, _gemma2, 8192, 8, 4, 256, 9216, more={"attention.sliding_window": 4096}
    ),
    "gemma3": Model(
        "gemma3", 262208, 2560, 34, _gemma3, 131072, 8, 4, 256, 10240, more={"attention.sliding_window": 1024}
    ),
    "gemma4": Model(
        "gemma4",
        262144,
        1536,
        35,
        _gemma4,
        131072,
        8,
        1,
        512,
        6144,
        more={
            "attention.sliding_window": 512,
            "attention.sliding_window_pattern": tuple(block % 5 != 4 for block in range(35)),
            "attention.shared_kv_layers": 20,
            "attention.key_length_swa": 256,
            "attention.value_length_swa": 256,
            "embedding_length_per_layer_input": 256,
        },
        whole=_gemma4_whole,
    ),
    "phi3": Model(
        "phi3",
        32064,
        3072,
        32,
        _phi3,
        131072,
        32,
        32,
        feed_forward=8192,
        tied=False,
        more={"attention.sliding_window": 262144, "rope.scaling.original_context_length": 4096},
        whole=_phi3_whole,
    ),
    "deepseek2": Model(
        "deepseek2",
        102400,
        2048,
        27,
        _deepseek2,
        163840,
        16,
        1,
        feed_forward=10944,
        tied=False,
        more={
            "attention.key_length": 576,
            "attention.value_length": 512,
            "attention.key_length_mla": 192,
            "attention.value_length_mla": 128,
            "attention.kv_lora_rank": 512,
            "rope.dimension_count": 64,
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": 40.0,
            "rope.scaling.original_context_length": 4096,
            "leading_dense_block_count": 1,
            "expert_count": 64,
            "expert_used_count": 6,
            "expert_shared_count": 2,
            "expert_feed_forward_length": 1408,
        },
    ),
    "qwen3moe": Model(
        "qwen3moe",
        151936,
        2048,
        48,
        _qwen3moe,
        40960,
        32,
        4,
        128,
        6144,
        tied=False,
        more={"expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 768},
    ),
    "olmoe": Model(
        "olmoe",
        50304,
        2048,
        16,
        _olmoe,
        4096,
        16,
        16,
        feed_forward=1024,
        tied=False,
        more={"expert_count": 64, "expert_used_count": 8},
    ),
    "lfm2": Model(
        "lfm2",
        65536,
        2048,
        16,
        _lfm2,
        128000,
        32,
        _some(16, 8, (2, 5, 8, 10, 12, 14)),
        feed_forward=8192,
        outputs=("token_embd_norm.weight",),
        more={"shortconv.l_cache": 3},
    ),
    "granitehybrid": Model(
        "granitehybrid",
        100352,
        2048,
        40,
        _granite_hybrid,
        131072,
        32,
        _some(40, 8, (5, 15, 25, 35)),
        feed_forward=8192,
        more=_ssm(inner=4096, state=128, heads=64),
    ),
    "falcon-h1": Model(
        "falcon-h1",
        32784,
        1024,
        36,
        _falcon_h1,
        16384,
        8,
        2,
        64,
        2048,
        more=_ssm(inner=1536, state=128, heads=24),
    ),
    "mamba2": Model("mamba2", 50288, 2560, 64, _mamba2, 1048576, more=_ssm(inner=5120, state=128, heads=80)),
    "bert": Model(
        "bert",
        30522,
        384,
        12,
        _bert,
        512,
        12,
        12,
        feed_forward=1536,
        outputs=(),
        more={"attention.causal": False, "attention.layer_norm_epsilon": 1e-12, "pooling_type": 2},
        whole=_bert_whole,
    ),
    "nomic-bert": Model(
        "nomic-bert",
        30522,
        768,
        12,
        _nomic_bert,
        2048,
        12,
        12,
        feed_forward=3072,
        outputs=(),
        more={
            "attention.causal": False,
            "attention.layer_norm_epsilon": 1e-12,
            "pooling_type": 1,
            "rope.freq_base": 1000.0,
        },
        whole=_nomic_bert_whole,
    ),
    "gemma-embedding": Model(
        "gemma-embedding",
        262144,
        768,
        24,
        _gemma3,
        2048,
        3,
        1,
        256,
        1152,
        more={"attention.sliding_window": 512, "pooling_type": 1},
    ),
}
"""By architecture: a model that people run, with the numbers of its published configuration."""

TINY: Final[dict[str, Model]] = {
    "gemma3": Model("gemma3", 0, 64, 6, _gemma3, 4096, 2, 1, 32, 128, more={"attention.sliding_window": 64}),
    "lfm2": Model(
        "lfm2",
        0,
        64,
        4,
        _lfm2,
        4096,
        2,
        _some(4, 1, (2,)),
        feed_forward=128,
        outputs=("token_embd_norm.weight",),
        more={"shortconv.l_cache": 3},
    ),
    "mamba2": Model("mamba2", 0, 64, 2, _mamba2, 4096, more=_ssm(inner=128, state=16, heads=4)),
    "granitehybrid": Model(
        "granitehybrid",
        0,
        64,
        4,
        _granite_hybrid,
        4096,
        2,
        _some(4, 1, (1,)),
        feed_forward=128,
        more=_ssm(inner=128, state=16, heads=4),
    ),
    "qwen35": Model(
        "qwen35",
        0,
        64,
        4,
        _qwen35,
        4096,
        2,
        1,
        32,
        128,
        more={
            **_ssm(inner=64, state=16, heads=4, groups=4),
            "full_attention_interval": 4,
            "rope.dimension_sections": (6, 6, 4, 0),
            "rope.dimension_count": 32,
        },
    ),
}
"""The same architectures, of a size that a test can compute with; the vocabulary is the file's."""
