"""What is said of a Docker engine that can't run a node."""

import re
import shutil
from pathlib import Path

import pytest

from tests.cluster import docker
from tests.cluster.errors import HarnessError

NO_RIGHTS = (
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: "
    'Get "http://%2Fvar%2Frun%2Fdocker.sock/v1.50/version": dial unix /var/run/docker.sock: connect: permission denied'
)
DEAD = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
ELSEWHERE = "error during connect: dial tcp: lookup builds.example: no such host"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (NO_RIGHTS, "join the group docker"),
        (DEAD, "no Docker engine answers"),
        (ELSEWHERE, "no Docker engine answers: .*no such host"),
    ],
)
def test_an_engine_that_cannot_be_reached(words: str, said: str) -> None:
    assert re.search(said, docker.refusal(words))


@pytest.mark.parametrize(
    ("version", "fits"),
    [("19.03.15", False), ("20.10.24+dfsg1", True), ("28.2.2", True), ("master-dirty", True)],
)
def test_an_engine_without_namespaces_of_control_groups_is_too_old(version: str, fits: bool) -> None:
    assert (docker.too_old(version) is None) == fits


def test_a_rootless_engine_needs_control_groups_of_the_second_version() -> None:
    options = ["name=seccomp,profile=builtin", "name=rootless"]
    assert "cgroup v2" in str(docker.unfit({"SecurityOptions": options, "CgroupVersion": "1"}))
    assert docker.unfit({"SecurityOptions": options, "CgroupVersion": "2"}) is None
    assert docker.unfit({"SecurityOptions": None, "CgroupVersion": "1"}) is None


def _engine(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docker command that does as *script* says, and no other."""
    command = folder / "docker"
    command.write_text(f"#!{shutil.which('sh')}\n{script}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_without_a_docker_command_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert docker.unavailable() == "there is no docker command"


def test_a_command_that_is_refused_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _engine(tmp_path, f"echo '{NO_RIGHTS}' >&2; exit 1", monkeypatch)
    assert "join the group docker" in str(docker.unavailable())


def test_an_engine_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "PATIENCE", 0.2)
    _engine(tmp_path, "while :; do :; done", monkeypatch)
    assert "no answer within 0.2 s" in str(docker.unavailable())


def test_a_full_disk_is_said_before_it_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _engine(tmp_path, f"""echo '{{"DockerRootDir": "{tmp_path}"}}'""", monkeypatch)
    docker.require_space(0)
    with pytest.raises(HarnessError, match=r"needs about 1e\+06 GiB in Docker's folder .*docker system df"):
        docker.require_space(1e6)


def test_the_disk_of_another_machine_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _engine(tmp_path, """echo '{"DockerRootDir": "/nowhere/docker"}'""", monkeypatch)
    docker.require_space(1e6)


def test_a_machine_with_little_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _engine(tmp_path, f"""echo '{{"MemTotal": {4 << 30}}}'""", monkeypatch)
    assert docker.short_of_memory(4) is None
    assert docker.short_of_memory(8) == "Docker's machine has 4.0 GiB of memory, 8 are wanted"
