"""Which pages may use the API from a browser: nothing but headers, which browsers alone care about.

The answers to other clients are the same with and without them, and no header of these replaces a key. Cookies are
neither read nor allowed: a page sends its key in `Authorization`, as every client does.
"""

from typing import Final

from slm_runtime.api.http.exchange import Exchange, Headers

PREFLIGHT_SECONDS: Final = 600
"""How long a browser may rely on what it was told."""
EXPOSED: Final = b"retry-after, x-request-id, x-slm-ignored-fields"
"""Headers of answers that pages may read, beyond those that they always may."""


class Cors:
    """`origins` are exact (`https://host:port`), or `*` for every page."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._every = "*" in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers(self, exchange: Exchange) -> Headers:
        """What every answer to this request carries."""
        if not self._origins:
            return []
        # A cache must not give the answer for one origin to another.
        headers = [] if self._every else [(b"vary", b"origin")]
        origin = exchange.header(b"origin")
        if origin is not None and (self._every or origin in self._origins):
            allowed = b"*" if self._every else origin
            headers += [
                (b"access-control-allow-origin", allowed),
                (b"access-control-expose-headers", EXPOSED),
            ]
        return headers

    def allows(self, exchange: Exchange) -> bool:
        """Whether this is a browser's question before a request, from a page that may ask.

        It brings no key: browsers send none with it.
        """
        origin = exchange.header(b"origin")
        return (
            exchange.method == "OPTIONS"
            and exchange.header(b"access-control-request-method") is not None
            and origin is not None
            and (self._every or origin in self._origins)
        )

    def preflight(self, exchange: Exchange, methods: tuple[str, ...]) -> Headers:
        """What such a question is answered with: any header may be sent, since vendors' clients send many of their own."""
        headers = [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
        ]
        asked = exchange.header(b"access-control-request-headers")
        return headers if asked is None else [*headers, (b"access-control-allow-headers", asked)]
