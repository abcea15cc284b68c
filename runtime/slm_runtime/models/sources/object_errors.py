"""What an object store's client raises, as errors that people can act on.

The client says of most failures only that there was one; what it was stands in the text that it adds for debugging.
"""

import re
from collections.abc import Iterator
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
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnreachable,
    SourceUntrusted,
)

_STATUS: Final = re.compile(r"status: (\d{3}),")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
"""S3, Google and Azure name the cause of a refusal by the same element."""
_REJECTED: Final = {"ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_ELSEWHERE: Final = {
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
}
_NO_BUCKET: Final = {"NoSuchBucket", "ContainerNotFound"}
_CERTIFICATE: Final = re.compile(r"InvalidCertificate\(\s*(\w+)")

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
    if "NotPartial" in text:
        return SourceInvalid(
            f"{where}: {server} knows no ranges.", "Use a server that does, as all of these clouds'."
        )
    return _of_connection(text, where, server)


def _of_status(status: int, code: str, where: str, server: str) -> RuntimeFailure:
    said = f"{where}: {server} answers {status}{f' ({code})' if code else ''}."
    if code in _ELSEWHERE:
        return _elsewhere(where)
    if status in {401, 403} or code in _REJECTED:
        return SourceUnauthorized(said, LET_READ)
    if code in _NO_BUCKET:
        return SourceNotFound(f"{server} has no such bucket as that of {where}.")
    if status in {404, 410}:
        return SourceNotFound(said)
    if status == 416:
        return InvalidModel(f"{where} is empty, or shorter than it was.")
    if status in {408, 425, 429} or status >= 500 or code == "SlowDown":
        return SourceUnreachable(said)
    return SourceInvalid(said)


def _elsewhere(where: str) -> RuntimeFailure:
    return ConfigError(
        f"The bucket of {where} is in another region than the one that was asked.",
        "Name the bucket's region as AWS_REGION in the credentials Secret, or in the operator's fetch.env.",
    )


def _of_connection(text: str, where: str, server: str) -> RuntimeFailure:
    certificate = _CERTIFICATE.search(text)
    if certificate is not None:
        return SourceUntrusted(f"The certificate of {server} isn't trusted: {certificate[1]}.")
    if "No CA certificates were loaded" in text:
        return SourceUntrusted(f"{where}: this machine trusts no CA at all.")
    if "BadScheme" in text:
        return SourceUntrusted(f"{server} isn't encrypted, or leads to a server that isn't.", "Use https://.")
    if "dns error" in text:
        return SourceUnreachable(f"{where}: no address is known for {server}.")
    if "TunnelUnsuccessful" in text:
        return SourceUnreachable(f"{where}: the proxy lets nobody through to {server}.")
    if "Timeout" in text or "TimedOut" in text:
        return SourceUnreachable(f"{where}: waited too long for {server}.")
    if "kind: Connect" in text:
        return SourceUnreachable(f"{where}: no connection to {server}.")
    if "kind: Body" in text or "kind: Interrupted" in text or "kind: Request" in text:
        return SourceUnreachable(f"{where} was cut off.")
    return SourceUnreachable(f"{where}: {server} can't be asked: {_first_line(text)}.")


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rpartition(" - ")[2].strip(" .")[:200]
