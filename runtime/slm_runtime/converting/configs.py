"""What stands beside a graph: onnxruntime-genai's configuration, and the tokenizer's."""

from typing import Any

from slm_runtime.converting.convert import MODEL, as_json
from slm_runtime.converting.decoder import Decoder
from slm_runtime.converting.tokenizer import Vocabulary


def genai_config(decoder: Decoder, *, bos: int | None, ends: tuple[int, ...], padding: int | None) -> str:
    """`genai_config.json`.

    Parameters
    ----------
    ends
        Tokens that end an answer, the most usual one first.
    """
    shape = decoder.shape
    end: int | tuple[int, ...] = ends[0] if len(ends) == 1 else ends
    tokens: dict[str, Any] = {"bos_token_id": bos, "eos_token_id": end or None}
    tokens["pad_token_id"] = padding if padding is not None else next(iter(ends), None)
    document = {
        "model": {
            **{name: value for name, value in tokens.items() if value is not None},
            "context_length": shape.context_length,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": MODEL,
                "head_size": shape.head,
                "hidden_size": shape.embedding,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "num_attention_heads": shape.heads,
                "num_hidden_layers": shape.blocks,
                "num_key_value_heads": shape.kv_heads,
            },
            "type": shape.family,
            "vocab_size": decoder.embeddings.rows,
        },
        "search": {
            "do_sample": False,
            "max_length": shape.context_length,
            "min_length": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": True,
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        },
    }
    return as_json(document)


def tokenizer_config(vocabulary: Vocabulary, context_length: int) -> str:
    """`tokenizer_config.json`."""
    sentences = vocabulary.model == "llama"
    padding = vocabulary.padding if vocabulary.padding is not None else vocabulary.eos
    marks = {
        "bos_token": vocabulary.text(vocabulary.bos),
        "eos_token": vocabulary.text(vocabulary.eos),
        "pad_token": vocabulary.text(padding),
        "unk_token": vocabulary.text(vocabulary.unknown),
    }
    return as_json(
        {
            "add_bos_token": vocabulary.add_bos,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": context_length,
            "tokenizer_class": "LlamaTokenizerFast" if sentences else "PreTrainedTokenizerFast",
            **{name: text for name, text in marks.items() if text is not None},
        }
    )
