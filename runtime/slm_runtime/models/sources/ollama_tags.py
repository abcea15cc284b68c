"""Ollama's library has the number formats of one model under tags of one repository, and no list of them.

How such tags are made up is a habit (`3b` is one of `3b-instruct-q8_0`, `3b-instruct-fp16`, …), so they are asked for one
after the other; whether one is of the same model says its manifest's configuration.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from slm_runtime.errors import SourceNotFound
from slm_runtime.models.quantization import larger_ones
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.registry import Descriptor, Manifest, Repository
from slm_runtime.models.sources.variants import format_of

KINDS: Final = ("", "instruct", "it", "chat", "text")
"""What stands between a size and a format."""
_SUFFIX: Final = re.compile(r"(?:^|-)(?:i?q[1-9][A-Za-z0-9_]*|fp16|bf16|fp32)$", re.IGNORECASE)


class Tagged(NamedTuple):
    tag: str
    manifest: Manifest
    offered: tuple[str, ...] = ()
    """Number formats that are known to be there."""


class _Said(BaseModel):
    """What a configuration says of the model."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())
    model_family: str = ""
    model_type: str = ""
    file_type: str = ""

    def is_of(self, other: "_Said", name: str, tag: str) -> bool:
        """Whether it is the other's model in a number format."""
        same = (self.model_family, self.model_type) == (other.model_family, other.model_type)
        return same and format_of(self.file_type or tag) == name


@dataclass
class OllamaTags:
    repository: Repository
    where: str
    """For messages."""
    _seen: dict[str, Manifest | None] = field(default_factory=dict)

    def choose(self, tag: str, asked: Asked) -> Tagged:
        """The tag itself, or another one of its model, by which number format is asked for.

        Raises
        ------
        SourceNotFound
            There is none, and nothing else will do.
        """
        own = self.repository.manifest(tag)
        if not asked.formats:
            return Tagged(tag, own)
        said = self._said(own)
        has = format_of(said.file_type or tag)
        if has is None:
            # Only its header tells.
            return Tagged(tag, own)
        for wanted in asked.formats:
            for name in (wanted.value, *larger_ones(wanted)):
                if name == has:
                    return Tagged(tag, own, (has,))
                for other in _tags(tag, name):
                    manifest = self._ask(other)
                    if manifest is not None and self._said(manifest).is_of(said, name, other):
                        return Tagged(other, manifest, tuple(sorted({has, name})))
        if asked.strict:
            tried = ", ".join(_tags(tag, asked.formats[0].value))
            raise SourceNotFound(
                f"{self.where} is {has}, and has no {asked.formats[0].value} under the tags that models of Ollama's library"
                f" have as a rule ({tried}), nor one that it could be derived of.",
                "Name the tag itself in spec.model.source, or leave out spec.model.quantization.",
            )
        return Tagged(tag, own, (has,))

    def _ask(self, tag: str) -> Manifest | None:
        if tag not in self._seen:
            try:
                self._seen[tag] = self.repository.manifest(tag)
            except SourceNotFound:
                self._seen[tag] = None
        return self._seen[tag]

    def _said(self, manifest: Manifest) -> _Said:
        try:
            config = Descriptor.model_validate(manifest.config)
            return _Said.model_validate_json(self.repository.document(config))
        except (ValidationError, SourceNotFound):
            return _Said()


def _tags(tag: str, name: str) -> Iterator[str]:
    """Under which a model's format would be found, of the tag of another one."""
    written = f"fp{name[1:]}" if name in {"F16", "F32"} else name[0].lower() + name[1:]
    written = written.lower() if name.startswith(("BF", "IQ")) else written
    stem = _SUFFIX.sub("", tag)
    kinds = KINDS if stem == tag else ("",)
    for kind in kinds:
        yield "-".join(filter(None, ("" if stem == "latest" else stem, kind, written)))
