# ruff: noqa: ISC004
"""What a model writes, taken apart: the same however it arrives, and in a time that is its length's."""

import json
from itertools import accumulate, cycle, islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_runtime.api.conversation import thoughts
from slm_runtime.api.conversation.growing import ToolCall
from slm_runtime.api.conversation.parsing import OutputParser, Part, Reasoning, Text
from slm_runtime.api.conversation.thoughts import HARMONY, MISTRAL, THINK
from slm_runtime.api.conversation.tool_formats import FAMILIES, FORCED, GENERIC
from tests.unit.runtime_api.written import FORMATS, OFFERED, PARIS, WRITTEN, parser_of, read, stream


@pytest.mark.parametrize(("family", "written", "text", "calls"), WRITTEN)
def test_calls_are_found_however_the_text_arrives(
    family: str, written: str, text: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    whole = read([written], parser_of(family))
    assert whole == (text, "", calls)
    assert read(list(written), parser_of(family)) == whole


@pytest.mark.parametrize(("family", "written", "text", "calls"), WRITTEN)
def test_calls_are_told_while_they_are_written_wherever_the_text_is_cut(
    family: str, written: str, text: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    """The same as a whole answer has; but what has begun as a call of a tool that is offered is one, and may break off."""
    letters = stream(list(written), parser_of(family))
    if not letters.broken:
        assert (letters.text, letters.reasoning) == (text, "")
        assert [(name, json.loads(told)) for name, told in letters.calls] == calls
    for place in range(len(written)):
        assert stream([written[:place], written[place:]], parser_of(family)) == letters


GROWN = [case for case in WRITTEN if case[3]]


@pytest.mark.parametrize("family", sorted(FORMATS))
def test_every_familys_calls_are_told_before_they_end(family: str) -> None:
    """But those whose arguments are JSON in a text, or none."""
    for one, written, _, calls in GROWN:
        if one != family or not all(arguments for _, arguments in calls):
            continue
        grown = stream(list(written), parser_of(family)).grown
        assert grown == len(calls) or '"{' in written


@pytest.mark.parametrize(
    ("family", "begun", "told"),
    [
        ("generic", '<tool_call>{"name": "weather", "arguments": {"city": "Par', '{"city": "Par'),
        ("generic", "<tool_call><function=weather><parameter=city>\nPar", '{"city":"Par'),
        ("mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Par\\', '{"city": "Par'),
        ("gemma", '<|tool_call>call:weather{days:3,city:<|"|>Par<|', '{"days":3,"city":"Par'),
        ("glm", "<tool_call>weather<arg_key>city</arg_key><arg_value>Par</", '{"city":"Par'),
        ("minicpm", '<function name="weather"><param name="city"><![CDATA[Par]]', '{"city":"Par'),
        ("lfm2", "<|tool_call_start|>[weather(city='Paris', days=", '{"city":"Paris"'),
        ("apertus", '<|tools_prefix|>[{"weather": {"city": "Par', '{"city": "Par'),
        (
            "harmony",
            '<|channel|>commentary to=functions.weather json<|message|>{"city": "Par',
            '{"city": "Par',
        ),
    ],
)
def test_a_call_that_breaks_off_ends_where_it_is(family: str, begun: str, told: str) -> None:
    for cut in (True, False):
        parser = parser_of(family)
        streamed = stream(list(begun), parser, cut=cut)
        assert (streamed.text, streamed.calls, streamed.broken) == ("", [("weather", told)], True)
        assert parser.called != cut


def test_a_call_that_is_no_tools_is_told_when_it_is_whole() -> None:
    written = '<tool_call>{"name": "other", "arguments": {"a": 1}}</tool_call>'
    told = stream(list(written), parser_of("generic"))
    assert (told.grown, told.calls) == (0, [("other", '{"a":1}')])


def test_what_follows_a_bare_call_is_text() -> None:
    call = '{"name": "weather", "parameters": {"city": "Paris"}}'
    for pieces in ([f"{call}\nI looked."], list(f"{call}\nI looked.")):
        assert read(pieces, parser_of("llama")) == ("I looked.", "", [PARIS])
        told = stream(pieces, parser_of("llama"))
        assert (told.text, len(told.calls)) == ("I looked.", 1)


@given(
    city=st.text(),
    days=st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    nested=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5),
    steps=st.lists(st.integers(1, 9), min_size=1, max_size=9),
    ascii_only=st.booleans(),
)
def test_any_arguments_grow_to_what_they_are(
    city: str, days: float, nested: object, steps: list[int], ascii_only: bool
) -> None:
    arguments = {"city": city, "days": days, "at": {"x": nested}}
    written = json.dumps({"name": "weather", "arguments": arguments}, ensure_ascii=ascii_only)
    python = (
        f"<|tool_call_start|>[weather(city={city!r}, days={days!r}, at={{'x': {nested!r}}})]<|tool_call_end|>"
    )
    for family, text in (("phi", f"<|tool_call|>[{written}]<|/tool_call|>"), ("lfm2", python)):
        if text.count("<|") > 2:
            continue
        ends = [*accumulate(islice(cycle(steps), len(text)), initial=0)]
        pieces = [text[start:end] for start, end in pairwise(ends)]
        for told in (stream(pieces, parser_of(family)), stream([text], parser_of(family))):
            ((name, told_arguments),) = told.calls
            assert (name, json.loads(told_arguments), told.text) == ("weather", arguments, "")


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
        parser = OutputParser(FORMATS["mistral"], OFFERED, thinks=MISTRAL, thinking=not begun)
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
    *(mark for family in thoughts.FAMILIES for mark in (family.begin, family.end, *family.silent)),
    *(mark for family in FAMILIES for mark in (family.begin, family.end) if mark),
    "to=functions.weather<|message|>{}",
    " " * 1030,
    "<|python_tag|>",
    '[weather(city="Rome")]',
    "x",
    "\n",
    " ",
]


@given(
    pieces=st.lists(st.sampled_from(MARKERS) | st.text(max_size=3), max_size=20),
    family=st.sampled_from([None, *(name for name in FORMATS if name != "forced")]),
)
def test_without_calls_or_reasoning_every_character_comes_out(pieces: list[str], family: str | None) -> None:
    """But of a call that is demanded: its pieces are out before it ends."""
    text, _, calls = read(pieces, OutputParser() if family is None else parser_of(family))
    if not calls:
        assert text == "".join(pieces)


@given(
    pieces=st.lists(st.sampled_from(MARKERS) | st.text(max_size=3), max_size=20),
    cuts=st.lists(st.integers(0, 200), max_size=4),
    family=st.sampled_from(sorted(FORMATS)),
    thinks=st.sampled_from([None, *thoughts.FAMILIES]),
    thinking=st.booleans(),
    cut=st.booleans(),
)
def test_where_the_text_is_cut_makes_no_difference(
    pieces: list[str],
    cuts: list[int],
    family: str,
    thinks: thoughts.Thoughts | None,
    thinking: bool,
    cut: bool,
) -> None:
    text = "".join(pieces)
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]

    def parser() -> OutputParser:
        opened = thinking and thinks is not None
        return OutputParser(FORMATS[family], OFFERED, thinks=thinks, thinking=opened)

    whole = read([text], parser(), cut=cut)
    assert read([text[start:end] for start, end in pairwise(at)], parser(), cut=cut) == whole
    assert read(list(text), parser(), cut=cut) == whole
    streamed = stream([text], parser(), cut=cut)
    assert stream([text[start:end] for start, end in pairwise(at)], parser(), cut=cut) == streamed
    assert stream(list(text), parser(), cut=cut) == streamed


HARMONY_PARTS = [
    (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Paris.<|return|>",
        "Paris.",
        "Hm.",
        [],
    ),
    ("<|channel|>final<|message|>Paris.", "Paris.", "", []),
    (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        '<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        "I look.",
        "Hm.",
        [PARIS],
    ),
    (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>analysis<|message|>So.<|end|>"
        '<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{"city": "Paris"}',
        "",
        "Hm.So.",
        [PARIS],
    ),
]


@pytest.mark.parametrize(("written", "text", "reasoning", "calls"), HARMONY_PARTS)
def test_channels_are_told_apart(
    written: str, text: str, reasoning: str, calls: list[tuple[str, dict[str, object]]]
) -> None:
    for pieces in ([written], list(written)):
        parser = OutputParser(FORMATS["harmony"], OFFERED, thinks=HARMONY)
        assert read(pieces, parser) == (text, reasoning, calls)


def test_gemmas_thoughts_and_calls() -> None:
    (gemma,) = (family for family in thoughts.FAMILIES if family.begin == "<|channel>thought")
    written = '<|channel>thought\nHm.\n<channel|><|tool_call>call:weather{city:<|"|>Paris<|"|>}<tool_call|>'
    parser = OutputParser(FORMATS["gemma"], OFFERED, thinks=gemma)
    assert read(list(written), parser) == ("", "Hm.", [PARIS])


@pytest.mark.parametrize(
    ("family", "thinks", "written", "text", "reasoning"),
    [
        ("generic", THINK, "Let me look.\n<tool_ca", "Let me look.\n", ""),
        ("generic", THINK, "<thi", "", ""),
        ("generic", THINK, "<think>Hm.</thin", "", "Hm."),
        ("generic", THINK, "1 <", "1 <", ""),
        ("generic", None, '{"name": "weather", "argu', "", ""),
        ("generic", None, '{"name": "Bob", "age', '{"name": "Bob", "age', ""),
        ("harmony", HARMONY, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assis", "", "Hm."),
        ("functools", None, "This is fun", "This is fun", ""),
    ],
)
def test_a_mark_that_is_cut_off_is_no_answer(
    family: str, thinks: thoughts.Thoughts | None, written: str, text: str, reasoning: str
) -> None:
    for pieces in ([written], list(written)):
        parser = OutputParser(FORMATS[family], OFFERED, thinks=thinks)
        assert read(pieces, parser, cut=True) == (text, reasoning, [])


@pytest.mark.parametrize("family", sorted({family.name for family in FAMILIES if family.begin}))
def test_what_never_ends_is_read_once(family: str) -> None:
    """Each of these would take minutes if a step cost as much as all that came before."""
    formats = FORMATS[family]
    pieces = [
        *(mark for one in formats for mark in (one.begin, one.end)),
        "<parameter=a>",
        "<arg_key>a</arg_key>",
    ]
    for piece in (*pieces, " ", "\n", '{"', "[", "<|tool_call_begin|>f{", '<invoke name="a">', "x(", '<|"|>'):
        parser = OutputParser(formats, OFFERED, thinks=THINK)
        opened = formats[0].begin or "["
        parser.read([(opened, 1), *[(piece * 1000, 1)] * 50], cut=True)
        OutputParser(formats, OFFERED, thinks=THINK).read([(piece * 1000, 1)] * 50)
