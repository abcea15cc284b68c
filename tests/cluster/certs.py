"""One cluster's certificates and kubeconfigs: EC P-256 throughout, one authority, good for ten years."""

import base64
import datetime as dt
import ipaddress
import json
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = dt.timedelta(days=3650)


def _name(common: str, organization: str | None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write the key in the form (SEC 1) from which the API server can take the public half too."""
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def _alternative_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _inline(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


CA_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """A certificate authority in a folder: ``ca.crt``, and NAME.crt with NAME.key for each it issued."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("slm-operator test cluster", None)
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(CA_USAGE, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + _VALID)
            # Asked for by Python from 3.13 on.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )

    def issue(
        self, name: str, common: str, organization: str | None = None, hosts: Sequence[str] = ()
    ) -> tuple[Path, Path]:
        """Certificate and key files for *common*, good for client and server alike.

        *hosts* are the DNS names and addresses that it may serve.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = self._builder(_name(common, organization), key.public_key()).add_extension(
            x509.ExtendedKeyUsage(usages), critical=False
        )
        if hosts:
            names = x509.SubjectAlternativeName([_alternative_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        path = self.folder / f"{name}.crt"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        _write_key(path.with_suffix(".key"), key)
        return path, path.with_suffix(".key")

    def kubeconfig(self, path: Path, server: str, common: str, organization: str | None = None) -> Path:
        """Write a kubeconfig for *common* that carries all it needs, so that it can be copied anywhere."""
        certificate, key = self.issue(path.stem, common, organization)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "slm",
                    "cluster": {"server": server, "certificate-authority-data": _inline(self.certificate)},
                }
            ],
            "users": [
                {
                    "name": common,
                    "user": {
                        "client-certificate-data": _inline(certificate),
                        "client-key-data": _inline(key),
                    },
                }
            ],
            "contexts": [{"name": "slm", "context": {"cluster": "slm", "user": common}}],
            "current-context": "slm",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(document))
        return path

    def context(self, certificate: Path, key: Path) -> ssl.SSLContext:
        """For clients in this process that trust this authority and show *certificate*."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        context.load_cert_chain(certificate, key)
        return context


def service_account_key(folder: Path) -> Path:
    """Write a key that signs service account tokens."""
    path = folder / "service-accounts.key"
    _write_key(path, ec.generate_private_key(ec.SECP256R1()))
    return path
