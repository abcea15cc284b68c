"""What a client did wrong, or what we can't do for it now: one class a status code.

    ApiError
    ├── BadRequest           400  the body can't be honoured; `param` names the field
    ├── Unauthorized         401  no key, or none that is known
    ├── NotFound             404  no such route
    │   └── ModelNotFound    404  another model than the one served
    ├── MethodNotAllowed     405
    ├── RequestTimeout       408  the body came too slowly
    ├── PayloadTooLarge      413
    ├── TooBusy              429  the queue is full; Retry-After says when
    ├── ServerFault          500  ours; the log has the details
    │   └── EngineFailed          the engine ended, and client libraries are told not to try again by themselves
    ├── NotServed            501  a route of the protocol that an operator-managed runtime does not have
    └── Unavailable          503  loading, draining, restarting; Retry-After says when

Handlers raise them anywhere before the response has begun; the app writes them in the envelope of the
protocol that was spoken. The messages are for people: what is wrong, where, what to do.
"""

import math
from http import HTTPStatus
from typing import Any, ClassVar, Final

from typing_extensions import override

_ANTHROPIC_KINDS: Final = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}


class ApiError(Exception):
    """Base of all; `code` and `kind` are OpenAI's `code` and `type`."""

    status: ClassVar[HTTPStatus]
    kind: ClassVar[str] = "invalid_request_error"
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after = retry_after

    def headers(self) -> list[tuple[bytes, bytes]]:
        if self.retry_after is None:
            return []
        return [(b"retry-after", str(max(1, math.ceil(self.retry_after))).encode())]

    def openai(self) -> dict[str, Any]:
        """OpenAI's error envelope."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    def anthropic(self) -> dict[str, Any]:
        """Anthropic's: its kinds follow from the status."""
        other = "api_error" if self.status >= 500 else "invalid_request_error"
        # Agents look for these words, to shorten the conversation.
        before = "prompt is too long: " if self.code == "context_length_exceeded" else ""
        error = {"type": _ANTHROPIC_KINDS.get(self.status, other), "message": before + self.message}
        return {"type": "error", "error": error}

    def ollama(self) -> dict[str, Any]:
        """Ollama's: the sentence alone."""
        return {"error": self.message}


class BadRequest(ApiError):
    status = HTTPStatus.BAD_REQUEST


class Unauthorized(ApiError):
    status = HTTPStatus.UNAUTHORIZED
    default_code = "invalid_api_key"

    @override
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"www-authenticate", b"Bearer")]


class NotFound(ApiError):
    status = HTTPStatus.NOT_FOUND
    default_code = "unknown_url"


class ModelNotFound(NotFound):
    default_code = "model_not_found"

    def __init__(self, asked: str, served: list[str]) -> None:
        names = ", ".join(f"'{each}'" for each in served)
        super().__init__(
            f"The model {asked[:200]!r} was not found; this server serves {names}.", param="model"
        )
        self._ollama = f"model '{asked[:200]}' not found; this server serves {names}"

    @override
    def ollama(self) -> dict[str, Any]:
        """In Ollama's own words, which clients look for."""
        return {"error": self._ollama}


class MethodNotAllowed(ApiError):
    status = HTTPStatus.METHOD_NOT_ALLOWED
    default_code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        self.allowed = ", ".join(allowed)
        super().__init__(f"{method} is not allowed on {path}; use {self.allowed}.")

    @override
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"allow", self.allowed.encode())]


class RequestTimeout(ApiError):
    status = HTTPStatus.REQUEST_TIMEOUT


class PayloadTooLarge(ApiError):
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    default_code = "request_too_large"


class TooBusy(ApiError):
    status = HTTPStatus.TOO_MANY_REQUESTS
    kind = "requests"
    default_code = "rate_limit_exceeded"


class ServerFault(ApiError):
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "server_error"
    default_code = "internal_error"


class EngineFailed(ServerFault):
    """The engine ended, perhaps because of this request.

    Client libraries repeat what got a 500 by themselves, and three deaths in a row end the container: they are told not to.
    """

    default_code = "engine_failed"

    @override
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [*super().headers(), (b"x-should-retry", b"false")]


class NotServed(ApiError):
    status = HTTPStatus.NOT_IMPLEMENTED
    default_code = "not_served"


class Unavailable(ApiError):
    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "server_error"
    default_code = "unavailable"
