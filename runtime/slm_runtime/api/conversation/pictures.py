"""Images in a conversation: a mark in the text stands for each, until the prompt is rendered.

Templates know text, in whatever shape they want it, and put it where it belongs; so the mark gets to where the image was.
It can't be guessed, so no text that a client sends is taken for one.
"""

import binascii
import re
import secrets
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from slm_runtime.api.http.problems import BadRequest
from slm_runtime.engine.messages import Picture, Prompt
from slm_runtime.templates.messages import ChatMessage

IMAGES: Final = "images"
"""The field of a message that no template sees: its images by their marks."""
_DATA_URI: Final = re.compile(
    r"data:[a-zA-Z0-9.+-]*/?[a-zA-Z0-9.+-]*(;[^;,]{0,100}){0,4};base64,", re.IGNORECASE
)
_SPACE: Final = re.compile(r"[\s=]+")


@dataclass(slots=True)
class Sent:
    """An image as a client has sent it. It is read when it is known that the model sees any, and once."""

    text: str
    """A URI, or Base64 alone."""
    name: str
    """Where in the request it is."""
    uri: bool = True
    _read: Picture | None = None

    @property
    def url(self) -> str | None:
        """Where it is to be fetched; None: it is here."""
        return (
            self.text
            if self._read is None and self.uri and self.text.startswith(("https://", "http://"))
            else None
        )

    def brought(self, data: bytes) -> None:
        """It was fetched."""
        self._read = Picture(data, self.name)

    def read(self) -> Picture:
        """Raise BadRequest for what is no image that can be had."""
        self._read = self._read or Picture(_decoded(self._base64(), self.name), self.name)
        return self._read

    def _base64(self) -> str:
        head = _DATA_URI.match(self.text)
        if head is None and self.uri:
            raise BadRequest(
                f"The image at '{self.name}' must be a data URI, as data:image/png;base64,...: none is fetched from "
                "elsewhere, for the server has no origins to fetch images from (spec.endpoint.imageOrigins).",
                param=self.name,
                code="invalid_image_url",
            )
        return self.text[head.end() :] if head else self.text


@dataclass
class Content:
    """What a message says and shows, as its parts come."""

    _pieces: list[str] = field(default_factory=list)
    _images: dict[str, Sent] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Texts side by side are lines of one."""
        if self._pieces and self._pieces[-1] not in self._images:
            self._pieces.append("\n")
        self._pieces.append(text)

    def show(self, image: Sent) -> None:
        mark = f"<picture-{secrets.token_hex(16)}>"
        self._images[mark] = image
        self._pieces.append(mark)

    @property
    def empty(self) -> bool:
        return not any(self._pieces)

    def fields(self) -> ChatMessage:
        """A message's `content`, and its images where there are any."""
        fields: ChatMessage = {"content": "".join(self._pieces)}
        return {**fields, IMAGES: self._images} if self._images else fields


def taken_out(messages: Iterable[ChatMessage]) -> tuple[list[ChatMessage], dict[str, Sent]]:
    """The messages as templates may see them, and all images by their marks."""
    found: dict[str, Sent] = {}
    plain: list[ChatMessage] = []
    for message in messages:
        found |= message.get(IMAGES, {})
        plain.append({key: value for key, value in message.items() if key != IMAGES})
    return plain, found


def put_in(prompt: str, images: dict[str, Sent]) -> Prompt:
    """Put the images into the prompt where their marks are.

    Raises
    ------
    BadRequest
        The template has left one out, or it is none.
    """
    if not images:
        return [prompt]
    pieces: list[str] = re.split(f"({'|'.join(map(re.escape, images))})", prompt)
    lost = next((image.name for mark, image in images.items() if mark not in pieces), None)
    if lost is not None:
        raise BadRequest(
            f"The model's chat template leaves out the image at '{lost}': it may take none in a message of that role.",
            param=lost,
            code="chat_template",
        )
    return [images[piece].read() if piece in images else piece for piece in pieces if piece]


def _decoded(text: str, name: str) -> bytes:
    bare = _SPACE.sub("", text).replace("-", "+").replace("_", "/")
    try:
        data = b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise BadRequest(f"The image at '{name}' is not Base64.", param=name, code="invalid_image")
    return data
