"""Every pre-tokenizer of llama.cpp reads every text, and reads it as llama.cpp does where that can."""

import random
import subprocess
import sys
import tarfile

import pytest

from slm_runtime.engine.llama_cpp import bounding, sentences
from slm_runtime.engine.llama_cpp import vocabulary as llama_vocabulary
from slm_runtime.engine.llama_cpp.bounding import ITERATIVE, Bounds
from slm_runtime.engine.loading import EngineConfig
from slm_runtime.engine.supervisor import EngineSupervisor
from tests.cluster import wheel
from tests.runtime.engine.supervised import answer, ask
from tests.runtime.engine.vocabularies import vocabulary
from tests.support.gguf import write_tiny_gguf

pytestmark = pytest.mark.runtime

RECURSIVE = (
    "afmoe bailingmoe bloom cohere2moe deepseek-coder deepseek-llm deepseek-v3 default exaone-moe falcon "
    "gpt-4o gpt3-finnish granite-embed-multi-97m hunyuan-dense hy_v4 jais-2 joyai-llm kanana2 llada-moe llama4 "
    "minicpm5 minimax-m2 poro-chat seed-coder spark2_5 superbpe talkie tekken tiny_aya ufakzeka viking youtu "
).split()
WORDS = ["a", "B", "word", "Word", "é", "漢", "字", "½", "я", "1", "42", "12345"]
BETWEEN = [
    " ",
    "  ",
    "\n",
    "\n\n",
    ".",
    ",",
    "。",
    "-",
    "'s",
    "'",
    "\t",
    "!",
    "(",
    "/",
    "",
    " ",
    "\n",
    "<|im_end|>",
]


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """The path of a model with the pre-tokenizer of that name."""
    folder = tmp_path_factory.mktemp("vocabularies")
    return lambda pre: write_tiny_gguf(folder / f"{pre}.gguf", pre=pre, context_length=8192)


@pytest.mark.parametrize("pre", ["gpt-4o", "tekken", "deepseek-v3"])
async def test_a_run_of_one_character_is_answered(file_of, pre):
    config = EngineConfig(model_path=str(file_of(pre)), context_length=8192, parallel=1)
    supervisor = EngineSupervisor(config, backoff=0.01)
    await supervisor.start()
    try:
        await supervisor.ready()
        for run in "A \n-漢":
            events = await answer(supervisor, ask(run * 40_000, max_tokens=1))
            assert 40_000 // 16 <= events[-1].usage.prompt_tokens <= 40_000 // 16 + 5
        assert supervisor.restarts == 0
    finally:
        await supervisor.close()


def read(how, paths):
    """In a process of its own, with our way to tokenize or llama.cpp's."""
    command = [sys.executable, "-m", "tests.runtime.engine.vocabularies", how, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()[-1]


def test_no_run_ends_the_process(file_of):
    assert read("ours", [file_of(pre) for pre in (*RECURSIVE, "whitespace")]) == "read"


def test_the_pre_tokenizers_that_are_given_any_length_can_take_it(file_of):
    assert read("whole", [file_of(pre) for pre in sorted(ITERATIVE)]) == "read"


@pytest.mark.parametrize("pre", RECURSIVE)
def test_a_border_changes_no_token(file_of, pre):
    with vocabulary(file_of(pre)) as (_, whole):
        bounds = Bounds(pre, ["<|im_end|>"])
        borders = 0
        for seed in range(8):
            picked = random.Random(seed)
            text = "".join(picked.choice(WORDS) + picked.choice(BETWEEN) for _ in range(30))
            for place in bounds.borders(text, 1, len(text)):
                assert whole(text[:place]) + whole(text[place:]) == whole(text), (text[:place], text[place:])
                borders += 1
        assert borders


@pytest.mark.parametrize("pre", ["gpt-4o", "tekken", "deepseek-v3", "default", "tiny_aya"])
def test_a_text_is_read_as_llama_cpp_reads_it(file_of, pre, monkeypatch):
    monkeypatch.setattr(bounding, "MOST", 64)
    with vocabulary(file_of(pre)) as (ours, whole):
        for seed in range(10):
            picked = random.Random(seed)
            text = "".join(picked.choice(WORDS) + picked.choice([" ", ", ", ".\n"]) for _ in range(300))
            assert len(list(Bounds(pre, []).pieces(text))) > 10
            assert ours.tokenize(text, parse_special=True) == whole(text)


@pytest.mark.parametrize("digits", [198, 199, 200, 500, 1001])
def test_a_long_number_is_grouped_from_its_end(file_of, digits):
    text = f"a {'0123456789' * 101} b{'7' * digits} 12,345"
    with vocabulary(file_of("superbpe")) as (ours, whole):
        assert len(list(Bounds("superbpe", []).pieces(text))) > 10
        assert ours.tokenize(text, parse_special=True) == whole(text)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Vocabularies of llama.cpp's sources: blanks before texts, marks that take blanks along, neither."""
    folder = tmp_path_factory.mktemp("sentences")
    wanted = {f"ggml-vocab-{name}.gguf" for name in (*SENTENCE_PIECES, *INFILLING)}
    with tarfile.open(wheel.sdist()) as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            if name in wanted and "/vendor/llama.cpp/models/" in member.name:
                (folder / name).write_bytes(archive.extractfile(member).read())
                wanted.remove(name)
            if not wanted:
                break
    return folder


INFILLING = ("starcoder", "refact")
SENTENCE_PIECES = ("llama-spm", "phi-3", "baichuan")
SENTENCES = [*WORDS, " ", "  ", "😀", "\n", "\t", "\x01", " the", "</s>", "<|user|>", ".", "x"]


@pytest.mark.parametrize("name", SENTENCE_PIECES)
def test_a_long_text_is_read_as_a_short_one(sources, name, monkeypatch):
    monkeypatch.setattr(sentences, "SHORT", 16)
    monkeypatch.setattr(llama_vocabulary, "SHORT", 16)
    with vocabulary(sources / f"ggml-vocab-{name}.gguf") as (ours, whole):
        for seed in range(60):
            picked = random.Random(seed)
            text = "".join(picked.choice(SENTENCES) for _ in range(60))
            assert ours.tokenize(text, parse_special=True) == whole(text), text


@pytest.mark.parametrize("name", INFILLING)
def test_the_tokens_around_a_gap_are_found(sources, name):
    with vocabulary(sources / f"ggml-vocab-{name}.gguf") as (ours, _):
        marks = ours.infill
        tokens = (marks.prefix, marks.suffix, marks.middle)
        assert tuple(ours.piece(token, special=True) for token in tokens) == (
            b"<fim_prefix>",
            b"<fim_suffix>",
            b"<fim_middle>",
        )
    with vocabulary(sources / "ggml-vocab-phi-3.gguf") as (ours, _):
        assert ours.infill is None


@pytest.mark.parametrize("run", ["😀", "\x01", "a😀", "> 😀", "😀 "])
def test_what_is_no_token_is_cut(run):
    tokens = ["<s>", "</s>", "a", "\u2581a", "\u2581", ">", "aa"]
    pieces = list(sentences.Sentences(tokens, ["<s>", "</s>"]).pieces(run * 10_000))
    assert len(pieces) > 2
    assert max(map(len, pieces)) <= sentences.SHORT + 8
    assert "".join(pieces) == run * 10_000


def test_nothing_is_cut_for_a_pre_tokenizer_that_reads_any_length():
    assert list(Bounds("llama-bpe", []).pieces("A" * 40_000)) == ["A" * 40_000]


def test_no_piece_begins_or_ends_in_a_mark():
    text = ("x" * 40 + "<a1, b>") * 3000
    pieces = list(Bounds("gpt-4o", ["<a1, b>"]).pieces(text))
    assert len(pieces) > 3
    assert "".join(pieces) == text
    assert "".join(piece.replace("<a1, b>", "") for piece in pieces) == "x" * 40 * 3000
