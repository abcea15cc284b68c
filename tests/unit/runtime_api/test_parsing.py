# ruff: noqa: RUF001, ISC004
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_runtime.api.conversation.parsing import THOUGHTS, OutputParser, Part, Reasoning, Text, ToolCall
from slm_runtime.api.conversation.tool_formats import BARE, FAMILIES, FORCED, GENERIC

FORMATS = {
    **{family.name: (family, BARE) for family in FAMILIES},
    "llama": (*(family for family in FAMILIES if family.name in {"llama", "python"}), BARE),
    "forced": (FORCED,),
}
OFFERED = {
    "weather": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
}
THINK, MISTRAL_THINK = THOUGHTS
PARIS = ("weather", {"city": "Paris"})
ROME = ("weather", {"city": "Rome"})


def read(pieces: list[str], parser: OutputParser) -> tuple[str, str, list[tuple[str, dict[str, object]]]]:
    parts: list[Part] = [part for piece in pieces for part in parser.feed(piece)] + parser.finish()
    return (
        "".join(part.text for part in parts if isinstance(part, Text)),
        "".join(part.text for part in parts if isinstance(part, Reasoning)),
        [(part.name, part.arguments) for part in parts if isinstance(part, ToolCall)],
    )


def parser_of(family: str) -> OutputParser:
    return OutputParser(FORMATS[family], {} if family == "forced" else OFFERED)


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
    # Every family's own notation once more: nested arguments, other alphabets, marks inside of strings.
    (
        "generic",
        '<tool_call>{"name": "weather", "arguments": {"city": "Пари́ж\\n東京", "at": {"in": [1, {"x": null}]}}}'
        "</tool_call>",
        "",
        [("weather", {"city": "Пари́ж\n東京", "at": {"in": [1, {"x": None}]}})],
    ),
    (
        "generic",
        '<tool_call>\n{"name": "weather", "arguments": {"city": "a\nb"}}\n</tool_call>',
        "",
        [("weather", {"city": "a\nb"})],
    ),
    (
        "generic",
        '\n\n<tool_call>{"name": "weather", "parameters": {"city": "Paris"}}</tool_call>\n\nThat is it.',
        "\n\nThat is it.",
        [PARIS],
    ),
    ("generic", '<tool_call>[{"name": "weather", "arguments": {"city": "Paris"}}]</tool_call>', "", [PARIS]),
    (
        "generic",
        '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call><tool_call>{"name": "wea',
        '<tool_call>{"name": "wea',
        [PARIS],
    ),
    (
        "generic",
        '<tool_call>{"name": "weather", "arguments": {"city": NaN}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": NaN}}</tool_call>',
        [],
    ),
    (
        "generic",
        '<tool_call>{"name": "weather", "arguments": {"city": "\\ud800"}}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": {"city": "\\ud800"}}</tool_call>',
        [],
    ),
    # What is wanted as a number and written as text is read as a number.
    (
        "generic",
        '<tool_call>{"name": "weather", "arguments": {"city": "75", "days": "3"}}</tool_call>',
        "",
        [("weather", {"city": "75", "days": 3})],
    ),
    (
        "generic",
        "<tool_call>\n<function=weather>\n<parameter=city>\nParis\nand <b>\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        "",
        [("weather", {"city": "Paris\nand <b>", "days": 3})],
    ),
    ("generic", "<tool_call>\n<function=weather>\n</function>\n</tool_call>", "", [("weather", {})]),
    # Without marks, an answer that is nothing but a call of a tool that was offered.
    ("generic", '{"name": "weather", "arguments": {"city": "Paris"}}', "", [PARIS]),
    ("generic", '```json\n{\n  "name": "weather", "arguments": {"city": "Paris"}}\n```', "", [PARIS]),
    ("mistral", ' [{"name": "weather", "arguments": {"city": "Paris"}}]', "", [PARIS]),
    ("generic", '{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', []),
    ("llama", '{"name": "Bob", "parameters": {}}', '{"name": "Bob", "parameters": {}}', []),
    ("generic", '{"name": "weather"} is a call.', '{"name": "weather"} is a call.', []),
    ("generic", "```python\nprint()\n```", "```python\nprint()\n```", []),
    (
        "llama",
        'I look. <|python_tag|>{"name": "weather", "parameters": {"city": "Paris"}}',
        "I look. ",
        [PARIS],
    ),
    (
        "llama",
        '{"name": "weather", "parameters": {"city": "a; b"}}\n\n{\n"name": "weather", "parameters": {\n"city": "Rome"}}',
        "",
        [("weather", {"city": "a; b"}), ROME],
    ),
    (
        "llama",
        '[weather(city="Paris", days=3), weather(city="Rome")]',
        "",
        [
            ("weather", {"city": "Paris", "days": 3}),
            ROME,
        ],
    ),
    (
        "llama",
        "[weather(city='\\d', on=true, at={'x': [None, -1]})]",
        "",
        [("weather", {"city": "\\d", "on": True, "at": {"x": [None, -1]}})],
    ),
    ("llama", "[weather(__import__('os'))]", "[weather(__import__('os'))]", []),
    ("llama", "[weather(city=open('x'))]", "[weather(city=open('x'))]", []),
    ("llama", "[weather in Paris](https://example.org)", "[weather in Paris](https://example.org)", []),
    ("llama", "[weather(" + "(" * 5000, "[weather(" + "(" * 5000, []),
    ("mistral", 'Ok.[TOOL_CALLS]weather{"city": "Paris"}', "Ok.", [PARIS]),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "[ARGS]"}, "id": "abcdefghi"}]',
        "",
        [("weather", {"city": "[ARGS]"})],
    ),
    ("mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Par', '[TOOL_CALLS]weather[ARGS]{"city": "Par', []),
    (
        "phi",
        '<|tool_call|>[{"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}]'
        "<|/tool_call|>",
        "",
        [PARIS],
    ),
    ("functools", "Python has functools for this.", "Python has functools for this.", []),
]


@pytest.mark.parametrize(("family", "written", "text", "calls"), WRITTEN)
def test_calls_are_found_however_the_text_arrives(
    family: str, written: str, text: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    whole = read([written], parser_of(family))
    assert whole == (text, "", calls)
    assert read(list(written), parser_of(family)) == whole


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
    whole = read([written], OutputParser(thinks=THINK, thinking=thinking))
    assert whole == (text, reasoning, [])
    assert read(list(written), OutputParser(thinks=THINK, thinking=thinking)) == whole


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
    parser = OutputParser(thinks=THINK, thinking=thinking)
    parser.read([(piece, 1) for piece in pieces])
    assert parser.reasoning_tokens == tokens


def test_a_whole_answer_is_read_as_if_it_came_at_once() -> None:
    written = "<think>Hm. So.</think>Look: " + '<tool_call>{"name": "f", "arguments": {}}</tool_call>' * 2
    parts = OutputParser((GENERIC,), thinks=THINK).read([(letter, 1) for letter in written])
    assert [type(part) for part in parts] == [Reasoning, Text, ToolCall, ToolCall]
    once = OutputParser((GENERIC,), thinks=THINK, parallel=False).read([(written, 1)])
    assert [type(part) for part in once] == [Reasoning, Text, ToolCall]


def test_mistrals_reasoning() -> None:
    written = 'Hm: [TOOL_CALLS]weather[ARGS]{}[/THINK][TOOL_CALLS]weather[ARGS]{"city": "Paris"}'
    for begun in ("", "[THINK]"):
        parser = OutputParser(FORMATS["mistral"], OFFERED, thinks=MISTRAL_THINK, thinking=not begun)
        assert read(list(begun + written), parser) == ("", "Hm: [TOOL_CALLS]weather[ARGS]{}", [PARIS])


def test_reasoning_then_calls() -> None:
    written = (
        '<think>Hm.</think>\n\n<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    )
    assert read(list(written), OutputParser((GENERIC,), thinks=THINK)) == ("", "Hm.", [PARIS])
    llama = '<think>Hm.</think>\n\n{"name": "weather", "parameters": {"city": "Paris"}}'
    assert read(list(llama), OutputParser(FORMATS["llama"], OFFERED, thinks=THINK)) == ("", "Hm.", [PARIS])


def test_nothing_marked_is_plain() -> None:
    assert OutputParser().plain
    assert not OutputParser((GENERIC,)).plain
    assert not OutputParser(thinks=THINK).plain


def test_ids_are_what_mistrals_template_takes_back() -> None:
    *_, call = _finish('{"name": "f", "arguments": {}}')
    assert isinstance(call, ToolCall)
    assert len(call.id) == 9
    assert call.id.isalnum()


def _finish(text: str) -> list[Part]:
    parser = OutputParser((FORCED,))
    return [*parser.feed(text), *parser.finish()]


MARKERS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    '{"name": "weather", "arguments": {"city": "Paris"}}',
    '{"name"',
    "{",
    "}",
    "[",
    "]",
    "[TOOL_CALLS]",
    "weather[ARGS]",
    "<|python_tag|>",
    '[weather(city="Rome")]',
    "x",
    "\n",
    " ",
]


@given(
    pieces=st.lists(st.sampled_from(MARKERS) | st.text(max_size=3), max_size=20),
    family=st.sampled_from([None, *FORMATS]),
)
def test_without_calls_or_reasoning_every_character_comes_out(pieces: list[str], family: str | None) -> None:
    text, _, calls = read(pieces, OutputParser() if family is None else parser_of(family))
    if not calls:
        assert text == "".join(pieces)


@given(
    pieces=st.lists(st.sampled_from(MARKERS) | st.text(max_size=3), max_size=20),
    cuts=st.lists(st.integers(0, 200), max_size=4),
    family=st.sampled_from(sorted(FORMATS)),
)
def test_where_the_text_is_cut_makes_no_difference(pieces: list[str], cuts: list[int], family: str) -> None:
    text = "".join(pieces)
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]

    def parser() -> OutputParser:
        return OutputParser(FORMATS[family], OFFERED, thinks=THINK)

    whole = read([text], parser())
    assert read([text[start:end] for start, end in pairwise(at)], parser()) == whole
    assert read(list(text), parser()) == whole
