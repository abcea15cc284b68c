"""A model's signature as OpenSSF model signing writes it (`model.sig`), and whether files are those that were signed.

::

    Sigstore bundle v0.3          JSON; says by which key, or brings the signer's certificates along
    └── DSSE envelope             a payload, its type, one signature over both
        └── in-toto statement     its predicate lists each file with its sha256; its subject is the digest of these digests

Nothing of the payload is believed before its signature is verified.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

from pydantic import Base64Bytes, Field, ValidationError

from slm_contract.base import ContractModel
from slm_runtime.errors import SignatureInvalid

MAX_BYTES: Final = 4 << 20
"""Some 20,000 files."""
BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://model_signing/signature/v1.0"
ONLY_FILE: Final = "."
"""What a bundle calls a file that was signed by itself, not in a folder."""
_SHOWN: Final = 5
_SIGN_AGAIN: Final = (
    "Sign the model with model_signing 1.0 or later, by file and with sha256, as it does by itself."
)


class _Certificate(ContractModel):
    raw_bytes: Base64Bytes


class _Chain(ContractModel):
    certificates: Annotated[tuple[_Certificate, ...], Field(max_length=16)] = ()


class _Material(ContractModel):
    x509_certificate_chain: _Chain = _Chain()


class _Signature(ContractModel):
    sig: Base64Bytes


class _Envelope(ContractModel):
    payload: Base64Bytes
    payload_type: str
    signatures: tuple[_Signature]


class _Bundle(ContractModel):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Subject(ContractModel):
    digest: dict[str, str]


class _Serialization(ContractModel):
    method: str
    hash_type: Annotated[str, Field(alias="hash_type")]


class _Resource(ContractModel):
    name: str
    algorithm: str
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Predicate(ContractModel):
    serialization: _Serialization
    resources: tuple[_Resource, ...]


class _Statement(ContractModel):
    type: Annotated[str, Field(alias="_type")]
    subject: tuple[_Subject]
    predicate_type: str
    predicate: Any


class Signers(Protocol):
    def verify(self, certificates: Sequence[bytes], signature: bytes, message: bytes) -> str:
        """Find who of them signed a message; and tell it by a fingerprint.

        Parameters
        ----------
        certificates
            What the signature brings along, DER; the signer's own first.

        Raises
        ------
        SignatureInvalid
        """


@dataclass(frozen=True)
class Signed:
    """What somebody trusted has signed."""

    by: str
    """Fingerprint of key or certificate."""
    digests: Mapping[str, str]
    """sha256 by name."""

    def check(self, files: Sequence[tuple[str, str | None]], *, early: bool = False) -> None:
        """Compare files with what was signed: each has to be in it; it may be of others too.

        Parameters
        ----------
        files
            Name and sha256 of all the model's files.
        early
            Whether a checksum that isn't known yet will do.

        Raises
        ------
        SignatureInvalid
        """
        for name, found in files:
            signed = self.digests.get(ONLY_FILE if len(files) == 1 and self._of_one else name)
            if signed is None:
                others = ", ".join(each[:200] for each in sorted(self.digests)[:_SHOWN])
                raise SignatureInvalid(f"{name} isn't among the files that were signed: {others}.")
            if found != signed and not (early and found is None):
                raise SignatureInvalid(
                    f"{name} isn't the file that was signed: its sha256 is {found}, that of the signed one {signed}."
                )

    @property
    def _of_one(self) -> bool:
        return self.digests.keys() == {ONLY_FILE}


def verify_bundle(bundle: bytes, signers: Signers) -> Signed:
    """Verify a bundle, and say what was signed.

    Raises
    ------
    SignatureInvalid
    """
    try:
        read = _Bundle.model_validate_json(bundle)
    except ValidationError as error:
        raise SignatureInvalid(f"The signature is no Sigstore bundle: {_first(error)}.") from None
    _expect("bundle", read.media_type, BUNDLE)
    envelope = read.dsse_envelope
    _expect("payload", envelope.payload_type, PAYLOAD)
    certificates = [each.raw_bytes for each in read.verification_material.x509_certificate_chain.certificates]
    by = signers.verify(certificates, envelope.signatures[0].sig, _encoded(envelope))
    return Signed(by, _digests(envelope.payload))


def _encoded(envelope: _Envelope) -> bytes:
    """What is really signed: DSSE's pre-authentication encoding of payload and type."""
    kind, payload = envelope.payload_type.encode(), envelope.payload
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _digests(payload: bytes) -> dict[str, str]:
    try:
        statement = _Statement.model_validate_json(payload)
        _expect("statement", statement.type, STATEMENT)
        _expect("predicate", statement.predicate_type, PREDICATE)
        predicate = _Predicate.model_validate(statement.predicate)
    except ValidationError as error:
        raise SignatureInvalid(
            f"What was signed is no statement about a model: {_first(error)}.", _SIGN_AGAIN
        ) from None
    serialization, resources = predicate.serialization, predicate.resources
    _expect("serialization", serialization.method, "files")
    for algorithm in {serialization.hash_type, *(each.algorithm for each in resources)}:
        _expect("digest", algorithm, "sha256")
    found = {each.name: each.digest for each in resources}
    root = hashlib.sha256(b"".join(bytes.fromhex(each.digest) for each in resources)).hexdigest()
    if len(found) != len(resources) or statement.subject[0].digest.get("sha256") != root:
        raise SignatureInvalid("What was signed contradicts itself: its files aren't those of its subject.")
    return found


def _expect(what: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise SignatureInvalid(
            f"The signature's {what} is of the type {found[:200]!r}; this runtime reads {wanted!r}.",
            _SIGN_AGAIN,
        )


def _first(error: ValidationError) -> str:
    """Where and what is wrong; not the value, which is a stranger's."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc']))[:200] or 'it'}: {first['msg'][:200]}"
