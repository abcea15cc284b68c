"""Threads follow the cores that are really there."""

import pytest

pytest.importorskip("llama_cpp")

from slm_runtime.engine.llama_cpp.backends import ranked
from slm_runtime.engine.llama_cpp.governor import ThreadGovernor, waited_seconds


class Machine:
    """So many cores are ours; a thread more than that waits the whole time, and the others for it."""

    def __init__(self, most: int, cores: int) -> None:
        self.cores = cores
        self.now = self.waited = 0.0
        self.governor = ThreadGovernor(most, 0.0, lambda: self.waited)

    def run(self, seconds: float) -> set[int]:
        seen = set()
        end = self.now + seconds
        while self.now < end:
            began, self.now = self.now, self.now + 0.01
            self.waited += 0.01 * max(0, self.governor.threads - self.cores)
            seen.add(self.governor.stepped(began, self.now))
        return seen


def test_alone_all_threads_run():
    assert Machine(4, 4).run(100) == {4}


def test_in_a_crowd_there_are_as_few_as_cores_and_more_are_tried_ever_more_seldom():
    machine = Machine(4, 2)
    machine.run(2)
    assert machine.governor.threads == 2
    tries = []
    for _ in range(5):
        before = machine.now
        while machine.run(0.1) == {2}:
            pass
        tries.append(machine.now - before)
        machine.run(1)
        assert machine.governor.threads == 2
    assert tries == sorted(tries)
    assert tries[-1] > 4 * tries[0]


def test_when_the_crowd_goes_they_come_back():
    machine = Machine(2, 1)
    machine.run(2)
    assert machine.governor.threads == 1
    machine.cores = 2
    machine.run(70)
    assert machine.governor.threads == 2


def test_idle_time_hides_no_crowd():
    machine = Machine(2, 1)
    machine.run(0.1)
    machine.now += 1000
    machine.run(0.6)
    assert machine.governor.threads == 1


def test_the_kernel_keeps_the_account():
    assert waited_seconds() >= 0


def test_what_can_t_run_here_isn_t_tried():
    scores = {"x64": 1, "haswell": 60, "zen4": 0, "icelake": 120}
    assert ranked(dict.fromkeys(scores), lambda path: 5) == list(scores)
    assert ranked({name: name for name in scores}, scores.__getitem__) == ["icelake", "haswell", "x64"]
