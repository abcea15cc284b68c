import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_contract.report import ModelFacts
from slm_runtime.errors import InvalidModel, ModelError, UnsupportedFormat
from slm_runtime.models import gguf as reader
from slm_runtime.models.facts import model_facts
from tests.support.gguf import write_tiny_gguf


def chunks(data: bytes, length: int = 1000) -> Iterator[bytes]:
    file = io.BytesIO(data)
    while chunk := file.read(length):
        yield chunk


def facts_of(data: bytes) -> ModelFacts:
    return model_facts([("m.gguf", len(data), chunks(data))])


def header(*keys: bytes, tensors: int = 1) -> bytes:
    """A header of raw metadata entries."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(keys)) + b"".join(keys)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def test_the_tiny_models_facts(tiny: bytes) -> None:
    facts = facts_of(tiny)
    assert facts == ModelFacts(
        file_name="m.gguf",
        size_bytes=len(tiny),
        architecture="llama",
        name="tiny",
        quantization="F32",
        parameter_count=126_528,
        weights_bytes=126_528 * 4,
        context_length=2048,
        block_count=2,
        embedding_length=64,
        feed_forward_length=128,
        head_count=2,
        kv_heads=(1, 1),
        key_length=32,
        value_length=32,
        vocab_size=410,
        kv_elements=2 * (32 + 32),
        activations=3 * 128 + 4 * 64,
        has_chat_template=True,
    )


@pytest.mark.parametrize("length", [1, 7, 1 << 20])
def test_the_size_of_chunks_makes_no_difference(tiny: bytes, length: int) -> None:
    assert model_facts([("m.gguf", len(tiny), chunks(tiny, length))]) == facts_of(tiny)


def test_the_same_header_as_the_gguf_package_reads(tiny_file: Path) -> None:
    theirs = GGUFReader(tiny_file)
    with tiny_file.open("rb") as file:
        ours = reader.read_header(iter(lambda: file.read(4096), b""), tiny_file.stat().st_size)
    assert ours.data_offset == theirs.data_offset
    assert [t.name for t in ours.tensors] == [t.name for t in theirs.tensors]
    assert [ours.data_offset + t.offset for t in ours.tensors] == [t.data_offset for t in theirs.tensors]
    assert [t.shape for t in ours.tensors] == [tuple(t.shape.tolist()) for t in theirs.tensors]
    assert [t.type for t in ours.tensors] == [int(t.tensor_type) for t in theirs.tensors]
    assert set(ours.metadata) == {name for name in theirs.fields if not name.startswith("GGUF.")}
    for name, value in ours.metadata.items():
        if not isinstance(value, reader.Array):
            assert value == theirs.fields[name].contents()


def test_heads_and_widths_that_differ_by_block_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "hybrid.gguf"
    writer = GGUFWriter(path, "hybrid")
    writer.add_context_length(512)
    writer.add_block_count(3)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length([128, 256, 128])
    writer.add_head_count([4, 0, 4])
    writer.add_head_count_kv([2, 0, 2])
    writer.add_key_length(24)
    writer.add_sliding_window(128)
    writer.add_tensor("a.weight", np.zeros((4, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    facts = facts_of(path.read_bytes())
    assert (facts.kv_heads, facts.head_count, facts.feed_forward_length) == ((2, 0, 2), 4, 256)
    assert (facts.key_length, facts.value_length, facts.sliding_window) == (24, 16, 128)
    assert (facts.quantization, facts.has_chat_template, facts.vocab_size) == ("F16", False, 0)


def test_a_header_needs_no_more_chunks_than_it_fills(tiny: bytes) -> None:
    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for chunk in chunks(tiny, 512):
            taken += 1
            yield chunk

    read = reader.read_header(counted(), len(tiny))
    assert taken <= read.data_offset // 512 + 1


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends inside its header"),
        (b"GG", "ends inside its header"),
        (b"<!DOCTYPE html><html>", "no GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 60), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 62, 0), "announces"),
        (header(text(b"k") + struct.pack("<IQ", 8, 1 << 63)) + bytes(60), "announces"),
        (header(text(b"k") + struct.pack("<IIQ", 9, 4, (1 << 64) - 1)) + bytes(60), "announces"),
        (header(text(b"k") + struct.pack("<IIQIQIQ", 9, 9, 1, 9, 1, 9, 1)) + bytes(60), "too deep"),
        (header(text(b"k") + struct.pack("<I", 99)) + bytes(60), "unknown type 99"),
        (header(text(b"general.alignment") + struct.pack("<II", 4, 3), tensors=0), "power of two"),
        (header(tensors=1) + text(b"t") + struct.pack("<I", 99) + bytes(60), "99 dimensions"),
        (header(tensors=0), "general.architecture"),
    ],
)
def test_what_is_no_model_is_refused_with_a_sentence(data: bytes, says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        facts_of(data)


def test_other_versions_and_byte_orders_are_unsupported(tiny: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="version 1;"):
        facts_of(b"GGUF" + struct.pack("<I", 1) + tiny[8:])
    with pytest.raises(UnsupportedFormat, match="big-endian"):
        facts_of(b"GGUF" + struct.pack(">I", 3) + tiny[8:])


def test_a_file_without_its_last_byte_is_cut_off(tiny: bytes) -> None:
    with pytest.raises(InvalidModel, match="cut off"):
        facts_of(tiny[:-1])


def test_a_hostile_header_is_refused_before_it_costs_anything() -> None:
    """A file that really is as long as it says, but whose array has more items than anybody needs."""
    count = reader.MAX_ITEMS + 1
    entry = text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, count)
    start = header(entry, tensors=0)

    def endless() -> Iterator[bytes]:
        yield start
        pytest.fail("the reader went on")

    with pytest.raises(InvalidModel, match="items"):
        reader.read_header(endless(), len(start) + 8 * count)


@settings(max_examples=150)
@given(data=st.data())
def test_truncated_or_damaged_files_give_facts_or_a_typed_error(data: st.DataObject) -> None:
    damaged = bytearray(_tiny())
    cut = data.draw(st.integers(0, len(damaged)))
    for _ in range(data.draw(st.integers(0, 6))):
        # Where the lengths and types are, not in the weights.
        damaged[data.draw(st.integers(0, 9000))] = data.draw(st.integers(0, 255))
    with suppress(ModelError):
        assert len(facts_of(bytes(damaged[:cut])).to_json()) < 4000


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_garbage_behind_the_magic_gives_a_typed_error(garbage: bytes) -> None:
    with pytest.raises(ModelError):
        facts_of(b"GGUF\x03\0\0\0" + garbage)


def _tiny(cache: list[bytes] = []) -> bytes:  # noqa: B006
    if not cache:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as folder:
            cache.append(write_tiny_gguf(Path(folder, "t.gguf")).read_bytes())
    return cache[0]
