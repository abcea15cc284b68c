"""Figures of a fetch, as the operator and people read them."""

from slm_runtime.errors import SourceUnreachable
from slm_runtime.fetching.progress import Progress, Share


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_thrown_away_makes_no_speed_below_zero() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.begin(500, 1000)
    share = Share(progress, 500)
    clock.now += 1
    share.forget()
    download = progress.download()
    assert (download.bytes_done, download.bytes_per_second, download.eta_seconds) == (0, 0, None)
    clock.now += 1
    share.add(1000)
    assert progress.download().bytes_done == 1000


def test_a_file_takes_back_what_it_told_and_no_more() -> None:
    progress = Progress()
    progress.begin(300, 1000)
    first, second = Share(progress, 100), Share(progress, 200)
    first.add(400)
    second.add(10)
    first.forget()
    first.forget()
    assert progress.bytes_done == 210


def test_a_failure_is_shown_until_more_comes() -> None:
    progress = Progress()
    progress.begin(0, 10)
    progress.fail(SourceUnreachable("It is away.").to_failure())
    assert progress.report().failure
    Share(progress, 0).add(1)
    assert progress.report().failure is None
