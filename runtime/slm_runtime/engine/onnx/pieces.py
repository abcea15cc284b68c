"""What each token of a tokenizer.json stands for, in bytes."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_BLANK: Final = "\u2581"
"""What stands for a blank in vocabularies of SentencePiece's kind."""
_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def reader(document: Mapping[str, Any]) -> Callable[[str], bytes]:
    """What a token's text means, by how the tokenizer puts texts together again."""
    kinds = _kinds(document.get("decoder")) | _kinds(document.get("pre_tokenizer"))
    if "ByteLevel" in kinds:
        return _of_bytes
    if "WordPiece" in kinds:
        prefix = _prefix(document.get("decoder"))
        return lambda text: (text.removeprefix(prefix) if text.startswith(prefix) else f" {text}").encode()
    return _of_sentences


def _of_bytes(text: str) -> bytes:
    """Each character is a byte, as GPT-2 writes them."""
    return b"".join(
        bytes([_BYTES[character]]) if character in _BYTES else character.encode() for character in text
    )


def _of_sentences(text: str) -> bytes:
    if byte := _BYTE.fullmatch(text):
        return bytes([int(byte[1], 16)])
    return text.replace(_BLANK, " ").encode()


def _visible() -> dict[str, int]:
    """Bytes that are printed as they are, and characters from 256 on for the others."""
    printed = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


_BYTES: Final = _visible()


def _kinds(step: Any) -> set[str]:
    """Of a step of a tokenizer, and of all that it is made of."""
    if isinstance(step, list):
        return set().union(*map(_kinds, step))
    if not isinstance(step, dict):
        return set()
    return {str(step.get("type"))} | _kinds(list(step.values()))


def _prefix(decoder: Any) -> str:
    return str(decoder.get("prefix", "##")) if isinstance(decoder, dict) else "##"
