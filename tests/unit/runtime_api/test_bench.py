import asyncio

import pytest

from slm_runtime import bench
from tests.unit.runtime_api.scripted import running


async def test_it_measures_a_running_server(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as api:
        arguments = ["--url", api.base, "--streams", "1,3", "--tokens", "4"]
        assert await asyncio.to_thread(bench.main, arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny")
    assert [line.split()[0] for line in lines[2:]] == ["1", "3"]
    assert len({str(request.prompt) for request in api.engine.requests}) == 4


def test_no_server_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--url", "http://127.0.0.1:9"]) == 1
    assert "Is the server running?" in capsys.readouterr().err
