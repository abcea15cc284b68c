"""Which archives of an image stay in the cache."""

import os
import time
from pathlib import Path

from tests.cluster import images


def archive(folder: Path, name: str, age: float) -> Path:
    place = folder / name
    place.mkdir()
    built = time.time() - age
    os.utime(place, (built, built))
    return place


def test_old_archives_go_and_what_another_run_just_built_stays(tmp_path: Path) -> None:
    current = archive(tmp_path, "slm-runtime-current", 0)
    recent = [archive(tmp_path, f"slm-runtime-{number}", 60 * number) for number in (1, 2, 3)]
    archive(tmp_path, "slm-runtime-old", 2 * images.RECENT)
    other = archive(tmp_path, "slm-operator-old", 2 * images.RECENT)
    images.forget_older("slm-runtime", current)
    assert sorted(tmp_path.iterdir()) == sorted([current, *recent, other])


def test_of_old_archives_the_newest_stays(tmp_path: Path) -> None:
    current = archive(tmp_path, "slm-runtime-current", 0)
    newer = archive(tmp_path, "slm-runtime-newer", 2 * images.RECENT)
    archive(tmp_path, "slm-runtime-older", 3 * images.RECENT)
    images.forget_older("slm-runtime", current)
    assert sorted(tmp_path.iterdir()) == sorted([current, newer])
