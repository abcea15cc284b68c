"""Whatever goes wrong between the operator and the API server, the end is the same, and then there is rest.

Each scenario is lived once through the proxy without faults: that tells how many writes it takes, and its end. Then it
is lived again with each fault at each write. That is some hundreds of lives: the environment variable SLM_FAULTS says
which. ``sample`` (unset) takes a few of each scenario, always the same ones; ``all`` takes all; ``update/kill-after/3``,
or the beginning of such a name, takes what is called so.
"""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
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
SAMPLE = 4
"""Lives of a scenario in a sample."""
AT_ONCE = 4
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
    if CHOSEN != "sample":
        return [case for case in cases if title(scenario, case).startswith(CHOSEN)]
    place = SCENARIOS.index(scenario)
    picked = [(place * SAMPLE + number) % len(FAULTS) for number in range(SAMPLE)]
    return [(FAULTS[each], (place + 2 * number + 1) % writes) for number, each in enumerate(picked)]


def title(scenario: Scenario, case: Case) -> str:
    fault, number = case
    return f"{scenario.name}/{fault.name}/{number}"


@pytest.mark.timeout(7200 if CHOSEN == "all" else 600)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_any_fault_at_any_write_leads_to_the_same_end(
    plane: ControlPlane, scenario: Scenario, tmp_path: Path
) -> None:
    def run(case: Case | None) -> End:
        number = next(NUMBERS)
        fault, at = case or (None, 0)
        return live(plane, scenario, f"f{number}-{scenario.name}", tmp_path / f"{number}", fault=fault, at=at)

    def judge(case: Case) -> str | None:
        told = None
        try:
            end = run(case)
            assert end.state == reference.state
            assert end.made == reference.made
        except AssertionError as error:
            told = f"{title(scenario, case)}: {error}"
        print(told or f"{title(scenario, case)}: same end, met {end.met}", flush=True)
        return told

    reference = run(None)
    cases = chosen(scenario, reference.writes)
    print(f"{scenario.name}: {reference.writes} writes, {len(cases)} lives; {dict(reference.made)}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failures = [told for told in pool.map(judge, cases) if told is not None]
    assert not failures, "\n".join(failures)
