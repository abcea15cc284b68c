"""How this machine's Python index is told to images and pods."""

from pathlib import Path

import pytest

from tests.cluster.host import PythonIndex, host_index


def test_settings_become_pips_variables() -> None:
    index = PythonIndex({"index-url": "https://index.example/simple", "trusted-host": "index.example"}, None)
    assert index.env == {
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_TRUSTED_HOST": "index.example",
    }


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text(
        "[global]\nindex-url = https://file.example/simple\nextra-index-url =\n"
        "  https://one.example/simple\n  https://two.example/simple\nfind-links = /srv/wheels\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment.example/simple")
    settings = host_index().settings
    assert settings["index-url"] == "https://environment.example/simple"
    assert settings["extra-index-url"].split() == ["https://one.example/simple", "https://two.example/simple"]
    assert "find-links" not in settings


def test_a_build_finds_the_authorities_where_they_are_mounted(tmp_path: Path) -> None:
    index = PythonIndex({"index-url": "https://index.example/simple"}, tmp_path / "ca.crt")
    assert "cert = /run/secrets/ca.crt" in index.pip_conf("/run/secrets/ca.crt").splitlines()
    assert str(tmp_path) not in index.pip_conf("/run/secrets/ca.crt")
