"""A model of several files: each comes once, all or none are published, and every fault ends in one of the two."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from slm_runtime.errors import (
    SourceDrifted,
    SourceNotFound,
    SourceUnauthorized,
)
from slm_runtime.models.sources import resolve
from tests.support import listed
from tests.support.listed import Listed
from tests.support.web import File
from tests.unit.runtime_models.published import (
    Published,
    assert_published,
    assert_sensible,
    named,
    refusal,
    sha256,
    watched,
)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("etag", ['"1"', None])
@pytest.mark.parametrize("checksums", [True, False])
def test_all_files_are_there_or_none(
    published: Published, ranges: bool, etag: str | None, checksums: bool
) -> None:
    for path in published.data:
        published.file(path).ranges, published.file(path).etag = ranges, etag
    if checksums:
        published.pin_checksums()
    fetch = published.fetch()
    seen = watched(published, fetch)
    fetch.run()
    assert_published(fetch, published.data)
    assert_sensible(seen)
    published.web.asked.clear()
    assert published.fetch().run().cached
    assert published.web.asked == []


def test_an_empty_file_among_many(published: Published) -> None:
    published.data["empty.txt"] = b""
    published.listed.append(Listed(path="empty.txt", empty=True))
    published.tell()
    fetch = published.fetch()
    fetch.run()
    assert_published(fetch, published.data)


def test_a_thousand_files(published: Published) -> None:
    for number in range(997):
        path = f"{number % 7}/{number}.json"
        published.data[path] = str(number).encode() * (number % 5 + 1)
        published.web.put(path, published.data[path])
    published.pin_checksums()
    fetch = published.fetch()
    fetch.run()
    assert_published(fetch, published.data)
    assert len(published.asked("6/6.json")) == 1


def test_what_is_verified_is_not_transferred_again(published: Published) -> None:
    published.gone_at_last("third.json")
    failure = refusal(published.fetch(), published.data)
    assert isinstance(failure, SourceNotFound)
    assert failure.permanent
    published.back("third.json")
    published.web.asked.clear()
    again = published.fetch()
    again.run()
    assert_published(again, published.data)
    assert [each for each in published.data if published.asked(each)] == ["third.json"]


def process(published: Published) -> "subprocess.Popen[str]":
    """`slm-runtime fetch` as a process of its own, which can be killed."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.listed", "fetch"],
        env=listed.environment(published.uri, published.site.places.model_dir.parent),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_process_that_is_killed_in_the_second_file(published: Published) -> None:
    released = threading.Event()
    published.file("sub/second.bin").hold = released
    published.file("sub/second.bin").hold_after = 1
    first = process(published)
    folder = published.fetch().folder
    while first.poll() is None and not {"m.gguf", "third.json"} <= folder.verified().keys():
        released.wait(0.02)
    first.send_signal(signal.SIGKILL)
    _, errors = first.communicate(timeout=30)
    assert first.returncode == -signal.SIGKILL, errors
    released.set()
    assert folder.fetched() is None
    published.web.asked.clear()
    second = process(published)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert published.asked("m.gguf") == published.asked("third.json") == []
    for path, data in published.data.items():
        assert (folder.path / path).read_bytes() == data
    assert folder.require()


def test_two_processes_at_once_fetch_once(published: Published) -> None:
    both = [process(published) for _ in range(2)]
    for each in both:
        _, errors = each.communicate(timeout=60)
        assert each.returncode == 0, errors
    folder = published.fetch().folder
    assert folder.require()
    for path, data in published.data.items():
        assert (folder.path / path).read_bytes() == data
    assert published.web.sent < 1.1 * sum(map(len, published.data.values())) + 10_000


@pytest.mark.parametrize("ranges", [True, False])
def test_one_file_that_changes_meanwhile_is_begun_anew(published: Published, ranges: bool) -> None:
    new = published.data["sub/second.bin"][::-1]
    published.file("sub/second.bin").ranges = ranges
    answers = iter(range(1000))

    def publish_anew(file: File) -> None:
        if next(answers) == (3 if ranges else 1):
            file.data, file.etag = new, '"2"'

    published.file("sub/second.bin").before = publish_anew
    fetch = published.fetch()
    seen = watched(published, fetch)
    fetch.run()
    assert_published(fetch, {**published.data, "sub/second.bin": new})
    assert_sensible(seen)


def test_a_file_without_version_and_checksum_is_never_mixed_of_two(published: Published) -> None:
    file, old = published.file("sub/second.bin"), published.data["sub/second.bin"]
    new = bytes(len(old))
    file.etag = None
    answers = iter(range(1000))

    def publish_anew(file: File) -> None:
        if next(answers) == 3:
            file.data = new

    file.before = publish_anew
    fetch = published.fetch()
    fetch.run()
    assert (fetch.folder.path / "sub/second.bin").read_bytes() in {old, new}


def test_other_bytes_than_the_pinned_ones_are_not_fetched(published: Published) -> None:
    published.pin_checksums()
    with resolve.open_model(published.uri, published.site) as remote:
        pin = remote.pin
    first = published.fetch(pin=pin)
    first.run()
    published.web.put("third.json", b"{...}")
    published.listed[2] = Listed(path="third.json", sha256=sha256(b"{...}"))
    published.tell()
    assert published.fetch(pin=pin).run().cached, "what was pinned and is there needs no source"
    (first.folder.path / "third.json").unlink()
    again = published.fetch(pin=pin)
    failure = refusal(again, published.data)
    assert isinstance(failure, SourceDrifted)
    assert failure.permanent
    assert published.asked("third.json")


def test_a_model_that_lost_a_file_is_none_while_it_is_fetched_again(published: Published) -> None:
    """Else a mixture of two versions, of the same sizes, would pass for the model."""
    published.fetch().run()
    fetch = published.fetch()
    (fetch.folder.path / "third.json").write_bytes(b"{")
    published.file("m.gguf").data = published.data["m.gguf"][:-1] + b"!"
    published.file("m.gguf").etag = '"2"'
    published.file("sub/second.bin").status = 403
    with pytest.raises(SourceUnauthorized):
        fetch.run()
    (fetch.folder.path / "third.json").write_bytes(b"{}")
    assert fetch.folder.fetched() is None


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_verified_file_that_was_touched_behind_our_back_is_fetched_again(
    published: Published, change: Callable[[Path], object]
) -> None:
    published.gone_at_last("third.json")
    fetch = published.fetch()
    refusal(fetch, published.data)
    for path in named(fetch.folder):
        change(fetch.folder.path / path)
    published.back("third.json")
    again = published.fetch()
    again.run()
    assert_published(again, published.data)


def test_a_verified_file_that_the_source_has_anew_is_fetched_again(published: Published) -> None:
    published.pin_checksums()
    published.gone_at_last("third.json")
    refusal(published.fetch(), published.data)
    new = published.data["sub/second.bin"][::-1]
    published.data["sub/second.bin"] = published.file("sub/second.bin").data = new
    published.pin_checksums()
    published.back("third.json")
    fetch = published.fetch()
    fetch.run()
    assert_published(fetch, published.data)


def test_a_record_that_was_cut_off_costs_one_file(published: Published) -> None:
    folder = published.fetch().folder
    folder.path.mkdir(parents=True)
    for name in ("a", "b"):
        (folder.path / ".new").write_text(name)
        folder.settle(name, folder.path / ".new", "identity", sha256(name.encode()))
    with (folder.path / ".verified").open("r+b") as record:
        record.truncate(record.seek(0, os.SEEK_END) - 5)
    assert folder.verified().keys() == {"a"}
    (folder.path / ".new").write_text("c")
    folder.settle("c", folder.path / ".new", "identity", sha256(b"c"))
    assert folder.verified().keys() == {"a", "c"}


def test_a_record_can_not_lead_out_of_the_folder(published: Published, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("not ours")
    folder = published.fetch().folder
    folder.path.mkdir(parents=True)
    staged = folder.path / ".new"
    staged.write_text("x")
    verified = folder.settle("x", staged, "identity", sha256(b"x"))
    line = verified.to_json().replace('"x"', '"../../outside"')
    (folder.path / ".verified").write_text(line)
    fetch = published.fetch()
    fetch.run()
    assert (tmp_path / "outside").read_text() == "not ours"


def test_files_that_the_source_has_no_more_go(published: Published) -> None:
    published.gone_at_last("third.json")
    fetch = published.fetch()
    refusal(fetch, published.data)
    assert "sub/second.bin" in named(fetch.folder)
    published.back("third.json")
    del published.listed[1], published.data["sub/second.bin"]
    published.tell()
    again = published.fetch()
    again.run()
    assert_published(again, published.data)
