"""What llama-server's and vLLM's users ask beside OpenAI's routes."""

from typing import Any

import httpx
import pytest

from tests.unit.runtime_api.scripted import MODEL, Running


@pytest.mark.parametrize("body", [{"content": "Hi é"}, {"model": MODEL, "prompt": "Hi é"}])
async def test_a_text_and_its_tokens(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    counted = (await http.post("/tokenize", json=body)).json()
    assert counted == {"tokens": list("Hi é".encode()), "count": 5, "max_model_len": 2048}
    text = (await http.post("/detokenize", json={"tokens": counted["tokens"]})).json()
    assert text == {"content": "Hi é", "prompt": "Hi é"}


async def test_what_is_served(http: httpx.AsyncClient, api: Running) -> None:
    props = (await http.get("/props")).json()
    assert props["default_generation_settings"]["n_ctx"] == 2048
    assert (props["total_slots"], props["model_alias"], props["model_path"]) == (4, MODEL, "tiny.gguf")
    assert api.serving.chat is not None
    assert props["chat_template"] == api.serving.chat.template


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/tokenize", {"content": "x", "with_pieces": True}, "/detokenize"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [1] * 2049}, "context length"),
    ],
)
async def test_what_cannot_be(http: httpx.AsyncClient, path: str, body: dict[str, Any], words: str) -> None:
    answer = await http.post(path, json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
