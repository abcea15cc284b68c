"""How a registry is asked: who asks, for which manifest, and where its blobs come from."""

import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from slm_contract.config import ModelConfig
from slm_contract.places import FETCH_ENV
from slm_contract.source import FetchConfig, Mirror, SourcePin
from slm_runtime.errors import (
    ChecksumMismatch,
    ConfigError,
    RuntimeFailure,
    SourceDrifted,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUntrusted,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.sources import address, registry_login
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.remote import RemoteModel
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from tests.support.registry import (
    DOCKER_MANIFEST,
    INDEX,
    TITLE,
    Answer,
    Registry,
    basic,
    registry_server,
)
from tests.unit.runtime_models.conftest import FetchOf

DATA = b"GGUF" + bytes(range(256)) * 100


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registry_server() as server:
        yield server


@pytest.fixture
def source(registry: Registry) -> str:
    """An artifact of one file."""
    registry.push("team/model:v1", registry.blob(DATA, annotations={TITLE: "m.gguf"}))
    return f"oci://{registry.host}/team/model:v1"


def read(uri: str, site: Site) -> bytes:
    with open_model(uri, site) as model:
        (file,) = model.files
        with file.artifact.payload.read() as chunks:
            return b"".join(chunks)


def refusal(uri: str, site: Site, revision: str | None = None) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught, open_model(uri, site, Asked(revision)):
        pass
    return caught.value


def secret(site: Site, **entries: str) -> None:
    site.places.credentials_dir.mkdir(exist_ok=True)
    for name, value in entries.items():
        (site.places.credentials_dir / name).write_text(value)


def docker_config(site: Site, auths: object) -> None:
    secret(site, **{".dockerconfigjson": json.dumps({"auths": auths})})


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def authorizations(registry: Registry, server: str) -> set[str | None]:
    return {each.authorization for each in registry.asked if each.server == server}


def test_a_file_is_named_sized_and_pinned(registry: Registry, source: str, site: Site) -> None:
    with open_model(source, site) as model:
        (file,) = model.files
        assert (file.path, file.artifact.payload.size, file.artifact.payload.ranged) == (
            "m.gguf",
            len(DATA),
            True,
        )
        assert file.sha256 is not None
        assert file.artifact.payload.version == f"sha256:{file.sha256}"
        assert model.revision == registry.describe("team/model:v1")["digest"]
        with file.artifact.payload.read(3, 9) as chunks:
            assert b"".join(chunks) == DATA[3:9]
    assert read(source, site) == DATA
    assert authorizations(registry, "registry") == {None}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_model_is_fetched(
    registry: Registry, site: Site, fetch_of: FetchOf, tiny: bytes, ranges: bool
) -> None:
    registry.ranges, registry.redirects, registry.login = ranges, True, "token"
    registry.push("m:latest", registry.blob(tiny, annotations={TITLE: "m.gguf"}))
    fetched = fetch_of(f"oci://{registry.host}/m").run().model
    assert fetched.path.read_bytes() == tiny
    assert fetched.facts.pin is not None
    assert fetched.facts.pin.revision == registry.describe("m:latest")["digest"]
    ranged = [
        each for each in registry.asked if each.server == "store" and each.range not in {None, "bytes=0-0"}
    ]
    assert bool(ranged) is ranges


def test_a_blob_that_isnt_what_its_digest_says(
    registry: Registry, site: Site, fetch_of: FetchOf, tiny: bytes
) -> None:
    layer = registry.blob(tiny, annotations={TITLE: "m.gguf"})
    registry.push("m:latest", layer)
    registry.spoil(layer["digest"], tiny[:-1] + bytes([tiny[-1] ^ 1]))
    with pytest.raises(ChecksumMismatch, match="its source says"):
        fetch_of(f"oci://{registry.host}/m").run()
    registry.spoil(layer["digest"], tiny + b"more")
    assert isinstance(refusal(f"oci://{registry.host}/m", site), SourceInvalid)


def test_blobs_come_from_another_server_under_addresses_that_are_good_once(
    registry: Registry, source: str, site: Site
) -> None:
    registry.redirects, registry.login, registry.users = True, "token", {"me": "secret"}
    secret(site, username="me", password="secret")
    for _ in range(2):
        assert read(source, site) == DATA
    assert authorizations(registry, "store") == {None}
    paths = [each.path for each in registry.asked if each.server == "store"]
    assert len(paths) == len(set(paths)) == 4


def test_a_password_is_sent_when_it_is_asked_for_and_to_the_registry_alone(
    registry: Registry, source: str, site: Site
) -> None:
    registry.login, registry.users, registry.redirects = "basic", {"me": "secret"}, True
    assert isinstance(refusal(source, site), SourceUnauthorized)
    secret(site, username="me", password="secret")
    registry.asked.clear()
    assert read(source, site) == DATA
    assert registry.asked[0].authorization is None
    assert authorizations(registry, "registry") == {None, basic("me", "secret")}
    assert authorizations(registry, "store") == {None}
    secret(site, password="wrong")
    failure = refusal(source, site)
    assert isinstance(failure, SourceUnauthorized)
    assert "look at its name" in failure.remedy


@pytest.mark.parametrize("kind", ["Basic", "Bearer"])
def test_who_a_registry_redirects_to_may_ask_and_gets_nothing(
    registry: Registry, source: str, site: Site, kind: str
) -> None:
    registry.login, registry.users, registry.redirects = "basic", {"me": "secret"}, True
    secret(site, username="me", password="secret")
    with registry_server() as elsewhere:
        asks = {"WWW-Authenticate": f'{kind} realm="{elsewhere.token_url}",service="the registry"'}
        digest = registry.blob(DATA)["digest"]
        registry.instead[f"/{digest}"] = Answer(401, headers=asks)
        assert isinstance(refusal(source, site), SourceUnauthorized)
        assert not elsewhere.asked
    assert authorizations(registry, "store") == {None}


def test_tokens_are_for_reading_one_repository(registry: Registry, source: str, site: Site) -> None:
    registry.login = "token"
    assert read(source, site) == DATA
    asked = [each.path for each in registry.asked if each.server == "tokens"]
    assert asked == ["/token?service=the+registry&scope=repository%3Ateam%2Fmodel%3Apull"]
    assert authorizations(registry, "tokens") == {None}


def test_a_password_buys_a_token_and_isnt_shown_to_the_registry(
    registry: Registry, source: str, site: Site
) -> None:
    registry.login, registry.users = "token", {"me": "secret"}
    assert isinstance(refusal(source, site), SourceUnauthorized)
    secret(site, username="me", password="secret")
    registry.asked.clear()
    assert read(source, site) == DATA
    assert authorizations(registry, "tokens") == {basic("me", "secret")}
    assert all(
        each is None or each.startswith("Bearer token-") for each in authorizations(registry, "registry")
    )


def test_a_token_that_expires_is_replaced_once_for_all_that_wait(
    registry: Registry, source: str, site: Site
) -> None:
    registry.login = "token"
    with open_model(source, site) as model:
        payload = model.files[0].artifact.payload
        for _ in range(2):
            registry.expire_tokens()
            registry.asked.clear()
            results: list[bytes] = []

            def work(found: list[bytes] = results) -> None:
                with payload.read() as chunks:
                    found.append(b"".join(chunks))

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert results == [DATA] * 4
            assert len([each for each in registry.asked if each.server == "tokens"]) == 1


def test_a_registrys_own_token_is_sent_as_it_is(registry: Registry, source: str, site: Site) -> None:
    registry.login = "token"
    secret(site, token="mine")
    assert isinstance(refusal(source, site), SourceUnauthorized)
    assert authorizations(registry, "registry") == {None, "Bearer mine"}
    assert not authorizations(registry, "tokens")


def test_a_registry_that_isnt_encrypted_alone_has_tokens_that_arent(site: Site) -> None:
    credentials = site.credentials()
    login = registry_login.RegistryLogin(site, "https://registry.example", "m", credentials)
    with pytest.raises(SourceUntrusted, match="isn't encrypted"):
        login._token({"realm": "http://127.0.0.1:1/token"})


@pytest.mark.parametrize("realm", ["http://tokens.example/token", "ftp://tokens.example", "", "https://"])
def test_a_place_for_tokens_that_cant_be_asked(
    registry: Registry, source: str, site: Site, realm: str
) -> None:
    registry.login, registry.realm = "token", realm
    assert isinstance(refusal(source, site), SourceUntrusted | SourceInvalid)


def test_tokens_are_asked_for_where_the_site_lets_its_fetches_go(
    registry: Registry, source: str, site: Site, environment: dict[str, str]
) -> None:
    registry.login, registry.realm = "token", "https://tokens.example/token"
    environment[FETCH_ENV] = FetchConfig(hosts=("127.0.0.1",)).to_json()
    failure = refusal(source, site)
    assert isinstance(failure, SourceUntrusted)
    assert "tokens.example" in failure.message
    mirror = Mirror(source="https://tokens.example/", mirror=registry.token_url.removesuffix("token"))
    environment[FETCH_ENV] = FetchConfig(hosts=("127.0.0.1",), mirrors=(mirror,)).to_json()
    assert read(source, site) == DATA


def test_a_place_for_tokens_that_isnt_there(registry: Registry, source: str, site: Site) -> None:
    registry.login = "token"
    registry.instead["/token"] = Answer(404)
    pinned = registry.describe("team/model:v1")["digest"]
    for failure in (refusal(source, site), refusal(source, site, pinned)):
        assert isinstance(failure, SourceInvalid)
        assert "for a token" in failure.message


@pytest.mark.parametrize(
    "body", [b"", b"no json", b"[]", b"{}", b'{"token": 5}', b'{"token": "a b"}', b"[" * 100_000]
)
def test_an_answer_without_a_token(registry: Registry, source: str, site: Site, body: bytes) -> None:
    registry.login = "token"
    registry.instead["/token"] = Answer(200, body)
    failure = refusal(source, site)
    assert isinstance(failure, SourceInvalid)
    assert "no token" in failure.message


def test_what_docker_and_kubernetes_write_of_registries(registry: Registry, source: str, site: Site) -> None:
    registry.login, registry.users = "basic", {"me": "secret", "team": "other"}
    stranger = {"elsewhere.example": auth("me", "secret")}
    docker_config(site, stranger)
    assert isinstance(refusal(source, site), SourceUnauthorized)
    docker_config(site, {**stranger, registry.host: auth("me", "secret")})
    assert read(source, site) == DATA
    docker_config(
        site,
        {
            f"https://{registry.host}/v2/": {"username": "me", "password": "secret"},
            f"{registry.host}/team": {"username": "team", "password": "other"},
            f"{registry.host}/tea": auth("wrong", "wrong"),
        },
    )
    registry.asked.clear()
    assert read(source, site) == DATA
    assert authorizations(registry, "registry") == {None, basic("team", "other")}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"auths": []}', '{"auths": {"HOST": 5}}', '{"auths": {"HOST": {"auth": "é"}}}']
)
def test_a_docker_configuration_that_cant_be_read(
    registry: Registry, source: str, site: Site, text: str
) -> None:
    secret(site, **{".dockerconfigjson": text.replace("HOST", registry.host) or " { "})
    failure = refusal(source, site)
    assert isinstance(failure, ConfigError)
    assert "docker-registry" in failure.remedy


def test_a_pinned_manifest_stays_when_its_tag_moves(registry: Registry, source: str, site: Site) -> None:
    old = registry.describe("team/model:v1")["digest"]
    registry.push("team/model:v1", registry.blob(b"GGUF, another", annotations={TITLE: "m.gguf"}))
    with open_model(source, site, Asked(old)) as model:
        assert model.revision == old
        assert model.files[0].artifact.payload.size == len(DATA)
    with open_model(f"{source.removesuffix(':v1')}@{old}", site) as model:
        assert model.revision == old
    registry.delete("team/model", old)
    failure = refusal(source, site, old)
    assert isinstance(failure, SourceDrifted)
    assert old in failure.message


def test_a_fetch_brings_what_was_pinned(registry: Registry, site: Site, tiny: bytes) -> None:
    uri = f"oci://{registry.host}/m:v1"
    registry.push("m:v1", registry.blob(tiny, annotations={TITLE: "m.gguf"}))
    with open_model(uri, site) as model:
        pin = model.pin
    registry.push("m:v1", registry.blob(b"another", annotations={TITLE: "m.gguf"}))
    config = ModelConfig(name="m", source=uri, pin=pin)
    assert Fetch(config, site, patience=Patience(first_wait=0.001)).run().model.path.read_bytes() == tiny
    drifted = ModelConfig(name="m", source=uri, pin=SourcePin(revision=pin.revision, digest="0" * 64))
    with pytest.raises(SourceDrifted):
        Fetch(drifted, site, patience=Patience(first_wait=0.001)).run()


def test_an_index_of_an_artifact_and_of_an_image(registry: Registry, site: Site) -> None:
    layer = registry.blob(DATA, annotations={TITLE: "m.gguf"})
    other = registry.blob(b"GGUF, of arm", annotations={TITLE: "m.gguf"})
    registry.push("m:amd64", layer)
    registry.push("m:arm64", other)
    registry.push("m:attested", registry.blob(b"{}", annotations={TITLE: "attested.gguf"}))
    platforms = [
        registry.describe("m:attested", annotations={"vnd.docker.reference.type": "attestation-manifest"}),
        registry.describe("m:arm64", platform={"os": "linux", "architecture": "arm64"}),
        registry.describe("m:amd64", platform={"os": "linux", "architecture": "amd64"}),
    ]
    digest = registry.push_index("m:image", *platforms)
    with open_model(f"oci://{registry.host}/m:image", site) as model:
        assert model.revision == registry.describe("m:amd64")["digest"]
    registry.push_index("m:artifact", registry.describe("m:arm64"), *platforms)
    with open_model(f"oci://{registry.host}/m:artifact", site) as model:
        assert model.revision == registry.describe("m:arm64")["digest"]
    with open_model(f"oci://{registry.host}/m@{digest}", site) as model:
        assert model.revision == registry.describe("m:amd64")["digest"]
    registry.push_index("m:several", registry.describe("m:arm64"), registry.describe("m:amd64"))
    several = refusal(f"oci://{registry.host}/m:several", site)
    assert isinstance(several, SourceInvalid)
    assert registry.describe("m:amd64")["digest"] in several.message
    registry.push_index(
        "m:windows", registry.describe("m:amd64", platform={"os": "windows", "architecture": "amd64"})
    )
    assert isinstance(refusal(f"oci://{registry.host}/m:windows", site), SourceNotFound)
    registry.push_index("m:nested", registry.describe("m:image"))
    assert isinstance(refusal(f"oci://{registry.host}/m:nested", site), SourceInvalid)


def test_dockers_own_kind_of_manifest(registry: Registry, site: Site) -> None:
    registry.push("m:latest", registry.blob(DATA, annotations={TITLE: "m.gguf"}), media_type=DOCKER_MANIFEST)
    assert read(f"oci://{registry.host}/m", site) == DATA


def test_a_manifest_that_isnt_what_its_digest_says(registry: Registry, source: str, site: Site) -> None:
    digest = registry.describe("team/model:v1")["digest"]
    content = json.dumps({"layers": [registry.blob(b"GGUF, evil", annotations={TITLE: "m.gguf"})]}).encode()
    registry.instead[f"/v2/team/model/manifests/{digest}"] = Answer(200, content)
    assert isinstance(refusal(source, site, digest), ChecksumMismatch)
    registry.instead["/v2/team/model/manifests/v1"] = Answer(200, content, {"Docker-Content-Digest": digest})
    assert isinstance(refusal(source, site), ChecksumMismatch)


@pytest.mark.parametrize(
    "document",
    [
        b"<html><body>Please log in</body></html>",
        b"",
        b"[]",
        b"{}",
        b'{"layers": 5}',
        b'{"layers": [], "manifests": []}',
        b'{"layers": [{"mediaType": "x", "digest": "md5:0", "size": 1}]}',
        b'{"layers": [{"mediaType": "x", "digest": "sha256:../../etc", "size": 1}]}',
        b"[" * 1_000_000,
        b"\xff\xfe",
    ],
)
def test_answers_that_are_no_manifest(registry: Registry, source: str, site: Site, document: bytes) -> None:
    registry.instead["/v2/team/model/manifests/v1"] = Answer(200, document, {"Content-Type": "text/html"})
    failure = refusal(source, site)
    assert isinstance(failure, SourceInvalid)
    assert "manifest" in failure.message


def test_a_manifest_without_an_end(registry: Registry, source: str, site: Site) -> None:
    registry.instead["/v2/team/model/manifests/v1"] = Answer(200, b"{", endless=True)
    failure = refusal(source, site)
    assert isinstance(failure, SourceInvalid)
    assert "longer than" in failure.message


def test_a_name_that_isnt_there(registry: Registry, source: str, site: Site) -> None:
    assert isinstance(refusal(f"{source}0", site), SourceNotFound)
    layer: dict[str, Any] = registry.blob(DATA, annotations={TITLE: "m.gguf"})
    registry.push("m:latest", {**layer, "digest": f"sha256:{'0' * 64}"})
    assert isinstance(refusal(f"oci://{registry.host}/m", site), SourceNotFound)


@pytest.mark.parametrize(
    "uri",
    [
        "oci://",
        "oci://host",
        "oci://host/",
        "oci://host/a//b",
        "oci://host/../a",
        "oci://host/a:",
        "oci://host/a@sha256:0",
        "oci://host/a@md5:0",
        "oci://user:secret@host/a",
        "oci://host/a?b",
        "oci://host:port/a",
        "oci://host/a b",
    ],
)
def test_addresses_that_name_nothing(uri: str, site: Site) -> None:
    assert isinstance(refusal(uri, site), SourceInvalid)


def test_docker_hub_has_other_names_and_a_library(
    registry: Registry, site: Site, environment: dict[str, str]
) -> None:
    registry.push("hub/library/model:latest", registry.blob(DATA, annotations={TITLE: "m.gguf"}))
    registry.push("library/model:latest", registry.blob(DATA, annotations={TITLE: "m.gguf"}))
    mirror = Mirror(source="oci://docker.io/", mirror=f"oci://{registry.host}/hub/")
    environment[FETCH_ENV] = FetchConfig(mirrors=(mirror,)).to_json()
    for host in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        assert read(f"oci://{host}/model", site) == DATA
    registry.login = "token"
    web = Mirror(source="https://registry-1.docker.io/", mirror=f"http://{registry.host}/")
    environment[FETCH_ENV] = FetchConfig(mirrors=(web,)).to_json()
    assert read("oci://docker.io/model", site) == DATA
    own = Mirror(source="oci://docker.io/", mirror=f"http://{registry.host}")
    environment[FETCH_ENV] = FetchConfig(mirrors=(own,)).to_json()
    assert read("oci://docker.io/model:latest#m.gguf", site) == DATA


def test_a_mirror_has_credentials_of_its_own(
    registry: Registry, site: Site, environment: dict[str, str]
) -> None:
    registry.login, registry.users = "token", {"me": "secret"}
    registry.push("hub/team/model:v1", registry.blob(DATA, annotations={TITLE: "m.gguf"}))
    mirror = Mirror(source="oci://docker.io/", mirror=f"oci://{registry.host}/hub/")
    environment[FETCH_ENV] = FetchConfig(mirrors=(mirror,)).to_json()
    docker_config(
        site, {"https://index.docker.io/v1/": auth("hub", "secret"), registry.host: auth("me", "secret")}
    )
    assert read("oci://docker.io/team/model:v1", site) == DATA
    assert authorizations(registry, "tokens") == {basic("me", "secret")}


def test_another_machine_has_to_be_encrypted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "is_loopback", lambda _: False)
    with registry_server() as registry:
        failure = refusal(f"oci://{registry.host}/m", site)
    assert isinstance(failure, SourceUntrusted)


def test_an_index_is_asked_for_as_such(registry: Registry, source: str, site: Site) -> None:
    registry.push_index("team/model:all", registry.describe("team/model:v1"))
    assert registry.describe("team/model:all")["mediaType"] == INDEX
    assert read(source.replace(":v1", ":all"), site) == DATA


def pins(model: RemoteModel) -> str:
    return model.pin.digest


def test_the_same_bytes_have_one_pin_wherever_they_come_from(
    registry: Registry, source: str, site: Site
) -> None:
    registry.push("other/place:v2", registry.blob(DATA, annotations={TITLE: "renamed.gguf"}))
    with open_model(source, site) as one, open_model(f"oci://{registry.host}/other/place:v2", site) as two:
        assert pins(one) == pins(two)
