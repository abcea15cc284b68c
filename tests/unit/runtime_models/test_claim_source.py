import dataclasses
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig
from slm_runtime.errors import (
    ChecksumMismatch,
    InvalidModel,
    RuntimeFailure,
    SourceDrifted,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site


@pytest.fixture
def site(site: Site, claim: Path) -> Site:
    return dataclasses.replace(site, places=dataclasses.replace(site.places, source_dir=claim))


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    folder = tmp_path / "claim"
    folder.mkdir()
    return folder


def put(claim: Path, path: str, data: bytes = b"GGUF") -> Path:
    target = claim / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return target


def paths(uri: str, site: Site) -> list[tuple[str, str]]:
    """The name that each file of a model gets, and where it lies."""
    with open_model(uri, site) as model:
        assert model.in_place
        return [
            (each.path, str(Path(each.artifact.payload.where).relative_to(site.places.source_dir)))
            for each in model.files
        ]


def refusal(uri: str, site: Site) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        paths(uri, site)
    assert caught.value.remedy
    return caught.value


def config(source: str, **more: object) -> ModelConfig:
    return ModelConfig.model_validate({"name": "m", "source": source, **more})


def test_a_model_is_served_where_it_lies(site: Site, claim: Path, tiny: bytes) -> None:
    put(claim, "models/tiny.gguf", tiny)
    model = config("pvc://data/models/tiny.gguf")
    fetched = Fetch(model, site).run().model
    assert fetched.path.is_symlink()
    assert fetched.path.read_bytes() == tiny
    assert fetched.facts.sha256 == hashlib.sha256(tiny).hexdigest()
    assert ModelFolder(site.places.model_dir, model).require().path == fetched.path
    assert sum(each.stat(follow_symlinks=False).st_size for each in fetched.path.parent.iterdir()) < 10_000


def test_what_is_pinned_is_what_lay_there(site: Site, claim: Path, tiny: bytes) -> None:
    file = put(claim, "tiny.gguf", tiny)
    source = "pvc://data/tiny.gguf"
    pin = inspect(source, site).pin
    assert pin is not None
    model = config(source, pin=pin)
    assert Fetch(model, site).run().model.path.read_bytes() == tiny
    put(claim, "tiny.gguf", tiny[:-1] + b"!")
    os.utime(file, ns=(0, 0))
    with pytest.raises(SourceDrifted):
        Fetch(model, site).run()


def test_what_was_changed_in_place_is_verified_again(site: Site, claim: Path, tiny: bytes) -> None:
    put(claim, "tiny.gguf", tiny)
    model = config("pvc://data/tiny.gguf", sha256=hashlib.sha256(tiny).hexdigest())
    Fetch(model, site).run()
    put(claim, "tiny.gguf", tiny[:-1] + b"!")
    with pytest.raises(ChecksumMismatch):
        Fetch(model, site).run()
    assert (claim / "tiny.gguf").exists(), "a claim is read, never written"


def test_what_is_no_model_is_left_where_it_lies(site: Site, claim: Path) -> None:
    file = put(claim, "m.gguf", b"no model at all")
    with pytest.raises(InvalidModel):
        Fetch(config("pvc://data/m.gguf"), site).run()
    assert file.read_bytes() == b"no model at all"


def test_a_folder_has_one_model(site: Site, claim: Path) -> None:
    put(claim, "a/b/one.gguf")
    put(claim, "a/b/README.md")
    put(claim, "a/b/.hidden.gguf")
    assert paths("pvc://data/a", site) == [("one.gguf", "a/b/one.gguf")]
    assert paths("pvc://data/a/b/", site) == [("one.gguf", "a/b/one.gguf")]
    assert paths("pvc://data", site) == [("one.gguf", "a/b/one.gguf")]
    put(claim, "a/two.gguf")
    failure = refusal("pvc://data/a", site)
    assert isinstance(failure, SourceInvalid)
    assert "one.gguf" in failure.message
    assert "two.gguf" in failure.message
    assert paths("pvc://data/a/t*.gguf", site) == [("two.gguf", "a/two.gguf")]


def test_a_model_in_parts(site: Site, claim: Path) -> None:
    for index in (1, 2, 3):
        put(claim, f"big/m-0000{index}-of-00003.gguf")
    parts = [(f"m-0000{index}-of-00003.gguf", f"big/m-0000{index}-of-00003.gguf") for index in (1, 2, 3)]
    assert paths("pvc://data/big/m-00001-of-00003.gguf", site) == parts
    assert paths("pvc://data/big", site) == parts
    (claim / "big/m-00002-of-00003.gguf").unlink()
    for uri in ("pvc://data/big/m-00001-of-00003.gguf", "pvc://data/big"):
        failure = refusal(uri, site)
        assert isinstance(failure, SourceNotFound)
        assert "m-00002-of-00003.gguf" in failure.message


def test_links_stay_in_the_claim(site: Site, claim: Path, tmp_path: Path) -> None:
    """As in the cache of a hub: the files are links to blobs."""
    put(claim, "blobs/abc")
    (claim / "snapshot").mkdir()
    (claim / "snapshot/m.gguf").symlink_to("../blobs/abc")
    assert paths("pvc://data/snapshot/m.gguf", site) == [("m.gguf", "blobs/abc")]
    assert paths("pvc://data/snapshot", site) == [("m.gguf", "blobs/abc")]
    (claim / "latest").symlink_to("snapshot")
    assert paths("pvc://data/latest/*.gguf", site) == [("m.gguf", "blobs/abc")]


@pytest.mark.parametrize("target", ["../secret", "/etc", "{tmp}/secret"])
@pytest.mark.parametrize("uri", ["pvc://data/out/m.gguf", "pvc://data/out", "pvc://data/out/*.gguf"])
def test_links_out_of_the_claim_are_refused(
    site: Site, claim: Path, tmp_path: Path, target: str, uri: str
) -> None:
    put(tmp_path, "secret/m.gguf")
    (claim / "out").symlink_to(target.format(tmp=tmp_path))
    failure = refusal(uri, site)
    assert isinstance(failure, SourceInvalid)
    assert "out of the claim" in failure.message


def test_a_file_that_is_a_link_out_of_the_claim(site: Site, claim: Path, tmp_path: Path) -> None:
    (claim / "m.gguf").symlink_to(put(tmp_path, "secret.gguf"))
    assert isinstance(refusal("pvc://data/m.gguf", site), SourceInvalid)
    assert isinstance(refusal("pvc://data", site), SourceInvalid)


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("pvc://", SourceInvalid),
        ("pvc:///m.gguf", SourceInvalid),
        ("pvc://data/../m.gguf", SourceInvalid),
        ("pvc://data/.hidden/m.gguf", SourceInvalid),
        ("pvc://data/other.gguf", SourceNotFound),
        ("pvc://data/empty.gguf", InvalidModel),
        ("pvc://data/pipe.gguf", SourceNotFound),
    ],
)
def test_what_names_nothing_says_so(site: Site, claim: Path, uri: str, kind: type[RuntimeFailure]) -> None:
    put(claim, "empty.gguf", b"")
    os.mkfifo(claim / "pipe.gguf")
    assert type(refusal(uri, site)) is kind


def test_a_claim_that_is_not_mounted(site: Site, claim: Path) -> None:
    claim.rmdir()
    failure = refusal("pvc://data/m.gguf", site)
    assert isinstance(failure, SourceNotFound)
    assert "mounted" in failure.message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(site: Site, claim: Path) -> None:
    put(claim, "m.gguf").chmod(0)
    assert isinstance(refusal("pvc://data/m.gguf", site), SourceUnauthorized)


def test_files_of_a_claim_are_linked_to_at_once(site: Site, claim: Path) -> None:
    """The parts of a model are brought together, each by a thread of its own."""
    folder = ModelFolder(site.places.model_dir, ModelConfig(name="m", source="pvc://c/"))
    parts = [put(claim, f"{number}.gguf") for number in range(300)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(folder.link, (each.name for each in parts), parts))
    assert all((folder.path / each.name).resolve() == each for each in parts)
