"""What a source has of a model: its files, what pins them, and what it says of the prompt."""

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from slm_contract.config import PromptConfig
from slm_contract.source import SourcePin
from slm_runtime.errors import SourceInvalid
from slm_runtime.models.sources.artifact import Artifact

MAX_FILE_NAME: Final = 200
MAX_PATH: Final = 1024
MAX_FILES: Final = 1000
OWN_FILES: Final = {"model.json", "prompt.json", "files.json", "failure.json"}
"""What the folder says of itself; its other own names are hidden."""


@dataclass(frozen=True)
class RemoteFile:
    path: str
    """Below the model's folder; :func:`safe_path` has seen it."""
    artifact: Artifact
    sha256: str | None = None
    """64 hex digits of the file, where the source gives them."""


@dataclass(frozen=True)
class RemoteModel:
    """It can be read as long as the context lasts that it came from."""

    files: tuple[RemoteFile, ...]
    """At least one; the first is what an engine opens."""
    revision: str | None = None
    """What the source calls this state and can be asked for again: a commit, a manifest's digest, an object's version."""
    prompt: PromptConfig | None = None
    """What the source says of the prompt, where it says something."""
    in_place: bool = False
    """Whether the files lie on this machine for as long as the pod lives: they are linked to, not copied."""

    @property
    def pin(self) -> SourcePin:
        """Of the files; where more comes with them than a file holds, of that state of the source too."""
        pin = SourcePin.of(
            self.revision,
            (
                (each.path, each.artifact.payload.size, each.sha256, each.artifact.payload.version)
                for each in self.files
            ),
        )
        if self.prompt is None:
            return pin
        both = hashlib.sha256(f"{pin.digest}\n{self.revision}".encode()).hexdigest()
        return SourcePin(revision=self.revision, digest=both)

    @property
    def size(self) -> int | None:
        """Bytes to transfer; None where the source doesn't say."""
        sizes = [each.artifact.payload.size for each in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


def safe_path(path: str) -> str:
    """A path below a folder, as it is given.

    Raises
    ------
    SourceInvalid
        It would leave the folder, or be hidden, or take the name of one of the folder's own files.
    """
    parts = PurePosixPath(path).parts
    odd = any(part.startswith(".") or len(part.encode()) > MAX_FILE_NAME for part in parts)
    if (
        not parts
        or path != "/".join(parts)
        or odd
        or path in OWN_FILES
        or "\\" in path
        or not path.isprintable()
    ):
        raise SourceInvalid(
            f"The source ends in {path[:MAX_FILE_NAME]!r}, which can't be a model's file name."
        )
    if len(path) > MAX_PATH:
        raise SourceInvalid(f"The source has a path of {len(path)} characters; {MAX_PATH} can be.")
    return path
