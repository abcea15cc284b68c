"""What is asked of a model's signature decides what is kept of the model, whatever its source says."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig, SignaturePolicy, SignerKind, VerificationConfig
from slm_runtime.errors import (
    ConfigError,
    RuntimeFailure,
    SignatureInvalid,
    SignatureMissing,
    SourceUnauthorized,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.signature import MAX_BYTES
from slm_runtime.models.sources.site import Site
from tests.support.index import publish, wheel
from tests.support.signing import CertifiedSigner, KeySigner, statement
from tests.support.web import WebServer
from tests.unit.runtime_models.conftest import FetchOf

REQUIRED = VerificationConfig(signers=SignerKind.PUBLIC_KEY)
IF_PRESENT = VerificationConfig(signers=SignerKind.PUBLIC_KEY, policy=SignaturePolicy.IF_PRESENT)
ANNA = KeySigner()
Trust = Callable[..., None]


@pytest.fixture
def trust(site: Site) -> Trust:
    """Have those trusted, and nobody else."""

    def write(*signers: KeySigner) -> None:
        site.places.signers.write_bytes(b"".join(each.trusted for each in signers))

    write(ANNA)
    return write


@pytest.fixture
def signature(tiny_file: Path, trust: Trust) -> bytes:
    return ANNA.sign(tiny_file)


def names(fetch: Fetch) -> set[str]:
    return {path.name for path in fetch.folder.path.iterdir()} - {".lock", ".served"}


def refusal(fetch: Fetch) -> RuntimeFailure:
    """What it is refused with; nothing is kept of it."""
    with pytest.raises(RuntimeFailure) as caught:
        fetch.run()
    assert fetch.folder.fetched() is None
    assert names(fetch) == set()
    return caught.value


@pytest.mark.parametrize("asked", [REQUIRED, IF_PRESENT])
def test_a_signed_model_from_the_web(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, signature: bytes, asked: VerificationConfig
) -> None:
    web.put("m.gguf.sig", signature)
    fetch = fetch_of(web.put("m.gguf", tiny), verification=asked)
    fetched = fetch.run()
    assert fetched.model.facts.signed_by == ANNA.fingerprint
    assert names(fetch) == {"m.gguf", "model.json", "signature.json"}


def test_a_model_signed_with_a_certificate(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, tiny_file: Path, trust: Trust
) -> None:
    root = CertifiedSigner("root", authority=True)
    signer = CertifiedSigner("signer", root)
    trust(root)
    web.put("m.gguf.sig", signer.sign(tiny_file))
    asked = VerificationConfig(signers=SignerKind.CERTIFICATE)
    fetched = fetch_of(web.put("m.gguf", tiny), verification=asked).run()
    assert fetched.model.facts.signed_by == signer.fingerprint


def test_nobody_s_signature_is_asked_for_where_the_spec_asks_for_none(
    web: WebServer, fetch_of: FetchOf, tiny: bytes
) -> None:
    web.put("m.gguf.sig", b"anything")
    fetched = fetch_of(web.put("m.gguf", tiny)).run()
    assert fetched.model.facts.signed_by is None
    assert {each.path for each in web.asked} == {"/m.gguf"}


def test_a_query_goes_with_the_signature_too(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, signature: bytes
) -> None:
    web.put("m.gguf.sig", signature)
    web.put("m.gguf", tiny)
    fetch = fetch_of(web.url("m.gguf?version=1#top"), verification=REQUIRED)
    assert fetch.run().model.facts.signed_by == ANNA.fingerprint


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_signed_model_from_a_python_index(
    web: WebServer,
    fetch_of: FetchOf,
    environment: dict[str, str],
    tiny: bytes,
    signature: bytes,
    compression: int,
    ranges: bool,
) -> None:
    members = (("model_pkg/m.gguf", tiny), ("model_pkg/m.gguf.sig", signature))
    environment["PIP_INDEX_URL"] = publish(web, wheel(*members, compression=compression), ranges=ranges)
    fetch = fetch_of("pypi://model-pkg@1.0/model_pkg/m.gguf", verification=REQUIRED)
    assert fetch.run().model.facts.signed_by == ANNA.fingerprint


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wheel_without_a_signature(
    web: WebServer, fetch_of: FetchOf, environment: dict[str, str], tiny: bytes, trust: Trust, ranges: bool
) -> None:
    environment["PIP_INDEX_URL"] = publish(web, wheel(("model_pkg/m.gguf", tiny)), ranges=ranges)
    source = "pypi://model-pkg@1.0/model_pkg/m.gguf"
    assert isinstance(refusal(fetch_of(source, verification=REQUIRED)), SignatureMissing)
    fetched = fetch_of(source, verification=IF_PRESENT).run()
    assert fetched.model.facts.signed_by is None


def test_without_a_signature_nothing_is_transferred_where_one_is_required(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, trust: Trust
) -> None:
    url = web.put("m.gguf", tiny)
    failure = refusal(fetch_of(url, verification=REQUIRED))
    assert isinstance(failure, SignatureMissing)
    assert failure.permanent
    assert f"{url}.sig answers 404" in failure.message
    assert web.sent <= 1
    fetched = fetch_of(url, verification=IF_PRESENT).run()
    assert (fetched.model.facts.signed_by, fetched.model.path.read_bytes()) == (None, tiny)


@pytest.mark.parametrize("asked", [REQUIRED, IF_PRESENT])
@pytest.mark.parametrize("ranges", [True, False])
def test_another_file_than_was_signed_is_not_kept(
    web: WebServer,
    fetch_of: FetchOf,
    tiny: bytes,
    signature: bytes,
    asked: VerificationConfig,
    ranges: bool,
) -> None:
    web.put("m.gguf.sig", signature)
    other = tiny[:-1] + bytes([tiny[-1] ^ 1])
    failure = refusal(fetch_of(web.put("m.gguf", other, ranges=ranges), verification=asked))
    assert isinstance(failure, SignatureInvalid)
    assert "isn't the file that was signed" in failure.message


@pytest.mark.parametrize("asked", [REQUIRED, IF_PRESENT])
@pytest.mark.parametrize(
    "bundle",
    [
        b"",
        b"<html>Not found</html>",
        KeySigner().forge(statement({".": "0" * 64})),
        ANNA.forge(statement({"other.gguf": "0" * 64})),
        b" " * (MAX_BYTES + 1),
    ],
    ids=["empty", "html", "stranger", "another file", "endless"],
)
def test_a_wrong_signature_is_refused_before_the_model_is_transferred(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, trust: Trust, bundle: bytes, asked: VerificationConfig
) -> None:
    web.put("m.gguf.sig", bundle)
    url = web.put("m.gguf", tiny)
    failure = refusal(fetch_of(url, verification=asked))
    assert isinstance(failure, SignatureInvalid)
    assert sum(each.path == "/m.gguf" for each in web.asked) == 1


def test_a_signature_that_may_not_be_read_is_not_a_missing_one(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, trust: Trust
) -> None:
    web.put("m.gguf.sig", status=403)
    failure = refusal(fetch_of(web.put("m.gguf", tiny), verification=IF_PRESENT))
    assert isinstance(failure, SourceUnauthorized)
    assert "m.gguf.sig" in failure.message


def test_nobody_to_trust_is_an_error_of_the_configuration(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, signature: bytes, site: Site
) -> None:
    web.put("m.gguf.sig", signature)
    url = web.put("m.gguf", tiny)
    site.places.signers.write_text("")
    assert isinstance(refusal(fetch_of(url, verification=IF_PRESENT)), ConfigError)
    site.places.signers.write_bytes(ANNA.trusted)
    assert fetch_of(url, verification=IF_PRESENT).run().model.facts.signed_by == ANNA.fingerprint


@pytest.fixture
def shared(web: WebServer, site: Site, tiny: bytes) -> Callable[..., Fetch]:
    """Fetches of the same pinned bytes, into one folder, for specs that ask for other things."""
    url = web.put("m.gguf", tiny)
    pin = inspect(url, site).pin

    def make(asked: VerificationConfig | None) -> Fetch:
        model = ModelConfig(name="m", source=url, pin=pin, verification=asked)
        return Fetch(model, site, patience=Patience(first_wait=0.001))

    return make


def test_what_is_there_is_held_against_those_who_are_trusted_today(
    web: WebServer, shared: Callable[..., Fetch], signature: bytes, tiny_file: Path, trust: Trust
) -> None:
    web.put("m.gguf.sig", signature)
    shared(REQUIRED).run()
    web.asked.clear()
    again = shared(REQUIRED).run()
    assert (again.cached, again.model.facts.signed_by) == (True, ANNA.fingerprint)
    assert web.asked == [], "the signature that was kept still holds"
    bert = KeySigner()
    trust(bert)
    with pytest.raises(SignatureInvalid):
        shared(REQUIRED).run()
    web.put("m.gguf.sig", bert.sign(tiny_file))
    web.sent = 0
    again = shared(REQUIRED).run()
    assert (again.cached, again.model.facts.signed_by) == (True, bert.fingerprint)
    assert web.sent < 10_000, "no byte of the model was transferred again"


def test_what_another_spec_fetched_unsigned_isn_t_served_where_a_signature_is_required(
    web: WebServer, shared: Callable[..., Fetch], signature: bytes
) -> None:
    unsigned = shared(None).run()
    with pytest.raises(SignatureMissing):
        shared(REQUIRED).run()
    assert shared(None).folder.require() == unsigned.model, "it isn't taken from the other"
    assert shared(IF_PRESENT).run().model == unsigned.model
    web.put("m.gguf.sig", signature)
    signed = shared(REQUIRED).run()
    assert signed.model.facts == unsigned.model.facts.model_copy(update={"signed_by": ANNA.fingerprint})
    assert shared(None).run().cached


def test_where_a_signature_went_that_needn_t_be_there(
    web: WebServer, shared: Callable[..., Fetch], signature: bytes, trust: Trust
) -> None:
    web.put("m.gguf.sig", signature)
    assert shared(IF_PRESENT).run().model.facts.signed_by == ANNA.fingerprint
    del web.files["/m.gguf.sig"]
    trust(KeySigner())
    fetch = shared(IF_PRESENT)
    assert fetch.run().model.facts.signed_by is None
    assert names(fetch) == {"m.gguf", "model.json"}


def test_inspect_says_it_before_anything_is_placed(
    web: WebServer, site: Site, tiny: bytes, signature: bytes
) -> None:
    url = web.put("m.gguf", tiny)
    with pytest.raises(SignatureMissing):
        inspect(url, site, verification=REQUIRED)
    web.put("m.gguf.sig", KeySigner().forge(statement({".": "0" * 64})))
    with pytest.raises(SignatureInvalid):
        inspect(url, site, verification=REQUIRED)
    web.put("m.gguf.sig", signature)
    facts = inspect(url, site, verification=REQUIRED)
    assert (facts.signed_by, facts.architecture) == (None, "llama"), "only a fetch knows what the files are"


def test_models_that_ask_for_no_signature_have_the_keys_that_they_had() -> None:
    source = "https://example.org/m.gguf"
    plain = ModelConfig(name="m", source=source)
    asked = [ModelConfig(name="m", source=source, verification=each) for each in (REQUIRED, IF_PRESENT)]
    assert plain.key == "68a198f3602c37ef"
    assert len({plain.key, *(each.key for each in asked)}) == 3


def test_what_others_brought_to_a_volume_that_is_only_read_is_held_against_who_is_trusted(
    web: WebServer, site: Site, tiny: bytes, signature: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = web.put("m.gguf", tiny)
    web.put("m.gguf.sig", signature)
    pin = inspect(source, site).pin
    plain = ModelConfig(name="m", source=source, pin=pin)
    asking = plain.model_copy(update={"verification": REQUIRED})
    Fetch(plain, site).run()
    with monkeypatch.context() as patched:
        patched.setattr(ModelFolder, "read_only", lambda _: True)
        with pytest.raises(SignatureMissing):
            Fetch(asking, site).run()
        assert Fetch(plain, site).run().cached
    Fetch(asking, site).run()
    monkeypatch.setattr(ModelFolder, "read_only", lambda _: True)
    assert Fetch(asking, site).run().model.facts.signed_by == ANNA.fingerprint
