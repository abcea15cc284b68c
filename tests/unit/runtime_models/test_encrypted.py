"""Encrypted models: ciphertext on the volume, plain in memory alone, and nothing of either where it can't be trusted."""

import io
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from slm_contract.config import SignerKind, VerificationConfig
from slm_contract.report import FailureReason
from slm_runtime.errors import (
    ConfigError,
    DecryptionFailed,
    InvalidModel,
    ModelMissing,
    OutOfSpace,
    RuntimeFailure,
    SourceUnreachable,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.models.encrypted import PlainVolume, in_plain
from slm_runtime.models.sources.site import Site
from tests.support.signing import KeySigner
from tests.support.web import WebServer
from tests.unit.runtime_models.conftest import FetchOf

OWN = pyrage.x25519.Identity.generate()
OTHER = pyrage.x25519.Identity.generate()


def encrypted(data: bytes, *identities: pyrage.x25519.Identity, armored: bool = False) -> bytes:
    out = io.BytesIO()
    recipients = [each.to_public() for each in identities or (OWN,)]
    pyrage.encrypt_io(io.BytesIO(data), out, recipients, armored=armored)
    return out.getvalue()


@pytest.fixture
def plain_dir(site: Site) -> Path:
    """What a pod has mounted whose spec names an identity."""
    site.places.identities.write_text(f"# created: 2026-01-01\n# public key: {OWN.to_public()}\n{OWN}\n")
    site.places.plain_dir.mkdir()
    return site.places.plain_dir


def opened(fetch: Fetch, site: Site) -> Path:
    """What the server opens."""
    return PlainVolume(site.places.plain_dir, site.places.identities).path(fetch.folder.require())


def refusal(fetch: Fetch) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        fetch.run()
    return caught.value


@pytest.mark.parametrize("ranges", [True, False])
def test_an_encrypted_model_lies_in_plain_in_memory_alone(
    web: WebServer, fetch_of: FetchOf, site: Site, tiny: bytes, plain_dir: Path, ranges: bool
) -> None:
    ciphertext = encrypted(tiny)
    fetch = fetch_of(web.put("m.gguf.age", ciphertext, ranges=ranges))
    facts = fetch.run().model.facts
    assert (facts.encrypted, facts.size_bytes, facts.architecture) == (True, len(tiny), "llama")
    assert [each.size_bytes for each in facts.files] == [len(ciphertext)]
    assert opened(fetch, site) == plain_dir / "m.gguf"
    assert opened(fetch, site).read_bytes() == tiny
    assert [each.name for each in plain_dir.iterdir()] == ["m.gguf"]
    assert (fetch.folder.path / "m.gguf.age").read_bytes() == ciphertext
    assert {each.name for each in fetch.folder.path.iterdir()} == {
        "m.gguf.age",
        "model.json",
        ".lock",
        ".served",
    }


def test_another_pod_decrypts_what_is_on_the_volume(
    web: WebServer, fetch_of: FetchOf, site: Site, tiny: bytes, plain_dir: Path
) -> None:
    url = web.put("m.gguf.age", encrypted(tiny))
    fetch_of(url).run()
    (plain_dir / "m.gguf").unlink()
    web.asked.clear()
    fetch = fetch_of(url)
    assert fetch.run().cached
    assert opened(fetch, site).read_bytes() == tiny
    assert web.asked == []


def test_a_job_fills_a_claim_without_ever_writing_it_in_plain(
    web: WebServer, fetch_of: FetchOf, site: Site, tiny: bytes, plain_dir: Path
) -> None:
    plain_dir.rmdir()
    fetch = fetch_of(web.put("m.gguf.age", encrypted(tiny)))
    assert fetch.run().model.facts.encrypted
    with pytest.raises(ModelMissing, match="no decrypted model"):
        opened(fetch, site)


def test_the_signature_of_an_encrypted_model_is_of_its_ciphertext(
    web: WebServer, fetch_of: FetchOf, site: Site, tiny: bytes, plain_dir: Path, tmp_path: Path
) -> None:
    signer, file = KeySigner(), tmp_path / "m.gguf.age"
    file.write_bytes(encrypted(tiny))
    site.places.signers.write_bytes(signer.trusted)
    web.put("m.gguf.age.sig", signer.sign(file))
    asked = VerificationConfig(signers=SignerKind.PUBLIC_KEY)
    fetch = fetch_of(web.put("m.gguf.age", file.read_bytes()), verification=asked)
    assert fetch.run().model.facts.signed_by == signer.fingerprint
    assert opened(fetch, site).read_bytes() == tiny


def test_inspect_decrypts_no_more_than_the_header(
    web: WebServer, site: Site, tiny: bytes, plain_dir: Path
) -> None:
    data = tiny + os.urandom(20_000_000)
    facts = inspect(web.put("m.gguf.age", encrypted(data)), site)
    assert (facts.encrypted, facts.size_bytes, facts.architecture) == (True, len(data), "llama")
    assert web.sent < len(data) / 2
    assert list(plain_dir.iterdir()) == []
    assert not [each for each in threading.enumerate() if each.name == "decrypt"]


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072, 200_000])
def test_the_size_in_plain_is_known_beforehand(site: Site, plain_dir: Path, size: int) -> None:
    data = os.urandom(size)
    ciphertext = encrypted(data, OTHER, OWN)
    pieces = iter([ciphertext[at : at + 1000] for at in range(0, len(ciphertext), 1000)])
    with in_plain("m.gguf.age", pieces, len(ciphertext), site.places.identities) as (chunks, found):
        assert found == size
        assert b"".join(chunks) == data


DAMAGE = {
    "cut off": lambda data: data[:-1000],
    "cut at a chunk": lambda data: data[: data.index(b"\n", data.index(b"\n--- ") + 1) + 1 + 16 + 65552],
    "changed": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "longer": lambda data: data + b"more",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_model_is_never_opened(
    web: WebServer, fetch_of: FetchOf, site: Site, tiny: bytes, plain_dir: Path, damage
) -> None:
    fetch = fetch_of(web.put("m.gguf.age", damage(encrypted(tiny))))
    failure = refusal(fetch)
    assert isinstance(failure, DecryptionFailed | InvalidModel)
    assert failure.permanent
    assert not any(plain_dir.iterdir())
    assert {each.name for each in fetch.folder.path.iterdir()} == {".lock", ".served"}


@pytest.mark.parametrize(
    "identities",
    ["", "# only a comment\n", "AGE-SECRET-KEY-1NONE\n", None, f"{OTHER}\n"],
    ids=["empty", "a comment", "no key", "no file", "another's"],
)
def test_without_its_identity_nothing_is_kept(
    web: WebServer, fetch_of: FetchOf, site: Site, tiny: bytes, plain_dir: Path, identities: str | None
) -> None:
    site.places.identities.unlink()
    if identities is not None:
        site.places.identities.write_text(identities)
    data = tiny + os.urandom(2_000_000)
    url = web.put("m.gguf.age", encrypted(data))
    fetch = fetch_of(url)
    failure = refusal(fetch)
    assert isinstance(failure, DecryptionFailed if identities in {None, f"{OTHER}\n"} else ConfigError)
    assert "SECRET" not in failure.message
    assert web.sent < 300_000, "it was refused before it was transferred"
    assert "spec.model.decryption" in failure.remedy
    assert {each.name for each in fetch.folder.path.iterdir()} == {".lock", ".served"}
    with pytest.raises(type(failure)):
        inspect(url, site)
    site.places.identities.write_text(f"{OTHER}\n{OWN}\n")
    fetch_of(url).run()
    assert opened(fetch, site).read_bytes() == data


@pytest.mark.parametrize(
    "data",
    [b"GGUF" * 1000, encrypted(b"x" * 1000, armored=True), b"age-encryption.org/v1\n" + b"x" * 200_000],
    ids=["plain", "armored", "endless header"],
)
def test_what_is_not_encrypted_with_age(
    web: WebServer, fetch_of: FetchOf, site: Site, plain_dir: Path, data: bytes
) -> None:
    url = web.put("m.gguf.age", data)
    assert refusal(fetch_of(url)).reason is FailureReason.INVALID_MODEL
    with pytest.raises(InvalidModel):
        inspect(url, site)


def test_what_is_encrypted_but_no_model(web: WebServer, fetch_of: FetchOf, plain_dir: Path) -> None:
    assert isinstance(refusal(fetch_of(web.put("m.gguf.age", encrypted(b"no model" * 100)))), InvalidModel)
    assert not any(plain_dir.iterdir())


def test_a_source_that_breaks_off_is_its_own_failure(
    web: WebServer, site: Site, tiny: bytes, plain_dir: Path
) -> None:
    def broken() -> Iterator[bytes]:
        yield encrypted(tiny)[:70_000]
        raise SourceUnreachable("cut off")

    with (
        in_plain("m.gguf.age", broken(), 1 << 20, site.places.identities) as (chunks, _),
        pytest.raises(SourceUnreachable),
    ):
        list(chunks)


def test_a_volume_of_memory_that_is_too_small(
    web: WebServer, fetch_of: FetchOf, site: Site, tiny: bytes, plain_dir: Path
) -> None:
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", plain_dir], check=False, capture_output=True
    ).returncode:
        pytest.skip("only root may mount a small volume")
    url = web.put("m.gguf.age", encrypted(tiny))
    try:
        failure = refusal(fetch_of(url))
        assert isinstance(failure, OutOfSpace)
        assert not (plain_dir / "m.gguf").exists()
    finally:
        subprocess.run(["umount", plain_dir], check=True)
    web.sent = 0
    fetch_of(url).run()
    assert web.sent < 300_000, "what was transferred is kept, for there may be room the next time"


def test_a_fetch_that_was_killed_in_the_middle_begins_anew(
    web: WebServer, fetch_of: FetchOf, site: Site, tiny: bytes, plain_dir: Path
) -> None:
    (plain_dir / ".m.gguf").write_bytes(b"half")
    fetch = fetch_of(web.put("m.gguf.age", encrypted(tiny)))
    fetch.run()
    assert opened(fetch, site).read_bytes() == tiny
    assert [each.name for each in plain_dir.iterdir()] == ["m.gguf"]
