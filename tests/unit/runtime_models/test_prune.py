"""Models that nothing uses any more: which go, and that nothing else is ever touched."""

import fcntl
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slm_contract.retention import Retention
from slm_runtime.errors import StorageUnusable
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.prune import CachedModel, Verdict, cached_models, judge, prune
from tests.support.web import WebServer
from tests.unit.runtime_models.conftest import FetchOf

DAY = 86400.0
NOW = 1_800_000_000.0
ALL_GO = Retention(keep=(), grace_seconds=0)
SHARED = Retention(keep=(), grace_seconds=DAY)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    return tmp_path / "models"


MakeModel = Callable[..., ModelFolder]


@pytest.fixture
def model(web: WebServer, fetch_of: FetchOf, tiny: bytes) -> MakeModel:
    """A model as a fetch leaves it, a week ago."""

    def make(name: str = "m", *, age: float = 7 * DAY) -> ModelFolder:
        fetch = fetch_of(web.put(f"{name}.gguf", tiny))
        fetch.run()
        os.utime(fetch.folder.path / ".lock", (NOW - age, NOW - age))
        return fetch.folder

    return make


def there(volume: Path) -> set[str]:
    return {path.name for path in volume.iterdir()}


# Which may go.


def cached(*, started: float = -7 * DAY, unused: float | None = None) -> CachedModel:
    return CachedModel("a" * 16, NOW + started, None if unused is None else NOW + unused)


def test_what_is_kept_stays_whatever_its_age() -> None:
    assert judge(cached(), ALL_GO, NOW) is Verdict.GOES
    assert judge(cached(), Retention(keep=("a" * 16,), grace_seconds=0), NOW) is Verdict.STAYS


@pytest.mark.parametrize(
    ("started", "stays"), [(-61.0, False), (-60.0, False), (-59.0, True), (3600.0, True)]
)
def test_what_a_pod_has_just_started_with_stays(started: float, stays: bool) -> None:
    """Nobody holds it between the fetch and the server; the volume's clock may be ahead of ours."""
    assert (judge(cached(started=started), ALL_GO, NOW) is Verdict.STAYS) is stays


@pytest.mark.parametrize(
    ("unused", "verdict"),
    [
        (None, Verdict.UNUSED),
        (-DAY + 1, Verdict.UNUSED),
        (-DAY, Verdict.GOES),
        (3600.0, Verdict.UNUSED),
    ],
)
def test_what_others_may_want_again_stays_for_its_time_of_grace(
    unused: float | None, verdict: Verdict
) -> None:
    """It may have been served until a moment ago, for however long."""
    assert judge(cached(unused=unused), SHARED, NOW) is verdict


# On a volume.


def test_an_unused_model_goes_whole_and_the_others_stay_whole(volume: Path, model: MakeModel) -> None:
    kept, old = model("kept"), model("old")
    size = sum(path.lstat().st_blocks * 512 for path in old.path.rglob("*"))
    removed = prune(volume, Retention(keep=(kept.path.name,), grace_seconds=0), NOW)
    assert removed is not None
    assert (removed.models, removed.bytes) == (1, size)
    assert there(volume) == {kept.path.name}
    assert kept.require().path.is_file()


def test_where_all_is_used_nothing_is_said(volume: Path, model: MakeModel) -> None:
    kept = model()
    assert prune(volume, Retention(keep=(kept.path.name,), grace_seconds=0), NOW) is None
    assert prune(volume / "missing", ALL_GO, NOW) is None


def test_what_is_served_stays_until_nobody_serves_it(volume: Path, model: MakeModel) -> None:
    folder = model()
    with folder.served(), folder.served():
        assert prune(volume, ALL_GO, NOW) is None
        assert folder.require()
    assert prune(volume, ALL_GO, NOW) is not None
    assert there(volume) == set()


def test_what_is_served_can_be_looked_at_by_the_next_pod(model: MakeModel) -> None:
    """A lock for serving that kept fetches out would keep every second replica waiting."""
    folder = model()
    with folder.served(), folder.locked(lambda: pytest.fail("it waits")):
        assert folder.fetched()


def test_what_is_being_fetched_stays(volume: Path, model: MakeModel) -> None:
    folder = model()
    with folder.locked():
        os.utime(folder.path / ".lock", (NOW - DAY, NOW - DAY))
        assert prune(volume, ALL_GO, NOW) is None
    assert folder.require()


def test_what_nobody_uses_goes_a_day_after_that_was_found(volume: Path, model: MakeModel) -> None:
    folder = model()
    assert prune(volume, SHARED, NOW) is None
    assert prune(volume, SHARED, NOW + DAY - 1) is None
    assert folder.require()
    assert prune(volume, SHARED, NOW + DAY) is not None
    assert there(volume) == set()


def test_a_pod_that_starts_with_a_model_takes_the_mark_away(
    volume: Path, web: WebServer, fetch_of: FetchOf, model: MakeModel
) -> None:
    """So what is gone back to after another was tried is there, however long it was served before."""
    folder = model()
    assert prune(volume, SHARED, NOW) is None
    assert (folder.path / ".unused").exists()
    assert fetch_of(web.url("m.gguf")).run().cached
    assert not (folder.path / ".unused").exists()
    os.utime(folder.path / ".lock", (NOW, NOW))
    assert prune(volume, SHARED, NOW + 30 * DAY) is None
    assert folder.require()


def test_who_is_found_serving_takes_the_mark_away(volume: Path, model: MakeModel) -> None:
    """Who has the volume read-only can't do it."""
    folder = model()
    assert prune(volume, SHARED, NOW) is None
    with folder.served():
        assert prune(volume, SHARED, NOW + 30 * DAY) is None
    assert prune(volume, SHARED, NOW + 60 * DAY) is None
    assert folder.require()


def test_what_failed_or_was_broken_off_goes_as_well(volume: Path) -> None:
    for name, left in (("a" * 16, "failure.json"), ("b" * 16, ".part"), ("c" * 16, "files.json")):
        (volume / name).mkdir(parents=True)
        for each in (left, ".lock"):
            (volume / name / each).write_text("{}")
            os.utime(volume / name / each, (0, 0))
    removed = prune(volume, ALL_GO, NOW)
    assert removed is not None
    assert removed.models == 3
    assert there(volume) == set()


@pytest.mark.parametrize(
    "name", ["ABCDEF0123456789", "0123456789abcde", "0123456789abcdef0", "lost+found", "0123456789abcdeg"]
)
def test_a_folder_of_another_name_is_somebody_elses(volume: Path, model: MakeModel, name: str) -> None:
    model().path.rename(volume / name)
    assert prune(volume, ALL_GO, NOW) is None
    assert (volume / name / "m.gguf").is_file()


@pytest.mark.parametrize("missing", [".lock", "model.json"])
def test_a_folder_without_our_files_is_somebody_elses(volume: Path, model: MakeModel, missing: str) -> None:
    folder = model()
    (folder.path / missing).unlink()
    assert list(cached_models(volume)) == []
    assert prune(volume, ALL_GO, NOW) is None
    assert (folder.path / "m.gguf").is_file()


def test_links_are_not_followed(volume: Path, model: MakeModel, tmp_path: Path) -> None:
    """Neither one that has a folder's name, nor one in place of the lock, nor those within a model."""
    outside = tmp_path / "outside"
    model("elsewhere").path.rename(outside)
    (volume / ("a" * 16)).symlink_to(outside)
    locked = model("locked").path
    (locked / ".lock").rename(tmp_path / "lock")
    (locked / ".lock").symlink_to(tmp_path / "lock")
    inner = model("inner").path
    (inner / "extra").symlink_to(outside)
    removed = prune(volume, ALL_GO, NOW)
    assert removed is not None
    assert removed.models == 1
    assert there(volume) == {"a" * 16, locked.name}
    assert (outside / "elsewhere.gguf").is_file()
    assert (tmp_path / "lock").is_file()


def test_a_removal_that_was_broken_off_is_finished(volume: Path, model: MakeModel) -> None:
    folder = model()
    (folder.path / ".lock").unlink()
    folder.path.rename(volume / f".removed-{folder.path.name}")
    (volume / ".removed-of-others").mkdir()
    assert prune(volume, ALL_GO, NOW) is None
    assert there(volume) == {".removed-of-others"}


def test_a_fetch_that_waited_for_a_removal_makes_the_folder_anew(
    volume: Path, web: WebServer, fetch_of: FetchOf, model: MakeModel, tiny: bytes
) -> None:
    """The lock that it has waited for is that of a file without a name."""
    folder = model()
    waits = threading.Event()
    with (folder.path / ".lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetch = fetch_of(web.url("m.gguf"))
        enter = fetch.progress.enter

        def entered(state: str) -> None:
            enter(state)  # type: ignore[arg-type]
            waits.set()

        fetch.progress.enter = entered  # type: ignore[method-assign,assignment]
        results = []
        thread = threading.Thread(target=lambda: results.append(fetch.run()))
        thread.start()
        assert waits.wait(30)
        folder.path.rename(volume / "gone")
    thread.join(30)
    (result,) = results
    assert not result.cached
    assert result.model.path.read_bytes() == tiny
    with folder.locked(lambda: pytest.fail("nobody else is there")):
        pass


def test_a_model_without_the_lock_for_serving_is_served_all_the_same(model: MakeModel) -> None:
    """One that an earlier version fetched, on a volume that can only be read."""
    folder = model()
    (folder.path / ".served").unlink()
    with folder.served():
        assert folder.require()


# Read-only.


@pytest.fixture
def seal(tmp_path: Path, volume: Path) -> Iterator[Callable[[], None]]:
    """The volume is one that can be made read-only."""
    volume.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", volume], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a volume")
    yield lambda: subprocess.run(["mount", "-o", "remount,ro", volume], check=True) and None
    subprocess.run(["umount", volume], check=True)


def test_who_serves_from_a_read_only_volume_keeps_the_model(
    volume: Path, model: MakeModel, seal: Callable[[], None]
) -> None:
    """Pods have it so, while a Job elsewhere may write to it."""
    folder = model()
    seal()
    with folder.served(), (folder.path / ".served").open("rb") as lock:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert folder.require()


def test_a_model_on_a_read_only_volume_is_found_there(
    web: WebServer, fetch_of: FetchOf, model: MakeModel, seal: Callable[[], None]
) -> None:
    folder = model()
    seal()
    fetched = fetch_of(web.url("m.gguf")).run()
    assert fetched.cached
    assert fetched.model == folder.require()


def test_a_model_that_a_read_only_volume_lacks_is_said_with_a_remedy(
    web: WebServer, fetch_of: FetchOf, tiny: bytes, seal: Callable[[], None]
) -> None:
    url = web.put("m.gguf", tiny)
    seal()
    with pytest.raises(StorageUnusable, match=r"is read-only, and http\S+ isn't on it") as caught:
        fetch_of(url).run()
    assert "may write to the claim" in caught.value.remedy
    assert web.asked == []
