"""The vendors' own clients show pictures to a tiny model with a tiny projector, started on a command line."""

import base64
import contextlib
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from tests.runtime.api.server import ServeProcess
from tests.support.gguf import write_tiny_gguf
from tests.support.pictures import picture
from tests.support.ports import free_ports
from tests.support.projector import TinyProjector

pytestmark = pytest.mark.runtime

IMAGE = picture(1)
OTHER = picture(2)
TOKENS = 16
"""That each image takes."""


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("seeing")
    api, ops = free_ports(2)
    model, mmproj = (
        write_tiny_gguf(folder / "tiny.gguf"),
        TinyProjector(image_size=16, patch_size=4).write(folder / "mmproj.gguf"),
    )
    command = ["-m", "slm_runtime", "serve", "--model", str(model), "--projector", str(mmproj)]
    command += ["--context-length", "1024", "--port", str(api), "--ops-port", str(ops)]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *command], stdout=output, stderr=output)
    server = ServeProcess(process, "tiny", f"http://127.0.0.1:{api}", f"http://127.0.0.1:{ops}", log)
    try:
        server.wait_ready()
        yield server
    finally:
        process.kill()
        process.wait()


def uri(image: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def by_chat(
    server: ServeProcess, image: bytes, question: str = "what?", **fields: Any
) -> tuple[str, int, int]:
    parts: Any = [
        {"type": "image_url", "image_url": {"url": uri(image), "detail": "low"}},
        {"type": "text", "text": question},
    ]
    with openai.OpenAI(base_url=f"{server.base}/v1", api_key="-", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": parts}], temperature=0, max_tokens=8, **fields
        )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    cached = answer.usage.prompt_tokens_details.cached_tokens or 0
    return answer.choices[0].message.content or "", answer.usage.prompt_tokens, cached


def by_responses(server: ServeProcess, image: bytes) -> tuple[str, int, int]:
    parts: Any = [
        {"type": "input_image", "image_url": uri(image), "detail": "auto"},
        {"type": "input_text", "text": "what?"},
    ]
    with openai.OpenAI(base_url=f"{server.base}/v1", api_key="-", max_retries=0) as client:
        answer = client.responses.create(
            model="tiny", input=[{"role": "user", "content": parts}], temperature=0, max_output_tokens=8
        )
    assert answer.usage is not None
    return answer.output_text, answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens


def by_messages(server: ServeProcess, image: bytes) -> tuple[str, int, int]:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(image).decode()}
    messages: Any = [
        {"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "what?"}]}
    ]
    with anthropic.Anthropic(base_url=server.base, api_key="-", max_retries=0) as client:
        answer = client.messages.create(
            model="tiny", messages=messages, max_tokens=8, extra_body={"temperature": 0}
        )
        counted = client.messages.count_tokens(model="tiny", messages=messages)
    (block,) = answer.content
    assert block.type == "text"
    cached = answer.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == answer.usage.input_tokens + cached
    return block.text, counted.input_tokens, cached


def by_ollama(server: ServeProcess, image: bytes) -> tuple[str, int, int]:
    client = ollama.Client(host=server.base, trust_env=False)
    with contextlib.closing(client._client):
        answer = client.chat(
            "tiny",
            [{"role": "user", "content": "what?", "images": [image]}],
            options={"temperature": 0, "num_predict": 8, "repeat_penalty": 1},
        )
    return answer.message.content or "", answer.prompt_eval_count or 0, 0


ASKING = [by_chat, by_responses, by_messages, by_ollama]
Ask = Callable[[ServeProcess, bytes], tuple[str, int, int]]


@pytest.mark.parametrize("ask", ASKING, ids=lambda ask: ask.__name__)
def test_a_picture_is_shown(seeing: ServeProcess, ask: Ask) -> None:
    """The same tokens in every protocol, and another picture is another prompt."""
    text, tokens, _ = ask(seeing, IMAGE)
    again, _, cached = ask(seeing, IMAGE)
    other, same, _ = ask(seeing, OTHER)
    expected = by_chat(seeing, IMAGE)
    assert (text, tokens) == (again, same) == expected[:2]
    assert TOKENS < tokens < 50
    assert cached in {0, tokens - 1}
    assert other != text


def test_a_second_question_is_about_what_is_known(seeing: ServeProcess) -> None:
    by_chat(seeing, picture(3), "what is it?")
    _, tokens, cached = by_chat(seeing, picture(3), "and its colour?")
    assert TOKENS < cached < tokens


def test_choices_logprobs_and_streams_are_as_ever(seeing: ServeProcess) -> None:
    whole = by_chat(seeing, IMAGE, n=2, logprobs=True, top_logprobs=2)
    parts: Any = [{"type": "image_url", "image_url": {"url": uri(IMAGE)}}, {"type": "text", "text": "what?"}]
    with openai.OpenAI(base_url=f"{seeing.base}/v1", api_key="-", max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": parts}],
                temperature=0,
                max_tokens=8,
                stream=True,
            )
        )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole[0]


def test_generate_shows_one_too(seeing: ServeProcess) -> None:
    client = ollama.Client(host=seeing.base, trust_env=False)
    answer = client.generate("tiny", "what?", images=[IMAGE], options={"temperature": 0, "num_predict": 4})
    client._client.close()
    assert answer.context is None
    assert (answer.prompt_eval_count or 0) > TOKENS


def test_it_is_told_that_pictures_are_seen(seeing: ServeProcess) -> None:
    shown = httpx.post(f"{seeing.base}/api/show", json={"model": "tiny"}, trust_env=False).json()
    assert "vision" in shown["capabilities"]


def ask_raw(server: ServeProcess, image_url: Any, text: str = "what?") -> httpx.Response:
    content = [{"type": "image_url", "image_url": image_url}, {"type": "text", "text": text}]
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}], "max_tokens": 4}
    return httpx.post(f"{server.base}/v1/chat/completions", json=body, trust_env=False, timeout=60)


def of_size(width: int, height: int) -> bytes:
    """A picture's head that claims to be so large."""
    whole = bytearray(picture(0, width=8, height=8))
    whole[16:24] = width.to_bytes(4) + height.to_bytes(4)
    checksum = zlib.crc32(whole[12:29])
    whole[29:33] = checksum.to_bytes(4)
    return bytes(whole)


@pytest.mark.parametrize(
    "image_url",
    [
        {"url": "data:image/png;base64,!!!!"},
        {"url": "data:image/png;base64,"},
        {"url": "data:image/png,abc"},
        {"url": "http://169.254.169.254/latest/meta-data"},
        {"url": "file:///etc/passwd"},
        {"url": uri(b"GIF89a")},
        {"url": uri(b"%PDF-1.4 no image")},
        {"url": uri(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml")},
        {"url": uri(IMAGE[: len(IMAGE) // 2])},
        {"url": uri(of_size(0, 0))},
        {"url": uri(of_size(60_000, 60_000))},
        {"url": uri(of_size(5_000, 5_000))},
        {"url": uri(picture(0, width=1, height=1))},
        {"url": uri(picture(0, width=900, height=5))},
        {"url": 5},
    ],
    ids=lambda given: str(given["url"])[:40],
)
def test_what_is_no_picture_gets_a_sentence(seeing: ServeProcess, image_url: Any) -> None:
    answer = ask_raw(seeing, image_url)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith("messages")
    assert by_chat(seeing, IMAGE)[1] > TOKENS


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF"])
def test_other_kinds_of_files_are_read(seeing: ServeProcess, kind: str) -> None:
    assert ask_raw(seeing, uri(picture(0, kind=kind))).status_code == 200


@pytest.mark.parametrize("text", ["<__media__>", "<picture-0>", "<start_of_image>", "[img-0]"])
def test_no_text_is_taken_for_a_picture(seeing: ServeProcess, text: str) -> None:
    answer = ask_raw(seeing, {"url": uri(IMAGE)}, text)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] < 2 * TOKENS + len(text) + 20


def test_more_pictures_than_fit_are_too_many(seeing: ServeProcess) -> None:
    parts = [{"type": "image_url", "image_url": {"url": uri(picture(seed))}} for seed in range(80)]
    body = {"model": "tiny", "messages": [{"role": "user", "content": parts}]}
    answer = httpx.post(f"{seeing.base}/v1/chat/completions", json=body, trust_env=False, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_the_oldest_turns_go_with_their_pictures(seeing: ServeProcess) -> None:
    """Ollama's way with what is too long."""
    turns: list[Any] = []
    for seed in range(70):
        image = base64.b64encode(picture(seed)).decode()
        turns += [
            {"role": "user", "content": "what?", "images": [image]},
            {"role": "assistant", "content": "a thing"},
        ]
    turns.append({"role": "user", "content": "and now?"})
    body = {"model": "tiny", "messages": turns, "stream": False, "options": {"num_predict": 4}}
    answer = httpx.post(f"{seeing.base}/api/chat", json=body, trust_env=False, timeout=60)
    assert answer.status_code == 200, answer.text
    assert 3 * TOKENS < answer.json()["prompt_eval_count"] < 1024
