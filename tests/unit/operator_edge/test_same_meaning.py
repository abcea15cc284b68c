"""What a status says, whatever of it is left out."""

import pytest

from slm_operator.reconcile import same_meaning


@pytest.mark.parametrize(
    ("live", "intent", "same"),
    [
        ({"a": 1}, {"a": 1, "b": None, "c": {}, "d": []}, True),
        ({"a": {"b": []}}, {}, False),
        ({"a": 0}, {}, False),
        ({"a": [1]}, {"a": (1,)}, True),
        ({"a": [1]}, {"a": [1, 2]}, False),
        (None, {}, True),
        ({"a": False}, {}, False),
    ],
)
def test_absent_and_empty_mean_the_same(live, intent, same):
    assert same_meaning(live, intent) is same
