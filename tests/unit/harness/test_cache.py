"""What was built once is complete, or isn't there."""

from pathlib import Path
from threading import Thread

import pytest

from tests.cluster import cache
from tests.cluster.errors import HarnessError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLM_CACHE_DIR", str(tmp_path))


def write(folder: Path) -> None:
    (folder / "tool").write_text("complete")


def fail_halfway(folder: Path) -> None:
    (folder / "tool").write_text("half")
    raise HarnessError("the compiler ran out of memory")


def test_a_failed_build_leaves_nothing_and_can_be_tried_again() -> None:
    with pytest.raises(HarnessError, match="out of memory"):
        cache.built("tools", "tool", {"version": "1"}, fail_halfway, note="")
    folder = cache.built("tools", "tool", {"version": "1"}, write, note="")
    assert (folder / "tool").read_text() == "complete"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_a_killed_run_left_is_removed() -> None:
    target = cache.place("tools", "tool", {"version": "1"})
    abandoned = target.with_name(f".{target.name}.killed")
    abandoned.mkdir(parents=True)
    cache.built("tools", "tool", {"version": "1"}, write, note="")
    assert not abandoned.exists()


def test_a_second_build_of_the_same_is_the_first() -> None:
    folder = cache.built("tools", "tool", {"version": "1"}, write, note="")
    assert cache.built("tools", "tool", {"version": "1"}, fail_halfway, note="") == folder


def test_another_version_is_another_artifact() -> None:
    first = cache.built("tools", "tool", {"version": "1"}, write, note="")
    second = cache.built("tools", "tool", {"version": "2"}, write, note="")
    assert first != second


def test_a_full_disk_is_said_before_anything_is_built() -> None:
    with pytest.raises(HarnessError, match=r"needs about 1e\+06 GiB .* make room, or name another folder"):
        cache.built("tools", "tool", {"version": "1"}, write, note="", gib=1e6)


def test_a_hash_of_files_knows_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("b")
    both = cache.digest_of_files([one, two], tmp_path)
    assert both == cache.digest_of_files([two, one], tmp_path)
    one.write_text("b")
    two.write_text("a")
    assert both != cache.digest_of_files([one, two], tmp_path)


def test_a_second_run_waits_for_the_first_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    held: list[str] = []

    def second() -> None:
        with cache.lock("cluster"):
            held.append("second")

    waiting = Thread(target=second)
    with cache.lock("cluster"):
        waiting.start()
        said = ""
        while "waiting: another run holds cluster" not in said:
            said += capfd.readouterr().err
        held.append("first")
    waiting.join()
    assert held == ["first", "second"]
