"""The commands as a pod runs them: a process, its exit code, its last words, its operations port."""

import fcntl
import hashlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pyrage
import pytest

from slm_contract.config import AdapterConfig, ModelConfig, RuntimeConfig, SignerKind, VerificationConfig
from slm_contract.places import RETENTION_ENV, TERMINATION_MESSAGE_LIMIT, ExitCode
from slm_contract.report import Failure, FailureReason, FetchReport, RuntimeReport
from slm_contract.retention import Retention
from slm_runtime.__main__ import main
from slm_runtime.fetching.command import fetch_command
from slm_runtime.fetching.part import PartState
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.prune import prune
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from slm_runtime.termination import bounded_json
from tests.support.gguf import TinyLora
from tests.support.ports import free_port
from tests.support.signing import KeySigner
from tests.support.web import File, WebServer
from tests.unit.runtime_models.waiting import eventually

_open = build_opener(ProxyHandler({})).open


class Pod:
    """What a kubelet gives a container, and what it reads of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.volume = folder / "models"
        self.message = folder / "termination-log"
        self.port = free_port()
        self._monkeypatch = monkeypatch
        for name in list(os.environ):
            if name.startswith(("PIP_", "SLM_")):
                monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("SLM_HOST", "127.0.0.1")
        monkeypatch.setenv("SLM_OPS_PORT", str(self.port))
        monkeypatch.setenv("SLM_MODEL_DIR", str(self.volume))
        monkeypatch.setenv("SLM_TERMINATION_MESSAGE", str(self.message))
        monkeypatch.setenv("SLM_CREDENTIALS_DIR", str(folder / "credentials"))
        monkeypatch.setenv("SLM_CA_BUNDLE", str(folder / "ca.crt"))
        monkeypatch.setenv("SLM_SIGNERS", str(folder / "signers.pem"))
        monkeypatch.setenv("SLM_IDENTITIES", str(folder / "identities.txt"))
        monkeypatch.setenv("SLM_PLAIN_DIR", str(folder / "plain"))

    def configure(self, source: str, sha256: str | None = None, **asked: Any) -> ModelFolder:
        self.model = ModelConfig(name="m", source=source, sha256=sha256, **asked)
        self._monkeypatch.setenv("SLM_CONFIG", RuntimeConfig(model=self.model).to_json())
        return ModelFolder(self.volume, self.model)

    def beside(self, folder: Path) -> "Pod":
        """Another pod with the same volume."""
        other = Pod(folder, self._monkeypatch)
        other.volume = self.volume
        self._monkeypatch.setenv("SLM_MODEL_DIR", str(self.volume))
        return other

    def process(self, *words: str) -> "subprocess.Popen[str]":
        self.message.write_text("")
        return subprocess.Popen([sys.executable, *words], stdout=PIPE, stderr=PIPE, text=True)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run to the end, as a process."""
        process = self.process(*words)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, output, errors)

    def fetch(self) -> int:
        """Run to the end in this process, with the patience of a moment."""
        self.message.write_text("")
        site = Site(Places.from_environment())
        return fetch_command(self.model, site, look_seconds=0.05, patience=Patience(first_wait=0.001))

    @contextmanager
    def fetching(self) -> Iterator["Future[int]"]:
        """Run in the background: a fetch that stays."""
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.fetch)
            eventually(lambda: self.report().command == "fetch")
            yield future

    def last_words(self) -> FetchReport:
        return FetchReport.model_validate_json(self.message.read_bytes())

    def report(self) -> RuntimeReport:
        with _open(f"http://127.0.0.1:{self.port}/report", timeout=5) as answer:
            return RuntimeReport.model_validate_json(answer.read())


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    return Pod(tmp_path, monkeypatch)


def test_adapters_are_fetched_beside_the_model(
    pod: Pod, web: WebServer, tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.configure(web.put("m.gguf", tiny))
    files = [TinyLora(seed=seed).write(tmp_path / f"{seed}.gguf").read_bytes() for seed in range(2)]
    sources = [web.put(f"{number}.gguf", data) for number, data in enumerate(files)]
    adapters = tuple(AdapterConfig(name=f"a{n}", source=source) for n, source in enumerate(sources))
    config = RuntimeConfig(model=pod.model, adapters=adapters)
    monkeypatch.setenv("SLM_CONFIG", config.to_json())
    done = pod.run("-m", "slm_runtime", "fetch")
    assert done.returncode == ExitCode.OK, done.stderr
    words = pod.last_words()
    assert words.model == ModelFolder(pod.volume, pod.model).require().facts
    for adapter, data in zip(adapters, files, strict=True):
        found = ModelFolder(pod.volume, adapter).require()
        assert found.path.read_bytes() == data
        assert (found.facts.adapter, found.facts.architecture) == (True, "llama")


def test_a_model_in_an_adapter_s_place_is_refused_and_stays_so(
    pod: Pod, web: WebServer, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.configure(web.put("m.gguf", tiny))
    adapter = AdapterConfig(name="a", source=web.put("a.gguf", tiny))
    monkeypatch.setenv("SLM_CONFIG", RuntimeConfig(model=pod.model, adapters=(adapter,)).to_json())
    assert pod.run("-m", "slm_runtime", "fetch").returncode == ExitCode.FETCH_PERMANENT
    failure = pod.last_words().failure
    assert failure is not None
    assert failure.reason is FailureReason.INVALID_MODEL
    assert ModelFolder(pod.volume, adapter).failure() is not None
    assert not list(ModelFolder(pod.volume, adapter).path.glob("*.gguf"))


def test_fetch_leaves_the_model_and_its_facts(pod: Pod, web: WebServer, tiny: bytes) -> None:
    folder = pod.configure(web.put("m.gguf", tiny), hashlib.sha256(tiny).hexdigest())
    done = pod.run("-m", "slm_runtime", "fetch")
    assert done.returncode == ExitCode.OK
    words = pod.last_words()
    assert (words.command, words.cached, words.failure) == ("fetch", False, None)
    assert words.model == folder.require().facts
    assert words.seconds is not None
    states = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert states == ["Fetching", "Verifying", "Complete"]
    assert pod.fetch() == ExitCode.OK
    assert pod.last_words().cached


def test_killed_in_the_middle_and_started_again(pod: Pod, web: WebServer, tiny: bytes) -> None:
    data = tiny + os.urandom(20_000_000)
    url = web.put("m.gguf", data, hold=threading.Event(), hold_after=3_000_000)
    folder = pod.configure(url, hashlib.sha256(data).hexdigest())

    def has_a_checkpoint() -> bool:
        try:
            return (
                sum(PartState.model_validate_json(folder.staging(0).part_state.read_bytes()).done) > 4_000_000
            )
        except FileNotFoundError:
            return False

    with pod.process("-m", "slm_runtime", "fetch") as process:
        eventually(has_a_checkpoint)
        process.send_signal(signal.SIGKILL)
    assert folder.fetched() is None
    assert not (folder.path / "m.gguf").exists()
    web.files["/m.gguf"] = File(data)
    web.sent = 0
    assert pod.fetch() == ExitCode.OK
    assert folder.require().path.read_bytes() == data
    assert web.sent < len(data) - 4_000_000
    print(f"\nafter the kill {web.sent:,} of {len(data):,} bytes were transferred")


def test_two_jobs_that_fetch_the_same_bytes_into_one_claim_fetch_once(
    pod: Pod, web: WebServer, tiny: bytes, tmp_path: Path
) -> None:
    """Two SLMDeployments name them by other addresses: the second waits for the first, and finds them there."""
    held = threading.Event()
    urls = [web.put(f"{each}/m.gguf", tiny) for each in ("one", "other")]
    with open_model(urls[0], Site(Places.from_environment())) as model:
        pin = model.pin
    web.files["/one/m.gguf"].hold, web.files["/one/m.gguf"].hold_after = held, 50_000
    folder = pod.configure(urls[0], pin=pin)
    with pod.process("-m", "slm_runtime", "fetch") as first:
        eventually(lambda: pod.report().download is not None and folder.staging(0).part.exists())
        (tmp_path / "second").mkdir()
        second = pod.beside(tmp_path / "second")
        assert second.configure(urls[1], pin=pin).path == folder.path
        with second.process("-m", "slm_runtime", "fetch") as process:
            eventually(
                lambda: (download := second.report().download) is not None and download.state == "Waiting"
            )
            held.set()
            assert process.wait(60) == first.wait(60) == ExitCode.OK
    assert (pod.last_words().cached, second.last_words().cached) == (False, True)
    assert [each.path for each in web.asked if each.path == "/other/m.gguf"] == []
    assert folder.require().path.read_bytes() == tiny


def test_a_model_that_is_held_stays(pod: Pod, web: WebServer, tiny: bytes) -> None:
    """A copy on a node, where nobody serves it yet."""
    folder = pod.configure(web.put("m.gguf", tiny))
    nothing = pod.run("-m", "slm_runtime", "hold")
    assert nothing.returncode == ExitCode.MODEL_INVALID
    assert "no fetched model" in nothing.stderr
    assert pod.fetch() == ExitCode.OK
    everything, later = Retention(keep=(), grace_seconds=0), time.time() + 3600
    with pod.process("-m", "slm_runtime", "hold") as holder:
        eventually(lambda: held(folder))
        assert prune(pod.volume, everything, later) is None
        holder.send_signal(signal.SIGTERM)
        assert holder.wait(10) == 128 + signal.SIGTERM
    assert prune(pod.volume, everything, later) is not None


def held(folder: ModelFolder) -> bool:
    with (folder.path / ".served").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_job_makes_room_before_it_fetches(
    pod: Pod, web: WebServer, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the operator names stays, and so does the model that is fetched, though it was there all the time."""
    old, kept, own = (pod.configure(web.put(f"{each}.gguf", tiny)) for each in ("old", "kept", "own"))
    for folder, name in ((old, "old"), (kept, "kept"), (own, "own")):
        pod.configure(web.url(f"{name}.gguf"))
        assert pod.fetch() == ExitCode.OK
        assert pod.last_words().removed is None
        assert folder.require()
    for folder in (old, kept, own):
        os.utime(folder.path / ".lock", (0, 0))
    monkeypatch.setenv(RETENTION_ENV, Retention(keep=(kept.path.name,), grace_seconds=0).to_json())
    assert pod.fetch() == ExitCode.OK
    words = pod.last_words()
    assert words.cached
    assert words.removed is not None
    assert words.removed.models == 1
    assert words.removed.bytes > len(tiny)
    assert {path.name for path in pod.volume.iterdir()} == {kept.path.name, own.path.name}


def test_a_retention_that_makes_no_sense_removes_nothing(
    pod: Pod, web: WebServer, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pod.configure(web.put("m.gguf", tiny))
    assert pod.fetch() == ExitCode.OK
    pod.configure(web.put("other.gguf", tiny))
    monkeypatch.setenv(RETENTION_ENV, '{"keep": "all"}')
    assert pod.fetch() == ExitCode.CONFIG_INVALID
    assert (failure := pod.last_words().failure) is not None
    assert RETENTION_ENV in failure.message
    assert folder.require()


def test_terminated_in_the_middle(pod: Pod, web: WebServer, tiny: bytes) -> None:
    pod.configure(web.put("m.gguf", tiny, hold=threading.Event()))
    with pod.process("-m", "slm_runtime", "fetch") as process:
        eventually(lambda: pod.report().download is not None)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


def test_progress_can_be_watched(pod: Pod, web: WebServer, tiny: bytes) -> None:
    rest = threading.Event()
    pod.configure(web.put("m.gguf", tiny, hold=rest, hold_after=100_000))
    with pod.fetching() as fetching:

        def moving() -> bool:
            download = pod.report().download
            return (
                download is not None and download.state == "Fetching" and 0 < download.bytes_done < len(tiny)
            )

        eventually(moving)
        report = pod.report()
        assert (report.command, report.phase) == ("fetch", "Fetching")
        assert report.download is not None
        assert report.download.bytes_total == len(tiny)
        with _open(f"http://127.0.0.1:{pod.port}/livez", timeout=5) as answer:
            assert answer.status == 200
        rest.set()
        assert fetching.result(30) == ExitCode.OK


def test_what_may_pass_ends_as_transient(pod: Pod, web: WebServer) -> None:
    folder = pod.configure(web.put("m.gguf", status=503))
    assert pod.fetch() == ExitCode.FETCH_TRANSIENT
    failure = pod.last_words().failure
    assert failure is not None
    assert (failure.reason, failure.permanent) == (FailureReason.SOURCE_UNREACHABLE, False)
    assert folder.failure() is None


def test_a_wrong_checksum_is_told_once_and_then_waited_on(pod: Pod, web: WebServer, tiny: bytes) -> None:
    wrong = tiny[:-1] + bytes([tiny[-1] ^ 1])
    folder = pod.configure(web.put("m.gguf", wrong), hashlib.sha256(tiny).hexdigest())
    assert pod.fetch() == ExitCode.FETCH_PERMANENT
    failure = pod.last_words().failure
    assert failure is not None
    assert failure.reason is FailureReason.CHECKSUM_MISMATCH
    assert {path.name for path in folder.path.iterdir()} == {"failure.json", ".lock", ".served"}
    # kubelet starts it again: it stays, says why, looks at the source, and transfers nothing.
    web.sent = 0
    web.asked.clear()
    with pod.fetching() as fetching:
        eventually(lambda: pod.report().phase == "Failed" and len(web.asked) >= 3)
        assert pod.report().failure == failure
        assert web.sent < 1000
        web.files["/m.gguf"] = File(tiny, etag='"2"')
        assert fetching.result(30) == ExitCode.OK
    assert pod.last_words().model == folder.require().facts
    assert folder.failure() is None


def test_a_refused_signature_is_waited_on_and_so_are_those_who_are_trusted(
    pod: Pod, web: WebServer, tiny: bytes, tiny_file: Path, tmp_path: Path
) -> None:
    anna, bert = KeySigner(), KeySigner()
    (tmp_path / "signers.pem").write_bytes(anna.trusted)
    folder = pod.configure(
        web.put("m.gguf", tiny), verification=VerificationConfig(signers=SignerKind.PUBLIC_KEY)
    )
    assert pod.fetch() == ExitCode.FETCH_PERMANENT
    failure = pod.last_words().failure
    assert failure is not None
    assert failure.reason is FailureReason.SIGNATURE_MISSING
    with pod.fetching() as fetching:
        eventually(lambda: pod.report().phase == "Failed")
        web.put("m.gguf.sig", bert.sign(tiny_file))
        eventually(lambda: getattr(pod.report().failure, "reason", None) is FailureReason.SIGNATURE_INVALID)
        (tmp_path / "signers.pem").write_bytes(anna.trusted + bert.trusted)
        assert fetching.result(30) == ExitCode.OK
    assert folder.require().facts.signed_by == bert.fingerprint


def test_an_identity_that_comes_late_is_taken(pod: Pod, web: WebServer, tiny: bytes, tmp_path: Path) -> None:
    own, other = (pyrage.x25519.Identity.generate() for _ in range(2))
    (tmp_path / "plain").mkdir()
    (tmp_path / "identities.txt").write_text(str(other))
    pod.configure(web.put("m.gguf.age", pyrage.encrypt(tiny, [own.to_public()])))
    assert pod.fetch() == ExitCode.FETCH_PERMANENT
    failure = pod.last_words().failure
    assert failure is not None
    assert failure.reason is FailureReason.DECRYPTION_FAILED
    with pod.fetching() as fetching:
        eventually(lambda: pod.report().phase == "Failed")
        (tmp_path / "identities.txt").write_text(f"{other}\n{own}\n")
        assert fetching.result(30) == ExitCode.OK
    assert (tmp_path / "plain" / "m.gguf").read_bytes() == tiny


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, FailureReason.SOURCE_NOT_FOUND), (403, FailureReason.SOURCE_UNAUTHORIZED)],
)
def test_a_source_that_is_not_there_yet_is_waited_for(
    pod: Pod, web: WebServer, tiny: bytes, status: int, reason: FailureReason
) -> None:
    folder = pod.configure(web.put("m.gguf", tiny, status=status))
    assert pod.fetch() == ExitCode.FETCH_PERMANENT
    failure = pod.last_words().failure
    assert failure is not None
    assert failure.reason is reason
    with pod.fetching() as fetching:
        eventually(lambda: pod.report().phase == "Failed")
        web.files["/m.gguf"].status = 200
        assert fetching.result(30) == ExitCode.OK
    assert folder.require()


def test_a_source_that_fails_anew_is_reported_anew(pod: Pod, web: WebServer, tiny: bytes) -> None:
    pod.configure(web.put("m.gguf", status=404))
    assert pod.fetch() == ExitCode.FETCH_PERMANENT
    with pod.fetching() as fetching:
        eventually(lambda: pod.report().phase == "Failed")
        web.files["/m.gguf"] = File(b"<html>" * 100)

        def told() -> bool:
            failure = pod.report().failure
            return failure is not None and failure.reason is FailureReason.INVALID_MODEL

        eventually(told)
        web.files["/m.gguf"] = File(tiny, etag='"3"')
        assert fetching.result(30) == ExitCode.OK


@pytest.fixture
def in_process() -> Iterator[None]:
    """Undo what the program does to the process it runs in."""
    handler, handlers = signal.getsignal(signal.SIGTERM), logging.getLogger().handlers[:]
    yield
    signal.signal(signal.SIGTERM, handler)
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "is empty"),
        ("{", "JSON"),
        ('{"model": {"name": "m"}}', "model.source"),
        ('{"version": 7}', "version"),
    ],
)
@pytest.mark.parametrize("command", ["fetch", "inspect"])
def test_a_configuration_that_makes_no_sense(
    pod: Pod,
    command: str,
    config: str | None,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    in_process: None,
) -> None:
    pod.message.write_text("")
    monkeypatch.delenv("SLM_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("SLM_CONFIG", config)
    assert main([command]) == ExitCode.CONFIG_INVALID
    assert says in capsys.readouterr().err
    failure = pod.last_words().failure
    assert failure is not None
    assert failure.reason is FailureReason.CONFIG_INVALID


def test_a_port_in_use(
    pod: Pod, web: WebServer, tiny: bytes, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    pod.configure(web.put("m.gguf", tiny))
    pod.message.write_text("")
    with socket.create_server(("127.0.0.1", pod.port)):
        assert main(["fetch"]) == ExitCode.PORT_IN_USE
    assert str(pod.port) in capsys.readouterr().err
    failure = pod.last_words().failure
    assert failure is not None
    assert failure.reason is FailureReason.PORT_IN_USE


def test_inspect_tells_the_facts_and_writes_nothing(
    pod: Pod, web: WebServer, tiny: bytes, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    pod.configure(web.put("m.gguf", tiny))
    pod.message.write_text("")
    assert main(["inspect"]) == ExitCode.OK
    words = pod.last_words()
    assert words.command == "inspect"
    assert words.model is not None
    assert words.model.architecture == "llama"
    assert json.loads(capsys.readouterr().out) == json.loads(words.to_json())
    assert not pod.volume.exists()


def test_inspect_for_people(
    tiny_file: Path, pod: Pod, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    assert main(["inspect", str(tiny_file)]) == ExitCode.OK
    assert "126,528" in capsys.readouterr().out
    assert main(["inspect", "/no/such/file"]) == ExitCode.FETCH_PERMANENT
    assert "There is no file /no/such/file" in capsys.readouterr().err


def test_inspect_reports_a_failure(pod: Pod, web: WebServer, in_process: None) -> None:
    pod.configure(web.put("m.gguf", status=404))
    pod.message.write_text("")
    assert main(["inspect"]) == ExitCode.FETCH_PERMANENT
    failure = pod.last_words().failure
    assert failure is not None
    assert failure.reason is FailureReason.SOURCE_NOT_FOUND


def test_last_words_fit_whatever_they_say() -> None:
    endless = Failure(reason=FailureReason.SOURCE_INVALID, message='"\x01ö' * 9000, remedy="ö" * 9000)
    words = bounded_json(FetchReport(command="fetch", failure=endless))
    assert len(words) <= TERMINATION_MESSAGE_LIMIT
    assert FetchReport.model_validate_json(words).failure is not None
