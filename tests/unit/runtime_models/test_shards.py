"""Which files are meant, out of what a source has."""

import pytest

from slm_runtime.errors import SourceInvalid, SourceNotFound
from slm_runtime.models.sources.shards import Listed, choose, parts_of

MIB = 1 << 20
REPOSITORY = [
    Listed("README.md", 100),
    Listed("m-Q4_K_M.gguf", 4 * MIB),
    Listed("m-q8_0.gguf", 8 * MIB),
    Listed("BF16/m-BF16-00001-of-00002.gguf", 16 * MIB),
    Listed("BF16/m-BF16-00002-of-00002.gguf", 3 * MIB),
    Listed("mmproj-F16.gguf", MIB),
    Listed("m.imatrix.gguf", MIB),
]
BF16 = ("BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf")


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("m.gguf", ("m.gguf",)),
        ("a/m-00001-of-00001.gguf", ("a/m-00001-of-00001.gguf",)),
        ("m-00002-of-00002.gguf", ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")),
        ("m-00001-of-00002.GGUF", ("m-00001-of-00002.GGUF", "m-00002-of-00002.GGUF")),
        ("m-00003-of-00002.gguf", ("m-00003-of-00002.gguf",)),
        ("m-00000-of-00002.gguf", ("m-00000-of-00002.gguf",)),
        ("m-00000-of-00000.gguf", ("m-00000-of-00000.gguf",)),
        ("m-1-of-2.gguf", ("m-1-of-2.gguf",)),
        ("m-00001-of-00002.bin", ("m-00001-of-00002.bin",)),
        ("-00001-of-00002.gguf", ("-00001-of-00002.gguf",)),
    ],
)
def test_the_parts_of_a_name(path: str, parts: tuple[str, ...]) -> None:
    assert parts_of(path) == parts


def test_a_name_may_not_claim_any_number_of_parts() -> None:
    with pytest.raises(SourceInvalid, match="99999"):
        parts_of("m-00001-of-99999.gguf")


@pytest.mark.parametrize(
    ("path", "chosen"),
    [
        ("m-Q4_K_M.gguf", ("m-Q4_K_M.gguf",)),
        ("README.md", ("README.md",)),
        (BF16[0], BF16),
        (BF16[1], BF16),
        ("*Q4_K_M*", ("m-Q4_K_M.gguf",)),
        ("*Q8_0*", ("m-q8_0.gguf",)),
        ("*bf16*", BF16),
        ("BF16", BF16),
        ("BF16/*", BF16),
        ("m-BF16*", BF16),
        ("*-00002-of-*", BF16),
        ("m-q?_0.gguf", ("m-q8_0.gguf",)),
        ("mmproj-F16.gguf", ("mmproj-F16.gguf",)),
        ("*mmproj*", ("mmproj-F16.gguf",)),
        ("*F16*", BF16),
    ],
)
def test_one_model_is_chosen(path: str, chosen: tuple[str, ...]) -> None:
    assert choose(REPOSITORY, path, "hf://o/r").paths == chosen


def test_the_only_model_needs_no_name() -> None:
    only = [each for each in REPOSITORY if each.path.startswith(("BF16", "mmproj", "README", "m.imatrix"))]
    assert choose(only, None, "hf://o/r").paths == BF16


@pytest.mark.parametrize("path", [None, "*m-*"])
def test_several_models_are_told_apart_by_name_and_size(path: str | None) -> None:
    with pytest.raises(SourceInvalid) as caught:
        choose(REPOSITORY, path, "hf://o/r")
    assert "m-Q4_K_M.gguf (4.0 MiB), m-q8_0.gguf (8.0 MiB), BF16/m-BF16-00001-of-00002.gguf (19.0 MiB)" in (
        caught.value.message
    )
    assert "mmproj" not in caught.value.message
    assert "Name one" in caught.value.remedy


@pytest.mark.parametrize("path", ["m.gguf", "*Q5*", "BF", "BF16/m", "Q4_K_M"])
def test_what_is_not_there_is_answered_with_what_is(path: str) -> None:
    with pytest.raises(SourceNotFound) as caught:
        choose(REPOSITORY, path, "hf://o/r")
    assert path in caught.value.message
    assert "m-Q4_K_M.gguf" in caught.value.message


def test_a_list_of_many_ends_after_ten() -> None:
    files = [Listed(f"m{index:02}.gguf") for index in range(25)]
    with pytest.raises(SourceInvalid) as caught:
        choose(files, None, "hf://o/r")
    assert "m09.gguf and 15 more" in caught.value.message
    assert "m10" not in caught.value.message


def test_names_of_strangers_are_fit_for_a_message() -> None:
    files = [Listed("a\x1b[31m\n.gguf"), Listed("b" * 5000 + ".gguf")]
    with pytest.raises(SourceInvalid) as caught:
        choose(files, None, "hf://o/r")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


def test_a_model_of_which_parts_are_missing() -> None:
    files = [each for each in REPOSITORY if each.path != BF16[0]]
    for path in (BF16[0], BF16[1], "*bf16*"):
        with pytest.raises(SourceNotFound, match=r"1 of the 2 parts.*00001-of-00002.gguf isn't there"):
            choose(files, path, "hf://o/r")


@pytest.mark.parametrize("files", [[], [Listed("README.md")], [Listed("mmproj.gguf")]])
def test_a_source_without_a_model(files: list[Listed]) -> None:
    with pytest.raises(SourceNotFound, match="no model"):
        choose(files, None, "hf://o/r")


def test_a_pattern_that_would_go_back_and_forth_ends() -> None:
    files = [Listed("a" * 200 + ".gguf")]
    with pytest.raises(SourceNotFound):
        choose(files, "*a" * 40 + "b", "hf://o/r")
