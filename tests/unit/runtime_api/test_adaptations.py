"""Conversations that a family's template would lose or refuse, and what its model reads instead."""

from typing import Any

import msgspec
import pytest
from typing_extensions import override

from slm_runtime.templates.adaptations import calls_as_text, join_turns, one_call_each
from slm_runtime.templates.chat import ChatFormat
from slm_runtime.templates.renderer import TemplateFailed
from tests.unit.runtime_api.scripted import LOADED, Inline

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "",
            "parameters": {"type": "object", "properties": {}},
        },
    }
]
BARE_TURN = "[{{ m.role }}: {{ m.content }}]"


def call(city: str, **more: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "arguments": {"city": city}}, **more}


def calls(*made: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": list(made)}


def said(role: str, content: str, **more: str) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}" + BARE_TURN + "{% endfor %}"
)
"""Gemma's way: a user first, then turn by turn; a system message only at the head, a tool nowhere."""
HEADED = (
    "{% if messages[0].role == 'system' %}<{{ messages[0].content }}>{% set messages = messages[1:] %}{% endif %}"
    + ALTERNATING
)
LAST_SYSTEM = (
    "{% set ns = namespace(s='') %}{% for m in messages if m.role == 'system' %}{% set ns.s = m.content %}{% endfor %}"
    "<{{ ns.s }}>{% for m in messages if m.role != 'system' %}" + BARE_TURN + "{% endfor %}"
)
"""DeepSeek's way."""
SINGLE_CALLS = (
    "{% for t in tools or [] %}({{ t.function.name }}){% endfor %}"
    "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('single calls only') }}{% endif %}[{{ m.tool_calls[0].function | tojson }}]"
    "{% else %}" + BARE_TURN + "{% endif %}{% endfor %}"
)
"""Llama's way."""
SHORT_IDS = (
    "{% for t in tools or [] %}({{ t.function.name }}){% endfor %}"
    "{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id is not defined or c.id | length != 9 %}"
    "{{ raise_exception('IDs must have nine letters') }}{% endif %}[{{ c.id }} {{ c.function.arguments.values() | join }}]"
    "{% endfor %}{% if m.role == 'tool' %}{% if m.tool_call_id is not defined or m.tool_call_id | length != 9 %}"
    "{{ raise_exception('IDs must have nine letters') }}{% endif %}[{{ m.tool_call_id }} {{ m.content }}]"
    "{% elif not m.tool_calls %}" + BARE_TURN + "{% endif %}{% endfor %}"
)
"""Mistral's way."""
FORGETFUL = (
    "{% for t in tools or [] %}({{ t.function.name }}){% endfor %}{% for m in messages %}"
    + BARE_TURN
    + "{% endfor %}"
)
"""SmolLM's way: a turn is its text."""
PHI_4 = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}"
    + BARE_TURN
    + "{% endif %}{% endfor %}"
)
PHI_4_MINI = (
    "{% for m in messages %}{% if m.role == 'system' and 'tools' in m and m.tools is not none %}"
    "{{ '<|system|>' + m.content + '<|tool|>' + m.tools + '<|/tool|>' + '<|end|>' }}{% else %}"
    "{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
)


async def prompt(template: str, *messages: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> str:
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    chat = await ChatFormat.of(info, Inline())
    assert chat.problem is None
    return await chat.prompt(list(messages), tools=tools)


async def test_turns_alternate_where_they_must() -> None:
    talk = [
        said("user", "one"),
        said("user", "two"),
        said("assistant", "three"),
        said("assistant", "four"),
        said("user", "five"),
    ]
    assert await prompt(ALTERNATING, *talk) == "[user: one\n\ntwo][assistant: three\n\nfour][user: five]"
    assert (await prompt(FORGETFUL, *talk)).count("[user") == 3


async def test_no_instruction_is_lost() -> None:
    talk = [said("system", "A"), said("system", "B"), said("user", "one")]
    assert await prompt(LAST_SYSTEM, *talk) == "<A\n\nB>[user: one]"
    assert await prompt(HEADED, *talk) == "<A\n\nB>[user: one]"
    assert await prompt(ALTERNATING, *talk) == "[user: A\n\nB\n\none]"
    later = [*talk, said("assistant", "two"), said("system", "C"), said("user", "three")]
    assert await prompt(LAST_SYSTEM, *later) == "<A\n\nB>[user: one][assistant: two][user: C\n\nthree]"
    assert await prompt(HEADED, *later) == "<A\n\nB>[user: one][assistant: two][user: C\n\nthree]"


async def test_calls_side_by_side_go_one_by_one_where_they_must() -> None:
    talk = [
        said("user", "Weather?"),
        calls(call("Paris", id="1"), call("Rome", id="2")),
        said("tool", "sun", tool_call_id="2"),
        said("tool", "rain", tool_call_id="1"),
    ]
    written = await prompt(SINGLE_CALLS, *talk, tools=TOOLS)
    assert [written.index(word) for word in ("Paris", "rain", "Rome", "sun")] == sorted(
        written.index(word) for word in ("Paris", "rain", "Rome", "sun")
    )


async def test_a_call_without_its_result_is_still_shown() -> None:
    talk = [
        said("user", "Weather?"),
        calls(call("Paris", id="1"), call("Rome", id="2")),
        said("user", "Well?"),
    ]
    written = await prompt(SINGLE_CALLS, *talk, tools=TOOLS)
    assert written.index("Paris") < written.index("Rome") < written.index("Well?")


@pytest.mark.parametrize(
    ("first", "second"),
    [({"id": "call_0001"}, {"id": "call_000000000002"}), ({"id": ""}, {}), ({}, {})],
)
async def test_ids_are_what_the_template_takes(first: dict[str, str], second: dict[str, str]) -> None:
    def answer(text: str, of: dict[str, str]) -> dict[str, Any]:
        return said("tool", text, **({"tool_call_id": of["id"]} if of.get("id") else {}))

    talk = [
        said("user", "Weather?"),
        calls(call("Paris", **first), call("Rome", **second)),
        answer("rain", first),
        answer("sun", second),
    ]
    written = await prompt(SHORT_IDS, *talk, tools=TOOLS)
    of = {word: written.split(f" {word}]")[0].rsplit("[", 1)[1] for word in ("Paris", "Rome", "rain", "sun")}
    assert of["Paris"] == of["rain"] != of["Rome"] == of["sun"]
    assert all(len(one) == 9 and one.isalnum() for one in of.values())


@pytest.mark.parametrize("tools", [TOOLS, None])
@pytest.mark.parametrize("template", [FORGETFUL, PHI_4, PHI_4_MINI, ALTERNATING, HEADED, LAST_SYSTEM])
async def test_calls_and_results_are_read_again(template: str, tools: list[dict[str, Any]] | None) -> None:
    talk = [
        said("user", "Weather?"),
        calls(call("Paris", id="1")),
        said("tool", "rain", tool_call_id="1"),
        said("assistant", "It rains."),
        said("user", "Sure?"),
    ]
    written = await prompt(template, *talk, tools=tools)
    places = [written.index(word) for word in ("Weather?", '"Paris"', "rain", "It rains.", "Sure?")]
    assert places == sorted(places)


async def test_phi_reads_its_calls_as_it_writes_them() -> None:
    written = await prompt(
        PHI_4_MINI, said("user", "Weather?"), calls(call("Paris", id="1")), said("tool", "rain"), tools=TOOLS
    )
    call_text = '<|tool_call|>[{"name":"weather","arguments":{"city":"Paris"}}]<|/tool_call|>'
    assert f"<|assistant|>{call_text}<|end|><|tool|>rain<|end|>" in written


async def test_smollm_calls_its_tools_xml_tools() -> None:
    template = (
        "{% for t in xml_tools or [] %}<{{ t | string }}>{% endfor %}" + FORGETFUL.split("{% endfor %}", 1)[1]
    )
    written = await prompt(template, said("user", "Weather?"), tools=TOOLS)
    assert "weather" in written
    assert "You can call functions" not in written


async def test_each_template_of_a_model_gets_its_own() -> None:
    templates = {"default": FORGETFUL, "tool_use": SHORT_IDS}
    chat = await ChatFormat.of(msgspec.structs.replace(LOADED, chat_templates=templates), Inline())
    talk = [said("user", "Weather?"), calls(call("Paris", id="abcdefghi"))]
    assert await chat.prompt(talk, tools=TOOLS) == "(weather)[user: Weather?][abcdefghi Paris]"
    assert "<tool_call>" in await chat.prompt(talk)


async def test_a_template_without_an_end_is_asked_once() -> None:
    class Slow(Inline):
        asked = 0

        @override
        async def render(self, template: str, variables: dict[str, Any]) -> str:
            self.asked += 1
            raise TemplateFailed("time", "it took longer than 3 s")

    slow = Slow()
    chat = await ChatFormat.of(LOADED, slow)
    assert "took longer" in (chat.problem or "")
    assert slow.asked == 1


def test_long_conversations_are_adapted_in_linear_time() -> None:
    """Each of these would take minutes if what comes later cost more."""
    turns = [said("user", "x" * 25) for _ in range(300_000)]
    (joined,) = join_turns(turns)
    assert len(joined["content"]) == 27 * 300_000 - 2
    count = 100_000
    talk = [calls(*[call("Paris", id="x")] * count), *[said("tool", "", tool_call_id="y")] * count]
    assert len(one_call_each(talk)) == 2 * count


def test_results_follow_their_calls_whatever_their_order() -> None:
    made = [call(one, id=one) for one in ("a", "b", "c")]
    results = [said("tool", one, tool_call_id=one) for one in ("c", "z", "a")]
    told = one_call_each([calls(*made), *results])
    assert [m["content"] if m["role"] == "tool" else m["tool_calls"][0]["id"] for m in told] == [
        "a",
        "a",
        "b",
        "c",
        "c",
        "z",
    ]


def test_what_led_to_a_call_stays_where_the_call_becomes_text() -> None:
    thought = {**calls(call("Paris")), "reasoning_content": "Where? There."}
    (written,) = calls_as_text([thought])
    assert written["reasoning_content"] == "Where? There."
    assert "tool_calls" not in written
    assert '"city":"Paris"' in written["content"]
