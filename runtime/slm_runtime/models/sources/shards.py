"""Which of a source's files are the model that was asked for, and the parts that a GGUF file may be split into.

`name-00001-of-00003.gguf` is the first of three parts: they lie in one folder, and an engine opens the first.
"""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from slm_runtime.errors import SourceDrifted, SourceInvalid, SourceNotFound
from slm_runtime.models.sources.asked import LATEST, Asked
from slm_runtime.models.sources.remote import MAX_FILES
from slm_runtime.models.sources.variants import first_of, format_of, formats_of

_PART: Final = re.compile(
    r"(?P<stem>.+)-(?P<index>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<end>\.gguf)", re.IGNORECASE
)
_COMPANION: Final = re.compile(r"mmproj|(^|[-._])imatrix\.gguf$", re.IGNORECASE)
"""Projectors of images and matrices of importance: GGUF files beside a model, and none themselves."""
MAX_VARIANT: Final = 240
"""Bytes of a path that may be chosen for its format: it is a part of the pin, and that of a pod's last words."""
SHOWN: Final = 10
MAX_SHOWN: Final = 120


class Listed(NamedTuple):
    """A file that a source has."""

    path: str
    size: int | None = None


class Chosen(NamedTuple):
    """The files of one model, the first is what an engine opens."""

    paths: tuple[str, ...]
    folder: str | None = None
    """Below which these lie as they do at the source; None: in one folder, whatever that is called."""
    offered: tuple[str, ...] = ()
    """The number formats that there were to choose from."""
    variant: str | None = None
    """By what it is found again, where it was chosen for its format."""

    def name(self, path: str) -> str:
        """Of one of the files, below the model's folder."""
        if self.folder is None:
            return path.rpartition("/")[2]
        return path[len(self.folder) + 1 :] if self.folder else path


def is_gguf(path: str) -> bool:
    return path.lower().endswith(".gguf")


def is_pattern(path: str) -> bool:
    return any(each in path for each in "*?[")


def parts_of(path: str) -> tuple[str, ...]:
    """All parts of the file that a path is a part of, the first one first; the path itself where it is whole.

    Raises
    ------
    SourceInvalid
        It would be more than a model may have.
    """
    match = _PART.fullmatch(path)
    count = int(match["count"]) if match else 0
    if match is None or not 1 <= int(match["index"]) <= count:
        return (path,)
    if count > MAX_FILES:
        raise SourceInvalid(f"{_shown(path)} says that it is one of {count} parts; {MAX_FILES} can be.")
    return tuple(
        f"{match['stem']}-{index:05}-of-{match['count']}{match['end']}" for index in range(1, count + 1)
    )


def choose(files: Iterable[Listed], path: str | None, where: str, asked: Asked = LATEST) -> Chosen:
    """Choose the one model that is meant.

    Parameters
    ----------
    path
        A file, or a part of one: exactly it; a pattern (`*Q4_K_M*`, in any case) or a folder: the only model of those
        that fit; None: the only one there is. What accompanies a model is chosen only where nothing else fits.
    where
        The source, for messages.
    asked
        Where several fit: by which number format to choose, or what was chosen before.

    Raises
    ------
    SourceNotFound
        Nothing fits; the message says what there is.
    SourceInvalid
        Several fit; the message says which.
    """
    sizes = {each.path: each.size for each in files}
    if asked.variant is not None:
        if _first(asked.variant) not in map(_first, sizes):
            raise SourceDrifted(f"{where} has no {_shown(asked.variant)} any more, which was chosen of it.")
        return Chosen(_complete(_first(asked.variant), sizes, where), variant=asked.variant)
    if path is not None and _first(path) in map(_first, sizes):
        return Chosen(_complete(_first(path), sizes, where))
    fitting = {_first(each) for each in sizes if is_gguf(each) and fits(each, path)}
    plain = {each for each in fitting if not _is_companion(each)}
    chosen = plain or (fitting if path is not None else set())
    if len(chosen) == 1:
        return Chosen(_complete(chosen.pop(), sizes, where))
    if chosen and asked.formats:
        return _of_format(chosen, sizes, where, asked)
    wanted = "" if path is None else f" that fits {_shown(path)!r}"
    if chosen:
        raise SourceInvalid(
            f"{where} has more than one model{wanted}: {listed_words(chosen, sizes)}.",
            "Name one of them in spec.model.source, write a pattern that fits one alone, or say in"
            " spec.model.quantization which number format to take.",
        )
    models = {_first(each) for each in sizes if is_gguf(each) and not _is_companion(each)}
    has = f"its models are {listed_words(models, sizes)}" if models else "it has no GGUF model at all"
    raise SourceNotFound(f"{where} has no model{wanted}; {has}.")


def _of_format(models: Iterable[str], sizes: Mapping[str, int | None], where: str, asked: Asked) -> Chosen:
    offered: dict[str, list[str]] = {}
    for each in sorted(models):
        if len(each.encode()) <= MAX_VARIANT and (name := format_of(each)) is not None:
            offered.setdefault(name, []).append(each)
    found = first_of(offered, asked.formats)
    if found is None:
        wanted = (
            f"no {asked.formats[0].value}" if asked.strict else "none of the formats that are chosen from"
        )
        raise SourceNotFound(
            f"{where} has {wanted}, and nothing that it could be derived of (F16, BF16, F32, Q8_0); its models are"
            f" {listed_words(models, sizes)}.",
            "Name one of these formats in spec.model.quantization, or one of the files in spec.model.source.",
        )
    name, paths = found
    if len(paths) > 1:
        raise SourceInvalid(
            f"{where} has more than one model to make {name.value} of: {listed_words(paths, sizes)}.",
            "Name one of them in spec.model.source, or write a pattern that fits one alone.",
        )
    return Chosen(_complete(paths[0], sizes, where), offered=formats_of(models), variant=paths[0])


def _complete(first: str, sizes: Mapping[str, int | None], where: str) -> tuple[str, ...]:
    parts = parts_of(first)
    missing = [each for each in parts if each not in sizes]
    if missing:
        raise SourceNotFound(
            f"{where} has {len(parts) - len(missing)} of the {len(parts)} parts of {_shown(first)}:"
            f" {_shown(missing[0])} isn't there."
        )
    return parts


def _first(path: str) -> str:
    """Of the parts of a file the first one, which stands for all of them."""
    match = _PART.fullmatch(path)
    if match is None or not 1 <= int(match["index"]) <= int(match["count"]):
        return path
    return f"{match['stem']}-00001-of-{match['count']}{match['end']}"


def fits(path: str, wanted: str | None) -> bool:
    """Whether a path lies in the folder, or fits the pattern, that is wanted; None: any."""
    if wanted is None:
        return True
    if not is_pattern(wanted):
        return path.startswith(wanted + "/")
    name, pattern = path.lower(), wanted.lower()
    return fnmatchcase(name, pattern) or ("/" not in pattern and fnmatchcase(_base(name), pattern))


def _is_companion(path: str) -> bool:
    return _COMPANION.search(_base(path)) is not None


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def listed_words(models: Iterable[str], sizes: Mapping[str, int | None]) -> str:
    """Write files out for a message, the smallest ones, with their sizes."""
    totals = dict.fromkeys(models, 0)
    for path, size in sizes.items():
        first = _first(path)
        if first in totals:
            totals[first] += size or 0
    ordered = sorted(totals.items(), key=lambda each: (each[1], each[0]))
    words = [
        _shown(each) + (f" ({size / (1 << 20):,.1f} MiB)" if size else "") for each, size in ordered[:SHOWN]
    ]
    more = len(ordered) - SHOWN
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _shown(path: str) -> str:
    """A name that a stranger gave, fit for a message."""
    return (path if path.isprintable() else ascii(path))[:MAX_SHOWN]
