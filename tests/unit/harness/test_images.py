"""Which archives of an image stay in the cache."""

import os
import time
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.errors import HarnessError


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
    others = [
        archive(tmp_path, f"{name}-old", 2 * images.RECENT) for name in ("slm-operator", "slm-runtime-vulkan")
    ]
    images.forget_older("slm-runtime", current)
    assert sorted(tmp_path.iterdir()) == sorted([current, *recent, *others])


def test_of_old_archives_the_newest_stays(tmp_path: Path) -> None:
    current = archive(tmp_path, "slm-runtime-current", 0)
    newer = archive(tmp_path, "slm-runtime-newer", 2 * images.RECENT)
    archive(tmp_path, "slm-runtime-older", 3 * images.RECENT)
    images.forget_older("slm-runtime", current)
    assert sorted(tmp_path.iterdir()) == sorted([current, newer])


def test_a_variant_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(HarnessError, match="no variant 'vulcan' of the runtime's image; there are: vulkan"):
        images.ensure_variant("vulcan")
