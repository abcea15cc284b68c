"""What the API server answers when it isn't yes, and what follows from it.

::

    ClusterError
    ├── RetryError              the same intent may succeed in a moment
    │   ├── UnavailableError    5xx, no connection, timeout
    │   ├── ThrottledError      429, with the wait that the server asks for
    │   ├── UnauthenticatedError 401: the token is being rotated
    │   ├── ConflictError       409: the object has moved on, is gone or is another one: observe it again
    │   └── ExpiredError        410: a list took longer than its revision lives
    ├── WaitError               something else has to change, and may without notice
    │   ├── ForbiddenError      403: rights, quota, Pod Security, admission
    │   ├── MissingError        404: the object, its namespace or its kind
    │   └── TerminatingError    403: the namespace is being deleted; nobody needs telling
    └── StallError              this intent is never accepted
        ├── InvalidError        400, 413, 415, 422
        ├── TakenError          409: fields of ours belong to somebody else's object
        └── ExistsError         409: a POST of what is there

The class alone decides whether a reconcile retries, waits or stalls; ``reason`` is what the Ready condition
says meanwhile.
"""

from collections.abc import Mapping
from typing import Any, ClassVar


class ClusterError(Exception):
    """An answer that isn't yes; the message is the API server's own."""

    reason: ClassVar[str] = "WriteFailed"

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asks to wait; 0 where it asks nothing."""


class RetryError(ClusterError):
    """The same intent may succeed in a moment."""


class UnavailableError(RetryError):
    """No answer, or one of the server's own errors."""


class ThrottledError(RetryError):
    """Too many requests."""


class UnauthenticatedError(RetryError):
    """The credentials weren't taken: a token is read anew for each request, so this heals."""


class ConflictError(RetryError):
    """A precondition failed: what was observed is no longer so."""


class ExpiredError(RetryError):
    """The revision is compacted: start from now."""


class WaitError(ClusterError):
    """Something else has to change first."""


class ForbiddenError(WaitError):
    """Not allowed: rights, a quota, Pod Security or an admission policy."""

    reason = "WriteForbidden"


class TerminatingError(WaitError):
    """The namespace is going, and everything in it."""


class MissingError(WaitError):
    """No such object, namespace or kind."""

    reason = "NamespaceMissing"


class StallError(ClusterError):
    """Trying again can't help."""


class InvalidError(StallError):
    """The API server can't accept this object."""

    reason = "WriteInvalid"


class TakenError(StallError):
    """An object of that name exists, and its fields belong to somebody else."""

    reason = "NameTaken"


class ExistsError(StallError):
    """An object of that name exists."""

    reason = "NameTaken"


def from_status(code: int, status: Mapping[str, Any], retry_after: float = 0.0) -> ClusterError:
    """The error for an HTTP status code and the ``Status`` object in the body (empty where it was none)."""
    message = str(status.get("message") or f"the API server answered {code}")
    details = status.get("details") or {}
    causes = {cause.get("reason") for cause in details.get("causes") or ()}
    fields = {cause.get("field") for cause in details.get("causes") or ()}
    wait = retry_after or float(details.get("retryAfterSeconds") or 0)
    match code:
        case 401:
            return UnauthenticatedError(message)
        case 403 if "NamespaceTerminating" in causes:
            return TerminatingError(message)
        case 403:
            return ForbiddenError(message)
        case 404:
            return MissingError(message)
        case 409 if status.get("reason") == "AlreadyExists":
            return ExistsError(message)
        case 409 if "FieldManagerConflict" in causes:
            return TakenError(message)
        case 409:
            return ConflictError(message)
        case 422 if "metadata.uid" in fields:
            # An apply over another object of the name, in words of its own: the field is immutable.
            return ConflictError(message)
        case 410:
            return ExpiredError(message)
        case 429:
            return ThrottledError(message, retry_after=wait or 1.0)
        case 400 | 405 | 413 | 415 | 422:
            return InvalidError(message)
        case _:
            return UnavailableError(f"{code}: {message}", retry_after=wait)
