"""Blocks are read as the gguf package reads them, and taken over as they are."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from slm_runtime.converting.dequantizing import DEQUANTIZERS, SIZES, dequantize
from slm_runtime.converting.matrix import Matrix, Rows
from slm_runtime.converting.quantizing import Codes, quantized


def blocks(kind, rows, seed=0):
    """Random bytes, whose factors are sensible numbers."""
    random = np.random.default_rng(seed)
    count, size = SIZES[kind]
    raw = random.integers(0, 256, (rows * 4, size), np.uint8)
    if count > 1:
        factors = {"Q6_K": (208,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q4_1": (0, 2), "Q5_1": (0, 2)}.get(
            kind, (0,)
        )
        for place in factors:
            raw[:, place : place + 2] = (
                random.normal(0, 0.01, (len(raw), 1)).astype(np.float16).view(np.uint8)
            )
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", [kind for kind in DEQUANTIZERS if SIZES[kind][0] > 1])
def test_the_numbers_are_those_of_the_gguf_package(kind):
    raw = blocks(kind, 6)
    theirs = quants.dequantize(raw, GGMLQuantizationType[kind])
    np.testing.assert_array_equal(dequantize(kind, raw), theirs)


def test_half_precisions_are_exact():
    numbers = np.array([[0.0, -1.5, 3.140625, 65280.0]], np.float32)
    np.testing.assert_array_equal(dequantize("F16", numbers.astype(np.float16).view(np.uint8)), numbers)
    high = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    np.testing.assert_array_equal(dequantize("BF16", high.view(np.uint8)), numbers)
    np.testing.assert_array_equal(dequantize("F32", numbers.view(np.uint8)), numbers)


def numbers_of(codes: Codes, bits: int) -> np.ndarray:
    """As MatMulNBits reads them."""
    rows, count = codes.scales.shape

    def unpacked(packed):
        return np.stack([packed & 15, packed >> 4], axis=-1).reshape(rows, -1)

    flat = codes.codes.reshape(rows, -1)
    values = (unpacked(flat) if bits == 4 else flat).reshape(rows, count, 32).astype(np.float32)
    zeros = np.full((rows, count), 1 << (bits - 1))
    if codes.zeros is not None:
        zeros = unpacked(codes.zeros)[:, :count]
    return ((values - zeros[..., None]) * codes.scales[..., None]).reshape(rows, -1)


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q8_0", 8)])
def test_blocks_of_the_same_kind_are_taken_over(kind, bits):
    raw = blocks(kind, 6)
    (codes,) = quantized(Matrix((Rows(kind, raw),)), bits)
    assert codes.zeros is None
    np.testing.assert_array_equal(numbers_of(codes, bits), dequantize(kind, raw))


@pytest.mark.parametrize(("bits", "most"), [(4, 0.08), (8, 0.006)])
@pytest.mark.parametrize("columns", [64, 96])
def test_other_numbers_are_met_closely(bits, most, columns):
    numbers = np.random.default_rng(0).normal(0.02, 0.1, (40, columns)).astype(np.float32)
    numbers[3] = 0
    numbers[4] = np.abs(numbers[4]) + 1
    (codes,) = quantized(Matrix((Rows("F32", numbers.view(np.uint8)),)), bits)
    error = numbers_of(codes, bits) - numbers
    assert not error[3].any()
    assert np.linalg.norm(error) < most * np.linalg.norm(numbers)


def test_a_matrix_is_read_in_parts_and_in_any_order(monkeypatch):
    monkeypatch.setattr("slm_runtime.converting.matrix.CHUNK", 200)
    numbers = np.arange(640, dtype=np.float32).reshape(10, 64)
    matrix = Matrix((Rows("F32", numbers.view(np.uint8)),))
    parts = list(matrix.numbers())
    assert [len(part) for part in parts] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), numbers)
    turned = np.concatenate(list(matrix.reordered(np.arange(10)[::-1]).numbers()))
    np.testing.assert_array_equal(turned, numbers[::-1])
