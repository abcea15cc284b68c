"""What Foundry's models are called in the operator's catalog."""

import re
from typing import Final

from kubectl_slm.others.converted import Draft, NotConverted
from kubectl_slm.others.sources import checked

_BUILD: Final = re.compile(r"-(generic|cuda|openvino|qnn|vitis|trtrtx|tensorrt|webgpu)[-a-z]*(cpu|gpu|npu)?$")
_PLAIN: Final = re.compile(r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?")
_ITS_OWN: Final = frozenset({"microsoft"})
"""Whose name no model has before its own."""


def catalog_name(named: str) -> str | None:
    """`microsoft/phi-4-mini` as `phi-4-mini`; None: it is no name."""
    organization, _, model = named.lower().partition(":")[0].rpartition("/")
    name = _BUILD.sub("", model).removesuffix("-instruct")
    if organization and organization not in _ITS_OWN and not name.startswith(organization):
        name = f"{organization}-{name}"
    return name if _PLAIN.fullmatch(name) else None


def catalog_source(draft: Draft, line: int | None, named: str) -> str:
    """Where a model is that Foundry names; a source of ours stays as it is.

    Raises
    ------
    NotConverted
    """
    if "://" in named:
        return checked(line, "model", named)
    name = catalog_name(named)
    if name is None:
        raise NotConverted(
            line,
            f"{named[:80]!r} names no model",
            "Write a name such as microsoft/phi-4-mini, or a source such as hf://organization/repository.",
        )
    draft.note(
        line,
        named,
        f"catalog://{name} is what the operator's catalog has under that name (`kubectl slm models`); spec.model.source "
        "takes any other source",
    )
    return f"catalog://{name}"
