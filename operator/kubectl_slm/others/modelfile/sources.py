"""What `FROM` and `ADAPTER` name, as sources that a pod can reach."""

import re
from typing import Final

from kubectl_slm.others.bounds import QUANTIZATIONS
from kubectl_slm.others.converted import NotConverted
from kubectl_slm.others.sources import checked

_HUB: Final = re.compile(
    r"^(?:hf\.co|huggingface\.co)/(?P<repository>[^/:]+/[^/:]+)(?::(?P<tag>.+))?$", re.IGNORECASE
)
_LOCAL: Final = re.compile(r"^([./~\\]|[A-Za-z]:[\\/]).*|.*\.(gguf|bin|safetensors|pth)$", re.DOTALL)
_BLOB: Final = re.compile(r"[\\/]blobs[\\/]sha256-[0-9a-f]{64}$")
_DEFAULT: Final = "Q4_K_M"
"""What Ollama takes of a repository of Hugging Face whose number format isn't said."""


def model_source(line: int, named: str) -> tuple[str, str | None]:
    """The source, and the number format to take of it.

    Raises
    ------
    NotConverted
        No pod can reach it, or it is no name.
    """
    hub = _HUB.match(named)
    if hub:
        return _of_hub(hub["repository"], hub["tag"] or _DEFAULT)
    if "://" in named:
        return checked(line, "FROM", named), None
    if _BLOB.search(named):
        raise NotConverted(
            line,
            "FROM names a file in Ollama's own store on this machine, which no pod can reach",
            "Write FROM with the model's name: the comment above it in what `ollama show --modelfile` prints says it.",
        )
    if _LOCAL.match(named):
        raise NotConverted(
            line, f"FROM {named[:80]} is a file or folder of this machine, which no pod can reach", _REACH
        )
    return checked(line, "FROM", f"ollama://{named}"), None


def adapter_source(line: int, named: str) -> str:
    """Where an adapter is.

    Raises
    ------
    NotConverted
    """
    hub = _HUB.match(named)
    if hub:
        return _of_hub(hub["repository"], hub["tag"])[0]
    if "://" not in named:
        raise NotConverted(
            line, f"ADAPTER {named[:80]} is a file of this machine, which no pod can reach", _REACH
        )
    source = checked(line, "ADAPTER", named)
    if source.startswith(("pvc://", "catalog://")):
        raise NotConverted(line, f"ADAPTER {named[:80]}: adapters come from no claim and no catalog", _REACH)
    return source


_REACH: Final = (
    "Put it where pods reach it, and write that: hf://organization/repository/file.gguf, https://host/path/file.gguf, "
    "oci://registry/repository:tag or s3://bucket/file.gguf; a model may also lie on a claim: pvc://claim/path/file.gguf, "
    "or be named by --source."
)


def _of_hub(repository: str, tag: str | None) -> tuple[str, str | None]:
    if tag is None or tag.upper() in QUANTIZATIONS:
        return f"hf://{repository}", None if tag is None else tag.upper()
    return f"hf://{repository}/{tag if tag.endswith('.gguf') else f'*{tag}*.gguf'}", None
