"""Signers of models: what OpenSSF's own library signs, and what somebody would forge."""

import base64
import datetime
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from model_signing import signing, verifying

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
BEGAN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


class KeySigner:
    """A bare key."""

    def __init__(self, curve: ec.EllipticCurve | None = None) -> None:
        self.key = ec.generate_private_key(curve or ec.SECP256R1())
        public = self.key.public_key()
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        self.trusted = public.public_bytes(serialization.Encoding.PEM, kind)
        """What those who verify have to have."""
        der = public.public_bytes(serialization.Encoding.DER, kind)
        self.fingerprint = f"key sha256:{hashlib.sha256(der).hexdigest()}"
        self.hash: hashes.HashAlgorithm = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}[
            public.key_size
        ]

    def sign(self, model: Path) -> bytes:
        """Sign a file or a folder as the library does it."""
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder, "signature")
            self._config(Path(folder)).sign(model, result)
            return result.read_bytes()

    def forge(self, payload: object, *, payload_type: str = PAYLOAD, **bundle: Any) -> bytes:
        """Sign anything at all, in a bundle with these fields changed."""
        content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        kind = payload_type.encode()
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(content), content)
        signature = self.key.sign(message, ec.ECDSA(self.hash))
        envelope = {
            "payload": base64.b64encode(content).decode(),
            "payloadType": payload_type,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        }
        made = {"mediaType": BUNDLE, "verificationMaterial": {"tlogEntries": []}, "dsseEnvelope": envelope}
        return json.dumps({**made, **bundle}).encode()

    def _config(self, folder: Path) -> signing.Config:
        return signing.Config().use_elliptic_key_signer(private_key=self._private(folder))

    def _private(self, folder: Path) -> Path:
        path = folder / "private.pem"
        pkcs8 = serialization.PrivateFormat.PKCS8
        path.write_bytes(
            self.key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
        )
        return path


class CertifiedSigner(KeySigner):
    """A key with a certificate, by itself or by another."""

    def __init__(
        self,
        name: str,
        issuer: "CertifiedSigner | None" = None,
        *,
        authority: bool = False,
        may_sign: bool = True,
        began: datetime.datetime = BEGAN,
        extensions: tuple[x509.ExtensionType, ...] = (),
        curve: ec.EllipticCurve | None = None,
    ) -> None:
        """It has been out of date for long: a certificate counts as of the day on which it began."""
        super().__init__(curve)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(began + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(_usage(may_sign and not authority, authority), critical=True)
        )
        for each in extensions:
            builder = builder.add_extension(each, critical=True)
        self.certificate = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())
        self.trusted = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.fingerprint = (
            f"CN={name} (certificate sha256:{self.certificate.fingerprint(hashes.SHA256()).hex()})"
        )
        self.chain: list[CertifiedSigner] = [issuer, *issuer.chain] if issuer else []

    def material(self) -> Mapping[str, Any]:
        certificates = [
            {"rawBytes": base64.b64encode(each.certificate.public_bytes(serialization.Encoding.DER)).decode()}
            for each in (self, *self.chain)
        ]
        return {"x509CertificateChain": {"certificates": certificates}}

    def _config(self, folder: Path) -> signing.Config:
        (folder / "own.pem").write_bytes(self.trusted)
        chain = []
        for index, each in enumerate(self.chain):
            chain.append(folder / f"{index}.pem")
            chain[-1].write_bytes(each.trusted)
        return signing.Config().use_certificate_signer(
            private_key=self._private(folder),
            signing_certificate=folder / "own.pem",
            certificate_chain=chain,
        )


def _usage(signs: bool, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        key_cert_sign=certifies,
        crl_sign=certifies,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not signs and not certifies,
        encipher_only=False,
        decipher_only=False,
    )


def statement(files: Mapping[str, str], **changed: Any) -> dict[str, Any]:
    """What the library states of files, by name and sha256; with parts of it changed."""
    root = hashlib.sha256(b"".join(map(bytes.fromhex, files.values()))).hexdigest()
    resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in files.items()]
    predicate = {
        "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
        "resources": resources,
    }
    made = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {**predicate, **changed.pop("predicate", {})},
    }
    return {**made, **changed}


def library_accepts(signature: bytes, files: Mapping[str, bytes], trusted: KeySigner) -> bool:
    """What OpenSSF's library says of a folder with these files, or of the one file `.`."""
    folder = Path(tempfile.mkdtemp())
    try:
        model, bundle, signers = folder / "model", folder / "model.sig", folder / "trusted.pem"
        for name, data in files.items():
            path = model / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        bundle.write_bytes(signature)
        signers.write_bytes(trusted.trusted)
        config = verifying.Config()
        if isinstance(trusted, CertifiedSigner):
            config.use_certificate_verifier(certificate_chain=[signers])
        else:
            config.use_elliptic_key_verifier(public_key=signers)
        try:
            config.verify(model, bundle)
        except Exception:
            return False
        return True
    finally:
        shutil.rmtree(folder)
