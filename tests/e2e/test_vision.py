"""A vision model: its projector is fetched beside it, pinned and told in the status, and a picture is answered."""

import base64
import struct
import zlib
from pathlib import Path

import pytest

from tests.e2e.site import Namespace, Site
from tests.e2e.source import CA, source
from tests.support.gguf import write_tiny_gguf
from tests.support.projector import TinyProjector

pytestmark = pytest.mark.e2e


def picture(side: int = 28) -> str:
    """A red square as the URL of a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress((b"\0" + b"\xff\0\0" * side) * side))
    data = b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


def prompt_tokens(ns: Namespace, *, with_picture: bool) -> int:
    """Ask, and return what the question was counted as."""
    text = {"type": "text", "text": "What colour is it?"}
    image = {"type": "image_url", "image_url": {"url": picture()}}
    with ns.client("tiny") as client:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": [text, image] if with_picture else [text]}],  # type: ignore[misc,list-item]
            max_tokens=8,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    return answer.usage.prompt_tokens


def test_a_picture_is_answered_and_the_status_tells_with_what(site: Site, tmp_path: Path) -> None:
    projector = TinyProjector()
    with site.namespace("vision") as ns, source(ns, site.runtime_image) as server:
        server.put("tiny.gguf", write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes())
        data = projector.write(tmp_path / "mmproj.gguf").read_bytes()
        server.put("mmproj.gguf", data)
        model = {
            "name": "tiny",
            "source": server.url("tiny.gguf"),
            "caBundle": CA,
            "projector": {"source": server.url("mmproj.gguf")},
        }
        ns.apply("tiny", {"model": model, "runtime": {"contextLength": 512, "parallel": 2}})
        status = ns.wait_ready("tiny")
        told = status["model"]["projector"]
        assert (told["resolved"], told["kind"], told["sizeBytes"]) == ("mmproj.gguf", "mlp", len(data))
        assert told["digest"]
        assert status["memory"]["projector"] > 0
        counted = prompt_tokens(ns, with_picture=True) - prompt_tokens(ns, with_picture=False)
        assert counted >= projector.patches, "a token a patch, and what the template puts around a picture"


def test_a_projector_of_another_model_is_refused_before_pods_are_made(site: Site, tmp_path: Path) -> None:
    with site.namespace("vision-refused") as ns, source(ns, site.runtime_image) as server:
        server.put("tiny.gguf", write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes())
        server.put("mmproj.gguf", TinyProjector(output=96).write(tmp_path / "mmproj.gguf").read_bytes())
        model = {
            "source": server.url("tiny.gguf"),
            "caBundle": CA,
            "projector": {"source": server.url("mmproj.gguf")},
        }
        ns.apply("tiny", {"model": model})
        ns.wait_reason("tiny", "ModelReady", "ProjectorMismatch")
