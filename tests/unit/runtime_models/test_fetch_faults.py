"""Whatever goes wrong with one of several files ends with a typed failure, and no wrong file under its name."""

import dataclasses
import threading
from pathlib import Path

import httpx2
import pytest

from slm_runtime.errors import (
    ChecksumMismatch,
    ConfigError,
    InvalidModel,
    OutOfSpace,
    RuntimeFailure,
    SourceInvalid,
    SourceNotFound,
    SourceUnreachable,
    SourceUntrusted,
)
from slm_runtime.models.sources.http import HttpClient
from slm_runtime.models.sources.site import Site
from slm_runtime.places import Places
from tests.support.listed import Listed
from tests.support.web import File
from tests.unit.runtime_models.published import (
    Published,
    assert_published,
    assert_sensible,
    named,
    refusal,
    watched,
)


def test_one_wrong_checksum_publishes_nothing(published: Published) -> None:
    published.pin_checksums()
    published.listed[1] = Listed(path="sub/second.bin", sha256="0" * 64)
    published.tell()
    fetch = published.fetch()
    seen = watched(published, fetch)
    failure = refusal(fetch, published.data)
    assert isinstance(failure, ChecksumMismatch)
    assert "its source says" in failure.message
    assert "sub/second.bin" not in named(fetch.folder)
    assert not list(fetch.folder.path.glob(".part-1*"))
    assert_sensible([*seen, fetch.progress.download()])
    published.pin_checksums()
    published.web.asked.clear()
    again = published.fetch()
    again.run()
    assert_published(again, published.data)


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/etc/passwd",
        "a/../../x",
        ".lock",
        ".part",
        "a/.hidden",
        "model.json",
        "failure.json",
        "prompt.json",
        "a//b",
        "a\\b",
        "a\nb",
        "",
        "x" * 201,
        "m.gguf",
        "m.gguf/x",
        "sub",
    ],
)
def test_paths_that_can_not_be(published: Published, path: str) -> None:
    published.listed.append(Listed(path=path, url="third.json"))
    published.tell()
    fetch = published.fetch()
    failure = refusal(fetch, published.data)
    assert isinstance(failure, SourceInvalid)
    assert failure.permanent
    assert named(fetch.folder) == set()


def test_too_many_files(published: Published) -> None:
    published.listed += [Listed(path=f"{number}", empty=True) for number in range(1000)]
    published.tell()
    assert isinstance(refusal(published.fetch(), published.data), SourceInvalid)


def test_one_checksum_for_several_files(published: Published) -> None:
    assert isinstance(refusal(published.fetch(sha256="0" * 64), published.data), ConfigError)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_second_file_that_keeps_breaking_off(published: Published, ranges: bool) -> None:
    published.file("sub/second.bin").cut_after = 5000
    published.file("sub/second.bin").ranges = ranges
    fetch = published.fetch()
    seen = watched(published, fetch)
    failure = refusal(fetch, published.data)
    assert isinstance(failure, SourceUnreachable)
    assert "cut off" in failure.message
    assert_sensible(seen)
    assert len(published.asked("m.gguf")) <= 7, "what came whole is kept"
    whole = sum(len(published.data[path]) for path in named(fetch.folder))
    assert fetch.progress.bytes_done > whole if ranges else fetch.progress.bytes_done == whole


@pytest.mark.parametrize("claims", [100, -100])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_second_file_that_lies_about_its_length(published: Published, claims: int, ranges: bool) -> None:
    published.pin_checksums()
    file = published.file("sub/second.bin")
    file.claims, file.ranges = len(file.data) + claims, ranges
    fetch = published.fetch()
    seen = watched(published, fetch)
    refusal(fetch, published.data)
    assert "sub/second.bin" not in named(fetch.folder)
    assert_sensible(seen)


def test_a_server_that_sends_more_than_it_was_asked_for(published: Published) -> None:
    published.file("sub/second.bin").more = 10
    failure = refusal(published.fetch(), published.data)
    assert isinstance(failure, SourceInvalid)
    assert "more than it was asked for" in failure.message


def test_a_server_that_falls_silent(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = {**(HttpClient.__init__.__kwdefaults__ or {}), "timeout": httpx2.Timeout(10, read=0.2)}
    monkeypatch.setattr(HttpClient.__init__, "__kwdefaults__", impatient)
    published.file("sub/second.bin").hold = threading.Event()
    published.file("sub/second.bin").hold_after = 1
    failure = refusal(published.fetch(), published.data)
    assert isinstance(failure, SourceUnreachable)
    assert "waited too long" in failure.message
    published.file("sub/second.bin").hold = None


@pytest.mark.parametrize("status", [302, 301, 307, 308])
@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("/sub/second.bin", SourceInvalid),
        ("https://169.254.169.254/latest/meta-data", SourceInvalid),
        ("http://models.example/second.bin", SourceUntrusted),
        ("ftp://models.example/second.bin", SourceInvalid),
        ("http://", SourceInvalid),
    ],
)
def test_a_redirect_to_where_nothing_is_fetched(
    published: Published, status: int, location: str, kind: type[RuntimeFailure]
) -> None:
    published.file("sub/second.bin").status = status
    published.file("sub/second.bin").headers = {"Location": location}
    failure = refusal(published.fetch(), published.data)
    assert isinstance(failure, kind)
    assert failure.permanent


def test_what_lies_under_a_name_and_was_never_verified_goes_first(published: Published) -> None:
    """It would take the room that the right one needs."""
    fetch = published.fetch()
    found = fetch.folder.path / "sub/second.bin"
    found.parent.mkdir(parents=True)
    found.write_text("half of something")
    answers = iter([200, *[404] * 8])
    published.file("sub/second.bin").before = lambda file: setattr(file, "status", next(answers))
    assert isinstance(refusal(fetch, published.data), SourceNotFound)
    assert "sub/second.bin" not in named(fetch.folder)


def test_a_page_in_place_of_the_model(published: Published) -> None:
    published.file("m.gguf").data = b"<html>Please sign in</html>" * 9000
    fetch = published.fetch()
    assert isinstance(refusal(fetch, published.data), InvalidModel)
    assert "m.gguf" not in named(fetch.folder)


def test_a_page_in_place_of_another_file_of_a_known_checksum(published: Published) -> None:
    published.pin_checksums()
    published.file("third.json").data = b"<html>Please sign in</html>"
    assert isinstance(refusal(published.fetch(), published.data), ChecksumMismatch)


def test_a_permanent_failure_counts_more_than_one_that_may_pass(published: Published) -> None:
    published.pin_checksums()
    published.listed[0] = Listed(path="m.gguf", sha256="0" * 64)
    published.tell()
    answers = iter([200, *[503] * 100])
    published.file("third.json").before = lambda file: setattr(file, "status", next(answers))
    assert isinstance(refusal(published.fetch(), published.data), ChecksumMismatch)
    assert len(published.asked("third.json")) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_volume_that_fills_up_in_the_second_file(
    published: Published, places: Places, environment: dict[str, str], small_volume: Path, ranges: bool
) -> None:
    published.site = Site(dataclasses.replace(places, model_dir=small_volume), environment)
    others = small_volume / "others"
    asked = iter(range(100))

    def fill(_: File) -> None:
        if next(asked) == 1:
            with others.open("wb") as file:
                file.write(bytes((3 << 20) - sum(map(len, published.data.values())) + 200_000))

    published.file("sub/second.bin").ranges = ranges
    published.file("sub/second.bin").before = fill
    failure = refusal(published.fetch(), published.data)
    assert isinstance(failure, OutOfSpace)
    assert not failure.permanent
    others.unlink()
    again = published.fetch()
    again.run()
    assert_published(again, published.data)
