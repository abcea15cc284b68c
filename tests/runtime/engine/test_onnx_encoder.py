"""Encoders as ONNX folders: vectors and scores are those of the graph, as its folder says that they are made."""

from array import array

import numpy as np
import pytest

from slm_runtime.engine.failing import LoadError
from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.onnx.encoder import together
from slm_runtime.engine.onnx.load import load
from slm_runtime.engine.protocol import Encoder
from tests.support.onnx_encoders import CLS, SEP, WIDTH, TinyOnnxEncoder

pytestmark = pytest.mark.runtime

TEXTS = ([CLS, 5, 6, SEP], [CLS, *range(4, 20), SEP], [CLS, 9, SEP], [CLS, 10, 11, 12, 13, SEP])


def config(path):
    return EngineConfig(engine="OnnxRuntime", model_path=str(path), threads=1)


@pytest.mark.parametrize(
    ("pooling", "pooled"),
    [
        (None, lambda states: states.mean(axis=0)),
        ({"pooling_mode_mean_tokens": True}, lambda states: states.mean(axis=0)),
        ({"pooling_mode_cls_token": True}, lambda states: states[0]),
        ({"pooling_mode_lasttoken": True}, lambda states: states[-1]),
    ],
)
def test_vectors_are_made_as_the_folder_says_alone_and_together(tmp_path, pooling, pooled):
    tiny = TinyOnnxEncoder()
    encoder, info = load(config(tiny.write(tmp_path, pooling, ["Normalize"])))
    assert isinstance(encoder, Encoder)
    assert (info.generates, info.embeds, info.ranks) == (False, True, False)
    assert (info.embedding_length, info.context_length) == (WIDTH, 64)
    expected = [pooled(tiny.states(text)) for text in TEXTS]
    np.testing.assert_allclose(encoder.encode([array("i", text) for text in TEXTS]), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode([array("i", TEXTS[1])])[0], expected[1], atol=1e-5)


def test_scores_are_those_of_a_pair(tmp_path):
    tiny = TinyOnnxEncoder(scores=1)
    encoder, info = load(config(tiny.write(tmp_path)))
    assert info.ranks
    vocabulary = encoder.vocabulary
    query, document = (
        vocabulary.tokenize(text, parse_special=False) for text in ("what is it", "a cat sleeps")
    )
    pair = vocabulary.add_special_to_pair(query, document)
    assert pair == [CLS, *query, SEP, *document, SEP]
    expected = tiny.score(pair, len(query) + 2)
    np.testing.assert_allclose(encoder.encode([array("i", pair)])[0], expected, atol=1e-5)


def test_what_its_tokenizer_was_cut_to_for_training_cuts_no_text(tmp_path):
    encoder, _ = load(config(TinyOnnxEncoder().write(tmp_path)))
    assert len(encoder.vocabulary.tokenize("the cat " * 20, parse_special=False)) == 40
    assert encoder.vocabulary.add_special([5]) == [CLS, 5, SEP]


@pytest.mark.parametrize(
    ("encoder", "modules", "words"),
    [
        (TinyOnnxEncoder(scores=3), (), "3 classes"),
        (TinyOnnxEncoder(), ("Dense",), "modules.json has its vectors go through Dense"),
    ],
)
def test_what_isnt_computed_here_is_refused(tmp_path, encoder, modules, words):
    path = encoder.write(tmp_path, {"pooling_mode_mean_tokens": True}, modules)
    with pytest.raises(LoadError, match=words) as refused:
        load(config(path))
    assert refused.value.failure.reason == "UnsupportedArchitecture"


def test_texts_of_like_length_are_computed_together():
    lengths = [3, 100, 4, 90, 3]
    runs = together(lengths)
    assert sorted(place for run in runs for place in run) == [0, 1, 2, 3, 4]
    assert [sorted(run) for run in runs] == [[0, 2, 4], [1, 3]]
