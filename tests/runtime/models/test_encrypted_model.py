"""An encrypted and signed model, from its source to an answer: the server opens what lies in plain in memory."""

from pathlib import Path

import httpx
import pyrage
import pytest

from slm_contract.config import ModelConfig, SignerKind, VerificationConfig
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from tests.runtime.api.server import KEY, serving
from tests.support.gguf import write_tiny_gguf
from tests.support.signing import KeySigner
from tests.support.web import web_server


@pytest.mark.runtime
def test_an_encrypted_and_signed_model_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity, signer = pyrage.x25519.Identity.generate(), KeySigner()
    places = Places(
        model_dir=tmp_path / "models",
        signers=tmp_path / "signers.pem",
        identities=tmp_path / "identities.txt",
        plain_dir=tmp_path / "plain",
    )
    places.plain_dir.mkdir()
    places.signers.write_bytes(signer.trusted)
    places.identities.write_text(str(identity))
    ciphertext = tmp_path / "tiny.gguf.age"
    ciphertext.write_bytes(
        pyrage.encrypt(write_tiny_gguf(tmp_path / "tiny.gguf").read_bytes(), [identity.to_public()])
    )
    with web_server() as web:
        web.put("tiny.gguf.age.sig", signer.sign(ciphertext))
        source = web.put("tiny.gguf.age", ciphertext.read_bytes())
        asked = VerificationConfig(signers=SignerKind.PUBLIC_KEY)
        model = ModelConfig(name="tiny", source=source, verification=asked)
        Fetch(model, Site(places, {})).run()
    monkeypatch.setenv("SLM_PLAIN_DIR", str(places.plain_dir))
    with serving(model, places.model_dir, tmp_path) as server:
        answer = httpx.post(
            f"{server.base}/v1/completions",
            headers={"Authorization": f"Bearer {KEY}"},
            json={"model": "tiny", "prompt": "a", "max_tokens": 3},
            timeout=60,
            trust_env=False,
        )
        assert answer.status_code == 200
        facts = server.report().model
        assert facts is not None
        assert (facts.encrypted, facts.signed_by) == (True, signer.fingerprint)
