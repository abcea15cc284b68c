"""What a registry asks for before it shows anything: a password, or a token that another server gives for it.

Nothing is sent before it is asked for. The token's server is named by the registry, and gets the registry's credentials,
as with every other client; the token is for reading one repository, and another is asked for when the registry refuses it.
"""

import json
import re
import threading
from typing import Final
from urllib.parse import parse_qsl, urlencode

import httpx2

from slm_runtime.errors import SourceInvalid, SourceNotFound, SourceUntrusted
from slm_runtime.models.sources.address import origin, redacted, split
from slm_runtime.models.sources.http import bounded
from slm_runtime.models.sources.site import Credentials, Site

MAX_TOKEN_BYTES: Final = 1 << 20
_BEARER: Final = re.compile(r"\bBearer\s+(.*)", re.IGNORECASE | re.DOTALL)
_PARAMETER: Final = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')
_BASIC: Final = re.compile(r"\bBasic\b", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


class RegistryLogin:
    """Answers the 401 of one registry; thread-safe."""

    def __init__(self, site: Site, base: str, repository: str, credentials: Credentials) -> None:
        """`base`: the URL that is really asked, be it the registry's or a mirror's."""
        self._site = site
        self._base = base
        self._origin = origin(base)
        self._scope = f"repository:{repository}:pull"
        self._credentials = credentials
        self._given: str | None = None
        self._lock = threading.Lock()

    def __call__(self, refused: httpx2.Response, /) -> str | None:
        if origin(str(refused.request.url)) != self._origin:
            return None
        sent = refused.request.headers.get("Authorization")
        with self._lock:
            if self._given == sent:
                self._given = self._answer(refused.headers.get("WWW-Authenticate", ""), sent)
            return self._given if self._given != sent else None

    def _answer(self, challenge: str, sent: str | None) -> str | None:
        if self._credentials.token is not None:
            return self._credentials.authorization()
        bearer = _BEARER.search(challenge)
        if bearer is not None:
            parameters: dict[str, str] = {}
            for name, quoted, bare in _PARAMETER.findall(bearer[1]):
                parameters.setdefault(name.lower(), quoted or bare)
            return f"Bearer {self._token(parameters)}"
        return self._credentials.authorization() if _BASIC.search(challenge) else sent

    def _token(self, challenge: dict[str, str]) -> str:
        """Ask the server that the registry names for a token."""
        realm = challenge.get("realm")
        if not realm:
            raise SourceInvalid(
                f"{self._base} doesn't say where it gives tokens.", "Ask who runs the registry."
            )
        if split(self._base).scheme == "https" and split(realm).scheme != "https":
            raise SourceUntrusted(
                f"{self._base} sends its clients for a token to {redacted(realm)}, which isn't encrypted.",
                "Ask who runs the registry.",
            )
        parts = split(realm)
        asked = {"service": challenge["service"]} if "service" in challenge else {}
        query = urlencode(
            [*parse_qsl(parts.query), *asked.items(), ("scope", challenge.get("scope") or self._scope)]
        )
        url = parts._replace(query=query, fragment="").geturl()
        login = self._credentials.authorization()
        own = {origin(self._site.route(url)): login} if login else {}
        try:
            with self._site.client(own) as client, client.get(url) as response:
                return _read_token(bounded(response, MAX_TOKEN_BYTES), redacted(url))
        except SourceNotFound as error:
            raise SourceInvalid(
                f"{self._base} sends its clients for a token to where there is none: {error.message}",
                "Ask who runs the registry.",
            ) from error


def _read_token(body: bytes, where: str) -> str:
    try:
        answer = json.loads(body)
        token = answer.get("token") or answer.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        raise SourceInvalid(f"{where} answers with no token.", "Ask who runs the registry.")
    return token
