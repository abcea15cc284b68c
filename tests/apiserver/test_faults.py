"""Whatever goes wrong between the operator and the API server, the end is the same, and then there is rest.

Each scenario is lived once through the proxy without faults: that tells how many writes it takes, and its end. Then it
is lived again with each fault at each write. That is some hundreds of lives: the environment variable SLM_FAULTS says
which. ``sample`` (unset) takes a few of each scenario, always the same ones; ``all`` takes all; ``update/kill-after/3``,
the beginning of such a name or a pattern of it (``create/*/3``) takes what is called so.
"""

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

import pytest

from tests.apiserver.lives import SCENARIOS, End, Scenario, live
from tests.apiserver.proxy import (
    DROPPED,
    KILL_AFTER,
    KILL_BEFORE,
    STALE_START,
    Fault,
    broken_watches,
    held_watches,
    lost_event,
    refused,
)
from tests.cluster import ControlPlane

pytestmark = pytest.mark.apiserver

CHOSEN = os.environ.get("SLM_FAULTS", "sample")
WHOLE = ("sample", "all")
SAMPLE = 3
"""Lives of a scenario in a sample."""
AT_ONCE = 6
NUMBERS = itertools.count()
FAULTS = (
    KILL_BEFORE,
    KILL_AFTER,
    DROPPED,
    refused(409),
    refused(429),
    refused(500),
    refused(504),
    STALE_START,
    broken_watches(),
    broken_watches(cut=True),
    broken_watches(410),
    broken_watches(500),
    held_watches(4.0),
    lost_event("deployments"),
    lost_event("pods"),
    lost_event("slmdeployments"),
)
Case = tuple[Fault, int]


def chosen(scenario: Scenario, writes: int) -> list[Case]:
    """The faults at their writes; a sample meets other faults in each scenario, and every fault in one."""
    cases = [(fault, number) for number in range(writes) for fault in FAULTS]
    if CHOSEN == "all":
        return cases
    if CHOSEN not in WHOLE:
        return [case for case in cases if fnmatch(title(scenario, case), f"{CHOSEN}*")]
    place = SCENARIOS.index(scenario)
    picked = [(place * SAMPLE + number) % len(FAULTS) for number in range(SAMPLE)]
    return [(FAULTS[each], (place + 2 * number + 1) % writes) for number, each in enumerate(picked)]


def concerns(scenario: Scenario) -> bool:
    name, more, _ = CHOSEN.partition("/")
    return CHOSEN in WHOLE or fnmatch(scenario.name, name if more else f"{name}*")


def title(scenario: Scenario, case: Case) -> str:
    fault, number = case
    return f"{scenario.name}/{fault.name}/{number}"


class Lives:
    """Lives scenarios, several at once, each in a namespace and with an operator of its own."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self._plane = plane
        self._folder = folder
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._references = {
            each.name: self._pool.submit(self._live, each) for each in SCENARIOS if concerns(each)
        }

    def reference(self, scenario: Scenario) -> End:
        if scenario.name not in self._references:
            pytest.skip(f"SLM_FAULTS={CHOSEN} is about other scenarios")
        return self._references[scenario.name].result()

    def failures(self, scenario: Scenario) -> list[str]:
        verdicts = [verdict.result() for verdict in self._verdicts[scenario.name]]
        return [told for told in verdicts if told is not None]

    @cached_property
    def _verdicts(self) -> dict[str, list[Future[str | None]]]:
        """Of all scenarios from the first question on: one that takes long doesn't keep the others waiting."""
        return {
            scenario.name: [
                self._pool.submit(self._judge, scenario, case)
                for case in chosen(scenario, self.reference(scenario).writes)
            ]
            for scenario in SCENARIOS
            if scenario.name in self._references and not self._references[scenario.name].exception()
        }

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _live(self, scenario: Scenario, fault: Fault | None = None, at: int = 0) -> End:
        name = f"f{next(NUMBERS)}-{scenario.name}"
        return live(self._plane, scenario, name, self._folder / name, fault=fault, at=at)

    def _judge(self, scenario: Scenario, case: Case) -> str | None:
        reference, told = self.reference(scenario), None
        try:
            end = self._live(scenario, *case)
            assert end.state == reference.state
            assert end.made == reference.made
        except AssertionError as error:
            told = f"{title(scenario, case)}: {error}"
        print(told or f"{title(scenario, case)}: same end, met {end.met}", flush=True)
        return told


@pytest.fixture(scope="module")
def lives(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    each = Lives(plane, tmp_path_factory.mktemp("lives"))
    yield each
    each.close()


@pytest.mark.timeout(600 if CHOSEN == "sample" else 14400)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_any_fault_at_any_write_leads_to_the_same_end(lives: Lives, scenario: Scenario) -> None:
    reference = lives.reference(scenario)
    print(f"{scenario.name}: {reference.writes} writes; {dict(reference.made)}", flush=True)
    failures = lives.failures(scenario)
    assert not failures, "\n".join(failures)
