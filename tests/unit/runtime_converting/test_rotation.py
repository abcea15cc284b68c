"""How far positions turn, by what configurations say."""

import math

import numpy as np
import pytest

from slm_runtime.converting.rotation import frequencies, scaled
from slm_runtime.errors import InvalidModel


def test_a_pair_turns_more_slowly_than_the_one_before():
    np.testing.assert_allclose(frequencies(10_000.0, 8), [1, 0.1, 0.01, 0.001], rtol=1e-6)


def test_linear_scaling_slows_all():
    turned, scale, context = scaled(frequencies(10_000.0, 4), {"type": "linear", "factor": 4.0}, 8192)
    np.testing.assert_allclose(turned, [0.25, 0.0025], rtol=1e-6)
    assert (scale, context) == (1.0, 8192)


def test_of_longrope_the_short_texts_are_taken():
    said = {
        "type": "longrope",
        "short_factor": [1.0, 2.0],
        "long_factor": [8.0, 16.0],
        "original_max_position_embeddings": 4096,
    }
    turned, scale, context = scaled(frequencies(10_000.0, 4), said, 131_072)
    np.testing.assert_allclose(turned, [1, 0.005], rtol=1e-6)
    assert context == 4096
    assert scale == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))


@pytest.mark.parametrize(
    "said", [{"type": "linear"}, {"rope_type": "llama3", "factor": 8}, {"type": "linear", "factor": "x"}]
)
def test_a_scaling_that_is_not_whole(said):
    with pytest.raises(InvalidModel, match="scaling of positions"):
        scaled(frequencies(10_000.0, 4), said, 8192)
