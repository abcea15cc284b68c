"""Which program builds images, and with it what must be compiled."""

import shutil
from pathlib import Path

import pytest

from tests.cluster import builders
from tests.cluster.builders import Docker


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def put(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\n{script}\n")
    program.chmod(0o755)


ANSWERS = """case $1 in
  version) echo 28.2.2;;
  info) echo '{}';;
esac"""
DEAD = "echo 'Cannot connect to the Docker daemon' >&2; exit 1"


@pytest.mark.parametrize(
    ("docker", "podman", "found"),
    [
        (ANSWERS, None, Docker("docker")),
        (ANSWERS, "exit 0", Docker("docker")),
        (DEAD, "exit 0", Docker("podman")),
        (None, "exit 0", Docker("podman")),
        (DEAD, None, None),
        (None, None, None),
    ],
)
def test_docker_goes_before_podman_where_its_engine_answers(
    programs: Path, docker: str | None, podman: str | None, found: Docker | None
) -> None:
    for name, script in (("docker", docker), ("podman", podman)):
        if script is not None:
            put(programs, name, script)
    assert builders.engine() == found
