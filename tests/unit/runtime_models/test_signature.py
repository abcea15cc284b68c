"""Bundles of OpenSSF model signing: what its own library signs is believed, what anybody else makes of it isn't."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from slm_contract.config import SignerKind
from slm_runtime.errors import ConfigError, SignatureInvalid, SourceNotFound
from slm_runtime.models.signature import Signed, Signers, verify_bundle
from slm_runtime.models.signers import load_signers
from slm_runtime.models.sources.artifact import Artifact, FileBlob, PlainFile
from slm_runtime.models.sources.remote import signature_beside
from tests.support.signing import (
    BEGAN,
    DAY,
    CertifiedSigner,
    KeySigner,
    library_accepts,
    statement,
)

FILES = {"a.gguf": b"first", "b/c.gguf": b"second", "README.md": b"text"}
DIGESTS = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
ANNA = KeySigner()
ROOT = CertifiedSigner("root", authority=True)
MIDDLE = CertifiedSigner("middle", ROOT, authority=True)
BERT = CertifiedSigner("bert", MIDDLE)


def trusting(folder: Path, *signers: KeySigner) -> Signers:
    kind = SignerKind.CERTIFICATE if isinstance(signers[0], CertifiedSigner) else SignerKind.PUBLIC_KEY
    path = folder / "signers.pem"
    path.write_bytes(b"".join(each.trusted for each in signers))
    return load_signers(kind, path)


def written(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        path = folder / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "model"


def refused(bundle: bytes, signers: Signers) -> SignatureInvalid:
    with pytest.raises(SignatureInvalid) as caught:
        verify_bundle(bundle, signers)
    assert caught.value.permanent
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name
)
def test_what_the_library_signs_with_a_key_is_believed(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    signer = KeySigner(curve)
    signed = verify_bundle(signer.sign(written(tmp_path)), trusting(tmp_path, signer))
    assert signed == Signed(signer.fingerprint, DIGESTS)


@pytest.mark.parametrize("trusted", [ROOT, MIDDLE, BERT], ids=["root", "middle", "own"])
def test_what_the_library_signs_with_a_certificate_is_believed(
    tmp_path: Path, trusted: CertifiedSigner
) -> None:
    signed = verify_bundle(BERT.sign(written(tmp_path)), trusting(tmp_path, trusted))
    assert signed == Signed(BERT.fingerprint, DIGESTS)


def test_a_file_that_was_signed_by_itself_may_have_any_name(tmp_path: Path) -> None:
    file = written(tmp_path) / "a.gguf"
    signed = verify_bundle(ANNA.sign(file), trusting(tmp_path, ANNA))
    signed.check([("renamed.gguf", DIGESTS["a.gguf"])])
    with pytest.raises(SignatureInvalid, match="isn't the file that was signed"):
        signed.check([("renamed.gguf", DIGESTS["b/c.gguf"])])
    signed.check([("renamed.gguf", None)], early=True)
    with pytest.raises(SignatureInvalid):
        signed.check([("renamed.gguf", None)])
    with pytest.raises(SignatureInvalid, match="isn't among the files that were signed"):
        signed.check([("a.gguf", DIGESTS["a.gguf"]), ("b.gguf", DIGESTS["a.gguf"])])


def test_one_key_of_several_will_do(tmp_path: Path) -> None:
    other = KeySigner(ec.SECP384R1())
    signers = trusting(tmp_path, other, ANNA)
    assert verify_bundle(ANNA.sign(written(tmp_path)), signers).by == ANNA.fingerprint


@pytest.mark.parametrize(
    "files",
    [
        FILES,
        {**FILES, "a.gguf": b"other"},
        {**FILES, "added.gguf": b"more"},
        {"a.gguf": b"first"},
        {"b.gguf": b"first"},
        {"a.gguf": b"second", "b/c.gguf": b"first"},
    ],
    ids=["same", "changed", "added", "fewer", "renamed", "swapped"],
)
def test_files_are_judged_as_the_library_does_but_fewer_will_do(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    """A model is some of a repository's files, and the signature of all."""
    bundle = ANNA.sign(written(tmp_path))
    signed = verify_bundle(bundle, trusting(tmp_path, ANNA))
    try:
        signed.check([(name, hashlib.sha256(data).hexdigest()) for name, data in files.items()])
        accepted = True
    except SignatureInvalid:
        accepted = False
    fewer = files.items() < FILES.items()
    assert accepted == (fewer or library_accepts(bundle, files, ANNA))


def test_another_s_key_or_certificate_is_refused(tmp_path: Path) -> None:
    model, other = written(tmp_path), KeySigner()
    failure = refused(other.sign(model), trusting(tmp_path, ANNA))
    assert ANNA.fingerprint in failure.message
    stranger = CertifiedSigner("bert", CertifiedSigner("root", authority=True))
    for trusted in (ROOT, MIDDLE, BERT):
        assert "isn't trusted" in refused(stranger.sign(model), trusting(tmp_path, trusted)).message
    assert "no certificate" in refused(ANNA.sign(model), trusting(tmp_path, ROOT)).message


def certified(**how: Any) -> CertifiedSigner:
    return CertifiedSigner("carl", how.pop("issuer", ROOT), **how)


@pytest.mark.parametrize(
    ("signer", "says"),
    [
        (certified(may_sign=False), "isn't one for signing"),
        (certified(authority=True), "isn't one for signing"),
        (certified(issuer=certified()), "isn't trusted"),
        (certified(began=BEGAN - DAY), "isn't trusted"),
        (certified(began=BEGAN + 31 * DAY), "isn't trusted"),
        (
            certified(extensions=(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"),)),
            "isn't trusted",
        ),
    ],
    ids=["usage", "authority", "by no authority", "before its authority", "after its authority", "extension"],
)
def test_certificates_that_give_no_right_to_sign(tmp_path: Path, signer: CertifiedSigner, says: str) -> None:
    bundle = signer.sign(written(tmp_path))
    assert says in refused(bundle, trusting(tmp_path, ROOT)).message
    assert not library_accepts(bundle, FILES, ROOT)


def test_a_certificate_for_code_signing_gives_the_right(tmp_path: Path) -> None:
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CODE_SIGNING])
    signer = certified(may_sign=False, extensions=(usage,))
    bundle = signer.sign(written(tmp_path))
    assert verify_bundle(bundle, trusting(tmp_path, ROOT)).by == signer.fingerprint
    assert library_accepts(bundle, FILES, ROOT)


def test_a_certificate_that_somebody_else_has_signed_under(tmp_path: Path) -> None:
    bundle = ANNA.forge(statement(DIGESTS), verificationMaterial=BERT.material())
    assert "isn't by CN=bert" in refused(bundle, trusting(tmp_path, ROOT)).message


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A good bundle with something in it changed afterwards."""
    document = json.loads(ANNA.forge(statement(DIGESTS)))
    change(document)
    return json.dumps(document).encode()


def resigned(**how: Any) -> bytes:
    """A statement that was signed as it is."""
    return ANNA.forge(statement(DIGESTS, **how))


RESOURCES: list[dict[str, str]] = statement(DIGESTS)["predicate"]["resources"]
HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "html": b"<html>Not found</html>",
    "a number": b"1" * 5000,
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "bytes": b"\xff\xfe\x00",
    "no envelope": changed(lambda it: it.pop("dsseEnvelope")),
    "media type": changed(
        lambda it: it.update(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1")
    ),
    "no signature": changed(lambda it: it["dsseEnvelope"].update(signatures=[])),
    "two signatures": changed(
        lambda it: it["dsseEnvelope"].update(signatures=it["dsseEnvelope"]["signatures"] * 2)
    ),
    "empty signature": changed(lambda it: it["dsseEnvelope"]["signatures"][0].update(sig="")),
    "no base64": changed(lambda it: it["dsseEnvelope"].update(payload="é")),
    "another payload": changed(lambda it: it["dsseEnvelope"].update(payload="e30=")),
    "another payload type": changed(lambda it: it["dsseEnvelope"].update(payloadType="text/plain")),
    "signed as another type": ANNA.forge(statement(DIGESTS), payload_type="application/vnd.other+json"),
    "no statement": ANNA.forge([]),
    "deep statement": ANNA.forge(b"[" * 100_000),
    "statement type": resigned(_type="https://in-toto.io/Statement/v0.1"),
    "predicate type": resigned(predicateType="https://slsa.dev/provenance/v1"),
    "predicate of version 0.2": resigned(predicateType="https://model_signing/Digests/v0.1"),
    "no predicate": resigned(predicate={"resources": None}),
    "no subject": resigned(subject=[]),
    "two subjects": resigned(subject=statement(DIGESTS)["subject"] * 2),
    "another subject": resigned(subject=[{"name": "model", "digest": {"sha256": "0" * 64}}]),
    "subject of no sha256": resigned(subject=[{"name": "model", "digest": {"sha512": "0" * 128}}]),
    "shards": resigned(predicate={"serialization": {"method": "shards", "hash_type": "sha256"}}),
    "blake": resigned(predicate={"serialization": {"method": "files", "hash_type": "blake3"}}),
    "blake file": resigned(
        predicate={"resources": [{**RESOURCES[0], "algorithm": "blake2"}, *RESOURCES[1:]]}
    ),
    "no digest": resigned(predicate={"resources": [{**RESOURCES[0], "digest": "zz"}, *RESOURCES[1:]]}),
    "more files than the subject's": resigned(predicate={"resources": [*RESOURCES, RESOURCES[0]]}),
}


@pytest.mark.parametrize("bundle", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_good_bundle_is_refused_in_a_sentence(tmp_path: Path, bundle: bytes) -> None:
    failure = refused(bundle, trusting(tmp_path, ANNA))
    assert len(failure.message) < 1000
    assert not library_accepts(bundle, FILES, ANNA)


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    """The library takes the last of them; who reads the first is deceived."""
    twice = [("a.gguf", "0" * 64), ("a.gguf", DIGESTS["a.gguf"])]
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for _, digest in twice)).hexdigest()
    resources = [{"name": name, "algorithm": "sha256", "digest": digest} for name, digest in twice]
    subject = [{"name": "model", "digest": {"sha256": root}}]
    bundle = ANNA.forge(statement({}, subject=subject, predicate={"resources": resources}))
    assert "contradicts itself" in refused(bundle, trusting(tmp_path, ANNA)).message


GOOD = (
    (SignerKind.PUBLIC_KEY, ANNA, ANNA.forge(statement(DIGESTS))),
    (SignerKind.CERTIFICATE, BERT, BERT.forge(statement(DIGESTS), verificationMaterial=BERT.material())),
)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.sampled_from(GOOD), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3))
def test_a_bundle_that_was_damaged_is_refused_or_says_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    good: tuple[SignerKind, KeySigner, bytes],
    damage: list[tuple[int, int]],
) -> None:
    kind, signer, bundle = good
    signers = trusting(tmp_path_factory.getbasetemp(), ANNA if kind is SignerKind.PUBLIC_KEY else ROOT)
    damaged = bytearray(bundle)
    for where, value in damage:
        damaged[where % len(damaged)] = value
    try:
        signed = verify_bundle(bytes(damaged), signers)
    except SignatureInvalid:
        assert damaged != bundle
        return
    assert signed == Signed(signer.fingerprint, DIGESTS)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_certificate_that_was_damaged_is_refused(
    tmp_path_factory: pytest.TempPathFactory, where: int, by: int
) -> None:
    signers = trusting(tmp_path_factory.getbasetemp(), ROOT)
    der = [each.certificate.public_bytes(Encoding.DER) for each in (BERT, MIDDLE)]
    damaged = bytearray(der[0])
    damaged[where % len(damaged)] ^= by
    with pytest.raises(SignatureInvalid):
        signers.verify([bytes(damaged), *der[1:]], b"signature", b"message")


ED25519 = ed25519.Ed25519PrivateKey.generate().public_key()


@pytest.mark.parametrize(
    ("kind", "pem"),
    [
        (SignerKind.PUBLIC_KEY, b""),
        (SignerKind.PUBLIC_KEY, b"no PEM"),
        (SignerKind.PUBLIC_KEY, ROOT.trusted),
        (SignerKind.PUBLIC_KEY, b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        (SignerKind.PUBLIC_KEY, ED25519.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        (SignerKind.PUBLIC_KEY, KeySigner(ec.SECP256K1()).trusted),
        (SignerKind.CERTIFICATE, b""),
        (SignerKind.CERTIFICATE, ANNA.trusted),
        (SignerKind.CERTIFICATE, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    ],
    ids=range(9),
)
def test_who_is_trusted_has_to_be_readable(tmp_path: Path, kind: SignerKind, pem: bytes) -> None:
    path = tmp_path / "signers.pem"
    path.write_bytes(pem)
    with pytest.raises(ConfigError, match="holds no") as caught:
        load_signers(kind, path)
    assert "spec.model.verification" in caught.value.remedy
    path.unlink()
    with pytest.raises(ConfigError):
        load_signers(kind, path)


@pytest.mark.parametrize(
    ("listed", "chosen", "path", "names"),
    [
        ({"m.gguf.sig", "model.sig"}, ["m.gguf"], "m.gguf.sig", ("m.gguf",)),
        ({"q4/m.gguf.sig", "model.sig"}, ["q4/m.gguf"], "q4/m.gguf.sig", ("m.gguf",)),
        ({"model.sig", "q4/model.sig"}, ["q4/m.gguf"], "q4/model.sig", ("m.gguf",)),
        ({"model.sig"}, ["q4/m.gguf"], "model.sig", ("q4/m.gguf",)),
        ({"model.sig", "q4/model.sig"}, ["q4/a.gguf", "b.gguf"], "model.sig", ("q4/a.gguf", "b.gguf")),
        ({"q4/model.sig"}, ["q4/a.gguf", "q4x/b.gguf"], None, ()),
        ({"a.gguf.sig", "b.gguf.sig"}, ["a.gguf", "b.gguf"], None, ()),
        ({"other.sig"}, ["m.gguf"], None, ()),
    ],
)
def test_which_of_a_source_s_files_is_the_signature(
    listed: set[str], chosen: list[str], path: str | None, names: tuple[str, ...]
) -> None:
    def find(each: str) -> Artifact:
        if each not in listed:
            raise SourceNotFound(f"There is no {each}.")
        return PlainFile(each, FileBlob(Path("/source", each)))

    signature = signature_beside(chosen, find)
    if path is None:
        with pytest.raises(SourceNotFound):
            signature.find()
    else:
        found = signature.find()
        assert (found.artifact.payload.where, found.names) == (f"/source/{path}", names)
