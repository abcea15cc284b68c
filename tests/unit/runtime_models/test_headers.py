"""Headers as models really have them: what their blocks keep, shards, and what isn't as it should be."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter, PoolingType
from hypothesis import given
from hypothesis import strategies as st

from slm_contract.places import TERMINATION_MESSAGE_LIMIT
from slm_contract.report import FetchReport, ModelFacts
from slm_contract.runs import from_runs, to_runs
from slm_contract.source import ModelFile, SourcePin
from slm_runtime.errors import InvalidModel, ModelError, UnsupportedArchitecture
from slm_runtime.models.facts import MAX_BLOCKS, MAX_HEADS, model_facts
from slm_runtime.models.gguf import MAX_KEPT_STRING
from slm_runtime.models.metadata import MAX_NUMBER
from slm_runtime.models.shards import File
from slm_runtime.models.sources.shards import MAX_VARIANT
from slm_runtime.models.sources.variants import MAX_NAME, MAX_NAMES
from slm_runtime.termination import bounded_json
from tests.support.architectures import MODELS
from tests.support.encoders import TinyEncoder
from tests.support.gguf import write_tiny_gguf
from tests.support.headers import write_header

LENGTHS = (
    "attention.key_length",
    "attention.shared_kv_layers",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "expert_used_count",
    "kda.head_dim",
    "nextn_predict_layers",
    "shortconv.l_cache",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "wkv.head_size",
)


def opened(*paths: Path) -> list[File]:
    return [(path.name, path.stat().st_size, _chunks(path)) for path in paths]


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(1 << 16):
            yield chunk


def read(*paths: Path) -> ModelFacts:
    return model_facts(opened(*paths))


def write(path: Path, architecture: str = "llama", **metadata: Any) -> Path:
    """A small file, whose second block keeps a state.

    Metadata are given by their key with `__` for `.`, below the architecture's name unless general or the tokenizer's.
    """
    writer = GGUFWriter(path, architecture)
    given = {"context_length": 512, "block_count": 2, "embedding_length": 64, "attention__head_count": 4}
    for name, value in {**given, **metadata}.items():
        key = name.replace("__", ".")
        key = key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}"
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case float():
                writer.add_float32(key, value)
            case str():
                writer.add_string(key, value)
            case _:
                writer.add_array(key, value)
    writer.add_tensor("token_embd.weight", np.zeros((4, 64), np.float16))
    writer.add_tensor("blk.1.ssm_a", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("architecture", "kv", "window", "states", "state"),
    [
        ("llama", 16 * 8 * 128, 0, 0, 0),
        ("phi3", 32 * 32 * 192, 0, 0, 0),
        ("gemma2", 26 * 4 * 512, 13 * 4 * 512, 0, 0),
        ("gemma3", 34 * 4 * 512, 29 * 4 * 512, 0, 0),
        ("gemma4", 3 * 1024 + 12 * 512, 12 * 512, 0, 0),
        ("deepseek2", 27 * 576, 0, 0, 0),
        ("qwen3moe", 48 * 4 * 256, 0, 0, 0),
        ("qwen35", 6 * 2 * 512, 0, 18, 3 * 6144 + 128 * 2048),
        ("lfm2", 6 * 8 * 128, 0, 10, 2 * 2048),
        ("granitehybrid", 4 * 8 * 128, 0, 36, 3 * 4352 + 128 * 4096),
        ("falcon-h1", 36 * 2 * 128, 0, 36, 3 * 1792 + 128 * 1536),
        ("mamba2", 0, 0, 64, 3 * 5376 + 128 * 5120),
    ],
)
def test_blocks_are_counted_for_what_they_keep(
    tmp_path: Path, architecture: str, kv: int, window: int, states: int, state: int
) -> None:
    facts = read(write_header(tmp_path / "m.gguf", MODELS[architecture]))
    assert (facts.kv_elements, facts.window_kv_elements) == (kv, window)
    assert (facts.recurrent_blocks, facts.recurrent_elements) == (states, states * state)


def test_a_block_without_keys_of_its_own_has_no_heads(tmp_path: Path) -> None:
    hybrid = read(write_header(tmp_path / "hybrid.gguf", MODELS["qwen35"]))
    assert hybrid.kv_heads == (0, 0, 0, 2) * 6
    shared = read(write_header(tmp_path / "shared.gguf", MODELS["gemma4"]))
    assert shared.kv_heads == (1,) * 15 + (0,) * 20


def test_latent_attention_keeps_one_vector_and_its_indexers_key(tmp_path: Path) -> None:
    latent = {"attention__head_count_kv": 1, "attention__key_length": 48, "attention__key_length_mla": 24}
    assert read(write(tmp_path / "m.gguf", **latent)).kv_elements == 48
    indexed = {**latent, "attention__indexer__key_length": 16}
    assert read(write(tmp_path / "i.gguf", **indexed)).kv_elements == 48 + 16


def test_experts_are_told(tmp_path: Path) -> None:
    facts = read(write_header(tmp_path / "m.gguf", MODELS["deepseek2"]))
    assert (facts.expert_count, facts.expert_used_count) == (64, 6)


def test_an_encoder_is_read_and_keeps_nothing(tmp_path: Path) -> None:
    facts = read(write_header(tmp_path / "m.gguf", MODELS["bert"]))
    assert facts.encoder
    assert (facts.kv_elements, facts.kv_heads, facts.recurrent_elements) == (0, (0,) * 12, 0)


@pytest.mark.parametrize(
    ("architecture", "said"), [("llada", {"attention__causal": False}), ("llama-embed", {}), ("t5", {})]
)
def test_what_neither_generates_nor_is_one_of_the_encoders_is_refused(
    tmp_path: Path, architecture: str, said: dict[str, bool]
) -> None:
    with pytest.raises(UnsupportedArchitecture, match=architecture) as refused:
        read(write(tmp_path / "m.gguf", architecture=architecture, **said))
    assert "nomic-bert" in refused.value.remedy


def test_a_reranker_without_the_layer_that_scores_is_damaged(tmp_path: Path) -> None:
    path = TinyEncoder(tmp_path / "m.gguf", pooling=PoolingType.RANK)
    assert read(path.write()).encoder
    headless = replace(MODELS["bert"], more={**MODELS["bert"].more, "pooling_type": 4})
    with pytest.raises(InvalidModel, match="reranker"):
        read(write_header(tmp_path / "headless.gguf", headless))


@pytest.mark.parametrize("named", [{"architecture": "clip"}, {"general__type": "mmproj"}])
def test_a_multimodal_projector_is_no_model(tmp_path: Path, named: dict[str, str]) -> None:
    with pytest.raises(UnsupportedArchitecture, match="projector") as refused:
        read(write(tmp_path / "mmproj.gguf", **named))
    assert "spec.model.projector" in refused.value.remedy


@pytest.mark.parametrize(
    ("scaling", "reaches"),
    [
        ({}, None),
        ({"rope__scaling__type": "yarn", "rope__scaling__factor": 4.0}, 2048),
        ({"rope__scaling__factor": 4.0, "rope__scaling__original_context_length": 128}, None),
        ({"rope__scaling__factor": 8.0, "rope__scaling__original_context_length": 128}, 1024),
        ({"rope__scaling__type": "none", "rope__scaling__factor": 4.0}, None),
        ({"rope__scale_linear": 2.0}, 1024),
        ({"rope__scaling__factor": float("nan")}, None),
    ],
)
def test_rope_scaling_reaches_further_than_training(
    tmp_path: Path, scaling: dict[str, Any], reaches: int | None
) -> None:
    facts = read(write(tmp_path / "m.gguf", **scaling))
    assert (facts.context_length, facts.scaled_context_length) == (512, reaches)


def shards(folder: Path) -> list[Path]:
    write_tiny_gguf(folder / "tiny.gguf", shard_tensors=8)
    return sorted(folder.glob("tiny-*.gguf"))


def test_shards_are_one_model(tmp_path: Path, tiny_file: Path) -> None:
    parts, whole = shards(tmp_path), read(tiny_file)
    together = read(*parts)
    assert len(parts) == 3
    assert together.file_name == "tiny-00001-of-00003.gguf"
    assert together.size_bytes == sum(part.stat().st_size for part in parts)
    assert (together.weights_bytes, together.parameter_count) == (whole.weights_bytes, whole.parameter_count)
    assert (together.kv_elements, together.activations) == (whole.kv_elements, whole.activations)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    first, _, last = shards(tmp_path)
    with pytest.raises(InvalidModel, match=r"3 shards, and tiny-00002-of-00003\.gguf is missing"):
        read(first, last)


def test_a_model_is_named_by_its_first_shard(tmp_path: Path) -> None:
    first, second, last = shards(tmp_path)
    with pytest.raises(InvalidModel, match="no first shard of 3") as refused:
        read(second, first, last)
    assert "-00001-of-00003.gguf" in refused.value.remedy
    first.rename(tmp_path / "renamed.gguf")
    with pytest.raises(InvalidModel, match=r"renamed\.gguf is no first shard"):
        read(tmp_path / "renamed.gguf", second, last)


def test_shards_that_were_mixed_up_are_told(tmp_path: Path) -> None:
    first, second, last = shards(tmp_path)
    third = last.read_bytes()
    last.write_bytes(second.read_bytes())
    with pytest.raises(InvalidModel, match=r"00003-of-00003\.gguf isn't shard 3"):
        read(first, second, last)
    last.write_bytes(third[:-1])
    with pytest.raises(InvalidModel, match=r"00003-of-00003\.gguf has .* cut off"):
        read(first, second, last)


def test_other_files_of_a_model_are_not_read(tmp_path: Path, tiny_file: Path) -> None:
    beside = tmp_path / "README.md"
    beside.write_text("no model")
    facts = read(tiny_file, beside)
    assert facts.size_bytes == tiny_file.stat().st_size + 8


def test_a_long_text_is_walked_over(tmp_path: Path) -> None:
    """Some files carry their whole tokenizer.json."""
    long = "x" * (MAX_KEPT_STRING + 1)
    path = write(
        tmp_path / "m.gguf",
        tokenizer__huggingface__json=long,
        tokenizer__chat_template=long,
        general__name=long,
    )
    facts = read(path)
    assert (facts.architecture, facts.name, facts.has_chat_template) == ("llama", None, True)


def test_a_vocabulary_of_ten_megabytes_is_walked_over(tmp_path: Path) -> None:
    tokens = [f"{number:042}" for number in range(200_000)]
    assert read(write(tmp_path / "m.gguf", tokenizer__ggml__tokens=tokens)).vocab_size == 200_000


def raw(entries: Sequence[tuple[bytes, bytes]]) -> list[File]:
    """A header of text entries, and nothing behind it."""
    body = b"".join(_text(key) + struct.pack("<I", 8) + _text(value) for key, value in entries)
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + body
    return [("m.gguf", len(data), [data])]


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([(b"general.name", b"a"), (b"", b"b")], "key without a name"),
        ([(b"general.name", b"a"), (b"general.name", b"b")], r"'general\.name' twice"),
        ([(b"general.architecture", b"\xff\xfe")], "no name of one"),
        ([(b"general.architecture", b"a\nb")], "no name of one"),
        ([(b"general.architecture", b"llama"), (b"general.type", b"vocab")], "of type 'vocab'"),
        ([(b"general.architecture", b"llama"), (b"general.type", b"adapter")], "has no tensors"),
    ],
)
def test_what_is_odd_is_refused_by_name(entries: list[tuple[bytes, bytes]], says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        model_facts(raw(entries))


def test_what_is_no_utf_8_is_read_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", general__name="a-name")
    path.write_bytes(path.read_bytes().replace(b"a-name", b"a\xff\0ame"))
    assert read(path).name == "a\ufffdame"


def test_more_heads_than_there_can_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="more than 4096 heads"):
        read(write(tmp_path / "m.gguf", attention__head_count_kv=MAX_HEADS + 1))


@given(st.dictionaries(st.sampled_from(LENGTHS), st.integers(0, (1 << 32) - 1)))
def test_any_numbers_give_facts_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, numbers: dict[str, int]
) -> None:
    path = tmp_path_factory.mktemp("odd") / "m.gguf"
    try:
        facts = read(write(path, **{key.replace(".", "__"): number for key, number in numbers.items()}))
    except ModelError:
        return
    assert all(
        0 <= number < MAX_NUMBER
        for number in (facts.kv_elements, facts.recurrent_elements, facts.activations)
    )
    assert len(facts.to_json()) < TERMINATION_MESSAGE_LIMIT


def test_the_longest_report_fits_a_termination_message() -> None:
    facts = ModelFacts(
        file_name="f" * 200,
        size_bytes=1 << 40,
        architecture="a" * 64,
        name="ü" * 200,
        weights_bytes=1 << 40,
        context_length=1 << 30,
        block_count=MAX_BLOCKS,
        embedding_length=1 << 16,
        head_count=MAX_HEADS,
        kv_heads=tuple(1000 + block for block in range(MAX_BLOCKS)),
        key_length=512,
        value_length=512,
        vocab_size=1 << 20,
        pin=SourcePin(revision="r" * 64, digest="0" * 64, path="p" * MAX_VARIANT),
        offered=("q" * MAX_NAME,) * MAX_NAMES,
        files=tuple(
            ModelFile(path="f" * 200 + str(n), size_bytes=1 << 40, sha256="0" * 64) for n in range(16)
        ),
    )
    for heads in (facts.kv_heads, (8,) * MAX_BLOCKS, (0, 0, 0, 8) * (MAX_BLOCKS // 4)):
        message = bounded_json(
            FetchReport(command="inspect", model=facts.model_copy(update={"kv_heads": heads}))
        )
        assert len(message) <= TERMINATION_MESSAGE_LIMIT
        report = FetchReport.model_validate_json(message)
        assert report.model is not None
        assert report.model.kv_heads == heads
        assert report.model.pin == facts.pin
    assert [len(each.path) for each in report.model.files] == [201] * 4
    assert {each.sha256 for each in report.model.files} == {None}


@given(st.lists(st.integers(0, MAX_HEADS), max_size=MAX_BLOCKS))
def test_runs_are_the_list(numbers: list[int]) -> None:
    written = to_runs(numbers)
    assert from_runs(written) == numbers
    assert isinstance(written, str) == (len(numbers) > 130)


@pytest.mark.parametrize("text", ["", "x", "3x", "x3", "9999x1", "5000x1,1", "-1", "1,,2", "1x1x1"])
def test_what_is_no_run_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="runs of numbers"):
        from_runs(text)
