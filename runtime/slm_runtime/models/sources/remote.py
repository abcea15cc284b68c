"""What a source has of a model: its files, what pins them, and what it says of the prompt."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from slm_contract.config import PromptConfig
from slm_contract.source import SourcePin
from slm_runtime.errors import SourceInvalid, SourceNotFound
from slm_runtime.models.sources.artifact import Artifact

MAX_FILE_NAME: Final = 200
MAX_PATH: Final = 1024
MAX_FILES: Final = 1000
SIGNATURE_SUFFIX: Final = ".sig"
"""Of the signature that lies beside a single file."""
FOLDER_SIGNATURE: Final = "model.sig"
"""The signature of all files of its folder, and of those below it."""
OWN_FILES: Final = {"model.json", "prompt.json", "failure.json", "signature.json"}
"""What the folder says of itself; its other own names are hidden."""


@dataclass(frozen=True)
class RemoteFile:
    path: str
    """Below the model's folder; :func:`safe_path` has seen it."""
    artifact: Artifact
    sha256: str | None = None
    """64 hex digits of the file, where the source gives them."""


class FoundSignature(NamedTuple):
    artifact: Artifact
    names: tuple[str, ...]
    """What it calls the model's files, in their order."""


@dataclass(frozen=True)
class RemoteSignature:
    """A signature beside a model; it is asked for only where somebody wants it verified."""

    places: tuple[tuple[str, tuple[str, ...]], ...]
    """Paths where it may lie, the nearest first, and what it would call the model's files from there, in their order."""
    open: Callable[[str], Artifact]
    """Ask for one of the paths; it can be read as long as the model can. SourceNotFound: it isn't there."""

    def find(self) -> FoundSignature:
        """Ask for the nearest.

        Raises
        ------
        SourceNotFound
            There is none.
        """
        missing = []
        for path, names in self.places:
            try:
                return FoundSignature(self.open(path), names)
            except SourceNotFound as error:
                missing.append(error)
        raise missing[0]


@dataclass(frozen=True)
class RemoteModel:
    """It can be read as long as the context lasts that it came from."""

    files: tuple[RemoteFile, ...]
    """At least one; the first is what an engine opens."""
    revision: str | None = None
    """What the source calls this state and can be asked for again: a commit, a manifest's digest, an object's version."""
    variant: str | None = None
    """What was chosen, where the source has the model in several number formats: as it can be asked for again."""
    offered: tuple[str, ...] = ()
    """These formats, as far as their names say."""
    prompt: PromptConfig | None = None
    """What the source says of the prompt, where it says something."""
    adapters: tuple[str, ...] = ()
    """Paths of those files that are LoRA adapters, without which the model is another."""
    in_place: bool = False
    """Whether the files lie on this machine for as long as the pod lives: they are linked to, not copied."""
    signature: RemoteSignature | None = None
    """None: the source has none."""
    known_as: SourcePin | None = None
    """What its bytes are, where that was made sure of before they came here; None: the files say it."""

    def __post_init__(self) -> None:
        """Hold the files against each other.

        Raises
        ------
        SourceInvalid
            They can't lie in one folder.
        """
        if not 1 <= len(self.files) <= MAX_FILES:
            raise SourceInvalid(f"The source has {len(self.files)} files; 1 to {MAX_FILES} can be.")
        paths = {safe_path(each.path) for each in self.files}
        folders = {str(folder) for path in paths for folder in PurePosixPath(path).parents}
        if len(paths) < len(self.files) or paths & folders:
            raise SourceInvalid("The source has two files of one name, or a file and a folder.")

    @property
    def pin(self) -> SourcePin:
        """Of the files; where more comes with them than a file holds, of that state of the source too."""
        if self.known_as is not None:
            return self.known_as
        pin = SourcePin.of(
            self.revision,
            (
                (each.path, each.artifact.payload.size, each.sha256, each.artifact.payload.version)
                for each in self.files
            ),
        )
        if self.prompt is not None:
            both = hashlib.sha256(f"{pin.digest}\n{self.revision}".encode()).hexdigest()
            pin = SourcePin(revision=self.revision, digest=both)
        return pin.model_copy(update={"path": self.variant})

    @property
    def size(self) -> int | None:
        """Bytes to transfer; None where the source doesn't say."""
        sizes = [each.artifact.payload.size for each in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


def signature_beside(chosen: Sequence[str], find: Callable[[str], Artifact]) -> RemoteSignature:
    """The signature of files of a source: `m.gguf.sig` beside a single one, else the nearest `model.sig` above all.

    Parameters
    ----------
    chosen
        Paths of the model's files at the source, in the model's order.
    find
        Asks the source for another of its paths; SourceNotFound: it has no such file.
    """
    places: list[tuple[str, tuple[str, ...]]] = []
    if len(chosen) == 1:
        places.append((chosen[0] + SIGNATURE_SUFFIX, (PurePosixPath(chosen[0]).name,)))
    for folder in PurePosixPath(chosen[0]).parents:
        if all(PurePosixPath(each).is_relative_to(folder) for each in chosen):
            names = tuple(str(PurePosixPath(each).relative_to(folder)) for each in chosen)
            places.append((str(folder / FOLDER_SIGNATURE), names))
    return RemoteSignature(tuple(places), find)


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


def pattern_folder(pattern: str) -> str:
    """Return the folder below which everything lies that a pattern (`*`, `?`, `[`) can fit."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
