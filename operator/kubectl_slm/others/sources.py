"""Sources of models, held to what the API server takes."""

import re

from kubectl_slm.others.converted import NotConverted
from slm_operator.crd.schemes import SCHEMES


def checked(line: int | None, what: str, source: str) -> str:
    """A source, as it is written.

    Raises
    ------
    NotConverted
        It is none.
    """
    scheme = SCHEMES.get(source.partition("://")[0])
    if scheme is None or not re.search(scheme.pattern, source):
        remedy = (
            "write " + ", ".join(f"{name}://..." for name in SCHEMES) if scheme is None else scheme.remedy
        )
        raise NotConverted(
            line, f"{what} {source[:80]!r} names no model", f"{remedy[0].upper()}{remedy[1:]}."
        )
    return source
