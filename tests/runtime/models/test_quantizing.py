"""Models in a smaller format than their source has: derived by the real quantizer, published, served."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gguf import GGUFReader

from slm_contract.config import ModelConfig, Quantization, RuntimeConfig, SignerKind, VerificationConfig
from slm_contract.report import FetchReport, ModelFacts
from slm_runtime.errors import QuantizationFailed, QuantizerKilled, RuntimeFailure, UnsupportedQuantization
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.fetching.patience import Patience
from slm_runtime.fetching.quantize import COMMAND, Quantizer
from slm_runtime.models.prune import cached_models
from slm_runtime.models.sources import asked as sources
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from tests.runtime.api.server import KEY, serving
from tests.support.architectures import MODELS
from tests.support.gguf import write_tiny_gguf
from tests.support.headers import write_header
from tests.support.listed import environment
from tests.support.signing import KeySigner
from tests.support.web import Asked, WebServer, web_server

pytestmark = pytest.mark.runtime

ROUNDED = 6000
"""Bytes: llama.cpp tells sizes in hundredths of a MiB."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf").read_bytes()


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


@pytest.fixture
def site(tmp_path: Path) -> Site:
    places = Places(
        model_dir=tmp_path / "models",
        source_dir=tmp_path / "claim",
        signers=tmp_path / "signers.pem",
        identities=tmp_path / "identities.txt",
        plain_dir=tmp_path / "plain",
    )
    return Site(places, {})


def fetch_of(site: Site, source: str, wanted: Quantization | None, **asked: object) -> Fetch:
    model = ModelConfig(name="m", source=source, quantization=wanted, **asked)  # type: ignore[arg-type]
    return Fetch(model, site, patience=Patience(first_wait=0.001), block=100_000)


def in_format(wanted: Quantization) -> sources.Asked:
    return sources.Asked(formats=(wanted,), strict=True)


def names(fetch: Fetch) -> set[str]:
    return {path.name for path in fetch.folder.path.iterdir()} - {".lock", ".served"}


def looks(web: WebServer, source: str, site: Site) -> list[Asked]:
    """What a source is asked by who reads its header."""
    before = len(web.asked)
    inspect(source, site)
    return web.asked[before:]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("wanted", [Quantization.F16, Quantization.Q8_0, Quantization.Q4_K_M])
def test_a_model_is_derived_as_it_was_foreseen(
    web: WebServer, site: Site, tiny: bytes, wanted: Quantization
) -> None:
    source, digest = web.put("m.gguf", tiny), hashlib.sha256(tiny).hexdigest()
    foreseen = inspect(source, site, asked=in_format(wanted))
    fetch = fetch_of(site, source, wanted, sha256=digest)
    model = fetch.run().model
    facts = model.facts
    assert names(fetch) == {f"m.{wanted.value}.gguf", "model.json"}, "nothing is left of what it was made of"
    assert (facts.quantization, facts.size_bytes) == (wanted.value, model.path.stat().st_size)
    assert facts.size_bytes < len(tiny)
    assert facts.sha256 == facts.files[0].sha256 == sha256(model.path)
    assert facts.origin is not None
    origin = facts.origin
    assert (origin.quantization, origin.size_bytes, origin.sha256) == ("F32", len(tiny), digest)
    assert abs(foreseen.weights_bytes - facts.weights_bytes) <= ROUNDED
    assert abs(foreseen.size_bytes - facts.size_bytes) <= 2 * ROUNDED
    changing = {"weights_bytes", "size_bytes", "sha256", "files", "origin", "offered"}
    same = {name: value for name, value in foreseen if name not in changing}
    assert same == {name: value for name, value in facts if name not in changing}
    download = fetch.progress.download()
    assert (download.state, download.bytes_done) == ("Complete", facts.size_bytes)
    assert ModelFacts.model_validate_json((fetch.folder.path / "model.json").read_bytes()) == facts


@pytest.mark.parametrize("architecture", ["gemma3", "qwen35", "lfm2", "granitehybrid", "deepseek2"])
def test_real_geometries_are_foreseen_without_their_weights(architecture: str, tmp_path: Path) -> None:
    file = write_header(tmp_path / "m.gguf", MODELS[architecture])
    facts = inspect(str(file), Site(Places(), {}))
    assert facts.parameter_count is not None
    bits = 8 * Quantizer().weigh(file, Quantization.Q4_K_M) / facts.parameter_count
    assert 4.5 < bits < 6
    assert file.stat().st_blocks * 512 < 1 << 20


def test_the_library_s_own_words_are_told(tmp_path: Path) -> None:
    file = write_tiny_gguf(tmp_path / "m.gguf", architecture="llamb")
    with pytest.raises(QuantizationFailed, match=r"can't make Q8_0 of m\.gguf: unknown model architecture"):
        Quantizer().weigh(file, Quantization.Q8_0)


def test_the_same_source_and_format_give_the_same_bytes(web: WebServer, site: Site, tiny: bytes) -> None:
    one, other = (
        fetch_of(site, web.put(path, tiny), Quantization.Q4_K_M).run().model.path
        for path in ("1/m.gguf", "2/m.gguf")
    )
    assert one != other
    assert one.read_bytes() == other.read_bytes()


def test_what_was_derived_is_found_without_its_source(web: WebServer, site: Site, tiny: bytes) -> None:
    source = web.put("m.gguf", tiny)
    facts = fetch_of(site, source, Quantization.Q4_0).run().model.facts
    asked = len(web.asked)
    fetched = fetch_of(site, source, Quantization.Q4_0).run()
    assert (fetched.cached, fetched.model.facts) == (True, facts)
    assert len(web.asked) == asked


def test_a_source_that_has_the_format_already_is_served_as_it_is(
    web: WebServer, site: Site, tiny: bytes
) -> None:
    fetch = fetch_of(site, web.put("m.gguf", tiny), Quantization.Q8_0)
    eight = fetch.run().model.path.read_bytes()
    same = fetch_of(site, web.put("eight.gguf", eight), Quantization.Q8_0).run().model
    assert (same.path.name, same.path.read_bytes()) == ("eight.gguf", eight)
    assert same.facts.origin is None
    four = fetch_of(site, web.put("eight.gguf", eight), Quantization.Q4_0).run().model
    assert four.facts.origin is not None
    assert (four.facts.quantization, four.facts.origin.quantization) == ("Q4_0", "Q8_0")


def test_auto_takes_the_first_that_is_there_or_that_can_be_derived(
    web: WebServer, site: Site, tiny: bytes
) -> None:
    source = web.put("m.gguf", tiny)
    eight = fetch_of(site, source, Quantization.Q8_0).run().model.path.read_bytes()

    def chosen(source: str, *formats: str) -> ModelFacts:
        return inspect(source, site, asked=sources.Asked(formats=tuple(map(Quantization, formats))))

    derived = chosen(source, "Q4_K_M", "Q8_0")
    assert (derived.quantization, derived.offered) == ("Q4_K_M", ("F32",))
    assert derived.origin is not None
    there = chosen(web.put("eight.gguf", eight), "Q8_0", "Q4_K_M")
    assert (there.quantization, there.offered, there.origin) == ("Q8_0", ("Q8_0",), None)
    other = chosen(web.url("eight.gguf"), "F16")
    assert (other.quantization, other.offered, other.origin) == ("Q8_0", ("Q8_0",), None)


def test_what_auto_chose_is_fetched_and_nothing_is_chosen_again(
    site: Site, tiny: bytes, tmp_path: Path
) -> None:
    claim = site.places.source_dir
    claim.mkdir()
    (claim / "m-F32.gguf").write_bytes(tiny)
    asked = ModelConfig(name="m", source="pvc://models", auto=(Quantization.Q8_0, Quantization.F16))
    facts = inspect(asked.source, site, asked=sources.Asked.by(asked))
    decided = asked.model_copy(update={"quantization": Quantization.Q8_0, "pin": facts.pin})
    (claim / "m-Q4_0.gguf").write_bytes(b"GGUF that isn't one")
    fetched = Fetch(decided, site).run().model.facts
    assert (fetched.quantization, fetched.pin) == ("Q8_0", facts.pin)
    as_it_is = asked.model_copy(update={"pin": facts.pin, "auto": (Quantization.Q4_0,)})
    (claim / "m-Q4_0.gguf").unlink()
    assert Fetch(as_it_is, site).run().model.facts.quantization == "F32", (
        "what was decided is that nothing is derived"
    )


def test_what_cannot_be_derived_is_refused_before_it_is_transferred(
    web: WebServer, site: Site, tiny: bytes
) -> None:
    four = fetch_of(site, web.put("m.gguf", tiny), Quantization.Q4_0).run().model.path.read_bytes()
    source = web.put("four.gguf", four)
    with pytest.raises(UnsupportedQuantization, match=r"quantized already \(Q4_0\)"):
        inspect(source, site, Patience(tries=1), asked=in_format(Quantization.Q8_0))
    fetch = fetch_of(site, source, Quantization.Q8_0)
    with pytest.raises(UnsupportedQuantization):
        fetch.run()
    assert names(fetch) == set()
    assert web.asked[-1] in looks(web, source, site), "it was looked at, no more"


def test_a_killed_process_is_gone_on_with_and_transfers_nothing_again(
    web: WebServer, site: Site, tiny: bytes
) -> None:
    """The quantizer is killed half-way as often as the first fetch tries it; the second one has a sound one."""
    source = web.put("m.gguf", tiny)
    model = ModelConfig(name="m", source=source, quantization=Quantization.Q8_0)
    script = (
        "import os, signal, subprocess, sys; a = sys.argv[1:]\n"
        f"if a[1] == '-': sys.exit(subprocess.run([*{list(COMMAND)!r}, *a]).returncode)\n"
        "open(a[1], 'wb').write(bytes(1000)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = Quantizer((sys.executable, "-c", script))
    first = Fetch(model, site, patience=Patience(first_wait=0.001, tries=2), quantizer=killed)
    with pytest.raises(QuantizerKilled):
        first.run()
    assert names(first) == {"m.gguf", ".verified"}
    (left,) = cached_models(site.places.model_dir)
    assert left.folder == model.folder, "where nobody comes back to it, it goes as any other"
    (first.folder.path / ".derived").write_bytes(b"left by a process that was killed with its parent")
    before = len(web.asked)
    second = fetch_of(site, source, Quantization.Q8_0)
    assert second.run().model.facts.quantization == "Q8_0"
    assert names(second) == {"m.Q8_0.gguf", "model.json"}
    assert web.asked[before:] == looks(web, source, site), "nothing but its header"


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "no links"])
def test_what_is_served_as_it_is_on_the_same_volume_is_not_transferred_again(
    web: WebServer, site: Site, tiny: bytes, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, digest = web.put("m.gguf", tiny), hashlib.sha256(tiny).hexdigest()
    whole = fetch_of(site, source, None, sha256=digest)
    whole.run()
    if not linked:
        monkeypatch.setattr(os, "link", unable)
    before = len(web.asked)
    derived = fetch_of(site, source, Quantization.Q8_0, sha256=digest)
    assert derived.run().model.facts.quantization == "Q8_0"
    assert (web.asked[before:] == looks(web, source, site)) == linked
    assert names(derived) == {"m.Q8_0.gguf", "model.json"}
    assert whole.folder.require().path.read_bytes() == tiny, "it stays where it is"


def unable(*_: object) -> None:
    """A file system without links."""
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_what_it_was_made_of_goes_though_the_process_ended_just_then(
    web: WebServer, site: Site, tiny: bytes
) -> None:
    fetch = fetch_of(site, web.put("m.gguf", tiny), Quantization.Q8_0)
    fetch.run()
    (fetch.folder.path / "m.gguf").write_bytes(tiny)
    assert fetch_of(site, web.url("m.gguf"), Quantization.Q8_0).run().cached
    assert names(fetch) == {"m.Q8_0.gguf", "model.json"}


def test_shards_on_a_claim_become_one_file_and_stay_there(site: Site, tmp_path: Path) -> None:
    claim = site.places.source_dir
    claim.mkdir()
    write_tiny_gguf(claim / "m.gguf", shard_tensors=8)
    shards = {path.name: path.read_bytes() for path in claim.iterdir()}
    assert len(shards) > 1
    fetch = fetch_of(site, "pvc://models/", Quantization.Q8_0)
    model = fetch.run().model
    assert names(fetch) == {"m.Q8_0.gguf", "model.json"}
    assert not model.path.is_symlink()
    assert "split.count" not in GGUFReader(model.path).fields
    assert model.facts.origin is not None
    assert [each.path for each in model.facts.origin.files] == sorted(shards)
    assert {path.name: path.read_bytes() for path in claim.iterdir()} == shards
    whole = write_tiny_gguf(tmp_path / "whole.gguf")
    assert model.facts.parameter_count == inspect(str(whole), site).parameter_count


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """It waits for a source that never comes, until nobody holds the other end of its standard input."""
    never = tmp_path / "never.gguf"
    os.mkfifo(never)
    arguments = (str(never), str(tmp_path / "target"), "7", "1", "0")
    with subprocess.Popen((*COMMAND, *arguments), stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 1


def test_a_signature_is_of_what_the_source_has(
    web: WebServer, site: Site, tiny: bytes, tmp_path: Path
) -> None:
    signer, other = KeySigner(), KeySigner()
    file = tmp_path / "m.gguf"
    file.write_bytes(tiny)
    source = web.put("m.gguf", tiny)
    web.put("m.gguf.sig", signer.sign(file))
    site.places.signers.write_bytes(signer.trusted)
    asked = {"verification": VerificationConfig(signers=SignerKind.PUBLIC_KEY)}
    facts = fetch_of(site, source, Quantization.Q8_0, **asked).run().model.facts
    assert facts.signed_by == signer.fingerprint
    asked_for = len(web.asked)
    assert fetch_of(site, source, Quantization.Q8_0, **asked).run().cached
    assert len(web.asked) == asked_for, "the kept signature holds for what was derived"
    site.places.signers.write_bytes(other.trusted)
    web.put("m.gguf.sig", other.sign(file))
    before = len(web.asked)
    again = fetch_of(site, source, Quantization.Q8_0, **asked).run().model.facts
    assert (again.signed_by, again.sha256) == (other.fingerprint, facts.sha256)
    of_model = [each for each in web.asked[before:] if each.path == "/m.gguf"]
    assert all(each in looks(web, source, site) for each in of_model), "nothing is transferred again"
    web.put("bad.gguf", tiny)
    web.put("bad.gguf.sig", KeySigner().sign(file))
    with pytest.raises(RuntimeFailure, match="sign"):
        fetch_of(site, web.url("bad.gguf"), Quantization.Q8_0, **asked).run()


def test_a_pod_s_last_words_tell_what_was_derived(web: WebServer, tiny: bytes, tmp_path: Path) -> None:
    source = web.put("m.gguf", tiny)
    model = ModelConfig(name="m", source=source, quantization=Quantization.Q4_0)
    told = {**environment(source, tmp_path), "SLM_CONFIG": RuntimeConfig(model=model).to_json()}
    (tmp_path / "termination").touch()
    for command in ("inspect", "fetch"):
        subprocess.run([sys.executable, "-m", "slm_runtime", command], env=told, check=True)
        report = FetchReport.model_validate_json((tmp_path / "termination").read_bytes())
        assert report.model is not None
        assert report.model.origin is not None
        assert (report.model.quantization, report.model.origin.quantization) == ("Q4_0", "F32")


def test_fetching_what_needs_no_quantizer_loads_none(web: WebServer, tiny: bytes, tmp_path: Path) -> None:
    script = (
        "import json, sys; from slm_runtime.__main__ import main; code = main(['fetch']);"
        " print(json.dumps(sorted({'llama_cpp', 'numpy'} & set(sys.modules)))); sys.exit(code)"
    )
    told = environment(web.put("m.gguf", tiny), tmp_path)
    done = subprocess.run([sys.executable, "-c", script], env=told, stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_derived_model_is_served(web: WebServer, site: Site, tiny: bytes, tmp_path: Path) -> None:
    model = ModelConfig(name="tiny", source=web.put("m.gguf", tiny), quantization=Quantization.Q8_0)
    Fetch(model, site).run()
    with serving(model, site.places.model_dir, tmp_path) as server:
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
        assert facts.quantization == "Q8_0"
