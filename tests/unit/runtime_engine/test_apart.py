import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from slm_runtime.engine.apart import Apart

EVERYWHERE = os.sched_getaffinity(0)
ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


@pytest.fixture
def other() -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", ECHO]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def move(process: "subprocess.Popen[str]", cpu: int) -> None:
    os.sched_setaffinity(process.pid, {cpu})
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("run there\n")
    process.stdin.flush()
    process.stdout.readline()


@pytest.mark.skipif(len(EVERYWHERE) == 1, reason="there is no other CPU")
def test_it_goes_where_the_other_is_not(other: "subprocess.Popen[str]") -> None:
    seen = []

    def work() -> None:
        apart = Apart()
        for cpu in sorted(EVERYWHERE) * 2:
            move(other, cpu)
            apart.keep_off(other.pid)
            seen.append(EVERYWHERE - os.sched_getaffinity(0))
        apart.come_back()
        seen.append(EVERYWHERE - os.sched_getaffinity(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [*({cpu} for cpu in sorted(EVERYWHERE) * 2), set()]


def test_a_process_that_has_ended_moves_nobody(other: "subprocess.Popen[str]") -> None:
    other.kill()
    other.wait()
    Apart().keep_off(other.pid)
    assert os.sched_getaffinity(0) == EVERYWHERE
