"""`hf://`, against a hub on this machine, mirrors of it, and servers that mean harm."""

import itertools
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from slm_contract.places import FETCH_ENV
from slm_contract.source import FetchConfig, Mirror
from slm_runtime.errors import (
    SourceChanged,
    SourceDrifted,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnreachable,
)
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from tests.support.hub import Hub, HubAsked
from tests.unit.runtime_models.conftest import FetchOf
from tests.unit.runtime_models.hub_cases import NEW, OLD, paths, read, refusal, sha256, token

SHARDS = {f"big/m-Q8_0-0000{index}-of-00003.gguf": b"GGUF" + bytes([index]) * 999 for index in (1, 2, 3)}
REPOSITORY = {
    ".gitattributes": b"*.gguf filter=lfs",
    "README.md": b"# a model",
    "m-Q4_K_M.gguf": OLD,
    "mmproj-F16.gguf": b"GGUF projector",
    **SHARDS,
}
IN_ORDER = {path.removeprefix("big/"): data for path, data in SHARDS.items()}


@pytest.mark.parametrize(
    ("rest", "files"),
    [
        ("/m-Q4_K_M.gguf", {"m-Q4_K_M.gguf": OLD}),
        ("/m-Q4_K_M.gguf@main", {"m-Q4_K_M.gguf": OLD}),
        ("/*Q4_K_M*", {"m-Q4_K_M.gguf": OLD}),
        ("/*q4_k_m*@main", {"m-Q4_K_M.gguf": OLD}),
        ("/big/m-Q8_0-00001-of-00003.gguf", IN_ORDER),
        ("/big/m-Q8_0-00003-of-00003.gguf", IN_ORDER),
        ("/*Q8_0*", IN_ORDER),
        ("/big", IN_ORDER),
        ("/big/", IN_ORDER),
        ("/mmproj-F16.gguf", {"mmproj-F16.gguf": b"GGUF projector"}),
        ("/README.md", {"README.md": b"# a model"}),
    ],
)
@pytest.mark.parametrize("page", [1000, 2])
def test_a_file_a_pattern_and_a_folder(
    hub: Hub, site: Site, rest: str, files: dict[str, bytes], page: int
) -> None:
    commit = hub.publish("org/repo", REPOSITORY)
    hub.page = page
    with open_model(f"hf://org/repo{rest}", site) as model:
        assert model.revision == commit
        known = {each.path: (each.artifact.payload.size, each.sha256) for each in model.files}
        is_lfs = not rest.startswith("/README")
        assert known == {path: (len(data), sha256(data) if is_lfs else None) for path, data in files.items()}
        assert model.files[0].artifact.payload.ranged
    assert list(read(f"hf://org/repo{rest}", site).items()) == list(files.items())
    assert not any("xet" in each.path for each in hub.asked)


def test_a_named_file_is_asked_for_by_its_address_alone(hub: Hub, site: Site) -> None:
    commit = hub.publish("org/repo", REPOSITORY)
    assert read("hf://org/repo/m-Q4_K_M.gguf", site)
    assert paths(hub) == [
        "/org/repo/resolve/main/m-Q4_K_M.gguf",
        f"/org/repo/resolve/{commit}/m-Q4_K_M.gguf",
    ]


def test_a_repository_with_one_model_needs_no_path(hub: Hub, site: Site) -> None:
    hub.publish("org/repo", {path: data for path, data in REPOSITORY.items() if "Q4" not in path})
    assert read("hf://org/repo", site) == IN_ORDER
    hub.publish("org/repo", REPOSITORY)
    several = refusal("hf://org/repo", site)
    assert isinstance(several, SourceInvalid)
    assert "m-Q4_K_M.gguf" in several.message
    assert "mmproj" not in several.message
    hub.publish("org/repo", {"model.safetensors": b"x"})
    assert isinstance(refusal("hf://org/repo", site), SourceNotFound)


def test_names_are_quoted_and_unquoted(hub: Hub, site: Site) -> None:
    hub.publish("org/repo", {"ä b@1 #2 100%.gguf": OLD}, branch="refs/pr/1")
    assert read("hf://org/repo/ä%20b%401%20%232 100%25.gguf@refs/pr/1", site) == {"ä b@1 #2 100%.gguf": OLD}


@pytest.mark.parametrize(
    "uri",
    [
        "hf://",
        "hf://repo",
        "hf://org/",
        "hf://../repo",
        "hf://org/..",
        "hf://org/re po",
        "hf://org/repo:Q4_K_M",
        "hf://org/repo@",
        "hf://org/repo@..",
        "hf://org/repo@a/../b",
        "hf://org/repo/m.gguf@../../x",
        "hf://org/repo/m.gguf#x",
        "hf://org/repo/../../api/whoami.gguf",
        "hf://org/repo/%2e%2e/x.gguf",
        "hf://org/repo/.hidden.gguf",
    ],
)
def test_an_address_that_names_nothing(hub: Hub, site: Site, uri: str) -> None:
    assert isinstance(refusal(uri, site), SourceInvalid)
    assert hub.asked == []


def test_the_pinned_bytes_come_after_the_branch_has_moved(hub: Hub, site: Site) -> None:
    old = hub.publish("org/repo", {"m.gguf": OLD})
    with open_model("hf://org/repo", site) as model:
        pin = model.pin
    assert pin.revision == old
    hub.publish("org/repo", {"m.gguf": NEW})
    for uri in ("hf://org/repo", "hf://org/repo/m.gguf", "hf://org/repo/*", f"hf://org/repo/m.gguf@{old}"):
        with open_model(uri, site, Asked(pin.revision)) as model:
            assert model.pin == pin
        assert read(uri, site, pin.revision) == {"m.gguf": OLD}
    assert read("hf://org/repo/m.gguf", site) == {"m.gguf": NEW}
    assert read(f"hf://org/repo/m.gguf@{old}", site) == {"m.gguf": OLD}


@pytest.mark.parametrize("rest", ["/big/m-Q8_0-00001-of-00003.gguf", "/big"])
def test_a_branch_that_moves_meanwhile_mixes_no_versions(hub: Hub, site: Site, rest: str) -> None:
    old = hub.publish("org/repo", SHARDS)

    def move(asked: HubAsked) -> None:
        if asked.server == "cdn" or "/tree/" in asked.path:
            hub.publish("org/repo", {path: data[::-1] for path, data in SHARDS.items()})

    hub.before = move
    with open_model(f"hf://org/repo{rest}", site) as model:
        assert model.revision == old
        assert [each.sha256 for each in model.files] == [sha256(data) for data in SHARDS.values()]
    assert hub.repositories["org/repo"].refs["main"] != old


def test_a_pinned_commit_that_is_gone(hub: Hub, site: Site) -> None:
    old = hub.publish("org/repo", {"m.gguf": OLD})
    hub.publish("org/repo", {"m.gguf": NEW})
    del hub.repositories["org/repo"].commits[old]
    for uri in ("hf://org/repo/m.gguf", "hf://org/repo"):
        gone = refusal(uri, site, old)
        assert isinstance(gone, SourceDrifted)
        assert old in gone.message
        named = refusal(f"{uri}@{old}", site)
        assert isinstance(named, SourceNotFound)
        assert "@" in named.remedy


def test_the_token_is_the_hub_s_alone(hub: Hub, site: Site) -> None:
    hub.publish("org/repo", REPOSITORY)
    hub.repositories["org/repo"].private = True
    token(site, "hf_reader")
    assert read("hf://org/repo/*Q8_0*", site) == IN_ORDER
    assert {(each.server, each.authorization) for each in hub.asked} == {
        ("hub", "Bearer hf_reader"),
        ("cdn", None),
    }


@pytest.mark.parametrize("rest", ["/m-Q4_K_M.gguf", "/*Q4_K_M*", "/big"])
@pytest.mark.parametrize("value", [None, "hf_member"])
def test_a_gated_repository(hub: Hub, site: Site, rest: str, value: str | None) -> None:
    hub.publish("org/repo", REPOSITORY)
    hub.repositories["org/repo"].gated = True
    if value is not None:
        token(site, value)
    gated = refusal(f"hf://org/repo{rest}", site)
    assert isinstance(gated, SourceUnauthorized)
    assert "gated" in gated.message
    assert f"{hub.endpoint}/org/repo" in gated.remedy
    assert "token" in gated.remedy
    token(site, "hf_reader")
    assert read(f"hf://org/repo{rest}", site)


@pytest.mark.parametrize("rest", ["", "/m.gguf", "/*Q4*"])
@pytest.mark.parametrize("value", [None, "hf_member"])
@pytest.mark.parametrize("private", [True, False])
def test_a_repository_that_is_not_there_or_private(
    hub: Hub, site: Site, rest: str, value: str | None, private: bool
) -> None:
    if private:
        hub.publish("org/repo", {"m.gguf": OLD})
        hub.repositories["org/repo"].private = True
    if value is not None:
        token(site, value)
    missing = refusal(f"hf://org/repo{rest}", site)
    assert isinstance(missing, SourceNotFound)
    assert "org/repo" in missing.message
    assert "token" in missing.remedy


def test_a_token_that_is_none(hub: Hub, site: Site) -> None:
    hub.publish("org/repo", {"m.gguf": OLD})
    token(site, "hf_expired")
    for rest in ("", "/m.gguf"):
        failure = refusal(f"hf://org/repo{rest}", site)
        assert isinstance(failure, SourceUnauthorized)
        assert "Invalid credentials" in failure.message


@pytest.mark.parametrize("rest", ["", "/m.gguf", "/*Q4*"])
def test_a_revision_that_is_not_there(hub: Hub, site: Site, rest: str) -> None:
    hub.publish("org/repo", {"m.gguf": OLD})
    failure = refusal(f"hf://org/repo{rest}@v9", site)
    assert isinstance(failure, SourceNotFound)
    assert "v9" in failure.message


@pytest.mark.parametrize("says_headers", [True, False])
def test_a_file_that_is_not_there(hub: Hub, site: Site, says_headers: bool) -> None:
    hub.publish("org/repo", REPOSITORY)
    hub.says_headers = says_headers
    for path in ("m-Q5_K_M.gguf", "*Q5_K_M*", "Q5_K_M"):
        failure = refusal(f"hf://org/repo/{path}", site)
        assert isinstance(failure, SourceNotFound)
        assert path in failure.message
        assert "m-Q4_K_M.gguf" in failure.message
    hub.has_api = False
    assert isinstance(refusal("hf://org/repo/m-Q5_K_M.gguf", site), SourceNotFound)


def test_a_part_that_is_not_there(hub: Hub, site: Site) -> None:
    hub.publish("org/repo", {path: data for path, data in SHARDS.items() if "00002" not in path})
    failure = refusal("hf://org/repo/big/m-Q8_0-00001-of-00003.gguf", site)
    assert isinstance(failure, SourceNotFound)
    assert "2 of the 3 parts" in failure.message


@pytest.mark.parametrize("redirects", [True, False])
@pytest.mark.parametrize("has_tree", [True, False])
def test_a_mirror_that_drops_the_hub_s_headers(hub: Hub, site: Site, redirects: bool, has_tree: bool) -> None:
    commit = hub.publish("org/repo", REPOSITORY)
    hub.says_headers, hub.redirects, hub.has_tree = False, redirects, has_tree
    with open_model("hf://org/repo/big", site) as model:
        assert model.revision == commit
        known = [sha256(data) if has_tree else None for data in SHARDS.values()]
        assert [each.sha256 for each in model.files] == known
    if has_tree or not redirects:
        assert read("hf://org/repo/big", site) == IN_ORDER


def test_a_mirror_without_an_api_has_single_files(hub: Hub, site: Site) -> None:
    hub.publish("org/repo", REPOSITORY)
    hub.says_headers = hub.redirects = hub.has_api = hub.has_tree = False
    with open_model("hf://org/repo/m-Q4_K_M.gguf", site) as model:
        (file,) = model.files
        assert (model.revision, file.sha256) == (None, None)
        assert file.artifact.payload.version is not None
        pin = model.pin
    assert read("hf://org/repo/m-Q4_K_M.gguf", site) == {"m-Q4_K_M.gguf": OLD}
    assert read("hf://org/repo/big/m-Q8_0-00001-of-00003.gguf", site) == IN_ORDER
    for path in ("*Q4*", "big"):
        unknown = refusal(f"hf://org/repo/{path}", site)
        assert isinstance(unknown, SourceInvalid)
        assert "Name the file" in unknown.remedy
    hub.publish("org/repo", {"m-Q4_K_M.gguf": NEW})
    with open_model("hf://org/repo/m-Q4_K_M.gguf", site) as model:
        assert model.pin != pin


def test_a_mirror_that_gives_pointers_instead_of_files(hub: Hub, site: Site) -> None:
    commit = hub.publish("org/repo", {"m.gguf": OLD})
    hub.says_headers = hub.redirects = False

    def point(asked: HubAsked) -> None:
        is_file = "resolve" in asked.path
        hub.repositories["org/repo"].commits[commit]["m.gguf"] = b"version 1" if is_file else OLD

    hub.before = point
    failure = refusal("hf://org/repo", site)
    assert isinstance(failure, SourceInvalid)
    assert "mirror" in failure.remedy


def test_where_the_hub_is(hub: Hub, site: Site, environment: dict[str, str]) -> None:
    hub.publish("org/repo", {"m.gguf": OLD})
    environment["HF_ENDPOINT"] = "https://hub.invalid"
    assert isinstance(refusal("hf://org/repo/m.gguf", site), SourceUnreachable)
    token(site, "hf_reader")
    mirrors = (Mirror(source="hf://", mirror=hub.endpoint + "/"),)
    environment[FETCH_ENV] = FetchConfig(mirrors=mirrors).to_json()
    assert read("hf://org/repo/m.gguf", site) == {"m.gguf": OLD}
    mirrors = (
        Mirror(source="https://hub.invalid/", mirror=hub.endpoint),
        Mirror(source="hf://elsewhere/", mirror="hf://org/"),
    )
    environment[FETCH_ENV] = FetchConfig(mirrors=mirrors).to_json()
    hub.asked.clear()
    assert read("hf://elsewhere/repo", site) == {"m.gguf": OLD}
    assert {each.authorization for each in hub.asked} == {"Bearer hf_reader", None}
    del environment["HF_ENDPOINT"]
    environment[FETCH_ENV] = FetchConfig(hosts=("127.0.0.1",)).to_json()
    assert "huggingface.co" in refusal("hf://org/repo/m.gguf", site).message


def test_an_address_that_expires_is_asked_for_anew(hub: Hub, site: Site) -> None:
    hub.publish("org/repo", {"m.gguf": OLD})
    with open_model("hf://org/repo", site) as model:
        payload = model.files[0].artifact.payload
        for start in range(0, len(OLD), 1000):
            with payload.read(start, start + 1000) as chunks:
                assert b"".join(chunks) == OLD[start : start + 1000]
    assert hub.connections == 2, "one to each server: a redirect leaves its connection usable"


def test_a_redirect_s_body_may_be_anything(hub: Hub, site: Site) -> None:
    hub.publish("org/repo", {"m.gguf": OLD})
    hub.redirect_headers = {"Content-Encoding": "gzip"}
    assert read("hf://org/repo", site) == {"m.gguf": OLD}


def test_an_address_that_expired_on_the_way_passes(
    hub: Hub, site: Site, fetch_of: FetchOf, tiny: bytes
) -> None:
    hub.publish("org/repo", {"m.gguf": tiny})
    numbers = itertools.count()

    def expire(asked: HubAsked) -> None:
        if asked.server == "cdn" and next(numbers) in {2, 4, 5}:
            hub._signatures.clear()

    hub.before = expire
    assert fetch_of("hf://org/repo").run().model.path.read_bytes() == tiny
    hub.before = lambda asked: hub._signatures.clear() if asked.server == "cdn" else None
    expired = refusal("hf://org/repo", site)
    assert isinstance(expired, SourceUnreachable)
    assert "expired" in expired.message
    assert "signature" not in expired.message


def test_the_hub_may_not_change_its_mind(hub: Hub, site: Site) -> None:
    commit = hub.publish("org/repo", {"m.gguf": OLD})
    with open_model("hf://org/repo", site) as model:
        hub.repositories["org/repo"].commits[commit]["m.gguf"] = NEW
        with pytest.raises(SourceChanged), model.files[0].artifact.payload.read(0, 10):
            pass


VENDOR = """
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RemoteEntryNotFoundError, RevisionNotFoundError
old, folder = sys.argv[1:]
api = HfApi()
def refused(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
print(json.dumps({
    "sha": api.model_info("org/repo").sha,
    "files": api.list_repo_files("org/repo"),
    "tree": [(e.path, e.size, e.lfs.sha256 if e.lfs else None)
             for e in api.list_repo_tree("org/repo", recursive=True) if hasattr(e, "size")],
    "top": [e.path for e in api.list_repo_tree("org/repo")],
    "big": [e.path for e in api.list_repo_tree("org/repo", "big")],
    "file": hf_hub_download("org/repo", "m-Q4_K_M.gguf", local_dir=folder),
    "old": hf_hub_download("org/repo", "m-Q4_K_M.gguf", revision=old),
    "snapshot": snapshot_download("org/repo", allow_patterns="big/*", token="hf_reader"),
    "gated": refused(lambda: hf_hub_download("org/gated", "m.gguf", token="hf_member")),
    "anonymous": refused(lambda: hf_hub_download("org/gated", "m.gguf", token=False)),
    "missing": refused(lambda: api.model_info("org/missing")),
    "entry": refused(lambda: hf_hub_download("org/repo", "n.gguf")),
    "revision": refused(lambda: hf_hub_download("org/repo", "m-Q4_K_M.gguf", revision="v9")),
}))
"""


@pytest.mark.skipif(
    find_spec("huggingface_hub") is None, reason="judges the hub of these tests, where it is installed"
)
def test_the_vendor_s_own_client_takes_the_hub_for_one(hub: Hub, tmp_path: Path) -> None:
    old = hub.publish("org/repo", {"m-Q4_K_M.gguf": OLD})
    commit = hub.publish("org/repo", {**REPOSITORY, "m-Q4_K_M.gguf": NEW})
    hub.publish("org/gated", {"m.gguf": OLD})
    hub.repositories["org/gated"].gated = True
    hub.page = 2
    settings = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-c", VENDOR, old, str(tmp_path / "folder")],
        env=settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["sha"] == commit
    assert set(said["files"]) == set(REPOSITORY)
    now = {**REPOSITORY, "m-Q4_K_M.gguf": NEW}
    listed = {
        path: (len(data), sha256(data) if path.endswith(".gguf") else None) for path, data in now.items()
    }
    assert {path: (size, oid) for path, size, oid in said["tree"]} == listed
    assert set(said["top"]) == {path.partition("/")[0] for path in REPOSITORY}
    assert set(said["big"]) == set(SHARDS)
    assert Path(said["file"]).read_bytes() == NEW
    assert Path(said["old"]).read_bytes() == OLD
    assert {path: (Path(said["snapshot"]) / path).read_bytes() for path in SHARDS} == SHARDS
    assert (said["gated"], said["anonymous"]) == ("GatedRepoError", "GatedRepoError")
    assert (said["missing"], said["entry"]) == ("RepositoryNotFoundError", "RemoteEntryNotFoundError")
    assert said["revision"] == "RevisionNotFoundError"
