"""A model's name on the command line → the smallest manifest, and whether it is there already."""

import re
from typing import Any, Final

from kubectl_slm import read
from kubectl_slm.cluster import RESOURCE, Cluster, manifest
from kubectl_slm.errors import CommandError, Exit
from slm_operator.crd.names import NAME_LIMIT

_VERSION: Final = re.compile(r"[@#].*$")


def source_of(model: str) -> str:
    """A URI is one; `name:tag` is Ollama's way of naming a model; any other word is a name of the catalog.

    Raises
    ------
    CommandError
        It could be a repository, or an alias of whoever.
    """
    if "://" in model:
        return model
    if "/" in model:
        owner, _, name = model.rpartition("/")
        raise CommandError(
            f"{model} says not where it is from",
            f"write hf://{model} for the repository of {owner}, or {name} where the catalog has it: `kubectl slm models`",
            Exit.USAGE,
        )
    return f"ollama://{model}" if ":" in model else f"catalog://{model}"


def name_for(model: str) -> str:
    """Of the SLMDeployment where none is given: the last part of the model's, as a Service may be called."""
    last = _VERSION.sub("", model).rstrip("/").rpartition("/")[2]
    plain = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\.gguf$", "", last.lower())).strip("-")
    named = plain if re.match(r"[a-z]", plain) else f"model-{plain}"
    return named[:NAME_LIMIT].strip("-")


def made(cluster: Cluster, name: str, spec: dict[str, Any]) -> bool:
    """Create it, unless it is there with the same model, which is resumed; whether it was created.

    Raises
    ------
    CommandError
        One of the same name has another model.
    """
    try:
        there = cluster.get(RESOURCE, name)
    except CommandError as error:
        if error.code is not Exit.NOT_FOUND:
            raise
        cluster.create(manifest(name, spec))
        return True
    source, wanted = there["spec"]["model"].get("source"), spec["model"]["source"]
    if source != wanted:
        raise CommandError(
            f"{read.namespace_of(there)}/{name} is there already, with {source}",
            f"give the other one a name: --name NAME, or take this one away: `kubectl slm rm {name}`",
        )
    if there["spec"].get("suspend") and not spec.get("suspend"):
        cluster.patch(RESOURCE, name, {"spec": {"suspend": False}})
    return False
