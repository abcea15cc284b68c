import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from slm_runtime.templates.adaptations import fold_systems
from slm_runtime.templates.chat import CHATML, ChatFormat
from slm_runtime.templates.renderer import TemplateFailed, TemplateRenderer, _ask
from tests.unit.runtime_api.scripted import LOADED, MODEL, Inline, ScriptedEngine, exchange, post, running

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
async def renderer() -> AsyncIterator[TemplateRenderer]:
    it = TemplateRenderer(render_seconds=1)
    yield it
    await it.close()


async def chat_format(template: str, **more: str) -> ChatFormat:
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template, **more})
    return await ChatFormat.of(info, Inline())


async def test_a_process_renders(renderer: TemplateRenderer) -> None:
    text = await renderer.render(
        "{{ bos_token }}{{ messages[0].content }}é", {"bos_token": "<s>", "messages": HI}
    )
    assert text == "<s>Hié"


@pytest.mark.parametrize(
    ("template", "kinds"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", {"time"}),
        ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", {"size", "time"}),
        (
            "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            {"size", "time"},
        ),
        ("{{ 'x' * 10000000000 }}", {"size"}),
        ("{{ '%10000000000d' % 1 }}", {"size", "render"}),
        ("{{ 9 ** 99999999 }}", {"time"}),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", {"size"}),
        ("{{ ''.__class__.__mro__ }}", {"render"}),
        ("{{ messages.append(1) }}", {"render"}),
        ("{{ cycler.__init__.__globals__ }}", {"render"}),
        ("{% if %}", {"syntax"}),
        ("{{ raise_exception('No such role') }}", {"refused"}),
        ("{{ nothing.there }}", {"render"}),
        ("{{ '\\ud800' }}", {"render"}),
    ],
)
async def test_a_hostile_template_is_bounded_and_the_next_one_works(
    renderer: TemplateRenderer, template: str, kinds: set[str]
) -> None:
    with pytest.raises(TemplateFailed) as caught:
        await renderer.render(template, {"messages": HI})
    assert caught.value.kind in kinds, caught.value.message
    assert await renderer.render("{{ 1 + 1 }}", {}) == "2"


async def test_who_ends_the_process_ends_no_rendering(renderer: TemplateRenderer) -> None:
    assert await renderer.render("x", {}) == "x"
    assert renderer._process is not None
    renderer._process.kill()
    answers = await asyncio.gather(*(renderer.render("{{ i }}", {"i": i}) for i in range(20)))
    assert answers == [str(i) for i in range(20)]


async def test_who_goes_while_the_process_starts_hinders_nobody(
    renderer: TemplateRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, go_on = asyncio.Event(), asyncio.Event()
    start = asyncio.create_subprocess_exec

    async def slow_start(*args: Any, **options: Any) -> asyncio.subprocess.Process:
        starting.set()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            # As asyncio does where the child has ended before its pipes are connected.
            await asyncio.Event().wait()
        return await start(*args, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slow_start)
    gone = asyncio.create_task(renderer.render("x", {}))
    await starting.wait()
    gone.cancel()
    go_on.set()
    async with asyncio.timeout(60):
        assert await renderer.render("x", {}) == "x"
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_template_that_ends_its_process_is_told(
    renderer: TemplateRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(process: asyncio.subprocess.Process, request: bytes) -> bytes:
        if b"deadly" in request:
            process.kill()
        return await _ask(process, request)

    monkeypatch.setattr("slm_runtime.templates.renderer._ask", ask)
    with pytest.raises(TemplateFailed, match="ended the process"):
        await renderer.render("deadly", {})
    assert await renderer.render("x", {}) == "x"


async def test_the_dialect_of_chat_templates() -> None:
    inline = Inline()
    source = (
        "{%- for m in messages %}\n"
        "    {%- if m.role == 'skip' %}{% continue %}{% endif %}\n"
        "    {%- generation %}{{ m | tojson }}{% endgeneration %}\n"
        "{%- endfor %}{{ strftime_now('%Y') | length }}"
    )
    messages = [{"role": "skip"}, {"role": "user", "content": "<é>"}]
    assert await inline.render(source, {"messages": messages}) == '{"role": "user", "content": "<é>"}4'


async def test_a_model_without_a_template_gets_chatml() -> None:
    info = msgspec.structs.replace(LOADED, chat_templates={})
    chat = await ChatFormat.of(info, Inline())
    assert chat.template == CHATML
    assert await chat.prompt(HI) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


TURN = "[{{ m.role }}: {{ m.content }}]"


@pytest.mark.parametrize(
    "template",
    [
        # Refuses, as Gemma's does; forgets, as some do.
        f"{{% for m in messages %}}{{{{ raise_exception('no') if m.role == 'system' }}}}{TURN}{{% endfor %}}",
        f"{{% for m in messages if m.role != 'system' %}}{TURN}{{% endfor %}}",
    ],
)
async def test_a_system_message_always_arrives(template: str) -> None:
    chat = await chat_format(template)
    assert fold_systems in chat.adaptations
    assert await chat.prompt([{"role": "system", "content": "Be brief."}, *HI]) == "[user: Be brief.\n\nHi]"
    assert await chat.prompt([{"role": "system", "content": "Alone."}]) == "[user: Alone.]"


async def test_tool_templates_are_chosen_and_probed() -> None:
    with_tools = "{% for t in tools %}<{{ t.function.name }}>{% endfor %}{{ messages[0].content }}"
    chat = await chat_format("{{ messages[0].content }}", tool_use=with_tools)
    assert chat.tools == "variable"
    tool: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert await chat.prompt(HI, tools=[tool]) == "<f>Hi"
    assert await chat.prompt(HI) == "Hi"
    assert (await chat_format("{{ messages[0].content }}")).tools == "taught"


async def test_arguments_are_objects_or_text_as_the_template_needs() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    head, tail = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}",
        "{% endfor %}{% endfor %}",
    )
    objects = await chat_format(head + "{{ c.function.arguments | tojson }}" + tail)
    text = await chat_format(head + "{{ 'args: ' + c.function.arguments }}" + tail)
    assert await objects.prompt(messages) == '{"x": 1}'
    assert await text.prompt(messages) == 'args: {"x":1}'


@pytest.mark.parametrize(
    ("template", "status", "words"),
    [
        (
            "{% for m in messages %}{{ raise_exception('roles must alternate') if m.content == 'Hi' }}{% endfor %}",
            400,
            "roles must alternate",
        ),
        ("{{ messages[0].content + 1 if messages[0].content == 'Hi' }}", 400, "can't render these messages"),
        ("{% if %}", 500, "spec.model.prompt.template"),
    ],
)
async def test_a_bad_template_is_a_sentence(template: str, status: int, words: str) -> None:
    info = msgspec.structs.replace(LOADED, chat_templates={"default": template})
    async with running(ScriptedEngine(info=info)) as api:
        answer = await exchange(
            api.port,
            post("/v1/chat/completions", {"model": MODEL, "messages": HI}).replace(
                b"host: x", b"connection: close"
            ),
        )
    assert answer.startswith(b"HTTP/1.1 %d" % status), answer
    assert words.encode() in answer
