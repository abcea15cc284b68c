"""What an object store's client raises, as errors that people can act on.

The client says of most failures only that there was one; what it was stands in the text that it adds for debugging.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from slm_runtime.errors import (
    ConfigError,
    InvalidModel,
    RuntimeFailure,
    SourceChanged,
    SourceError,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnreachable,
    SourceUntrusted,
)

_STATUS: Final = re.compile(r"status: (\d{3}),")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
"""S3, Google and Azure name the cause of a refusal by the same element."""
_CERTIFICATE: Final = re.compile(r"InvalidCertificate\((?:\s*Other(?:Error)?\()*\s*(\w+)")
_ELSEWHERE: Final = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
}
_NO_BUCKET: Final = {"NoSuchBucket", "ContainerNotFound"}
_OF_CODE: Final[Mapping[str, type[SourceError]]] = {
    **dict.fromkeys(("ExpiredToken", "InvalidToken", "PublicAccessNotPermitted"), SourceUnauthorized),
    "SlowDown": SourceUnreachable,
}
"""Causes that tell more than the status that they come with."""
_OF_STATUS: Final[Mapping[int, type[SourceError]]] = {
    **dict.fromkeys((401, 403), SourceUnauthorized),
    **dict.fromkeys((404, 410), SourceNotFound),
    **dict.fromkeys((408, 425, 429), SourceUnreachable),
}
_OF_CONNECTION: Final[tuple[tuple[str, type[SourceError], str], ...]] = (
    ("NotPartial", SourceInvalid, "{where}: {server} knows no ranges."),
    ("invalid list response", SourceInvalid, "{where}: {server} lists objects in a way that makes no sense."),
    ("Failed to parse", SourceInvalid, "{where}: {server} answers in a way that makes no sense."),
    ("No CA certificates were loaded", SourceUntrusted, "{where}: this machine trusts no CA at all."),
    ("BadScheme", SourceUntrusted, "{server} isn't encrypted, or leads to a server that isn't."),
    ("dns error", SourceUnreachable, "{where}: no address is known for {server}."),
    ("TunnelUnsuccessful", SourceUnreachable, "{where}: the proxy lets nobody through to {server}."),
    ("Timeout", SourceUnreachable, "{where}: waited too long for {server}."),
    ("TimedOut", SourceUnreachable, "{where}: waited too long for {server}."),
    ("kind: Connect", SourceUnreachable, "{where}: no connection to {server}."),
    ("kind: Body", SourceUnreachable, "{where} was cut off."),
    ("kind: Interrupted", SourceUnreachable, "{where} was cut off."),
)
"""Words in the text, and what they mean; the first that is there."""

LET_READ: Final = (
    "Let the credentials read (and list) there, or name a Secret with them in spec.model.credentials.secretRef:"
    " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY;"
    " GOOGLE_SERVICE_ACCOUNT_KEY."
)


@contextmanager
def typed(where: str, server: str) -> Iterator[None]:
    """Turn what the client raises into what people can act on.

    Parameters
    ----------
    where
        What is asked for, for messages.
    server
        Who is asked.
    """
    try:
        yield
    except (BaseError, FileNotFoundError, ValueError) as error:
        # Without the error that it was made of: that has addresses, headers and what the server wrote.
        raise _failure(error, where, server) from None


def _failure(error: Exception, where: str, server: str) -> RuntimeFailure:
    text = str(error)
    if isinstance(error, PreconditionError):
        return SourceChanged(f"{where} changed while it was fetched.")
    if isinstance(error, InvalidPathError | ValueError):
        return SourceInvalid(f"{where} is no name that objects can have.")
    status = _STATUS.search(text)
    if status is not None:
        code = _CODE.search(text)
        return _of_status(int(status[1]), code[1] if code else "", where, server)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return SourceUnauthorized(f"{where} can't be asked for: the credentials can't be used.", LET_READ)
    if "BareRedirect" in text:
        return _elsewhere(where)
    return _of_connection(text, where, server)


def _of_status(status: int, code: str, where: str, server: str) -> RuntimeFailure:
    if code in _ELSEWHERE:
        return _elsewhere(where)
    if code in _NO_BUCKET:
        return SourceNotFound(f"{server} has no such bucket as that of {where}.")
    if status == 416:
        return InvalidModel(f"{where} is empty, or shorter than it was.")
    kind = (
        _OF_CODE.get(code)
        or _OF_STATUS.get(status)
        or (SourceUnreachable if status >= 500 else SourceInvalid)
    )
    said = f"{where}: {server} answers {status}{f' ({code})' if code else ''}."
    return kind(said, LET_READ if kind is SourceUnauthorized else None)


def _elsewhere(where: str) -> RuntimeFailure:
    return ConfigError(
        f"The bucket of {where} is in another region than the one that was asked.",
        "Name the bucket's region as AWS_REGION in the credentials Secret, or in the operator's fetch.env.",
    )


def _of_connection(text: str, where: str, server: str) -> RuntimeFailure:
    certificate = _CERTIFICATE.search(text)
    if certificate is not None:
        return SourceUntrusted(f"The certificate of {server} isn't trusted: {certificate[1]}.")
    for words, kind, said in _OF_CONNECTION:
        if words in text:
            return kind(said.format(where=where, server=server))
    return SourceUnreachable(f"{where}: {server} can't be asked: {_first_line(text)}.")


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rpartition(" - ")[2].strip(" .")[:200]
