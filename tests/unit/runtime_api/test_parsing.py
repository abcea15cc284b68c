# ruff: noqa: RUF001, ISC004
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_runtime.api.parsing import OutputParser, Part, Reasoning, Text, ToolCall, ToolFormat
from slm_runtime.api.tool_formats import FAMILIES, FORCED, GENERIC

FORMATS = {family.name: family for family in (*FAMILIES, FORCED)}
PARIS = ("weather", {"city": "Paris"})
ROME = ("weather", {"city": "Rome"})


def read(pieces: list[str], parser: OutputParser) -> tuple[str, str, list[tuple[str, dict[str, object]]]]:
    parts: list[Part] = [part for piece in pieces for part in parser.feed(piece)] + parser.finish()
    return (
        "".join(part.text for part in parts if isinstance(part, Text)),
        "".join(part.text for part in parts if isinstance(part, Reasoning)),
        [(part.name, part.arguments) for part in parts if isinstance(part, ToolCall)],
    )


WRITTEN = [
    (
        "generic",
        'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        "Let me look.\n",
        [PARIS],
    ),
    (
        "generic",
        '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>\n'
        '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>',
        "",
        [PARIS, ROME],
    ),
    ("generic", '<tool_call>\n{"name": "weather", "arguments": "{\\"city\\": \\"Paris\\"}"}', "", [PARIS]),
    ("llama", '{"name": "weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    ("llama", '\n<|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}', "", [PARIS]),
    (
        "llama",
        '{"name": "weather", "parameters": {"city": "Paris"}}; '
        '{"name": "weather", "parameters": {"city": "Rome"}}',
        "",
        [PARIS, ROME],
    ),
    ("llama", '{"an": "object"}', '{"an": "object"}', []),
    ("llama", "It rains.", "It rains.", []),
    (
        "mistral",
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}, '
        '{"name": "weather", "arguments": {"city": "Rome"}}]',
        "",
        [PARIS, ROME],
    ),
    (
        "mistral",
        '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]weather[CALL_ID]a1[ARGS]{"city": "Rome"}',
        "",
        [PARIS, ROME],
    ),
    ("phi", '<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}]<|/tool_call|>', "", [PARIS]),
    ("functools", 'functools[{"name": "weather", "arguments": {"city": "Paris"}}]', "", [PARIS]),
    (
        "deepseek",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n'
        '{"city": "Rome"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "",
        [PARIS, ROME],
    ),
    (
        "deepseek",
        '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜>",
        "",
        [PARIS],
    ),
    ("forced", '{"name": "weather", "arguments": {"city": "Paris"}}', "", [PARIS]),
    ("generic", "<tool_call>not json</tool_call> so", "<tool_call>not json</tool_call> so", []),
    ("generic", "<tool_call>not json", "<tool_call>not json", []),
    ("generic", "a < b <tool and <<tool_cal", "a < b <tool and <<tool_cal", []),
    ("generic", '<tool_call>{"name": 1}</tool_call>', '<tool_call>{"name": 1}</tool_call>', []),
    ("mistral", "[TOOL_CALLS]nonsense", "[TOOL_CALLS]nonsense", []),
]


@pytest.mark.parametrize(("family", "written", "text", "calls"), WRITTEN)
def test_calls_are_found_however_the_text_arrives(
    family: str, written: str, text: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    whole = read([written], OutputParser(FORMATS[family]))
    assert whole == (text, "", calls)
    assert read(list(written), OutputParser(FORMATS[family])) == whole


@pytest.mark.parametrize(
    ("written", "thinking", "text", "reasoning"),
    [
        ("<think>\nHm.\n</think>\n\nParis.", False, "Paris.", "Hm."),
        ("Hm.\n</think>\n\nParis.", True, "Paris.", "Hm."),
        ("Paris.", False, "Paris.", ""),
        ("<think>\n\n</think>\n\nParis.", False, "Paris.", ""),
        ("<thinker>", False, "<thinker>", ""),
        ("<think>Hm. </thin k>", False, "", "Hm. </thin k>"),
        ("<think></think>Paris </think>", False, "Paris </think>", ""),
        ("<thi", False, "<thi", ""),
        ("  \n", False, "  \n", ""),
    ],
)
def test_reasoning_is_split_off(written: str, thinking: bool, text: str, reasoning: str) -> None:
    whole = read([written], OutputParser(thinks=True, thinking=thinking))
    assert whole == (text, reasoning, [])
    assert read(list(written), OutputParser(thinks=True, thinking=thinking)) == whole


@pytest.mark.parametrize(
    ("pieces", "thinking", "tokens"),
    [
        (["<", "think", ">", "Hm", ".", "</think>", "\n\n", "Paris", "."], False, 6),
        (["Hm", ".", "</th", "ink>", "Paris", "."], True, 4),
        (["<think>Hm.</think>", "Paris", "."], False, 1),
        (["<", "b", "Paris"], False, 0),
        (["Paris", "."], False, 0),
        (["<think>", "Hm"], False, 2),
    ],
)
def test_the_tokens_of_reasoning_are_counted(pieces: list[str], thinking: bool, tokens: int) -> None:
    parser = OutputParser(thinks=True, thinking=thinking)
    parser.read([(piece, 1) for piece in pieces])
    assert parser.reasoning_tokens == tokens


def test_a_whole_answer_is_read_as_if_it_came_at_once() -> None:
    written = "<think>Hm. So.</think>Look: " + '<tool_call>{"name": "f", "arguments": {}}</tool_call>' * 2
    parts = OutputParser(GENERIC, thinks=True).read([(letter, 1) for letter in written])
    assert [type(part) for part in parts] == [Reasoning, Text, ToolCall, ToolCall]
    once = OutputParser(GENERIC, thinks=True, parallel=False).read([(written, 1)])
    assert [type(part) for part in once] == [Reasoning, Text, ToolCall]


def test_reasoning_then_calls() -> None:
    written = (
        '<think>Hm.</think>\n\n<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    )
    assert read(list(written), OutputParser(GENERIC, thinks=True)) == ("", "Hm.", [PARIS])
    llama = '<think>Hm.</think>\n\n{"name": "weather", "parameters": {"city": "Paris"}}'
    assert read(list(llama), OutputParser(FORMATS["llama"], thinks=True)) == ("", "Hm.", [PARIS])


def test_nothing_marked_is_plain() -> None:
    assert OutputParser().plain
    assert not OutputParser(GENERIC).plain
    assert not OutputParser(thinks=True).plain


def test_ids_are_what_mistrals_template_takes_back() -> None:
    (call,) = OutputParser(FORCED).feed("") + _finish('{"name": "f", "arguments": {}}')
    assert isinstance(call, ToolCall)
    assert len(call.id) == 9
    assert call.id.isalnum()


def _finish(text: str) -> list[Part]:
    parser = OutputParser(FORCED)
    return [*parser.feed(text), *parser.finish()]


MARKERS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "{",
    "}",
    '"name"',
    "[TOOL_CALLS]",
    "x",
    "\n",
    " ",
]


@given(
    pieces=st.lists(st.sampled_from(MARKERS) | st.text(max_size=3), max_size=20),
    family=st.sampled_from([None, *FORMATS.values()]),
)
def test_without_calls_or_reasoning_every_character_comes_out(
    pieces: list[str], family: ToolFormat | None
) -> None:
    text, _, calls = read(pieces, OutputParser(family))
    if not calls:
        assert text == "".join(pieces)


@given(text=st.text(st.sampled_from("<think>/\n x{}"), max_size=60), cut=st.integers(0, 60))
def test_where_the_text_is_cut_makes_no_difference(text: str, cut: int) -> None:
    def visible(pieces: list[str]) -> tuple[str, str]:
        said, thought, _ = read(pieces, OutputParser(GENERIC, thinks=True))
        return said, thought

    assert visible([text]) == visible([text[:cut], text[cut:]])
