"""Mirrors, and the hosts that a site lets its fetches connect to."""

import pytest

from slm_contract.places import FETCH_ENV
from slm_contract.source import FetchConfig, Mirror
from slm_runtime.errors import SourceUntrusted
from slm_runtime.models.sources.route import Route
from slm_runtime.models.sources.site import Site
from tests.support.web import WebServer
from tests.unit.runtime_models.conftest import FetchOf, open_artifact


def route(**mirrors: str) -> Route:
    return Route(FetchConfig(mirrors=tuple(Mirror(source=s, mirror=m) for s, m in mirrors.items())))


@pytest.mark.parametrize(
    ("source", "mirror", "asked", "answer"),
    [
        (
            "https://a.example/",
            "https://m.example/a/",
            "https://a.example/x.gguf",
            "https://m.example/a/x.gguf",
        ),
        (
            "https://a.example",
            "https://m.example/a",
            "https://a.example/x.gguf",
            "https://m.example/a/x.gguf",
        ),
        ("https://a.example", "https://m.example", "https://a.example.evil/x", "https://a.example.evil/x"),
        ("https://a.example/t", "https://m.example", "https://a.example/team/x", "https://a.example/team/x"),
        ("oci://docker.io/", "oci://reg.corp/hub/", "oci://docker.io/ai/x:1", "oci://reg.corp/hub/ai/x:1"),
        (
            "ollama://",
            "ollama://reg.corp/ollama/",
            "ollama://llama3:8b",
            "ollama://reg.corp/ollama/llama3:8b",
        ),
        ("hf://", "https://hub.corp", "hf://org/repo", "hf://org/repo"),
    ],
)
def test_a_mirror_stands_for_what_begins_with_its_source(
    source: str, mirror: str, asked: str, answer: str
) -> None:
    assert route(**{source: mirror})(asked) == answer


def test_the_longest_mirror_counts() -> None:
    table = route(**{"https://a.example/": "https://one", "https://a.example/team/": "https://two"})
    assert table("https://a.example/team/x") == "https://two/x"
    assert table("https://a.example/x") == "https://one/x"


def test_a_hubs_address_is_a_mirror_of_its_scheme() -> None:
    assert (
        route(**{"hf://": "https://hub.corp/hf/"}).endpoint("hf://org/repo", "https://h")
        == "https://hub.corp/hf"
    )
    assert route().endpoint("hf://org/repo", "https://h/") == "https://h"


@pytest.mark.parametrize("url", ["https://[2001:db8::1]/m", "https://[2001:DB8::1]:8443/m"])
def test_hosts_may_be_addresses(url: str) -> None:
    Route(FetchConfig(hosts=("[2001:db8::1]",))).check(url)
    with pytest.raises(SourceUntrusted, match="2001"):
        Route(FetchConfig(hosts=("[2001:db8::2]",))).check(url)


def test_redirects_are_held_against_mirrors_and_hosts(
    web: WebServer, site: Site, environment: dict[str, str], fetch_of: FetchOf, tiny: bytes
) -> None:
    url = web.put("m.gguf", status=302, headers={"Location": "https://cdn.example/m.gguf"})
    web.put("cdn/m.gguf", tiny)
    environment[FETCH_ENV] = FetchConfig(
        mirrors=(Mirror(source="https://cdn.example/", mirror=web.url("cdn/")),), hosts=("127.0.0.1",)
    ).to_json()
    with open_artifact(url, site) as artifact:
        assert artifact.payload.size == len(tiny)
    environment[FETCH_ENV] = FetchConfig(hosts=("127.0.0.1",)).to_json()
    with pytest.raises(SourceUntrusted, match=r"cdn\.example"), open_artifact(url, site):
        pass
    environment[FETCH_ENV] = FetchConfig(hosts=("other.example",)).to_json()
    web.asked.clear()
    with pytest.raises(SourceUntrusted, match="127"), open_artifact(url, site):
        pass
    assert not web.asked
