"""Which of a source's files is the projector that is meant.

Its name has `mmproj` in it, as all have that llama.cpp's tools make. Where there are several for one model they are the same
in other number formats.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from slm_contract.config import Part
from slm_runtime.errors import SourceInvalid, SourceNotFound
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.folders import choose_model
from slm_runtime.models.sources.shards import Chosen, Listed, choose, fits, is_gguf, is_pattern, listed_words
from slm_runtime.models.sources.variants import format_of

FORMATS: Final = ("F16", "BF16", "F32", "Q8_0")
"""The first that there is counts, then any other: F16 loses nothing that is seen, and runs on every device."""
_PROJECTOR: Final = re.compile(r"mmproj", re.IGNORECASE)


def choose_part(files: Iterable[Listed], path: str | None, where: str, asked: Asked) -> Chosen:
    """Choose what is meant of a source's files: its model, as :func:`choose_model` does, or a projector.

    Parameters
    ----------
    path
        Of a projector that is beside a model: what names the model.

    Raises
    ------
    SourceNotFound
    SourceInvalid
    """
    part = asked.part
    if part is None:
        return choose_model(files, path, where, asked)
    listed = list(files)
    if part is Part.PROJECTOR and path in {each.path for each in listed}:
        return choose(listed, path, where)
    found = [each for each in listed if is_gguf(each.path) and _PROJECTOR.search(_name(each.path))]
    own = part is Part.OWN_PROJECTOR
    fitting = _nearest(found, path) if own else [each for each in found if fits(each.path, path)]
    if not fitting:
        beside = "" if path is None else f" that belongs to {path!r}"
        raise SourceNotFound(
            f"{where} has no projector{beside}, a GGUF file with mmproj in its name.",
            "Name one in spec.model.projector.source, or leave spec.model.projector out: the model reads text then.",
        )
    best = min(map(_rank, fitting))
    chosen = [each for each in fitting if _rank(each) == best]
    if len(chosen) > 1:
        sizes = {each.path: each.size for each in chosen}
        raise SourceInvalid(
            f"{where} has more than one projector: {listed_words(sizes, sizes)}.",
            "Name one of them in spec.model.projector.source.",
        )
    return Chosen((chosen[0].path,))


def _nearest(found: Iterable[Listed], path: str | None) -> list[Listed]:
    """Those in the model's folder, else in the nearest folder above that has some."""
    listed = list(found)
    if path is None or is_pattern(path):
        return listed
    model = PurePosixPath(path)
    for folder in (model, *model.parents):
        here = [each for each in listed if PurePosixPath(each.path).parent == folder]
        if here:
            return here
    return []


def _rank(file: Listed) -> int:
    format_ = format_of(_name(file.path))
    return FORMATS.index(format_) if format_ in FORMATS else len(FORMATS)


def _name(path: str) -> str:
    return path.rpartition("/")[2]
