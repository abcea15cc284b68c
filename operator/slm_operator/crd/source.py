"""How a source is written, scheme by scheme: the API server and the operator read it by the same regular expressions."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from slm_operator.crd.base import ApiModel, rule, rules
from slm_operator.crd.schemes import SCHEMES, Scheme, known


def _uri_rules(schemes: Mapping[str, Scheme] = SCHEMES) -> dict[str, Any]:
    begins = rule(f"self.matches('^({'|'.join(schemes)})://')", known(schemes))
    each = (
        rule(f"!self.startsWith('{name}://') || self.matches(r'{scheme.pattern}')", scheme.remedy)
        for name, scheme in schemes.items()
    )
    return rules(begins, *each)


SourceUri = Annotated[str, Field(min_length=1, max_length=2048, json_schema_extra=_uri_rules())]

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
