"""What a store's answers become. The protocol itself is the real server's to judge: tests/sources."""

import dataclasses
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from slm_contract.places import FETCH_ENV
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
from slm_runtime.models.sources.object_stores import open_store
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from tests.cluster.certs import Authority
from tests.support.web import WebServer, web_server

DATED = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}


@pytest.fixture(autouse=True)
def no_own_settings(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    """The client reads this process's environment too, and makes no client that trusts nobody."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HOME", "/nonexistent")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def environment(environment: dict[str, str], web: WebServer) -> dict[str, str]:
    endpoint = web.url("").rstrip("/")
    return {
        **environment,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "GOOGLE_BASE_URL": endpoint,
        "AZURE_STORAGE_ENDPOINT": endpoint,
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
    }


def put(web: WebServer, key: str, data: bytes = b"GGUF", **how: object) -> None:
    """Publish an object of `bucket`; Google's client escapes its key."""
    for path in {key, quote(key, safe="").replace(".", "%2E")}:
        web.put(f"bucket/{path}", data, **{"headers": DATED, **how})


def with_environment(site: Site, **more: str) -> Site:
    return dataclasses.replace(site, environment={**site.environment, **more})


def with_fetch(site: Site, **fetch: object) -> Site:
    return with_environment(site, **{FETCH_ENV: json.dumps(fetch)})


def secret(site: Site, **entries: str) -> None:
    site.places.credentials_dir.mkdir(exist_ok=True)
    for name, value in entries.items():
        (site.places.credentials_dir / name).write_text(value + "\n")


def read(uri: str, site: Site, start: int = 0, stop: int | None = None) -> bytes:
    with open_model(uri, site) as model, model.files[0].artifact.payload.read(start, stop) as chunks:
        return b"".join(chunks)


def refusal(uri: str, site: Site) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        read(uri, site)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_an_object_is_read_whole_and_in_part(scheme: str, web: WebServer, site: Site) -> None:
    put(web, "a/m.gguf", b"0123456789", etag='"v"')
    uri = f"{scheme}://bucket/a/m.gguf"
    with open_model(uri, site) as model:
        (file,) = model.files
        payload = file.artifact.payload
        assert (file.path, payload.where, payload.size, payload.version) == ("m.gguf", uri, 10, '"v"')
        assert model.revision is None
        assert model.pin.digest
    assert read(uri, site) == b"0123456789"
    assert read(uri, site, 3, 7) == b"3456"
    assert {asked.authorization for asked in web.asked} == {None}


def test_what_is_asked_by_its_version_is_pinned_by_it(web: WebServer, site: Site) -> None:
    versions = {"x-amz-version-id": "v7", **DATED}
    web.put("bucket/m.gguf", b"GGUF", headers=versions)
    with open_model("s3://bucket/m.gguf", site) as model:
        assert model.revision == "v7"
    web.put("bucket/m.gguf", b"GGUF", headers={**versions, "x-amz-version-id": "null"})
    with open_model("s3://bucket/m.gguf", site) as model:
        assert model.revision is None, "what was put before versions were kept is overwritten"


def test_what_changes_between_two_reads_is_noticed(web: WebServer, site: Site) -> None:
    """Also by a server that doesn't know `If-Match`."""
    put(web, "m.gguf", b"0123456789")
    with open_model("s3://bucket/m.gguf", site) as model:
        payload = model.files[0].artifact.payload
        for how in ({"etag": '"2"'}, {"data": b"012345678"}, {"status": 412}):
            web.put("bucket/m.gguf", **{"data": b"0123456789", "headers": DATED, **how})  # type: ignore[arg-type]
            with pytest.raises(SourceChanged), payload.read(2, 5) as chunks:
                b"".join(chunks)


def test_azure_lists_etags_without_their_quotes(web: WebServer, site: Site) -> None:
    put(web, "folder/m.gguf", b"GGUF", etag='"0x8D"')
    said = {**DATED, "Content-Length": "4", "Content-Type": "x/y", "Etag": "0x8D"}
    properties = "".join(f"<{name}>{value}</{name}>" for name, value in said.items())
    blob = f"<Blob><Name>folder/m.gguf</Name><Properties>{properties}</Properties></Blob>"
    web.put("bucket", f"<EnumerationResults><Blobs>{blob}</Blobs></EnumerationResults>".encode())
    assert read("az://bucket/folder/", site) == b"GGUF"


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_a_list_that_makes_no_sense(scheme: str, web: WebServer, site: Site) -> None:
    for page in (b"", b"<html>", b"{}"):
        web.put("bucket", page)
        assert isinstance(refusal(f"{scheme}://bucket/folder/", site), SourceInvalid)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ({"status": 401}, SourceUnauthorized, "401"),
        ({"status": 403}, SourceUnauthorized, "403"),
        ({"status": 400}, SourceInvalid, "400"),
        ({"status": 408}, SourceUnreachable, "408"),
        ({"status": 429}, SourceUnreachable, "429"),
        ({"status": 500}, SourceUnreachable, "500"),
        ({"status": 503}, SourceUnreachable, "503"),
        ({"status": 301}, ConfigError, "region"),
        ({"data": b""}, InvalidModel, "empty"),
        ({"data": bytes(100), "ranges": False}, SourceInvalid, "ranges"),
    ],
)
def test_each_answer_becomes_its_own_reason(
    web: WebServer, site: Site, answer: Mapping[str, Any], kind: type[RuntimeFailure], said: str
) -> None:
    web.put("bucket/m.gguf", **{"headers": DATED, **answer})
    failure = refusal("s3://bucket/m.gguf", site)
    assert type(failure) is kind
    assert said in failure.message


def test_what_is_not_there(web: WebServer, site: Site) -> None:
    failure = refusal("s3://bucket/m.gguf", site)
    assert isinstance(failure, SourceNotFound)
    assert "s3://bucket/m.gguf" in failure.message


def test_an_answer_that_breaks_off_is_unreachable(web: WebServer, site: Site) -> None:
    web.put("bucket/m.gguf", bytes(100_000), headers=DATED, cut_after=50_000)
    assert "cut off" in refusal("s3://bucket/m.gguf", site).message


def test_a_server_that_falls_silent(web: WebServer, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm_runtime.models.sources.object_stores._ANSWER_SECONDS", 0.2)
    go_on = threading.Event()
    put(web, "m.gguf", bytes(100_000), hold=go_on, hold_after=50_000)
    try:
        failure = refusal("s3://bucket/m.gguf", site)
    finally:
        go_on.set()
    assert isinstance(failure, SourceUnreachable)
    assert "waited too long" in failure.message


def test_nobody_listens(site: Site) -> None:
    with web_server() as gone:
        away = with_environment(site, AWS_ENDPOINT_URL_S3=gone.url(""))
    failure = refusal("s3://bucket/m.gguf", away)
    assert isinstance(failure, SourceUnreachable)
    assert "no connection" in failure.message


def test_a_host_without_an_address(site: Site) -> None:
    away = with_environment(site, AWS_ENDPOINT_URL_S3="https://no-such-host.invalid")
    failure = refusal("s3://bucket/m.gguf", away)
    assert isinstance(failure, SourceUnreachable)
    assert "no-such-host.invalid" in failure.message


@pytest.mark.parametrize(
    "uri",
    [
        "s3://",
        "s3:///m.gguf",
        "s3://b@host/m.gguf",
        "s3://bucket:443/m.gguf",
        "s3://bucket/a/../m.gguf",
        "s3://bucket/a//m.gguf",
        "s3://bucket/.hidden",
    ],
)
def test_what_names_no_object_is_invalid(uri: str, web: WebServer, site: Site) -> None:
    put(web, ".hidden", b"GGUF")
    assert isinstance(refusal(uri, site), SourceInvalid)


class TestServers:
    """Which server is asked is the site's to say."""

    def test_a_mirror_of_one_bucket(self, web: WebServer, site: Site) -> None:
        with web_server() as other:
            other.put("inner/m.gguf", b"other", headers=DATED)
            web.put("outer/m.gguf", b"web", headers=DATED)
            mirrored = with_fetch(site, mirrors=[{"source": "s3://inner/", "mirror": other.url("")}])
            assert read("s3://inner/m.gguf", mirrored) == b"other"
            assert read("s3://outer/m.gguf", mirrored) == b"web"

    def test_a_mirror_of_the_server(self, site: Site) -> None:
        with web_server() as other:
            other.put("bucket/m.gguf", b"other", headers=DATED)
            away = with_environment(site, AWS_ENDPOINT_URL_S3="https://s3.example")
            mirrored = with_fetch(away, mirrors=[{"source": "https://s3.example/", "mirror": other.url("")}])
            assert read("s3://bucket/m.gguf", mirrored) == b"other"

    def test_another_bucket_in_place_of_one(self, web: WebServer, site: Site) -> None:
        web.put("corp/hub/m.gguf", b"GGUF", headers=DATED)
        mirrored = with_fetch(site, mirrors=[{"source": "s3://public/", "mirror": "s3://corp/hub/"}])
        assert read("s3://public/m.gguf", mirrored) == b"GGUF"
        mirrored = with_fetch(site, mirrors=[{"source": "s3://public/", "mirror": "gs://corp/hub/"}])
        with pytest.raises(SourceNotFound, match="gs://corp/hub"):
            read("s3://public/m.gguf", mirrored)

    def test_a_mirror_that_is_no_bucket(self, site: Site) -> None:
        mirrored = with_fetch(site, mirrors=[{"source": "s3://public/", "mirror": "oci://registry.corp/"}])
        assert isinstance(refusal("s3://public/m.gguf", mirrored), ConfigError)

    @pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
    def test_a_host_that_the_site_does_not_name(self, scheme: str, web: WebServer, site: Site) -> None:
        failure = refusal(f"{scheme}://bucket/m.gguf", with_fetch(site, hosts=["models.corp"]))
        assert isinstance(failure, SourceUntrusted)
        assert "fetch.hosts" in failure.remedy
        assert not web.asked

    @pytest.mark.parametrize(
        ("scheme", "entry"),
        [
            ("s3", "AWS_ENDPOINT_URL"),
            ("s3", "AWS_ENDPOINT_URL_S3"),
            ("gs", "GOOGLE_BASE_URL"),
            ("az", "AZURE_STORAGE_ENDPOINT"),
        ],
    )
    def test_a_secret_names_no_server(self, scheme: str, entry: str, web: WebServer, site: Site) -> None:
        put(web, "m.gguf", b"GGUF")
        secret(site, **{entry: web.url("")})
        assert read(f"{scheme}://bucket/m.gguf", site) == b"GGUF", "the same server is no other"
        with web_server() as other:
            secret(site, **{entry: other.url("")})
            failure = refusal(f"{scheme}://bucket/m.gguf", site)
            assert isinstance(failure, SourceUntrusted)
            assert "fetch.env" in failure.remedy
            assert not other.asked

    def test_a_secret_names_no_other_account(self, web: WebServer, site: Site) -> None:
        secret(site, AZURE_STORAGE_ACCOUNT_NAME="another")
        assert isinstance(refusal("az://bucket/m.gguf", site), SourceUntrusted)

    def test_an_account_is_asked_for(self, site: Site) -> None:
        nameless = with_environment(site, AZURE_STORAGE_ACCOUNT_NAME="", AZURE_STORAGE_ENDPOINT="")
        failure = refusal("az://bucket/m.gguf", nameless)
        assert isinstance(failure, ConfigError)
        assert "AZURE_STORAGE_ACCOUNT_NAME" in failure.remedy
        secret(site, AZURE_STORAGE_ACCOUNT_NAME="mine")
        assert open_store("az://bucket/", nameless).server == "https://mine.blob.core.windows.net"
        secret(site, AZURE_STORAGE_ACCOUNT_NAME="host/#")
        assert isinstance(refusal("az://bucket/m.gguf", nameless), ConfigError)

    def test_the_clouds_own_servers(self, site: Site) -> None:
        plain = with_environment(site, AWS_ENDPOINT_URL_S3="", GOOGLE_BASE_URL="", AWS_REGION="eu-west-1")
        assert open_store("s3://bucket/", plain).server == "https://s3.eu-west-1.amazonaws.com"
        assert open_store("gs://bucket/", plain).server == "https://storage.googleapis.com"
        secret(site, AWS_REGION="evil.example/")
        assert isinstance(refusal("s3://bucket/m.gguf", plain), ConfigError)

    def test_a_bucket_in_the_hosts_name(self, site: Site) -> None:
        there = with_environment(
            site, AWS_ENDPOINT_URL_S3="https://s3.corp", AWS_VIRTUAL_HOSTED_STYLE_REQUEST="true"
        )
        assert open_store("s3://bucket/", there).server == "https://bucket.s3.corp"
        both = ["s3.corp", "bucket.s3.corp"]
        assert open_store("s3://bucket/", with_fetch(there, hosts=both)).server == "https://bucket.s3.corp"
        assert isinstance(refusal("s3://other/m.gguf", with_fetch(there, hosts=both)), SourceUntrusted)

    @pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]"])
    def test_where_clouds_tell_credentials_is_no_store(self, host: str, site: Site) -> None:
        there = with_environment(site, AWS_ENDPOINT_URL_S3=f"https://{host}")
        assert isinstance(refusal("s3://bucket/m.gguf", there), SourceInvalid)

    def test_plain_http_is_for_whom_the_site_names(self, site: Site) -> None:
        plain = with_environment(site, AWS_ENDPOINT_URL_S3="http://minio.corp:9000")
        failure = refusal("s3://bucket/m.gguf", plain)
        assert isinstance(failure, SourceUntrusted)
        assert "AWS_ALLOW_HTTP" in failure.remedy
        allowed = with_environment(plain, AWS_ALLOW_HTTP="true")
        assert open_store("s3://bucket/", allowed).server == "http://minio.corp:9000"


class TestRights:
    def test_a_secret_is_used_and_not_mixed_with_the_environment(
        self, web: WebServer, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(web, "m.gguf", b"GGUF")
        theirs = {
            "AWS_ACCESS_KEY_ID": "THEIRS",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_SESSION_TOKEN": "token",
        }
        for name, value in theirs.items():
            monkeypatch.setenv(name, value)
        both = with_environment(site, **theirs)
        read("s3://bucket/m.gguf", both)
        assert "Credential=THEIRS/" in (web.asked[-1].authorization or "")
        secret(site, AWS_ACCESS_KEY_ID="OURS", AWS_SECRET_ACCESS_KEY="s")
        read("s3://bucket/m.gguf", both)
        said = web.asked[-1].authorization or ""
        assert "Credential=OURS/" in said
        assert "x-amz-security-token" not in said

    def test_the_general_names_of_a_secret(self, web: WebServer, site: Site) -> None:
        put(web, "m.gguf", b"GGUF")
        secret(site, username="OURS", password="czNjcmV0")
        read("s3://bucket/m.gguf", site)
        assert "Credential=OURS/" in (web.asked[-1].authorization or "")
        nameless = with_environment(site, AZURE_STORAGE_ACCOUNT_NAME="")
        secret(site, username="account")
        read("az://bucket/m.gguf", nameless)
        assert (web.asked[-1].authorization or "").startswith("SharedKey account:")
        secret(site, token="bearer")
        read("gs://bucket/m.gguf", site)
        assert web.asked[-1].authorization == "Bearer bearer"

    @pytest.mark.parametrize(
        ("scheme", "entries"),
        [
            ("s3", {"AWS_ACCESS_KEY_ID": "half"}),
            ("gs", {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"type": "service_account", "secret": "hush"}'}),
            ("gs", {"GOOGLE_SERVICE_ACCOUNT_KEY": "hush"}),
        ],
    )
    def test_what_is_no_credential_says_so(self, scheme: str, entries: dict[str, str], site: Site) -> None:
        secret(site, **entries)
        failure = refusal(f"{scheme}://bucket/m.gguf", site)
        assert isinstance(failure, ConfigError)
        assert "hush" not in failure.message

    def test_a_key_that_is_none(self, web: WebServer, site: Site) -> None:
        secret(site, AZURE_STORAGE_ACCOUNT_KEY="not base64!")
        failure = refusal("az://bucket/m.gguf", site)
        assert isinstance(failure, SourceUnauthorized)
        assert "not base64" not in failure.message

    def test_without_any_nobody_is_asked_for_some(
        self, web: WebServer, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Machines of a cloud have credentials at a fixed address: they are used where the site names that."""
        put(web, "m.gguf", b"GGUF")
        with web_server() as metadata:
            monkeypatch.setenv("AWS_METADATA_ENDPOINT", metadata.url("").rstrip("/"))
            monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{metadata.port}")
            monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{metadata.port}")
            for scheme in ("s3", "gs", "az"):
                assert read(f"{scheme}://bucket/m.gguf", site) == b"GGUF"
            assert not metadata.asked
            named = with_environment(site, GCE_METADATA_HOST=f"127.0.0.1:{metadata.port}")
            refusal("gs://bucket/m.gguf", named)
            assert {asked.path.rpartition("/")[2] for asked in metadata.asked} == {"token"}


class TestWorkloadIdentity:
    """The site's environment, as a cloud's webhook writes it into pods, leads to rights for a while."""

    @pytest.fixture
    def identity(self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Site]:
        """The site with variables that the client too finds in its process; one of them names a file with a token."""
        token = tmp_path / "token"
        token.write_text("projected")

        def make(token_file: str, **variables: str) -> Site:
            variables[token_file] = str(token)
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            return with_environment(site, **variables)

        return make

    def test_of_a_service_account_with_a_role(
        self, web: WebServer, secure: WebServer, authority: Authority, identity: Callable[..., Site]
    ) -> None:
        put(web, "m.gguf", b"GGUF")
        secure.put("", STS.encode())
        there = identity(
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            AWS_ROLE_ARN="arn:aws:iam::1:role/models",
            AWS_ENDPOINT_URL_STS=secure.url(""),
        )
        there.places.ca_bundle.write_bytes(authority.certificate.read_bytes())
        assert read("s3://bucket/m.gguf", there) == b"GGUF"
        assert "Credential=FOR-A-WHILE/" in (web.asked[-1].authorization or "")

    def test_of_a_pod(self, web: WebServer, identity: Callable[..., Site]) -> None:
        put(web, "m.gguf", b"GGUF")
        given = {"AccessKeyId": "FOR-A-WHILE", "SecretAccessKey": "s", "Token": "t", "Expiration": UNTIL}
        with web_server() as agent:
            agent.put("v1/credentials", json.dumps(given).encode(), login="projected")
            there = identity(
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                AWS_CONTAINER_CREDENTIALS_FULL_URI=agent.url("v1/credentials"),
            )
            assert read("s3://bucket/m.gguf", there) == b"GGUF"
        assert "Credential=FOR-A-WHILE/" in (web.asked[-1].authorization or "")

    def test_of_azure(
        self, web: WebServer, secure: WebServer, authority: Authority, identity: Callable[..., Site]
    ) -> None:
        put(web, "m.gguf", b"GGUF")
        given = {"access_token": "for-a-while", "expires_in": 3600}
        secure.put("tenant/oauth2/v2.0/token", json.dumps(given).encode())
        there = identity(
            "AZURE_FEDERATED_TOKEN_FILE",
            AZURE_CLIENT_ID="client",
            AZURE_TENANT_ID="tenant",
            AZURE_AUTHORITY_HOST=secure.url(""),
        )
        there.places.ca_bundle.write_bytes(authority.certificate.read_bytes())
        assert read("az://bucket/m.gguf", there) == b"GGUF"
        assert web.asked[-1].authorization == "Bearer for-a-while"


UNTIL = "2999-01-01T00:00:00Z"
STS = f"""<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>FOR-A-WHILE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>{UNTIL}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


@pytest.fixture
def secure(authority: Authority) -> Iterator[WebServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server", "server", hosts=["127.0.0.1"]))
    with web_server(context) as server:
        yield server


def test_https_is_trusted_by_the_pods_bundle(
    site: Site, secure: WebServer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure.put("bucket/m.gguf", b"GGUF", headers=DATED)
    there = with_environment(site, AWS_ENDPOINT_URL_S3=secure.url(""))
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path / "other").certificate))
    failure = refusal("s3://bucket/m.gguf", there)
    assert isinstance(failure, SourceUntrusted)
    assert "caBundle" in failure.remedy
    site.places.ca_bundle.write_bytes(authority.certificate.read_bytes())
    assert read("s3://bucket/m.gguf", there) == b"GGUF"
    wrong_name = with_environment(site, AWS_ENDPOINT_URL_S3=secure.url("", "localhost"))
    assert isinstance(refusal("s3://bucket/m.gguf", wrong_name), SourceUntrusted)
    monkeypatch.setenv("AWS_ALLOW_INVALID_CERTIFICATES", "true")
    assert isinstance(refusal("s3://bucket/m.gguf", wrong_name), SourceUntrusted)


def test_a_bundle_without_certificates_is_a_configuration_error(site: Site) -> None:
    site.places.ca_bundle.write_text("no PEM")
    assert isinstance(refusal("s3://bucket/m.gguf", site), ConfigError)


def test_a_proxy_is_asked(web: WebServer, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", web.url(""))
    failure = refusal("s3://bucket/m.gguf", with_environment(site, AWS_ENDPOINT_URL_S3="https://s3.example"))
    assert isinstance(failure, SourceUnreachable)
    assert "proxy" in failure.message
