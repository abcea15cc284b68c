"""How fast a fetch may be, by a clock that only waiting moves."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_contract.places import FETCH_ENV
from slm_contract.source import FetchConfig
from slm_runtime.fetching import transfer
from slm_runtime.fetching.rate import BURST_SECONDS, Rate
from slm_runtime.fetching.transfer import CONNECTIONS, Transfer
from tests.unit.runtime_models.published import Published, assert_published


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def rate(bytes_per_second: int | None, clock: Clock) -> Rate:
    return Rate(bytes_per_second, clock=clock, wait=clock.wait)


def test_without_a_limit_nobody_waits() -> None:
    clock = Clock()
    rate(None, clock).take(1 << 40)
    assert clock.now == 1000


@given(
    st.integers(1, 1 << 32),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.floats(0, 100)), min_size=1, max_size=50),
)
def test_never_more_than_the_rate(bytes_per_second: int, takes: list[tuple[int, float]]) -> None:
    clock = Clock()
    limited = rate(bytes_per_second, clock)
    taken: list[tuple[float, int]] = []
    for length, idle in takes:
        clock.now += idle
        since = clock.now
        limited.take(length)
        taken.append((since, length))
        for start, _ in taken:
            through = sum(bytes_ for at, bytes_ in taken if at >= start)
            allowed = bytes_per_second * (clock.now - start + BURST_SECONDS)
            assert through <= allowed * (1 + 1e-6) + bytes_per_second * 1e-6


def test_it_is_used_whole() -> None:
    clock = Clock()
    limited = rate(1000, clock)
    for _ in range(100):
        limited.take(100)
    assert clock.now == pytest.approx(1010)


@pytest.mark.parametrize(
    ("limit", "connections"), [(1, 1), (3 << 20, 3), (1 << 40, CONNECTIONS), (None, CONNECTIONS)]
)
def test_what_is_little_is_not_shared_by_many(limit: int | None, connections: int) -> None:
    with Transfer(limit) as shared:
        assert shared.connections == connections


@pytest.mark.parametrize("ranges", [True, False])
def test_every_byte_of_a_fetch_is_counted(
    published: Published, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    taken: list[tuple[int | None, int]] = []

    class Counted:
        def __init__(self, bytes_per_second: int | None, **_: object) -> None:
            self._limit = bytes_per_second

        def take(self, length: int) -> None:
            taken.append((self._limit, length))

    monkeypatch.setattr(transfer, "Rate", Counted)
    environment[FETCH_ENV] = FetchConfig(bytes_per_second=5 << 20).to_json()
    for path in published.data:
        published.file(path).ranges = ranges
    fetch = published.fetch()
    fetch.run()
    assert_published(fetch, published.data)
    assert {limit for limit, _ in taken} == {5 << 20}
    assert sum(length for _, length in taken) == sum(map(len, published.data.values()))
