"""kind by itself: what an earlier run left, ports, and what a build is told of this machine's network."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster import Cluster, HarnessError, NoCluster, kind_config, kind_node_image, select
from tests.cluster.base_image import base
from tests.cluster.builders import Build, Docker, secrets
from tests.cluster.commands import run
from tests.cluster.kind import KindCluster

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def _on_kind() -> None:
    try:
        chosen = select()
    except NoCluster as reason:
        pytest.skip(str(reason))
    if chosen.kind != "kind":
        pytest.skip(f"this is about kind, and the cluster here is of the kind {chosen.kind}")


@pytest.fixture
def half_made() -> Iterator[KindCluster]:
    """A cluster whose making was cut off: a node's container is there, and nothing runs in it."""
    cluster = KindCluster("half")
    labels = {"io.x-k8s.kind.cluster": cluster.name, "io.x-k8s.kind.role": "control-plane"}
    words = [f"--label={name}={value}" for name, value in labels.items()]
    words += [f"--name={cluster.node_name}", "--entrypoint=sleep", kind_node_image.name(), "infinity"]
    run(["docker", "network", "create", cluster.name])
    run(["docker", "run", "--detach", f"--network={cluster.name}", *words])
    yield cluster
    cluster.down()


def test_a_start_that_was_cut_off_is_cleaned_up_by_the_next(
    half_made: KindCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not half_made.is_up()
    half_made.up()
    assert "an earlier run left an unfinished slm-half" in capfd.readouterr().err
    assert half_made.is_up()
    half_made.down()
    assert not half_made.folder.exists()
    assert half_made.name not in run(["docker", "ps", "--all", "--format={{.Names}}"])
    assert half_made.name not in run(["docker", "network", "ls", "--format={{.Name}}"])


def test_more_ways_than_there_are_ports_are_refused(cluster: Cluster) -> None:
    with ExitStack() as ways:
        for _ in kind_config.PORTS:
            ways.enter_context(cluster.reach("kube-system", "kube-dns", 9153))
        with pytest.raises(HarnessError, match=r"all of the node's 16 ports are in use"):
            ways.enter_context(cluster.reach("kube-system", "kube-dns", 9153))
    with cluster.reach("kube-system", "kube-dns", 9153) as address:
        assert address.startswith("127.0.0.1:")


def test_a_build_has_this_machines_proxy_and_authorities_and_keeps_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Docker("docker")
    containerfile = tmp_path / "Containerfile"
    containerfile.write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE} AS build\n"
        "RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf mkdir /told"
        " && echo $https_proxy >/told/proxy && cp /etc/pip.conf /told\n"
        "FROM build AS after\nRUN cat /etc/pip.conf >/told/after || true\n"
        "FROM scratch\nCOPY --from=after /told /\n"
    )
    base_image = base(engine)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    found = secrets(tmp_path)
    request = Build(containerfile, tmp_path, "slm-operator.io/told:1", {"BASE_IMAGE": base_image}, found)
    engine.export(request, tmp_path / "out")
    told = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert told == {
        "proxy": "http://proxy.invalid:3128\n",
        "pip.conf": found["pip.conf"].read_text(),
        "after": "",
    }
