"""Go templates as chat templates: the same texts as Go's, and by line what can't be."""

import random

import pytest

from slm_contract.gotemplate import TemplateRefused, passes_through, translate
from slm_runtime.templates.environment import make_environment
from tests.support.go_templates import CONVERSATIONS, TOOLS, stored


def rendered(template: str, conversation: str = "a question", **variables: object) -> str:
    source = translate(template)
    return make_environment().from_string(source).render(messages=CONVERSATIONS[conversation], **variables)


@pytest.mark.parametrize("name", stored())
def test_the_text_is_what_go_writes(name: str) -> None:
    template, texts = stored()[name]["template"], stored()[name]["texts"]
    assert len(texts) == 2 * len(CONVERSATIONS)
    for each, text in texts.items():
        conversation, _, offered = each.partition(" + ")
        assert rendered(template, conversation, tools=TOOLS if offered else None) == text, each


def test_switches_of_reasoning_are_known_by_their_names() -> None:
    template = (
        "{{ range .Messages }}{{ end }}"
        "{{ if .IsThinkSet }}{{ if .Think }}/think{{ else }}/no{{ end }}{{ end }}{{ .ThinkLevel }}"
    )
    assert rendered(template) == ""
    assert rendered(template, enable_thinking=False) == "/no"
    assert rendered(template, enable_thinking=True, reasoning_effort="high") == "/thinkhigh"


def test_json_is_written_as_it_is() -> None:
    call = {"function": {"name": "f", "arguments": {"b": "<&>", "a": [1, {"x": None}]}}}
    source = translate(
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Arguments }}{{ end }}{{ end }}"
    )
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    assert (
        make_environment().from_string(source).render(messages=messages) == '{"a":[1,{"x":null}],"b":"<&>"}'
    )


@pytest.mark.parametrize(
    ("template", "line", "why"),
    [
        ("{{ if .System }}", 1, "'if' has no 'end'"),
        ("a\n{{ range .Messages }}\n", 2, "'range' has no 'end'"),
        ("{{ end }}", 1, "'end' belongs to no block"),
        ("{{ else }}", 1, "'else' belongs to no block"),
        ("{{ if .System }}{{ else }}{{ else }}{{ end }}", 1, "two 'else'"),
        ("\n\n{{ .Prompt", 3, "a {{ has no }}"),
        ("{{ }}", 1, "an action is empty"),
        ("{{ .Prompt ! }}", 1, "'! }}' is not understood"),
        ('{{ define "x" }}{{ end }}', 1, "a template of several"),
        ('{{ template "x" }}', 1, "a template of several"),
        ("{{ yesterdayDate }}", 1, "the function 'yesterdayDate' has no counterpart"),
        ("{{ .Prompt }}\n{{ .Unknown }}", 2, ".Unknown is nothing that a conversation has"),
        ("{{ range .Messages }}{{ .Images }}{{ end }}", 1, "Messages[].Images is nothing"),
        ("{{ .Prompt.Length }}", 1, ".Length is asked of a text"),
        ("{{ $x }}", 1, "$x is declared nowhere above"),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", 1, "$x is declared nowhere above"),
        ("{{ $x = 1 }}", 1, "$x is declared nowhere above"),
        ("{{ range .Prompt }}{{ end }}", 1, "a range goes through a list or a map"),
        ("{{ break }}", 1, "'break' stands outside of a range"),
        ("{{ printf .Prompt }}", 1, "'printf' needs its layout as a constant"),
        ('{{ printf "%q" .Prompt }}', 1, "'printf' is understood with %s, %v and %d"),
        ("{{ slice .Prompt 0 3 }}", 1, "'slice' of a text counts bytes"),
        ("{{ index .Prompt 0 }}", 1, "'index' of a text counts bytes"),
        ("{{ len }}", 1, "'len' is given too few or too many values"),
        ("{{ eq 1 }}", 1, "'eq' is given too few or too many values"),
        ("{{ . }}", 1, "no value of its own"),
        ("{{ .Prompt | .System }}", 1, "has to be a function"),
        ("{{ (.Prompt }}", 1, "a ( has no )"),
        ("x" * 70_000, 1, "it is longer than 65536 characters"),
        ("{{ if .Prompt }}" * 100, 1, "blocks are nested too deeply"),
        ("{{" + "(" * 100 + "}}", 1, "a value is made of too many others"),
        ("{{ .Prompt" + "| print" * 100 + "}}", 1, "a value is made of too many others"),
        ("{{" + ".A" * 100 + "}}", 1, "a value is made of too many others"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_line(template: str, line: int, why: str) -> None:
    with pytest.raises(TemplateRefused) as caught:
        translate(template)
    assert caught.value.line == line
    assert why in caught.value.why


def test_damaged_templates_are_refused_or_make_templates() -> None:
    """Nothing else than a refusal, and never a template that Jinja can't read."""
    draw = random.Random(7)
    words = '{{ }} {{- -}} if else end range .Messages .Content $x := = | ( ) , "a" 1 eq with $ . not { % \n'.split(
        " "
    )
    environment, whole = make_environment(), [each["template"] for each in stored().values()]
    read = 0
    for _ in range(1500):
        text = draw.choice(whole)
        for _ in range(draw.randint(1, 3)):
            at = draw.randrange(len(text) + 1)
            text = text[:at] + draw.choice(words) + text[at + draw.randint(0, 5) :]
        try:
            source = translate(text)
        except TemplateRefused:
            continue
        environment.parse(source)
        read += 1
    assert read > 100


def test_what_passes_the_prompt_through_is_known() -> None:
    assert passes_through("{{ .Prompt }}")
    assert passes_through(" {{- .Prompt -}}\n{{ .Response }}")
    assert not passes_through("{{ .System }} {{ .Prompt }}")
    assert not passes_through("User: {{ .Prompt }}")
    assert not passes_through("{{ range .Messages }}{{ .Content }}{{ end }}")
