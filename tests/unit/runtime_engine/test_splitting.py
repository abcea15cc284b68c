"""A long text is cut only where the tokenizer would begin anew anyway."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_runtime.engine.llama_cpp import splitting
from slm_runtime.engine.llama_cpp.splitting import Splitter

MARKS = ["<|a|>", "<|b|>", "\n\n\n", "\n\n", "\n", "ab", "bcd"]


def partition(text, marks):
    """What llama.cpp does: each mark in turn, the longest first, takes its places; what is left between is text."""
    fragments = [text]
    for mark in sorted(marks, key=len, reverse=True):
        cut = []
        for fragment in fragments:
            if fragment in marks:
                cut.append(fragment)
            else:
                cut += [part for part in re.split(f"({re.escape(mark)})", fragment) if part]
        fragments = cut
    return fragments


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(splitting, "_LEAST", 4)


@given(st.lists(st.sampled_from([*MARKS, "x", "b", "cd", "<|", "|>", " "]), max_size=30).map("".join))
def test_pieces_are_read_as_the_whole(text):
    pieces = list(Splitter(MARKS, cuts=MARKS).pieces(text))
    assert "".join(pieces) == text
    assert [one for piece in pieces for one in partition(piece, MARKS)] == partition(text, MARKS)


def test_a_text_of_marks_is_cut_into_short_pieces():
    pieces = list(Splitter(MARKS, cuts=MARKS).pieces("<|a|>" * 100))
    assert len(pieces) > 40
    assert all(piece.startswith("<|a|>") for piece in pieces)


def test_nothing_is_cut_ahead_of_a_mark_that_strips_blanks():
    assert list(Splitter(MARKS, cuts=["<|b|>"]).pieces("xxxx <|a|>" * 3)) == ["xxxx <|a|>" * 3]
    assert all(
        after.startswith("<|b|>")
        for _, after in pairwise(Splitter(MARKS, cuts=["<|b|>"]).pieces("xxxx <|a|> <|b|>" * 3))
    )


def test_a_vocabulary_without_marks_cuts_nothing():
    assert list(Splitter([], cuts=[]).pieces("x" * 50)) == ["x" * 50]
