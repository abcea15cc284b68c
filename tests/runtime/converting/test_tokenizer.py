"""A tokenizer that is made of a vocabulary reads every text as llama.cpp does."""

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from slm_runtime.converting.gguf_file import open_gguf
from slm_runtime.converting.pre_tokenizers import STEPS
from slm_runtime.converting.tokenizer import read_vocabulary, tokenizer_json
from slm_runtime.errors import UnsupportedArchitecture
from tests.runtime.engine.vocabularies import vocabulary
from tests.support.gguf import write_tiny_gguf
from tests.support.models import smollm2

pytestmark = pytest.mark.runtime

HARD = [
    "",
    " ",
    "   x",
    "\n\n",
    "a\n\n b",
    "\t\tif x:\n\t\treturn 1\r\n",
    "Hello, world! It's I'll WE'RE can't 'S 'LL x's",
    "12345 1,234.56 ½ ²³ ٣٤",
    "é e\u0301 ñ ǆ \u017f '\u017f İ",
    "漢字かなカナ 한국어",
    "😀👩‍👩‍👧 🇩🇪 \U0010ffff",
    "\x01\x00\x7f\ufffd",
    "\u00a0\u3000\u2028x",
    "<|im_start|>user\nhi<|im_end|>\n",
    "</s> a </s>b <unk><s>",
    "a▁b ▁ Ġ <0x0A>",
    "foo_bar.baz(x)->y http://example.org/?a=b&c=%20",
    "a" * 200,
    " " * 50 + "x" + "-" * 77,
    "العربية עברית हिन्दी ไทย",
]
PARTS = [
    "a",
    "B",
    "word",
    "Word",
    "é",
    "漢",
    "½",
    "я",
    "1",
    "12345",
    " ",
    "  ",
    "\n",
    "\n\n",
    ".",
    ",",
    "。",
    "-",
]
PARTS += ["'s", "'", "\t", "!", "(", "/", "", "<|im_end|>", "😀", " the", "\r\n", "\u00a0", "▁"]


def texts() -> list[str]:
    picked = random.Random(0)
    return HARD + [
        "".join(picked.choice(PARTS) for _ in range(length)) for length in (4, 9, 30) for _ in range(60)
    ]


def made(path: Path) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(tokenizer_json(read_vocabulary(open_gguf(path).header))))


def agree(path: Path) -> None:
    ours = made(path)
    with vocabulary(path) as (_, whole):
        for text in texts():
            assert ours.encode(text, add_special_tokens=False).ids == whole(text), text


@pytest.mark.parametrize("pre", [None, *STEPS])
def test_a_tiny_vocabulary(pre: str | None, tmp_path: Path) -> None:
    agree(write_tiny_gguf(tmp_path / "tiny.gguf", pre=pre))


def test_a_real_vocabulary() -> None:
    agree(smollm2())


def test_what_is_read_is_written_again(tmp_path: Path) -> None:
    for pre in (None, "smollm"):
        ours = made(write_tiny_gguf(tmp_path / f"{pre}.gguf", pre=pre))
        for text in ("the word 漢字 x", "a  b\n😀"):
            assert ours.decode(ours.encode(text).ids) == text
            assert ours.encode(text).ids[0] == 1


def test_another_pre_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedArchitecture, match="'poro-chat'"):
        made(write_tiny_gguf(tmp_path / "tiny.gguf", pre="poro-chat"))
