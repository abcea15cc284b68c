"""What kind is told, and how a node image's files are laid out."""

from pathlib import Path

from tests.cluster import kind_config, kind_node_image


def test_the_audit_log_of_the_node_is_a_file_of_this_machine(tmp_path: Path) -> None:
    config = kind_config.config("node:1", tmp_path / kind_config.SHARED)
    (node,) = config["nodes"]
    (mount,) = node["extraMounts"]
    shared = Path(mount["hostPath"]) / "audit.log"
    assert shared == tmp_path / kind_config.AUDIT_LOG


def test_the_control_plane_leaves_the_node_to_models(tmp_path: Path) -> None:
    kind_config.write(tmp_path, "node:1")
    written = {path.name.partition("+")[0] for path in (tmp_path / kind_config.SHARED / "patches").iterdir()}
    assert written == {*kind_config.STATIC_PODS, "corednsdeployment"}


def test_every_published_port_is_on_this_machines_loopback(tmp_path: Path) -> None:
    (node,) = kind_config.config("node:1", tmp_path)["nodes"]
    assert {each["listenAddress"] for each in node["extraPortMappings"]} == {"127.0.0.1"}
    assert len({each["containerPort"] for each in node["extraPortMappings"]}) == len(kind_config.PORTS)


def test_workers_stand_beside_the_control_plane(tmp_path: Path) -> None:
    first, *others = kind_config.config("node:1", tmp_path, workers=2)["nodes"]
    assert first["role"] == "control-plane"
    assert others == [{"role": "worker", "image": "node:1"}] * 2


def test_scripts_become_programs_and_other_files_do_not(tmp_path: Path) -> None:
    source, target = tmp_path / "module", tmp_path / "image"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "entrypoint").write_text("#!/bin/sh\n")
    (source / "config.toml").write_text("version = 2\n")
    for path in (source / "bin" / "entrypoint", source / "config.toml"):
        path.chmod(0o444)  # as a module's files are
    kind_node_image.lay(source, target)
    assert (target / "bin" / "entrypoint").stat().st_mode & 0o777 == 0o755
    assert (target / "config.toml").stat().st_mode & 0o777 == 0o644
