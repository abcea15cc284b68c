"""Images in a conversation, before the engine sees them."""

import base64
from typing import Any

import httpx
import msgspec
import pytest

from slm_runtime.api.conversation.pictures import Content, Sent, put_in, taken_out
from slm_runtime.api.http.problems import BadRequest
from slm_runtime.engine.messages import Picture
from slm_runtime.templates.chat import ChatFormat
from tests.unit.runtime_api.scripted import LOADED, MODEL, ScriptedEngine, running

SMOL_VLM = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}:"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
DATA = base64.b64encode(b"pixels").decode()
SEEING = msgspec.structs.replace(LOADED, sees=True)


def chat(*parts: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": list(parts)}]}


BODIES = {
    "chat": chat({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA}"}}),
    "chat, a bare URL": chat({"type": "image_url", "image_url": f"data:;base64,{DATA}"}),
    "responses": (
        "/v1/responses",
        {
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{DATA}"}],
                }
            ]
        },
    ),
    "messages": (
        "/v1/messages",
        {
            "max_tokens": 5,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "a", "content": "no image"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": DATA},
                        },
                    ],
                }
            ],
        },
    ),
    "ollama": ("/api/chat", {"messages": [{"role": "user", "content": "", "images": [DATA]}]}),
    "generate": ("/api/generate", {"prompt": "x", "images": [f"data:image/png;base64,{DATA}"]}),
}


@pytest.mark.parametrize(("path", "body"), BODIES.values(), ids=BODIES.keys())
async def test_each_protocol_has_its_way_to_show_one(path: str, body: dict[str, Any]) -> None:
    async with running(ScriptedEngine(info=SEEING)) as api:
        async with httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
            answer = await http.post(path, json={"model": MODEL, "stream": False, **body})
        assert answer.status_code == 200, answer.text
        (picture,) = [part for part in api.engine.requests[-1].prompt if isinstance(part, Picture)]
        assert picture.data == b"pixels"


@pytest.mark.parametrize(("path", "body"), BODIES.values(), ids=BODIES.keys())
async def test_a_model_that_sees_none_says_so(
    http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    answer = await http.post(path, json={"model": MODEL, **body})
    assert answer.status_code == 400
    assert "sees no images" in answer.text


async def test_a_template_that_takes_parts_gets_parts() -> None:
    info = msgspec.structs.replace(SEEING, chat_templates={"default": SMOL_VLM})
    async with running(ScriptedEngine(info=info)) as api:
        async with httpx.AsyncClient(base_url=api.base, trust_env=False) as http:
            body = BODIES["chat"][1]
            messages = [{"role": "system", "content": "be brief"}, *body["messages"]]
            answer = await http.post("/v1/chat/completions", json={"model": MODEL, "messages": messages})
        assert answer.status_code == 200, answer.text
        before, picture, after = api.engine.requests[-1].prompt
        assert before == "<|im_start|>System:be brief<end_of_utterance>\nUser:"
        assert isinstance(picture, Picture)
        assert after == "<end_of_utterance>\nAssistant:"
        assert isinstance(api.serving.chat, ChatFormat)


def test_images_stand_where_they_were_and_texts_beside_each_other_are_lines() -> None:
    content = Content()
    content.say("one")
    content.say("two")
    content.show(Sent(DATA, "here", uri=False))
    content.say("three")
    (message,), images = taken_out([{"role": "user", **content.fields()}])
    assert set(message) == {"role", "content"}
    assert put_in(f"<{message['content']}>", images) == ["<one\ntwo", Picture(b"pixels", "here"), "three>"]


def test_one_that_the_template_leaves_out_is_told() -> None:
    content = Content()
    content.show(Sent(DATA, "messages[0]", uri=False))
    _, images = taken_out([{"role": "system", **content.fields()}])
    with pytest.raises(BadRequest, match="leaves out the image at 'messages\\[0\\]'"):
        put_in("no mark", images)


@pytest.mark.parametrize(
    "text", ["data:image/png;base64,", "data:image/png,x", "https://example.org/a.png", "x"]
)
def test_what_is_no_data_uri_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Sent(text, "there").read()
    assert refused.value.param == "there"


@pytest.mark.parametrize("text", [DATA + "\n", DATA.rstrip("="), "_-8="])
def test_base64_is_read_however_it_is_written(text: str) -> None:
    assert Sent(text, "there", uri=False).read().data
