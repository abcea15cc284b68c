"""Quantities and the memory of a model."""

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_contract.config import KVCacheType
from slm_contract.context import longest_context
from slm_contract.report import ModelFacts
from slm_operator.crd.quantities import (
    human_bytes,
    human_seconds,
    memory_quantity,
    parse_duration,
    parse_quantity,
)
from slm_operator.model.fit import LEAST_CONTEXT, fit
from slm_operator.model.known import parse_fetch_report
from slm_operator.model.memory import compute_bytes, estimate
from tests.unit.operator_core.world import SMOLLM2, START

MIB = 1 << 20

MEASURED = [
    # context, parallel, KV type, batch: MiB of weights, KV cache, and compute and output buffers, as llama.cpp reported
    # them for SmolLM2-135M-Instruct Q4_1 through the runtime's own engine.
    (1024, 1, "f16", 512, 92.1, 22.5, 14.7),
    (8192, 1, "f16", 512, 92.1, 180.0, 21.7),
    (8192, 4, "f16", 512, 92.1, 720.0, 46.3),
    (8192, 8, "f16", 512, 92.1, 1440.0, 79.0),
    (2048, 4, "q8_0", 512, 92.1, 95.6, 21.2),
    (8192, 4, "q4_0", 512, 92.1, 202.5, 45.2),
    (2048, 4, "f16", 2048, 92.1, 180.0, 86.8),
    (2048, 32, "f16", 512, 92.1, 1440.0, 83.5),
    (2048, 4, "f16", 128, 92.1, 180.0, 7.4),
]
FACTS = SMOLLM2.model_copy(update={"weights_bytes": 96_576_768})


@pytest.mark.parametrize(("context", "parallel", "kv", "batch", "weights", "cache", "compute"), MEASURED)
def test_the_estimate_is_what_the_engine_was_measured_to_take(
    context: int, parallel: int, kv: str, batch: int, weights: float, cache: float, compute: float
) -> None:
    found = estimate(FACTS, context, parallel=parallel, kv_type=KVCacheType(kv), batch=batch)
    assert found.weights / MIB == pytest.approx(weights, rel=0.01)
    assert found.kv_cache / MIB == pytest.approx(cache, rel=0.01)
    assert (found.compute + found.outputs) / MIB == pytest.approx(compute, rel=0.06)


def test_the_sum_is_what_the_processes_were_measured_to_take() -> None:
    """434 MiB that all processes of `slm-runtime serve` took, with 4 x 2048 tokens, after some load (test_memory.py)."""
    assert estimate(FACTS, 2048, parallel=4).total / MIB == pytest.approx(434, rel=0.05)


def test_an_automatic_context_is_the_longest_that_fits_and_says_so() -> None:
    found = fit(FACTS, available=700 * MIB)
    assert found.fits
    assert found.estimate.context_length == 4096
    assert "context reduced from 8192 tokens" in found.explanation
    assert found.estimate.request <= 700 * MIB < estimate(FACTS, 4096 + 256).request


@pytest.mark.parametrize(
    ("context", "parallel", "batch", "measured"),
    [
        (2048, 4, 512, 175_248_507),
        (1024, 4, 512, 91_362_427),
        (2048, 4, 128, 44_407_194),
        (4096, 1, 512, 90_775_224),
    ],
)
def test_without_flash_attention_it_is_what_llama_cpp_was_measured_to_reserve(
    context: int, parallel: int, batch: int, measured: int
) -> None:
    found = compute_bytes(SMOLLM2, context * parallel, parallel, batch, flash_attention=False)
    assert found == pytest.approx(measured, rel=0.05)


def test_a_context_that_was_asked_for_is_never_reduced() -> None:
    found = fit(FACTS, context_length=8192, available=700 * MIB)
    assert not found.fits
    assert found.estimate.context_length == 8192
    assert "the longest context that fits it is 4096 tokens" in found.explanation


def test_a_bound_of_the_kv_cache_is_what_it_takes_and_what_it_holds_is_said() -> None:
    free = estimate(FACTS, 4096, parallel=4)
    bound = estimate(FACTS, 4096, parallel=4, kv_limit=free.kv_cache // 2 + 1)
    assert bound.kv_cells == 8192
    assert bound.kv_cache == free.kv_cache // 2
    assert bound.compute < free.compute, "the mask reaches over as many cells as there are"
    assert "8192 tokens at once of 4 x 4096 tokens" in bound.explanation
    assert estimate(FACTS, 4096, parallel=4, kv_limit=10 * free.kv_cache) == free


def test_a_bound_of_the_kv_cache_shortens_only_a_context_that_nobody_asked_for() -> None:
    limit = estimate(FACTS, 2048, parallel=1).kv_cache
    assert fit(FACTS, kv_limit=limit).estimate.context_length == 2048
    refused = fit(FACTS, context_length=4096, kv_limit=limit)
    assert not refused.fits
    assert "runtime.kvCacheMemory holds 2048 tokens, and one request may take 4096" in refused.explanation


def test_where_no_context_fits_none_is_proposed() -> None:
    found = fit(FACTS, context_length=8192, available=100 * MIB)
    assert not found.fits
    assert "longest" not in found.explanation


def test_every_part_of_the_sum_is_said() -> None:
    hybrid = FACTS.model_copy(
        update={"kv_elements": 6144, "recurrent_blocks": 18, "recurrent_elements": 18 * 280_576}
    )
    found = estimate(hybrid, 4096, parallel=2)
    assert found.recurrent_state == 2 * 18 * 280_576 * 4
    assert found.outputs == 2 * 49152 * 4
    assert found.request == found.total + found.headroom
    parts = (
        "weights",
        "KV cache",
        "recurrent state",
        "snapshots",
        "compute",
        "outputs",
        "process",
        "of headroom",
    )
    assert all(part in found.explanation for part in parts)
    assert not any(part in estimate(FACTS, 4096).explanation for part in ("recurrent", "snapshots"))


def test_a_hybrids_context_costs_what_its_attention_keeps() -> None:
    """128 KiB a token where all blocks are counted, 32 where only those with attention are."""
    whole = FACTS.model_copy(update={"kv_heads": (8,) * 32, "key_length": 128, "value_length": 128})
    hybrid = whole.model_copy(update={"kv_elements": 8 * 8 * 256, "recurrent_elements": 1 << 20})
    per_token = [estimate(each, 4096, parallel=1).kv_cache / 4096 / 1024 for each in (whole, hybrid)]
    assert per_token == [128, 32]


WINDOWED = FACTS.model_copy(
    update={"kv_elements": 18 * 512, "window_kv_elements": 15 * 512, "sliding_window": 512}
)
"""Gemma 3 270M's attention."""


def test_windows_are_counted_as_far_as_they_reach_and_snapshots_beside_them() -> None:
    """Five windows of 512 tokens and a step of 512 in fifteen blocks, four contexts in three."""
    found = estimate(WINDOWED, 8192, parallel=4)
    assert found.kv_cells == 4 * 8192
    assert found.kv_cache == (15 * (5 * 512 + 512) + 3 * 4 * 8192) * 512 * 2
    assert found.snapshots == 64 * MIB, "two of 512 and 1024 tokens are less"
    assert found.kv_cache < estimate(FACTS.model_copy(update={"kv_elements": 18 * 512}), 8192).kv_cache / 4


def test_snapshots_have_room_for_every_other_sequence_s() -> None:
    hybrid = FACTS.model_copy(update={"kv_elements": 4096, "recurrent_elements": 20 * MIB})
    one = 1024 * 4096 * 2 + 20 * MIB * 4
    assert [estimate(hybrid, 8192, parallel=count).snapshots for count in (1, 4, 5)] == [
        one,
        2 * one,
        3 * one,
    ]


@pytest.mark.parametrize(("context", "parallel"), [(1024, 4), (512, 16)])
def test_a_window_that_is_as_long_as_the_context_is_kept_whole(context: int, parallel: int) -> None:
    found = estimate(WINDOWED, context, parallel=parallel)
    assert found.kv_cache == context * parallel * 18 * 512 * 2
    assert found.snapshots == 0


def test_a_bound_of_the_kv_cache_holds_more_tokens_where_windows_are_short() -> None:
    free = estimate(WINDOWED, 8192, parallel=4)
    bound = estimate(WINDOWED, 8192, parallel=4, kv_limit=free.kv_cache - 3 * 512 * 2 * 256)
    assert bound.kv_cells == free.kv_cells - 256
    assert bound.kv_cache == free.kv_cache - 3 * 512 * 2 * 256
    # Too few for windows to be worth it: all blocks are as long.
    assert estimate(WINDOWED, 8192, parallel=4, kv_limit=20 * MIB).kv_cells == 8192
    short = estimate(WINDOWED, 1024, parallel=4, kv_limit=20 * MIB)
    assert (short.kv_cells, short.kv_cache) == (1024, 1024 * 18 * 512 * 2)
    everything = WINDOWED.model_copy(update={"window_kv_elements": 18 * 512})
    assert estimate(everything, 8192, parallel=4, kv_limit=60 * MIB).kv_cells == 4 * 8192


def test_an_earlier_versions_report_is_counted_as_it_was() -> None:
    earlier = ModelFacts.model_validate(
        {
            "fileName": "m.gguf", "sizeBytes": 98_000_000, "architecture": "llama", "weightsBytes": 96_576_768,
            "contextLength": 8192, "blockCount": 30, "embeddingLength": 576, "feedForwardLength": 1536,
            "headCount": 9, "kvHeads": [3] * 30, "keyLength": 64, "valueLength": 64, "vocabSize": 49152,
        }
    )  # fmt: skip
    assert earlier.kv_elements is None
    assert estimate(earlier, 8192).kv_cache == 720 * MIB
    assert longest_context(earlier) == 8192


def test_what_never_fits_says_so() -> None:
    found = fit(FACTS, available=100 * MIB)
    assert not found.fits
    assert "the most that a pod can get is 100 MiB" in found.explanation


def test_a_model_trained_for_less_is_not_given_more() -> None:
    short = FACTS.model_copy(update={"context_length": 2048})
    assert fit(short).estimate.context_length == 2048


@given(
    st.integers(128, 131072), st.integers(1, 64), st.sampled_from(list(KVCacheType)), st.integers(1, 1 << 40)
)
def test_memory_only_grows_with_what_is_asked(
    context: int, parallel: int, kv: KVCacheType, available: int
) -> None:
    one = estimate(FACTS, context, parallel=parallel, kv_type=kv)
    assert estimate(FACTS, context + 256, parallel=parallel, kv_type=kv).total > one.total
    assert estimate(FACTS, context, parallel=parallel + 1, kv_type=kv).total >= one.total
    assert one.request >= one.total
    found = fit(FACTS, parallel=parallel, kv_type=kv, available=available)
    assert not found.fits or found.estimate.request <= available
    assert LEAST_CONTEXT <= found.estimate.context_length <= 8192
    if found.fits and found.estimate.context_length < 8192:
        longer = found.estimate.context_length + 256
        assert estimate(FACTS, longer, parallel=parallel, kv_type=kv).request > available


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", "1"),
        ("250m", "0.25"),
        ("1Gi", "1073741824"),
        ("1.5Gi", "1610612736"),
        ("2k", "2000"),
        ("1e3", "1000"),
        ("4E", "4e18"),
        (2, "2"),
    ],
)
def test_quantities(text: str | int, expected: str) -> None:
    assert parse_quantity(text) == Decimal(expected)


@pytest.mark.parametrize("text", ["", "1 Gi", "Gi", "1Qi", "..", "abc"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is no Kubernetes quantity"):
        parse_quantity(text)


@given(st.integers(1, 1 << 50))
def test_a_memory_quantity_is_enough_and_no_more_than_a_mebibyte_over(count: int) -> None:
    assert 0 <= parse_quantity(memory_quantity(count)) - count < MIB


def test_durations_and_numbers_for_people() -> None:
    assert parse_duration("1h30m10s") == 5410
    assert START + timedelta(seconds=parse_duration("9" * 31 + "h")) > START, "no sum overflows"
    assert [human_seconds(seconds) for seconds in (0, 45, 300, 5400)] == ["0s", "45s", "5m", "1h30m"]
    assert [human_bytes(count) for count in (1, 412 * MIB, 1000 * MIB, 4 << 30)] == [
        "1 MiB",
        "412 MiB",
        "1.0 GiB",
        "4.0 GiB",
    ]


def test_a_native_librarys_last_words_are_no_report() -> None:
    for message in (None, "", "Segmentation fault", "{}", "[]"):
        assert parse_fetch_report(message) is None
