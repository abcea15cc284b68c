"""Tiny random encoders as folders in sentence-transformers' layout, and what they give, written out with numpy."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.processors import BertProcessing

WIDTH = 16
_WORDS = "a cat sleeps on the sofa kitten naps couch rates rose by two percent what is it".split()
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_WORDS, "##s", "##ing"]
CLS, SEP = 2, 3

Array = NDArray[np.float32]


class TinyOnnxEncoder:
    """Each token's state is its own embedding and its segment's, and the mean of all of the text's, turned."""

    def __init__(self, *, scores: int = 0) -> None:
        """`scores`: classes of a classifier; 0: it gives hidden states."""
        random = np.random.default_rng(0)
        self.scores = scores
        self.words = random.normal(0, 1, (len(WORDS), WIDTH)).astype(np.float32)
        self.segments = random.normal(0, 1, (2, WIDTH)).astype(np.float32)
        self.turn = random.normal(0, 0.5, (WIDTH, WIDTH)).astype(np.float32)
        self.head = random.normal(0, 0.5, (WIDTH, max(scores, 1))).astype(np.float32)

    def states(self, tokens: Sequence[int], second: int | None = None) -> Array:
        """Of one text; of two, where the second begins."""
        begins = len(tokens) if second is None else second
        marks = np.array([int(place >= begins) for place in range(len(tokens))])
        embedded = self.words[list(tokens)] + self.segments[marks]
        return embedded + embedded.mean(axis=0) @ self.turn

    def score(self, tokens: Sequence[int], second: int) -> Array:
        return self.states(tokens, second)[0] @ self.head

    def write(
        self, folder: Path, pooling: dict[str, bool] | None = None, modules: Sequence[str] = ()
    ) -> Path:
        """`pooling`: what its configuration says; None: there is none. Returns the graph's path."""
        (folder / "onnx").mkdir(parents=True)
        path = folder / "onnx" / "model.onnx"
        onnx.save_model(self._model(), path)
        _tokenizer().save(str(folder / "tokenizer.json"))
        config = {"model_type": "bert", "max_position_embeddings": 64, "pad_token_id": 0}
        _write(folder / "config.json", config)
        _write(folder / "tokenizer_config.json", {"cls_token": "[CLS]", "sep_token": "[SEP]"})
        if pooling is not None:
            kinds = ["Transformer", "Pooling", *modules]
            prefix = "sentence_transformers.models"
            _write(
                folder / "modules.json",
                [
                    {
                        "idx": place,
                        "name": str(place),
                        "path": f"{place}_{kind}" * (place > 0),
                        "type": f"{prefix}.{kind}",
                    }
                    for place, kind in enumerate(kinds)
                ],
            )
            (folder / "1_Pooling").mkdir()
            _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **pooling})
        return path

    def _model(self) -> onnx.ModelProto:
        constants = {
            "words": self.words,
            "segments": self.segments,
            "turn": self.turn,
            "head": self.head,
            "one": np.array([1], np.int64),
            "last": np.array([2], np.int64),
            "zero": np.array(0, np.int64),
        }
        node = helper.make_node
        nodes = [
            node("Gather", ["words", "input_ids"], ["word"]),
            node("Gather", ["segments", "token_type_ids"], ["segment"]),
            node("Add", ["word", "segment"], ["embedded"]),
            node("Cast", ["attention_mask"], ["seen"], to=TensorProto.FLOAT),
            node("Unsqueeze", ["seen", "last"], ["mask"]),
            node("Mul", ["embedded", "mask"], ["masked"]),
            node("ReduceSum", ["masked", "one"], ["sum"]),
            node("ReduceSum", ["mask", "one"], ["count"]),
            node("Div", ["sum", "count"], ["mean"]),
            node("MatMul", ["mean", "turn"], ["turned"]),
            node("Add", ["embedded", "turned"], ["last_hidden_state"]),
        ]
        shape: list[str | int] = ["batch", "tokens", WIDTH]
        name = "last_hidden_state"
        if self.scores:
            nodes += [
                node("Gather", ["last_hidden_state", "zero"], ["first"], axis=1),
                node("MatMul", ["first", "head"], ["logits"]),
            ]
            name, shape = "logits", ["batch", self.scores]
        inputs = [
            helper.make_tensor_value_info(each, TensorProto.INT64, ["batch", "tokens"])
            for each in ("input_ids", "attention_mask", "token_type_ids")
        ]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        weights = [numpy_helper.from_array(value, each) for each, value in constants.items()]
        graph = helper.make_graph(nodes, "tiny", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _tokenizer() -> Tokenizer:
    made = Tokenizer(WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    made.add_special_tokens(WORDS[:4])
    # As sentence-transformers leave them: neither may change what is asked of an engine.
    made.enable_truncation(8)
    made.enable_padding(length=8)
    return made


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))
