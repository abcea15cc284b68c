"""Documents in little memory: compressed JSON, read back when somebody asks for it.

As Python objects those of 5,000 SLMDeployments take several hundred MiB; packed over a dictionary, about a tenth.
"""

import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from slm_operator.cluster.resources import CONFIG_MAP, Resource
from slm_operator.snapshot import Document

LEVEL: Final = 1
"""Higher ones take twice the time for a few per cent."""


@dataclass(frozen=True, eq=False, slots=True)
class Packed:
    """One document, and what it has to be compared by without being read back."""

    body: bytes
    dictionary: bytes
    revision: str | None
    meaning: int
    """Digest of everything but the revision."""
    intent: int
    """Digest of what a person or we write, rather than what a controller reports."""
    data: Mapping[str, str] | None
    """Of a ConfigMap, unpacked: a site's CA bundle is the same text in all of them, and is kept once."""

    def document(self) -> Document:
        unpacking = zlib.decompressobj(zdict=self.dictionary)
        document = orjson.loads(unpacking.decompress(self.body))
        if self.revision is not None:
            document["metadata"]["resourceVersion"] = self.revision
        return document if self.data is None else {**document, "data": self.data}


class Packer:
    """Packs the documents of one resource; the first that comes is the dictionary of those after it.

    Objects of a kind are alike but for names and numbers: this makes them a third of what each is by itself.
    """

    def __init__(self, resource: Resource) -> None:
        self._shared = resource is CONFIG_MAP
        self._dictionary = b""

    def pack(self, document: Document) -> Packed:
        metadata = {key: value for key, value in document["metadata"].items() if key != "resourceVersion"}
        whole = {**document, "metadata": metadata}
        intent = (
            whole.get("spec"),
            whole.get("data"),
            metadata.get("labels"),
            metadata.get("ownerReferences"),
        )
        data = None
        text = _json(whole)
        meaning = hash(text)
        if self._shared and "data" in whole:
            data = {sys.intern(key): sys.intern(value) for key, value in whole.pop("data").items()}
            text = _json(whole)
        packing = zlib.compressobj(LEVEL, zdict=self._dictionary)
        packed = Packed(
            body=packing.compress(text) + packing.flush(),
            dictionary=self._dictionary,
            revision=document["metadata"].get("resourceVersion"),
            meaning=meaning,
            intent=hash(_json(intent)),
            data=data,
        )
        self._dictionary = self._dictionary or text
        return packed


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
