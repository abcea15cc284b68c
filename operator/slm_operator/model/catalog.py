"""The catalog: names of models, and what the site has chosen for each."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from slm_operator.crd.spec import Model
from slm_operator.model.source import name_in_catalog
from slm_operator.settings import CatalogEntry

NEAREST: Final = 3
"""Names that are offered for one that isn't there."""


def entry_of(source: str, catalog: Mapping[str, CatalogEntry]) -> CatalogEntry | None:
    """What a `catalog://` source stands for; None for another source, and for a name that isn't there."""
    name = name_in_catalog(source)
    return None if name is None else catalog.get(name)


def entries(model: Model, catalog: Mapping[str, CatalogEntry]) -> tuple[CatalogEntry, ...]:
    """All that a spec names in the catalog."""
    found = (entry_of(source, catalog) for source in sources_of(model))
    return tuple(each for each in found if each is not None)


def sources_of(model: Model | CatalogEntry) -> tuple[str, ...]:
    """As they are written: the model's own, then those of its variants."""
    return (model.source, *(variant.source for variant in model.variants))


def nearest(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Names that look like one that isn't there; all of them where none does."""
    known = sorted(names)
    return tuple(get_close_matches(name, known, NEAREST)) or tuple(known)
