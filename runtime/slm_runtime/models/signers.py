"""Those whose signatures are trusted: public keys, or certificates and what they have certified.

What OpenSSF model signing makes is verified as its own library does it: ECDSA on the NIST curves, and a chain of
certificates as of the day on which the signer's own began. A signature doesn't say when it was made, so one that was
good once stays good; trust ends when the key or certificate is taken out of the file.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from slm_contract.config import SignerKind
from slm_runtime.errors import ConfigError, SignatureInvalid
from slm_runtime.models.signature import Signers

MAX_SUBJECT: Final = 200
_KEY: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
_HASHES: Final[dict[str, hashes.HashAlgorithm]] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""The curves that model signing knows, and the hash that goes with each."""
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What parsing of a stranger's key or certificate ends with."""


def load_signers(kind: SignerKind, path: Path) -> Signers:
    """Read those who are trusted.

    Raises
    ------
    ConfigError
    """
    what = "public key" if kind is SignerKind.PUBLIC_KEY else "certificate"
    try:
        pem = path.read_bytes()
        return PublicKeys(pem) if kind is SignerKind.PUBLIC_KEY else Certificates(pem)
    except (OSError, *_UNREADABLE) as error:
        raise ConfigError(
            f"{path} holds no {what} that signatures can be verified with: {error}.",
            f"Put the {what} in PEM form into the entry that spec.model.verification names.",
        ) from error


class PublicKeys:
    """Several, so that one can take another's place."""

    def __init__(self, pem: bytes) -> None:
        """Raise ValueError where there is none."""
        self._keys = [_elliptic(load_pem_public_key(each)) for each in _KEY.findall(pem)]
        if not self._keys:
            raise ValueError("there is no PUBLIC KEY in it")

    def verify(self, _certificates: Sequence[bytes], signature: bytes, message: bytes) -> str:
        for key in self._keys:
            if _made_by(key, signature, message):
                return _key_name(key)
        raise SignatureInvalid(
            f"The signature is by none of the trusted keys ({', '.join(map(_key_name, self._keys))})."
        )


class Certificates:
    """The signers' own, or those of authorities that have certified them for signing."""

    def __init__(self, pem: bytes) -> None:
        """Raise ValueError where there is none."""
        self._store = Store(x509.load_pem_x509_certificates(pem))

    def verify(self, certificates: Sequence[bytes], signature: bytes, message: bytes) -> str:
        if not certificates:
            raise SignatureInvalid("The signature brings no certificate along: it was made with a bare key.")
        try:
            signer, *others = map(x509.load_der_x509_certificate, certificates)
            key = _elliptic(signer.public_key())
            self._check_chain(signer, others)
            may_sign = _may_sign(signer)
            subject = signer.subject.rfc4514_string()[:MAX_SUBJECT]
        except VerificationError as error:
            raise SignatureInvalid(f"The signer's certificate isn't trusted: {error}.") from error
        except _UNREADABLE as error:
            raise SignatureInvalid(f"The signer's certificate can't be used: {error}.") from error
        if not may_sign:
            raise SignatureInvalid(f"The certificate of {subject} isn't one for signing.")
        if not _made_by(key, signature, message):
            raise SignatureInvalid(f"The signature isn't by {subject}, whose certificate it brings along.")
        return f"{subject} (certificate sha256:{signer.fingerprint(hashes.SHA256()).hex()})"

    def _check_chain(self, signer: x509.Certificate, others: list[x509.Certificate]) -> None:
        builder = PolicyBuilder().store(self._store).time(signer.not_valid_before_utc)
        policies = builder.extension_policies(ca_policy=_AUTHORITY, ee_policy=ExtensionPolicy.permit_all())
        policies.build_client_verifier().verify(signer, others)


def _elliptic(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _HASHES:
        raise ValueError("it isn't a key on the curve P-256, P-384 or P-521")
    return key


def _made_by(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message, ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        return False
    return True


def _key_name(key: ec.EllipticCurvePublicKey) -> str:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"key sha256:{hashlib.sha256(der).hexdigest()}"


def _may_sign(certificate: x509.Certificate) -> bool:
    extensions = certificate.extensions
    try:
        if extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CODE_SIGNING in usage


def _is_authority(_policy: Policy, _certificate: x509.Certificate, extension: x509.BasicConstraints) -> None:
    if not extension.ca:
        raise ValueError("it is no authority")


def _may_certify(_policy: Policy, _certificate: x509.Certificate, extension: x509.KeyUsage | None) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("it may not certify others")


_AUTHORITY: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_certify)
)
"""Of private authorities: the web's own rules ask for extensions that they have no use for."""
