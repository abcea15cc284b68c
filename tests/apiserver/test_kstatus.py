"""The library by which Flux and Helm wait reads our objects in every phase."""

import json
import subprocess

import pytest

from tests.cluster import tools
from tests.contract.phases import phases

pytestmark = pytest.mark.apiserver


def test_kstatus_reads_every_phase() -> None:
    told = phases()
    read = subprocess.run(
        [tools.kstatus.path()],
        input="\n".join(json.dumps(each.object) for each in told),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [line.partition("\t")[0] for line in read.stdout.splitlines()]
    assert dict(zip((each.name for each in told), answers, strict=True)) == {
        each.name: each.kstatus for each in told
    }
