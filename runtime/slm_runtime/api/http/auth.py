"""Who may ask. Every route wants a key, but for those that clients probe before they have one.

The decision is made on the request's raw path, byte for byte, before any routing: no spelling of a path
that routes to something can look keyless (vLLM once let requests past its check on a path that the check
had not foreseen).
"""

import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from slm_runtime.api.http.problems import Unauthorized

_log = logging.getLogger("slm.auth")

KEYLESS_METHODS: Final = frozenset({"GET", "HEAD"})
KEYLESS_PATHS: Final = frozenset({b"/", b"/health", b"/api/version", b"/api/health"})

_UNKNOWN: Final = "This API key is not known here. Keys may have been rotated; read the Secret again."

ANONYMOUS: Final = "anonymous"
"""The name in the audit log of whoever needed no key."""


class KeyRing:
    """The API keys in a folder: one file a key, its name is the key's name in the audit log.

    The folder is read again at most every `refresh` seconds, so that a key which Kubernetes puts there
    works, and one which it removes stops working, without a restart. Only digests are kept.
    """

    def __init__(
        self, folder: Path, *, refresh: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._refresh = refresh
        self._clock = clock
        self._read_at = -float("inf")
        self._digests: dict[str, bytes] = {}

    def __len__(self) -> int:
        """How many keys there are now."""
        return len(self._current())

    def owner(self, key: bytes) -> str | None:
        """The name of the key, or None. Takes as long for a wrong key as for a right one."""
        presented = _digest(key)
        found = None
        for name, digest in self._current().items():
            if hmac.compare_digest(digest, presented):
                found = name
        return found

    def _current(self) -> dict[str, bytes]:
        now = self._clock()
        if now - self._read_at >= self._refresh:
            self._read_at = now
            try:
                self._digests = dict(_read_keys(self._folder))
            except OSError as error:
                # No file may be open beyond a limit, say: that doesn't make a key invalid.
                _log.warning("The keys can't be read; those read before are kept: %s", error)
        return self._digests


def _read_keys(folder: Path) -> list[tuple[str, bytes]]:
    keys = []
    try:
        files = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    for file in files:
        # Kubernetes keeps its own bookkeeping here as `..data` and `..2026_…`.
        if file.name.startswith("."):
            continue
        try:
            text = file.read_bytes().strip()
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            continue
        if text:
            keys.append((file.name, _digest(text)))
    return keys


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def is_keyless(method: str, raw_path: bytes) -> bool:
    return method in KEYLESS_METHODS and raw_path in KEYLESS_PATHS


def authorize(authorization: bytes | None, api_key: bytes | None, keys: KeyRing) -> str:
    """Name the key of a request: of its `Authorization` header, or of `x-api-key`, as Anthropic's clients send it.

    Raises
    ------
    Unauthorized
        Neither header, another scheme than Bearer, or a key that isn't on the ring.
    """
    if api_key is not None:
        owner = keys.owner(api_key.strip())
        if owner is not None:
            return owner
        if authorization is None:
            raise Unauthorized(_UNKNOWN)
    if authorization is None:
        raise Unauthorized(
            "No API key was given. Send it as `Authorization: Bearer KEY`; "
            "the SLMDeployment's status names the Secret that holds it."
        )
    scheme, _, key = authorization.partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthorized("The Authorization header must be `Bearer KEY`.")
    owner = keys.owner(key.strip())
    if owner is None:
        raise Unauthorized(_UNKNOWN)
    return owner
