"""What may be derived of what, where it lies, and what becomes of the process that derives it."""

import sys
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig, Quantization
from slm_contract.report import FetchReport, ModelFacts, Origin
from slm_contract.source import ModelFile, SourcePin
from slm_runtime.errors import OutOfSpace, QuantizationFailed, QuantizerKilled, UnsupportedQuantization
from slm_runtime.fetching.quantize import Quantizer
from slm_runtime.fetching.verification import digests_of
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.quantization import FILE_TYPE, derived_name, is_derived, predicted
from slm_runtime.termination import bounded_json

MODEL = ModelConfig(name="m", source="https://host/m-f16.gguf")
PIN = SourcePin(revision="c0ffee", digest="1" * 64)
FACTS = ModelFacts(
    file_name="m.gguf",
    size_bytes=1000,
    architecture="llama",
    quantization="F16",
    weights_bytes=900,
    context_length=2048,
    block_count=2,
    embedding_length=64,
    head_count=2,
    kv_heads=(1, 1),
    key_length=32,
    value_length=32,
    vocab_size=300,
    files=(ModelFile(path="m.gguf", size_bytes=1000, sha256="a" * 64),),
)


def in_format(name: str | None, path: str = "m.gguf") -> ModelFacts:
    files = (ModelFile(path=path, size_bytes=1000),)
    return FACTS.model_copy(update={"file_name": path, "quantization": name, "files": files})


# Where it lies.


@pytest.mark.parametrize("pin", [None, PIN], ids=["by what is asked for", "by the bytes"])
def test_formats_of_one_source_stand_side_by_side(pin: SourcePin | None) -> None:
    plain = MODEL.model_copy(update={"pin": pin})
    asked = [plain, *(plain.model_copy(update={"quantization": each}) for each in Quantization)]
    assert len({each.folder for each in asked}) == len({each.key for each in asked}) == 1 + len(Quantization)


def test_one_format_of_the_same_bytes_has_one_folder_wherever_they_come_from() -> None:
    here = MODEL.model_copy(update={"pin": PIN, "quantization": Quantization.Q8_0})
    there = here.model_copy(update={"source": "hf://team/m/m-f16.gguf"})
    assert here.folder == there.folder
    assert here.key != there.key


def test_a_model_as_its_source_has_it_lies_where_earlier_versions_had_it() -> None:
    assert MODEL.folder == MODEL.key == "2efdd5fa05f06b1d"
    assert MODEL.model_copy(update={"pin": PIN}).folder == "1" * 16


def test_it_is_named_by_what_it_was_derived_from() -> None:
    assert derived_name("m-f16.gguf", Quantization.Q4_K_M) == "m-f16.Q4_K_M.gguf"
    assert derived_name("sub/m-00001-of-00003.gguf", Quantization.Q8_0) == "m.Q8_0.gguf"
    assert derived_name("sha256-abc", Quantization.Q8_0) == "sha256-abc.Q8_0.gguf"
    assert len(derived_name("m" * 1000 + ".gguf", Quantization.Q8_0)) < 200


# What may be derived.


@pytest.mark.parametrize("source", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("wanted", [Quantization.Q6_K, Quantization.Q4_K_M, Quantization.Q4_0])
def test_a_smaller_format_is_derived_of_a_larger_one(source: str, wanted: Quantization) -> None:
    assert is_derived(in_format(source), wanted)


@pytest.mark.parametrize("wanted", Quantization)
def test_what_the_source_has_is_not_derived(wanted: Quantization) -> None:
    assert not is_derived(in_format(wanted.value), wanted)


@pytest.mark.parametrize(
    ("source", "wanted", "words"),
    [
        ("Q8_0", Quantization.F16, "m.gguf is Q8_0, which is no larger than F16"),
        ("F16", Quantization.BF16, "no larger than BF16"),
        ("Q4_0", Quantization.Q8_0, "m.gguf is quantized already (Q4_0)"),
        ("Q6_K", Quantization.Q4_0, "quantized already (Q6_K)"),
        (None, Quantization.Q4_0, "quantized already (in a format without a name)"),
    ],
)
def test_any_other_is_refused_in_a_sentence(source: str | None, wanted: Quantization, words: str) -> None:
    with pytest.raises(UnsupportedQuantization) as caught:
        is_derived(in_format(source), wanted)
    assert words in caught.value.message
    assert "spec.model.quantization" in caught.value.remedy


def test_nothing_is_derived_of_what_is_encrypted() -> None:
    with pytest.raises(UnsupportedQuantization, match="is encrypted"):
        is_derived(in_format("F16", "m.gguf.age"), Quantization.Q4_0)


def test_each_format_is_one_that_llama_cpp_numbers() -> None:
    assert {each.value for each in Quantization} <= set(FILE_TYPE)


# What is known of it.


def test_what_will_be_served_is_told_with_what_it_is_made_of() -> None:
    facts = predicted(FACTS, Quantization.Q8_0, 500)
    assert (facts.quantization, facts.weights_bytes, facts.size_bytes) == ("Q8_0", 500, 600)
    assert facts.origin == Origin(quantization="F16", size_bytes=1000, files=FACTS.files)
    assert (facts.source_bytes, facts.source_files) == (1000, FACTS.files)
    assert digests_of(facts) == digests_of(FACTS) == ["a" * 64], "the source's files are what was signed"


def test_a_termination_message_spares_what_it_was_made_of_first() -> None:
    files = tuple(ModelFile(path=f"m-{each:03}.gguf", size_bytes=1, sha256="a" * 64) for each in range(60))
    model = predicted(FACTS.model_copy(update={"files": files}), Quantization.Q8_0, 500)
    told = FetchReport.model_validate_json(bounded_json(FetchReport(command="fetch", model=model)))
    assert told.model is not None
    assert told.model.origin == model.origin.model_copy(update={"files": ()})  # type: ignore[union-attr]


def test_a_checksum_in_the_spec_is_of_what_the_source_has(tmp_path: Path) -> None:
    asked = MODEL.model_copy(update={"sha256": "a" * 64, "quantization": Quantization.Q8_0})
    folder = ModelFolder(tmp_path, asked)
    folder.path.mkdir()
    origin = Origin(quantization="F16", size_bytes=1000, sha256="a" * 64)
    made = {"file_name": "m", "size_bytes": 3, "sha256": "b" * 64, "files": (), "origin": origin}
    facts = FACTS.model_copy(update=made)
    (folder.path / "m").write_bytes(b"abc")
    folder.publish(facts)
    assert folder.require().facts == facts


# The process.


def quantizer(script: str, **settings: float) -> Quantizer:
    """A process that does as it is told in place of the native library."""
    return Quantizer((sys.executable, "-c", f"import os, signal, sys, time; {script}"), **settings)


def run(played: Quantizer, target: Path) -> list[int]:
    grown: list[int] = []
    played.quantize(
        target.with_name("m.gguf"), target, Quantization.Q4_0, requantize=False, grown=grown.append
    )
    return grown


def test_it_is_told_what_to_do_and_tells_how_far_it_is(tmp_path: Path) -> None:
    target = tmp_path / "target"
    script = "open(sys.argv[2], 'w').write(' '.join(sys.argv[1:4])); print('{}')"
    grown = run(quantizer(script), target)
    assert target.read_text() == f"{tmp_path}/m.gguf {target} 2"
    assert sum(grown) == len(target.read_text())


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("os.abort()", QuantizationFailed, "llama.cpp crashed with SIGABRT when it made Q4_0 of m.gguf"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", QuantizationFailed, "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", QuantizerKilled, "was killed, as a rule for want of memory"),
        ("""print('{"error": "no such thing"}'); sys.exit(1)""", QuantizationFailed, "no such thing"),
        ("print('what?'); sys.exit(3)", QuantizationFailed, "its process ended with 3"),
        ("print('x' * 100_000); sys.exit(1)", QuantizationFailed, "its process ended with"),
    ],
)
def test_whatever_becomes_of_it_is_a_typed_error(
    tmp_path: Path, script: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        run(quantizer(script), tmp_path / "target")
    assert words in str(caught.value)


def test_one_that_stands_still_is_ended(tmp_path: Path) -> None:
    script = "open(sys.argv[2], 'w').write('abc'); time.sleep(3600)"
    with pytest.raises(QuantizationFailed, match=r"stopped making Q4_0 of m\.gguf, after 3 bytes"):
        run(quantizer(script, stall_seconds=1), tmp_path / "target")


def test_one_that_fills_the_volume_says_so(small_volume: Path) -> None:
    script = "open(sys.argv[2], 'wb').write(bytes(5 << 20))"
    with pytest.raises(OutOfSpace, match=r"no room for Q4_0 of m\.gguf"):
        run(quantizer(script), small_volume / "target")


def test_one_that_says_no_size_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(QuantizationFailed, match="doesn't say how large"):
        quantizer("print('{}')").weigh(tmp_path / "m.gguf", Quantization.Q4_0)
