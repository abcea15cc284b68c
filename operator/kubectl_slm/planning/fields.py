"""Fields of a manifest that the API doesn't have: where they stand, and what may have been meant. Pure."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from slm_operator.crd.schema import structural
from slm_operator.crd.spec import Spec


def unknown_fields(document: Mapping[str, Any]) -> list[str]:
    """A sentence for each: the API server would refuse or drop them, and a decision doesn't see them."""
    return list(_unknown(document.get("spec") or {}, structural(Spec), "spec"))


def _unknown(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, list) and "items" in schema:
        for number, each in enumerate(value):
            yield from _unknown(each, schema["items"], f"{path}[{number}]")
    known = schema.get("properties")
    if not isinstance(value, Mapping) or known is None:
        return
    for name, each in value.items():
        if name in known:
            yield from _unknown(each, known[name], f"{path}.{name}")
        else:
            near = get_close_matches(str(name), known, n=1)
            yield f"{path}.{name} is no field" + (f": did you mean {near[0]}?" if near else "")
