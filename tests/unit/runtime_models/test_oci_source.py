"""Models in registries, as each of the tools packs them."""

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slm_contract.config import PromptConfig
from slm_runtime.errors import (
    ChecksumMismatch,
    InvalidModel,
    RuntimeFailure,
    SourceInvalid,
    SourceNotFound,
    UnsupportedFormat,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.models.sources import layer as layers
from slm_runtime.models.sources import unpacking
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from slm_runtime.models.sources.tar import MAX_EXTENDED_HEADER, TarFile, tar_files
from tests.support.registry import FILE_PATH, TITLE, Descriptor, Registry, registry_server, tar
from tests.unit.runtime_models.conftest import FetchOf

MODELPACK = "application/vnd.cncf.model."
DOCKER = "application/vnd.docker.ai."
KIT = "application/vnd.kitops.modelkit."
IMAGE = "application/vnd.oci.image.layer.v1.tar"
README = ("README.md", b"# A model")
Packing = Literal["", "+gzip", "+zstd"]
PACKINGS: tuple[Packing, ...] = ("", "+gzip", "+zstd")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registry_server() as server:
        yield server


def packed(archive: bytes, packing: Packing) -> bytes:
    if packing == "+zstd":
        return zstd.compress(archive)
    return gzip.compress(archive, mtime=0) if packing else archive


def fetched(fetch_of: FetchOf, registry: Registry, address: str = "team/model:v1") -> bytes:
    fetch: Fetch = fetch_of(f"oci://{registry.host}/{address}")
    return fetch.run().model.path.read_bytes()


def refusal(fetch_of: FetchOf, registry: Registry, address: str = "team/model:v1") -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        fetched(fetch_of, registry, address)
    return caught.value


def names(registry: Registry, site: Site, address: str = "team/model:v1") -> list[str]:
    with open_model(f"oci://{registry.host}/{address}", site) as model:
        return [each.path for each in model.files]


def bytes_sent(registry: Registry, digest: str) -> list[str | None]:
    """The ranges of a blob that were asked for."""
    return [each.range for each in registry.asked if each.path.endswith(digest)]


def test_a_model_pack_of_files(registry: Registry, fetch_of: FetchOf, site: Site, tiny: bytes) -> None:
    registry.push(
        "team/model:v1",
        registry.blob(tiny, MODELPACK + "weight.v1.raw", {FILE_PATH: "weights/tiny.Q4_K_M.gguf"}),
        registry.blob(b"{}", MODELPACK + "weight.config.v1.raw", {FILE_PATH: "config.json"}),
        registry.blob(b"# A model", MODELPACK + "doc.v1.raw", {FILE_PATH: "README.md"}),
        artifactType=MODELPACK + "manifest.v1+json",
    )
    assert fetched(fetch_of, registry) == tiny
    assert names(registry, site) == ["tiny.Q4_K_M.gguf"]
    assert names(registry, site, "team/model:v1#weights/tiny.Q4_K_M.gguf") == ["tiny.Q4_K_M.gguf"]
    assert names(registry, site, "team/model:v1#*q4*") == ["tiny.Q4_K_M.gguf"]
    failure = refusal(fetch_of, registry, "team/model:v1#other.gguf")
    assert isinstance(failure, SourceNotFound)
    assert "tiny.Q4_K_M.gguf" in failure.message


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("ranges", [True, False])
def test_a_model_pack_of_archives(
    registry: Registry, fetch_of: FetchOf, tiny: bytes, packing: Packing, ranges: bool
) -> None:
    registry.ranges = ranges
    archive = packed(tar(("weights/tiny.gguf", tiny)), packing)
    registry.push(
        "team/model:v1",
        registry.blob(archive, f"{MODELPACK}weight.v1.tar{packing}", {FILE_PATH: "weights/tiny.gguf"}),
        registry.blob(tar(README), f"{MODELPACK}doc.v1.tar", {FILE_PATH: "README.md"}),
    )
    assert fetched(fetch_of, registry) == tiny


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_modelkit(registry: Registry, fetch_of: FetchOf, tiny: bytes, packing: Packing) -> None:
    registry.push(
        "team/model:v1",
        registry.blob(packed(tar(("tiny.gguf", tiny)), packing), f"{KIT}model.v1.tar{packing}"),
        registry.blob(packed(tar(README), packing), f"{KIT}docs.v1.tar{packing}"),
        config=registry.blob(b"{}", KIT + "config.v1+json"),
    )
    assert fetched(fetch_of, registry) == tiny


def test_what_docker_packs(registry: Registry, fetch_of: FetchOf, site: Site, tiny: bytes) -> None:
    registry.push(
        "ai/tiny:135M-Q4_K_M",
        registry.blob(tiny, DOCKER + "gguf.v3"),
        registry.blob(b"GGUF, of pictures", DOCKER + "mmproj", {FILE_PATH: "mmproj.gguf"}),
        registry.blob(b"Do as you like", DOCKER + "license"),
        registry.blob(b"{{ messages }}", DOCKER + "chat.template.jinja"),
    )
    assert fetched(fetch_of, registry, "ai/tiny:135M-Q4_K_M") == tiny
    assert names(registry, site, "ai/tiny:135M-Q4_K_M") == ["tiny-135M-Q4_K_M.gguf"]
    with open_model(f"oci://{registry.host}/ai/tiny:135M-Q4_K_M", site) as model:
        assert model.prompt == PromptConfig(template="{{ messages }}")


def test_parts_that_docker_packs_are_in_their_order(registry: Registry, site: Site) -> None:
    parts = [registry.blob(b"GGUF" + bytes([number]), DOCKER + "gguf.v3") for number in range(3)]
    registry.push("ai/large:latest", *parts)
    with open_model(f"oci://{registry.host}/ai/large", site) as model:
        assert [each.path for each in model.files] == [f"large-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
        assert [f"sha256:{each.sha256}" for each in model.files] == [each["digest"] for each in parts]


def test_an_adapter_isnt_left_out_in_silence(registry: Registry, fetch_of: FetchOf, tiny: bytes) -> None:
    adapter = registry.blob(b"GGUF", DOCKER + "gguf.v3.lora")
    registry.push("team/model:v1", registry.blob(tiny, DOCKER + "gguf.v3"), adapter)
    failure = refusal(fetch_of, registry)
    assert isinstance(failure, UnsupportedFormat)
    assert "spec.model.adapters" in failure.remedy


@pytest.mark.parametrize(
    "media_type", [IMAGE, "application/octet-stream", "application/gguf", IMAGE + "+gzip"]
)
def test_files_that_oras_pushes_are_files_whatever_their_type_says(
    registry: Registry, fetch_of: FetchOf, site: Site, tiny: bytes, media_type: str
) -> None:
    registry.push(
        "team/model:v1",
        registry.blob(b"# A model", media_type.removesuffix("+gzip"), {TITLE: "README.md"}),
        registry.blob(tiny, media_type, {TITLE: "tiny.gguf"}),
        registry.blob(b"GGUF, of pictures", media_type, {TITLE: "mmproj-tiny-f16.gguf"}),
    )
    assert fetched(fetch_of, registry) == tiny


def test_a_folder_that_oras_pushes(registry: Registry, fetch_of: FetchOf, tiny: bytes) -> None:
    archive = gzip.compress(tar(("models/README.md", b"#"), ("models/tiny.gguf", tiny)), mtime=0)
    registry.push(
        "team/model:v1",
        registry.blob(archive, IMAGE + "+gzip", {TITLE: "models", "io.deis.oras.content.unpack": "true"}),
    )
    assert fetched(fetch_of, registry) == tiny
    assert fetched(fetch_of, registry, "team/model:v1#models/tiny.gguf") == tiny


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_image(registry: Registry, fetch_of: FetchOf, site: Site, tiny: bytes, packing: Packing) -> None:
    base = registry.blob(packed(tar(("bin/sh", b"#!"), ("models/old.txt", b"")), packing), IMAGE + packing)
    above = registry.blob(packed(tar(("models/tiny.gguf", tiny)), packing), IMAGE + packing)
    registry.push("team/model:v1", base, above, config=registry.blob(b"{}"))
    assert fetched(fetch_of, registry) == tiny
    assert fetched(fetch_of, registry, "team/model:v1#/models/tiny.gguf") == tiny
    failure = refusal(fetch_of, registry, "team/model:v1#models/missing.gguf")
    assert isinstance(failure, SourceNotFound)
    assert "models/tiny.gguf" in failure.message


def test_docker_layers_in_docker_terms(registry: Registry, fetch_of: FetchOf, tiny: bytes) -> None:
    kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    registry.push("team/model:v1", registry.blob(gzip.compress(tar(("tiny.gguf", tiny))), kind))
    assert fetched(fetch_of, registry) == tiny


def test_of_an_archive_that_isnt_compressed_the_file_alone_is_transferred(
    registry: Registry, site: Site, tiny: bytes
) -> None:
    large = bytes(3_000_000)
    blob = registry.blob(tar(("a.bin", large), ("tiny.gguf", tiny), ("b.bin", large)), IMAGE)
    registry.push("team/model:v1", blob)
    facts = inspect(f"oci://{registry.host}/team/model:v1", site)
    assert (facts.file_name, facts.size_bytes) == ("tiny.gguf", len(tiny))
    with open_model(f"oci://{registry.host}/team/model:v1", site) as model:
        (file,) = model.files
        assert file.artifact.payload.size == file.artifact.space == len(tiny)
        with file.artifact.payload.read(10, 20) as chunks:
            assert b"".join(chunks) == tiny[10:20]
    assert all(each not in {None, "bytes=0-"} for each in bytes_sent(registry, blob["digest"]))


def test_many_small_files_are_few_requests(registry: Registry, site: Site, tiny: bytes) -> None:
    beside = [(f"lib/{number}.so", bytes(5000)) for number in range(400)]
    registry.push("team/model:v1", registry.blob(tar(*beside, ("tiny.gguf", tiny)), IMAGE))
    assert names(registry, site) == ["tiny.gguf"]
    assert len(registry.asked) < 12


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_archive_that_isnt_what_its_digest_says(
    registry: Registry, fetch_of: FetchOf, tiny: bytes, packing: Packing
) -> None:
    """Also where what is wrong lies beside the model: then the archive is not the one that was pinned."""
    archive = tar(("tiny.gguf", tiny), ("beside.txt", b"right"))
    blob = registry.blob(packed(archive, packing), IMAGE + packing)
    registry.push("team/model:v1", blob)
    wrong = packed(archive.replace(b"right", b"wrong"), packing)
    if packing:
        wrong = wrong[: blob["size"]].ljust(blob["size"], b"\0")
    registry.spoil(blob["digest"], wrong)
    failure = refusal(fetch_of, registry)
    assert isinstance(failure, ChecksumMismatch)
    assert "its manifest says" in failure.message


def test_several_models_have_to_be_told_apart(registry: Registry, fetch_of: FetchOf, tiny: bytes) -> None:
    other = registry.blob(b"GGUF" + bytes(2_000_000), annotations={TITLE: "tiny-F16.gguf"})
    registry.push("team/model:v1", other, registry.blob(tiny, annotations={TITLE: "tiny-Q4_0.gguf"}))
    failure = refusal(fetch_of, registry)
    assert isinstance(failure, SourceInvalid)
    assert "tiny-F16.gguf" in failure.message
    assert "tiny-Q4_0.gguf" in failure.message
    assert fetched(fetch_of, registry, "team/model:v1#*Q4_0*") == tiny
    registry.push("team/image:v1", registry.blob(tar(("m/tiny.gguf", tiny), ("m/b.gguf", b"GGUF")), IMAGE))
    assert isinstance(refusal(fetch_of, registry, "team/image:v1"), SourceInvalid)
    assert fetched(fetch_of, registry, "team/image:v1#tiny*") == tiny


def parts(registry: Registry, *, first: int = 1) -> list[tuple[str, bytes]]:
    return [(f"large-0000{n}-of-00003.gguf", b"GGUF" + bytes([n]) * 1000) for n in range(first, 4)]


def test_the_parts_of_a_model(registry: Registry, fetch_of: FetchOf, site: Site) -> None:
    expected = [name for name, _ in parts(registry)]
    registry.push(
        "m:files", *(registry.blob(data, annotations={TITLE: name}) for name, data in parts(registry))
    )
    assert names(registry, site, "m:files") == expected
    assert names(registry, site, f"m:files#{expected[0]}") == expected
    registry.push("m:archive", registry.blob(tar(*parts(registry)), IMAGE))
    assert names(registry, site, "m:archive") == expected
    registry.push("m:lacking", registry.blob(tar(*parts(registry, first=2)), IMAGE))
    assert isinstance(refusal(fetch_of, registry, "m:lacking"), SourceNotFound)
    registry.push("m:packed", registry.blob(gzip.compress(tar(*parts(registry))), IMAGE + "+gzip"))
    failure = refusal(fetch_of, registry, "m:packed")
    assert isinstance(failure, SourceInvalid)
    assert "aren't compressed" in failure.remedy


@pytest.mark.parametrize("media_type", [DOCKER + "safetensors", "application/vnd.cncf.helm.chart"])
def test_what_has_no_model_at_all(registry: Registry, fetch_of: FetchOf, media_type: str) -> None:
    registry.push("team/model:v1", registry.blob(b"data", media_type))
    failure = refusal(fetch_of, registry)
    assert isinstance(failure, SourceNotFound)
    assert media_type in failure.message
    registry.push("team/model:v1", registry.blob(tar(README), IMAGE))
    assert isinstance(refusal(fetch_of, registry), SourceNotFound)


def test_a_compressed_layer_is_looked_into_no_further_than_need_be(
    registry: Registry, fetch_of: FetchOf, site: Site, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "LOOK", 10_000)
    noise = hashlib.shake_256(b"noise").digest(300_000)
    late = registry.blob(gzip.compress(tar(("noise.bin", noise), ("tiny.gguf", tiny))), IMAGE + "+gzip")
    registry.push("m:late", late, registry.blob(gzip.compress(tar(README)), IMAGE + "+gzip"))
    failure = refusal(fetch_of, registry, "m:late")
    assert isinstance(failure, SourceNotFound)
    assert "Name the file" in failure.remedy
    assert not [
        each for each in bytes_sent(registry, late["digest"]) if each not in {"bytes=0-0", "bytes=0-9999"}
    ]
    # It must be in the one that wasn't looked through.
    assert fetched(fetch_of, registry, "m:late#tiny.gguf") == tiny
    assert isinstance(refusal(fetch_of, registry, "m:late#other.gguf"), SourceNotFound)
    registry.push(
        "m:early",
        registry.blob(gzip.compress(tar(("tiny.gguf", tiny), ("noise.bin", noise))), IMAGE + "+gzip"),
    )
    assert names(registry, site, "m:early") == ["tiny.gguf"]
    registry.push("m:two", late, registry.blob(gzip.compress(tar(("noise.bin", noise))), IMAGE + "+gzip"))
    assert isinstance(refusal(fetch_of, registry, "m:two#tiny.gguf"), SourceNotFound)


def test_gzip_in_several_pieces(registry: Registry, fetch_of: FetchOf, tiny: bytes) -> None:
    archive = tar(("tiny.gguf", tiny))
    data = b"".join(gzip.compress(archive[at : at + 100_000]) for at in range(0, len(archive), 100_000))
    registry.push("team/model:v1", registry.blob(data, IMAGE + "+gzip"))
    assert fetched(fetch_of, registry) == tiny


def test_zstd_in_several_frames_with_others_between(
    registry: Registry, fetch_of: FetchOf, tiny: bytes
) -> None:
    """As tools write them that can seek in it: with a list of the frames in one that is skipped."""
    archive = tar(("tiny.gguf", tiny))
    skipped = struct.pack("<II", 0x184D2A50, 9) + b"a listing"
    frames = [zstd.compress(archive[at : at + 100_000]) for at in range(0, len(archive), 100_000)]
    registry.push("team/model:v1", registry.blob(skipped.join(frames) + skipped, IMAGE + "+zstd"))
    assert fetched(fetch_of, registry) == tiny


def bomb(packing: Packing) -> bytes:
    return packed(tar(("zeros.bin", bytes(16 << 20)), ("m.gguf", b"GGUF")), packing)


def wide() -> bytes:
    """A window of 128 MiB, which a reader would have to keep."""
    options = {zstd.CompressionParameter.window_log: 27}
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(tar(("m.gguf", b"GGUF"))) + compressor.flush()


def entry(kind: bytes, name: str = "m.gguf", size: int = 0, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info.tobuf(tarfile.GNU_FORMAT)


END = bytes(1024)
HOSTILE: dict[str, tuple[bytes, Packing, type[RuntimeFailure]]] = {
    "no archive": (b"GGUF, but no tar" * 100, "", SourceInvalid),
    "no gzip": (b"GGUF, but no gzip" * 100, "+gzip", SourceInvalid),
    "a bomb": (bomb("+gzip"), "+gzip", SourceInvalid),
    "a bomb of zstd": (bomb("+zstd"), "+zstd", SourceInvalid),
    "no zstd": (b"GGUF, but no zstd" * 100, "+zstd", SourceInvalid),
    "cut off in zstd": (
        zstd.compress(tar(("m.gguf", hashlib.shake_256().digest(9999))))[:5000],
        "+zstd",
        SourceInvalid,
    ),
    "a window too wide": (wide(), "+zstd", SourceInvalid),
    "cut off in gzip": (
        gzip.compress(tar(("m.gguf", hashlib.shake_256().digest(9999))))[:5000],
        "+gzip",
        SourceInvalid,
    ),
    "cut off in a file": (tar(("m.gguf", bytes(9999)))[:5000], "", SourceInvalid),
    "cut off in a header": (tar(("a", b""), ("m.gguf", bytes(9999)))[:700], "", SourceInvalid),
    "a link": (entry(tarfile.SYMTYPE, link="/etc/passwd") + END, "", SourceNotFound),
    "a hard link": (entry(tarfile.LNKTYPE, link="../../etc/passwd") + END, "", SourceNotFound),
    "a device": (entry(tarfile.CHRTYPE) + END, "", SourceNotFound),
    "a folder": (entry(tarfile.DIRTYPE, "m.gguf/") + END, "", SourceNotFound),
    "sparse": (entry(tarfile.GNUTYPE_SPARSE) + END, "", SourceInvalid),
    "hidden": (tar((".m.gguf", b"GGUF")), "", SourceInvalid),
    "an own name": (tar(("../../.ssh/..gguf", b"GGUF")), "", SourceInvalid),
    "a name without end": (entry(tarfile.GNUTYPE_LONGNAME, size=1 << 33) + END, "", SourceInvalid),
    "headers without end": (entry(tarfile.XHDTYPE, size=MAX_EXTENDED_HEADER + 1) + END, "", SourceInvalid),
    "a damaged header": (entry(tarfile.XHDTYPE, size=512) + b"9".ljust(512, b"9") + END, "", SourceInvalid),
    "beyond its end": (entry(tarfile.REGTYPE, size=1 << 40) + END, "", SourceInvalid),
    "no model": (tar(("m.gguf", b"no model")), "", InvalidModel),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_archives_of_strangers(
    registry: Registry, fetch_of: FetchOf, site: Site, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "ALLOWANCE", 1 << 20)
    data, packing, kind = HOSTILE[how]
    registry.push("team/model:v1", registry.blob(data, IMAGE + packing))
    failure = refusal(fetch_of, registry)
    assert type(failure) is kind
    assert failure.permanent
    volume = site.places.model_dir
    assert not [each for each in volume.rglob("*") if each.is_file() and each.stat().st_size]


def test_a_file_is_written_where_it_belongs_whatever_its_archive_says(
    registry: Registry, fetch_of: FetchOf, site: Site, tiny: bytes
) -> None:
    for packing in ("", "+gzip"):
        archive = packed(tar(("/../../../tmp/outside/tiny.gguf", tiny)), "+gzip" if packing else "")
        registry.push(f"m:v{packing[1:]}", registry.blob(archive, IMAGE + packing))
        path = fetch_of(f"oci://{registry.host}/m:v{packing[1:]}").run().model.path
        assert path.read_bytes() == tiny
        assert path.is_relative_to(site.places.model_dir)
        assert path.parent.parent == site.places.model_dir


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_every_dialect(
    registry: Registry, fetch_of: FetchOf, site: Site, tiny: bytes, format: int
) -> None:
    folder = "/".join(["a-folder-with-a-name"] * (6 if format == tarfile.USTAR_FORMAT else 12))
    registry.push("team/model:v1", registry.blob(tar((f"{folder}/tiny.gguf", tiny), format=format), IMAGE))
    assert fetched(fetch_of, registry, f"team/model:v1#{folder}/tiny.gguf") == tiny


class Data:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read_at(self, at: int, size: int, /) -> bytes:
        assert at >= self._at, "an archive is read forwards"
        self._at = at + size
        return self._data[at : at + size]


_NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=150
).filter(lambda name: name.strip(".") != "" and not name.startswith("./"))


@given(st.lists(st.tuples(_NAMES, st.binary(max_size=2000)), max_size=5), st.sampled_from([1, 2]))
def test_an_archive_is_read_as_the_standard_library_reads_it(
    files: list[tuple[str, bytes]], format: int
) -> None:
    data = tar(*files, format=format)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [TarFile(info.name, info.offset_data, info.size) for info in archive if info.isreg()]
    assert list(tar_files(Data(data), "it")) == expected


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300), st.integers(0, 3000), st.binary(max_size=20))
def test_a_damaged_archive_is_refused_or_read_but_nothing_else(start: bytes, at: int, put: bytes) -> None:
    good = start + tar(("a-name" * 30, b"data"), ("b", bytes(600)))
    data: Any = bytearray(good)
    data[at : at + len(put)] = put
    with suppress(SourceInvalid):
        assert all(each.size >= 0 for each in tar_files(Data(bytes(data)), "it"))


def test_descriptors_are_taken_at_their_word_for_size_alone(
    registry: Registry, fetch_of: FetchOf, tiny: bytes
) -> None:
    blob: Descriptor = registry.blob(tiny, annotations={TITLE: "m.gguf"})
    registry.push("team/model:v1", {**blob, "size": blob["size"] + 1})
    assert isinstance(refusal(fetch_of, registry), SourceInvalid)
