"""A decoder out of a Hugging Face folder: config.json, safetensors, and its tokenizer as it is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from slm_runtime.converting.configs import genai_config
from slm_runtime.converting.decoder import REMEDY, Decoder, Names, Shape, Tensors, assemble
from slm_runtime.converting.matrix import Matrix
from slm_runtime.converting.rotation import frequencies, scaled
from slm_runtime.converting.safetensors import read_safetensors
from slm_runtime.errors import InvalidModel, SourceNotFound, UnsupportedArchitecture, UnsupportedQuantization

FAMILIES: Final = {"llama": "llama", "mistral": "mistral", "qwen2": "qwen2", "qwen3": "qwen3", "phi3": "phi3"}
"""`model_type`, and what onnxruntime-genai calls it."""
COPIED: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)
_NAMES: Final = Names(
    embeddings="model.embed_tokens",
    head="lm_head",
    norm="model.norm",
    block="model.layers",
    attention_norm="input_layernorm",
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    qkv="self_attn.qkv_proj",
    q_norm="self_attn.q_norm",
    k_norm="self_attn.k_norm",
    output="self_attn.o_proj",
    feed_forward_norm="post_attention_layernorm",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    gate_up="mlp.gate_up_proj",
    down="mlp.down_proj",
)
_COMPUTED: Final = ("rotary_emb.inv_freq",)
"""Tensors that older files have of what the configuration says."""
_CORRECT: Final = "Correct config.json, or take it anew from where the model comes from."


@dataclass(frozen=True)
class Folder:
    path: Path
    config: dict[str, Any]
    matrices: dict[str, Matrix]

    def decoder(self) -> Decoder:
        """The model.

        Raises
        ------
        InvalidModel
        UnsupportedArchitecture
        UnsupportedQuantization
        """
        try:
            shape = _shape(self.config)
            vocabulary = int(self.config["vocab_size"])
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise InvalidModel(f"config.json can't be used: {error!r}.", _CORRECT) from error
        matrices = dict(self.matrices)
        if self.config.get("tie_word_embeddings", False):
            matrices.pop("lm_head.weight", None)
        elif "lm_head.weight" not in matrices:
            raise InvalidModel("The model has no lm_head.weight, and config.json doesn't tie it.", _CORRECT)
        return assemble(shape, Tensors(matrices), _NAMES, vocabulary)

    def texts(self, decoder: Decoder) -> dict[str, str | bytes]:
        """Tokenizer and template as they are, and onnxruntime-genai's configuration.

        Raises
        ------
        SourceNotFound
            The folder has no tokenizer.json.
        """
        texts: dict[str, str | bytes] = {
            name: (self.path / name).read_bytes() for name in COPIED if (self.path / name).is_file()
        }
        if "tokenizer.json" not in texts:
            raise SourceNotFound(
                f"{self.path} has no tokenizer.json.",
                "Save the model's fast tokenizer there, or convert a GGUF file.",
            )
        said = _document(self.path / "generation_config.json") if "generation_config.json" in texts else {}
        template = (
            _document(self.path / "tokenizer_config.json").get("chat_template")
            if ("tokenizer_config.json" in texts)
            else None
        )
        if isinstance(template, str):
            texts.setdefault("chat_template.jinja", template)
        both = self.config | {name: value for name, value in said.items() if value is not None}
        ends = both.get("eos_token_id")
        texts["genai_config.json"] = genai_config(
            decoder,
            bos=both.get("bos_token_id"),
            ends=tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,),
            padding=both.get("pad_token_id"),
        )
        return texts


def open_folder(path: Path) -> Folder:
    """Open a folder; of its weights nothing but the headers is read.

    Raises
    ------
    SourceNotFound
        It has no configuration or no weights.
    InvalidModel
    UnsupportedQuantization
    """
    files = sorted(path.glob("model*.safetensors"))
    if not (path / "config.json").is_file() or not files:
        raise SourceNotFound(
            f"{path} has no config.json, or no model*.safetensors.",
            "Name a Hugging Face folder, or a GGUF file.",
        )
    config = _document(path / "config.json")
    if "quantization_config" in config:
        raise UnsupportedQuantization(
            "config.json has a quantization_config: weights that are quantized already aren't exported.",
            "Name the model as it was published in BF16, F16 or F32.",
        )
    index = path / "model.safetensors.index.json"
    if index.is_file():
        wanted = set(map(str, _document(index).get("weight_map", {}).values()))
        if missing := wanted - {file.name for file in files}:
            raise SourceNotFound(
                f"{path} has no {min(missing)}, which its index names.", "Fetch the whole model."
            )
        files = [file for file in files if file.name in wanted]
    return Folder(path, config, read_safetensors(files, _COMPUTED))


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidModel(f"{path.name} is no JSON: {error}.", _CORRECT) from error
    if not isinstance(document, dict):
        raise InvalidModel(f"{path.name} is no JSON object.", _CORRECT)
    return document


def _shape(config: dict[str, Any]) -> Shape:
    family = FAMILIES.get(config["model_type"])
    if family is None:
        raise UnsupportedArchitecture(
            f"config.json's model_type is {config['model_type']!r}; {', '.join(FAMILIES)} are exported.",
            REMEDY,
        )
    activation = config.get("hidden_act", "silu")
    if activation not in {"silu", "swish"}:
        raise UnsupportedArchitecture(f"The model's hidden_act is {activation!r}; silu is exported.", REMEDY)
    if config.get("use_sliding_window"):
        raise UnsupportedArchitecture(
            "The model has sliding windows in some blocks, which isn't exported.", REMEDY
        )
    heads, embedding = int(config["num_attention_heads"]), int(config["hidden_size"])
    head = int(config.get("head_dim") or embedding // heads)
    rotation = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = rotation.get("rope_theta") or config.get("rope_theta") or 10_000.0
    part = rotation.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    trained = {"original_max_position_embeddings": config.get("original_max_position_embeddings")}
    context = int(config["max_position_embeddings"])
    turned, scale, context = scaled(
        frequencies(float(base), int(head * part)),
        {name: value for name, value in trained.items() if value is not None} | rotation,
        context,
    )
    window = config.get("sliding_window") if family in {"phi3", "mistral"} else None
    return Shape(
        family=family,
        context_length=context,
        embedding=embedding,
        blocks=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head=head,
        epsilon=float(config["rms_norm_eps"]),
        frequencies=turned,
        rotation_scale=scale,
        window=window,
    )
