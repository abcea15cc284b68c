"""Calls as each family of models writes them, and what they are read as."""

# ruff: noqa: RUF001, ISC004
import json
from dataclasses import dataclass, field

from slm_runtime.api.conversation.growing import CallPiece, ToolCall
from slm_runtime.api.conversation.parsing import OutputParser, Part, Reasoning, Text
from slm_runtime.api.conversation.tool_formats import BARE, FAMILIES, FORCED

FORMATS = {
    **{
        name: (*(family for family in FAMILIES if family.name == name), BARE)
        for name in {family.name: None for family in FAMILIES}
    },
    "llama": (*(family for family in FAMILIES if family.name in {"llama", "python"}), BARE),
    "forced": (FORCED,),
}
OFFERED = {
    "weather": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
}
PARIS = ("weather", {"city": "Paris"})
PARIS_3 = ("weather", {"city": "Paris", "days": 3})
ROME = ("weather", {"city": "Rome"})
NESTED = ("weather", {"city": "a\nb", "at": {"x": [True]}})


def read(
    pieces: list[str], parser: OutputParser, *, cut: bool = False
) -> tuple[str, str, list[tuple[str, dict[str, object]]]]:
    """An answer of whole calls."""
    parser.whole_calls = True
    parts: list[Part] = [part for piece in pieces for part in parser.feed(piece)] + parser.finish(cut=cut)
    assert not [part for part in parts if isinstance(part, CallPiece)]
    return (
        "".join(part.text for part in parts if isinstance(part, Text)),
        "".join(part.text for part in parts if isinstance(part, Reasoning)),
        [(part.name, part.arguments) for part in parts if isinstance(part, ToolCall)],
    )


@dataclass
class Streamed:
    """What a client has in the end of a stream."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Names, and arguments as they were told, in the order in which they began."""
    grown: int = 0
    """Calls that came in pieces."""
    broken: bool = False
    """The last call has no end."""


def stream(pieces: list[str], parser: OutputParser, *, cut: bool = False) -> Streamed:
    """Put the parts together as clients do; each call is told once, and in one go."""
    told = Streamed()
    open_call = ""
    seen: set[str] = set()
    for part in [part for piece in pieces for part in parser.feed(piece)] + parser.finish(cut=cut):
        if isinstance(part, CallPiece):
            if open_call != part.id:
                assert part.id not in seen
                assert part.text == ""
                told.calls.append((part.name, ""))
                told.grown += 1
            open_call = part.id
            name, before = told.calls[-1]
            assert name == part.name
            told.calls[-1] = (name, before + part.text)
            seen.add(part.id)
        elif isinstance(part, ToolCall):
            if open_call == part.id:
                assert json.loads(told.calls[-1][1]) == json.loads(part.arguments_text)
            else:
                assert part.id not in seen
                told.calls.append((part.name, part.arguments_text))
            open_call = ""
        elif isinstance(part, Text):
            told.text += part.text
        else:
            told.reasoning += part.text
    told.broken = bool(open_call)
    return told


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
    ("lfm2", '<|tool_call_start|>[weather(city="Paris", days=3)]<|tool_call_end|>Look.', "Look.", [PARIS_3]),
    ("lfm2", "<|tool_call_start|>[weather(city='a\\nb', at={'x': [true]})]<|tool_call_end|>", "", [NESTED]),
    (
        "lfm2",
        '<|tool_call_start|>[{"name": "weather", "arguments": {"city": "Paris"}}]<|tool_call_end|>',
        "",
        [PARIS],
    ),
    ("granite", '<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}]', "", [PARIS]),
    (
        "harmony",
        '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        "",
        [PARIS],
    ),
    ("harmony", ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Paris"}', "", [PARIS]),
    (
        "harmony",
        '<|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{"city": "Rome"}<|call|>',
        "",
        [ROME],
    ),
    ("gemma", '<|tool_call>call:weather{city:<|"|>Paris<|"|>,days:3}<tool_call|>', "", [PARIS_3]),
    (
        "gemma",
        '<|tool_call>call:weather{at:{<|"|>x<|"|>:[true]},city:<|"|>a\nb<|"|>}<tool_call|>',
        "",
        [("weather", {"at": {"x": [True]}, "city": "a\nb"})],
    ),
    ("gemma", '<|tool_call>call:weather{city:<|"|>Par', '<|tool_call>call:weather{city:<|"|>Par', []),
    (
        "functiongemma",
        "<start_function_call>call:weather{city:<escape>Paris<escape>}<end_function_call>",
        "",
        [PARIS],
    ),
    (
        "command",
        '<|START_ACTION|>[\n{"tool_call_id": "0", "tool_name": "weather", "parameters": {"city": "Paris"}}\n]<|END_ACTION|>',
        "",
        [PARIS],
    ),
    (
        "command-r",
        'Action:\n```json\n[{"tool_name": "weather", "parameters": {"city": "Paris"}}]```',
        "",
        [PARIS],
    ),
    ("apertus", '<|tools_prefix|>[{"weather": {"city": "Paris"}}]<|tools_suffix|>', "", [PARIS]),
    ("listed", '<tool_calls>[{"name": "weather", "arguments": {"city": "Paris"}}]</tool_calls>', "", [PARIS]),
    ("nemotron", '<TOOLCALL>[{"name": "weather", "arguments": {"city": "Paris"}}]</TOOLCALL>', "", [PARIS]),
    ("gigachat", '<|function_call|>{"name": "weather", "arguments": {"city": "Paris"}}', "", [PARIS]),
    (
        "kimi",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.weather:1<|tool_call_argument_begin|>'
        '{"city": "Rome"}<|tool_call_end|><|tool_calls_section_end|>',
        "",
        [PARIS, ROME],
    ),
    (
        "minimax",
        '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n</minimax:tool_call>',
        "",
        [PARIS_3],
    ),
    (
        "seed",
        "<seed:tool_call>\n<function=weather>\n<parameter=city>Paris</parameter>\n</function>\n</seed:tool_call>",
        "",
        [PARIS],
    ),
    (
        "minicpm",
        '<function name="weather"><param name="city">Paris</param></function>'
        '<function name="weather"><param name="city"><![CDATA[a<b]]></param></function>',
        "",
        [PARIS, ("weather", {"city": "a<b"})],
    ),
    (
        "glm",
        "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>",
        "",
        [PARIS_3],
    ),
    ("glm", "<tool_call>no call</tool_call>", "<tool_call>no call</tool_call>", []),
    ("functionary", '<function=weather>{"city": "Paris"}</function>', "", [PARIS]),
]
