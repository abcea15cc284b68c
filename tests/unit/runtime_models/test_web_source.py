import base64
import dataclasses
import ipaddress
import ssl
from pathlib import Path

import pytest

from slm_runtime.errors import (
    ConfigError,
    InvalidModel,
    RuntimeFailure,
    SourceChanged,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnreachable,
    SourceUntrusted,
)
from slm_runtime.models.sources import address
from slm_runtime.models.sources.site import Site
from tests.cluster.certs import Authority
from tests.support.web import File, WebServer, web_server
from tests.unit.runtime_models.conftest import open_artifact


def read(uri: str, site: Site, start: int = 0, stop: int | None = None) -> bytes:
    with open_artifact(uri, site) as artifact, artifact.payload.read(start, stop) as chunks:
        return b"".join(chunks)


def refusal(uri: str, site: Site) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        read(uri, site)
    return caught.value


def credentials(site: Site, **files: str) -> None:
    site.places.credentials_dir.mkdir(exist_ok=True)
    for name, value in files.items():
        (site.places.credentials_dir / name).write_text(value + "\n")


def test_a_file_is_read_whole_and_in_part(web: WebServer, site: Site) -> None:
    url = web.put("a%20b/m.gguf", b"0123456789", etag='"v"')
    with open_artifact(url + "?signature=secret", site) as artifact:
        payload = artifact.payload
        assert (artifact.file_name, payload.size, payload.version, payload.ranged) == (
            "m.gguf",
            10,
            '"v"',
            True,
        )
        assert payload.where == url
        assert artifact.space == 10
    assert read(url, site) == b"0123456789"
    assert read(url, site, 3, 7) == b"3456"
    assert read(url, site, 8) == b"89"


def test_a_server_without_ranges(web: WebServer, site: Site) -> None:
    url = web.put("m.gguf", b"0123456789", ranges=False)
    with open_artifact(url, site) as artifact:
        assert (artifact.payload.ranged, artifact.payload.size) == (False, 10)
    assert read(url, site) == b"0123456789"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, SourceInvalid),
        (401, SourceUnauthorized),
        (403, SourceUnauthorized),
        (404, SourceNotFound),
        (410, SourceNotFound),
        (408, SourceUnreachable),
        (429, SourceUnreachable),
        (500, SourceUnreachable),
        (503, SourceUnreachable),
    ],
)
def test_each_answer_becomes_its_own_reason(
    web: WebServer, site: Site, status: int, kind: type[RuntimeFailure]
) -> None:
    failure = refusal(web.put("m.gguf", status=status), site)
    assert type(failure) is kind
    assert str(status) in failure.message
    assert failure.remedy


def test_retry_after_is_read(web: WebServer, site: Site) -> None:
    seconds = refusal(web.put("a.gguf", status=429, headers={"Retry-After": "7"}), site)
    date = refusal(
        web.put("b.gguf", status=503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), site
    )
    assert isinstance(seconds, SourceUnreachable)
    assert isinstance(date, SourceUnreachable)
    assert (seconds.retry_after, date.retry_after) == (7, 0)


def test_an_empty_file_is_no_model(web: WebServer, site: Site) -> None:
    assert isinstance(refusal(web.put("m.gguf", b""), site), InvalidModel)
    assert isinstance(refusal(web.put("m.gguf", b"", ranges=False), site), InvalidModel)


def test_nobody_listens(site: Site) -> None:
    with web_server() as gone:
        url = gone.url("m.gguf")
    assert isinstance(refusal(url, site), SourceUnreachable)


def test_a_host_without_an_address(site: Site) -> None:
    failure = refusal("https://no-such-host.invalid/m.gguf", site)
    assert isinstance(failure, SourceUnreachable)
    assert "no-such-host.invalid" in failure.message


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://host/m.gguf",
        "m.gguf",
        "https://",
        "https://host:port/m.gguf",
        "https://host/",
        "https://host/..",
        "https://host/.hidden",
        "https://host/model.json",
        "pypi://package/path",
        "pypi://package@1.0",
        "pypi://package@1.0/",
        "pypi://package@not a version/x.gguf",
    ],
)
def test_a_uri_that_names_nothing_is_invalid(uri: str, site: Site) -> None:
    failure = refusal(uri, site)
    assert isinstance(failure, SourceInvalid)
    assert failure.remedy


def test_plain_http_is_for_this_machine_alone(site: Site) -> None:
    failure = refusal("http://models.example/m.gguf", site)
    assert isinstance(failure, SourceUntrusted)
    assert "https" in failure.remedy


def test_what_changes_between_two_reads_is_noticed(web: WebServer, site: Site) -> None:
    url = web.put("m.gguf", b"0123456789", etag='"1"')
    with open_artifact(url, site) as artifact:
        for how in (
            {"etag": '"2"'},
            {"data": b"012345678"},
            {"ranges": False, "data": b"01234"},
            {"data": b"01"},
        ):
            web.files["/m.gguf"] = dataclasses.replace(web.files["/m.gguf"], **how)
            with pytest.raises(SourceChanged), artifact.payload.read(4, 8) as chunks:
                b"".join(chunks)


def test_an_answer_that_breaks_off_is_unreachable(web: WebServer, site: Site) -> None:
    url = web.put("m.gguf", bytes(100_000), cut_after=50_000)
    with pytest.raises(SourceUnreachable, match="cut off"):
        read(url, site)


def test_redirects_are_followed_without_taking_credentials_along(web: WebServer, site: Site) -> None:
    credentials(site, token="secret")
    with web_server() as other:
        target = other.put("cdn/m.gguf", b"model")
        web.put("m.gguf", status=302, headers={"Location": "/moved.gguf"})
        url = web.put("moved.gguf", status=307, headers={"Location": target})
        assert read(web.url("m.gguf"), site) == b"model"
        assert {asked.authorization for asked in web.asked} == {"Bearer secret"}
        assert {asked.authorization for asked in other.asked} == {None}
        assert url != target


def test_redirects_end(web: WebServer, site: Site) -> None:
    url = web.put("m.gguf", status=302, headers={"Location": "/m.gguf"})
    assert isinstance(refusal(url, site), SourceInvalid)
    assert len(web.asked) == 6


def test_a_redirect_may_not_leave_encryption(web: WebServer, site: Site) -> None:
    url = web.put("m.gguf", status=302, headers={"Location": "http://models.example/m.gguf"})
    assert isinstance(refusal(url, site), SourceUntrusted)


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "[fd00:ec2::254]"]
)
def test_a_redirect_to_a_cloud_s_metadata_is_not_followed(web: WebServer, site: Site, host: str) -> None:
    url = web.put("m.gguf", status=302, headers={"Location": f"https://{host}/latest/meta-data"})
    refused = refusal(url, site)
    assert isinstance(refused, SourceInvalid)
    assert "nothing is fetched there" in refused.message


def test_a_name_that_leads_to_such_an_address_is_asked_nothing(
    web: WebServer, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "NEVER_SOURCES", (ipaddress.ip_network("127.0.0.0/8"),))
    web.put("m.gguf", b"secret")
    assert isinstance(refusal(web.url("m.gguf", host="localhost"), site), SourceInvalid)
    assert web.asked == []


def test_a_proxy_may_have_any_address(web: WebServer, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "NEVER_SOURCES", (ipaddress.ip_network("127.0.0.0/8"),))
    for name in ("http_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://localhost:{web.port}")
    url = "http://models.example/m.gguf"
    web.files[url] = File(b"model")
    with (
        site.client(plain_hosts=frozenset({"models.example"})) as client,
        client.get(url) as response,
    ):
        assert response.read() == b"model"


def test_each_kind_of_credentials(web: WebServer, site: Site) -> None:
    basic = "Basic " + base64.b64encode(b"anna:pw").decode()
    url = web.put("m.gguf", b"model", login=basic)
    assert isinstance(refusal(url, site), SourceUnauthorized)
    credentials(site, username="anna", password="pw")
    assert read(url, site) == b"model"
    with_login = url.replace("://", "://anna:pw@")
    for file in site.places.credentials_dir.iterdir():
        file.unlink()
    assert read(with_login, site) == b"model"
    web.files["/m.gguf"].status = 500
    assert "anna" not in refusal(with_login, site).message


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def server_tls(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server", "server", hosts=["127.0.0.1"]))
    return context


def test_https_is_trusted_by_the_pods_bundle(
    site: Site, authority: Authority, server_tls: ssl.SSLContext
) -> None:
    with web_server(server_tls) as web:
        url = web.put("m.gguf", b"model")
        failure = refusal(url, site)
        assert isinstance(failure, SourceUntrusted)
        assert "caBundle" in failure.remedy
        site.places.ca_bundle.write_bytes(authority.certificate.read_bytes())
        assert read(url, site) == b"model"
        wrong_name = url.replace("127.0.0.1", "localhost")
        assert isinstance(refusal(wrong_name, site), SourceUntrusted)


def test_a_bundle_without_certificates_is_a_configuration_error(web: WebServer, site: Site) -> None:
    site.places.ca_bundle.write_text("no PEM")
    assert isinstance(refusal(web.put("m.gguf", b"x"), site), ConfigError)
