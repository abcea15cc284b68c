"""What tokens stand for, by the kind of tokenizer.json."""

import pytest
from tokenizers import decoders, pre_tokenizers

from slm_runtime.engine.onnx.pieces import reader

BYTES = {"decoder": {"type": "ByteLevel"}}
SENTENCES = {
    "decoder": {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ],
    }
}
WORDS = {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}


def test_characters_stand_for_bytes_as_the_library_has_them():
    read = reader(BYTES)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    assert {read(character)[0] for character in alphabet} == set(range(256))
    for text in ("Ġword", "Ã¶", "Ċ"):
        assert read(text).decode() == decoders.ByteLevel().decode([text])


@pytest.mark.parametrize(
    ("document", "token", "expected"),
    [
        (SENTENCES, "▁the", b" the"),
        (SENTENCES, "<0xC3>", b"\xc3"),
        (SENTENCES, "<0xZZ>", b"<0xZZ>"),
        (WORDS, "##ing", b"ing"),
        (WORDS, "word", b" word"),
        (
            {
                "decoder": None,
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]},
            },
            "Ġa",
            b" a",
        ),
    ],
)
def test_each_kind_is_read_as_it_writes(document, token, expected):
    assert reader(document)(token) == expected
