"""How this machine's Python index and proxies are told to images and pods."""

import os
from pathlib import Path
from urllib.request import proxy_bypass_environment

import pytest

from tests.cluster.host import PythonIndex, host_index, never_proxy, proxies, proxies_of_builds


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


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        for each in (name, name.lower()):
            # First set, so that what a test itself sets is undone too.
            monkeypatch.setenv(each, "")
            monkeypatch.delenv(each)


@pytest.mark.usefixtures("no_proxies")
def test_pods_get_the_proxies_that_they_can_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost,.corp")
    assert proxies() == {}
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    assert proxies() == {}
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.corp:3128")
    inside = {"NO_PROXY": "localhost,.corp,.svc,.cluster.local"}
    assert proxies() == {"HTTPS_PROXY": "http://proxy.corp:3128", **inside}
    for unfit in ("localhost:3128", "http://user:word@proxy.corp:3128"):
        monkeypatch.setenv("HTTPS_PROXY", unfit)
        assert proxies() == {}
    monkeypatch.setenv("HTTPS_PROXY", "proxy.corp:3128")
    assert proxies() == {"HTTPS_PROXY": "proxy.corp:3128", **inside}


@pytest.mark.usefixtures("no_proxies")
def test_what_is_reached_directly_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", ".corp")
    for _ in range(2):
        never_proxy("10.213.1.2")
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == ".corp,10.213.1.2"
    assert all(map(proxy_bypass_environment, ["10.213.1.2", "x.corp"]))
    monkeypatch.setenv("NO_PROXY", ".site")
    never_proxy("10.213.1.2")
    assert os.environ["no_proxy"] == ".site,.corp,10.213.1.2"
    monkeypatch.setenv("no_proxy", "*")
    never_proxy("10.213.1.2")
    assert os.environ["no_proxy"] == "*"
    assert proxies() == {}


@pytest.mark.usefixtures("no_proxies")
def test_builds_get_the_proxies_that_they_can_reach_by_the_names_that_apt_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert proxies_of_builds() == {}
    monkeypatch.setenv("HTTP_PROXY", "http://localhost:3128")
    assert proxies_of_builds() == {}
    monkeypatch.setenv("HTTPS_PROXY", "http://user:word@proxy.corp:3128")
    monkeypatch.setenv("NO_PROXY", ".corp")
    assert proxies_of_builds() == {"https_proxy": "http://user:word@proxy.corp:3128", "no_proxy": ".corp"}
