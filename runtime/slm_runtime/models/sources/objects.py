"""Models in object stores: `s3://bucket/key`, `gs://bucket/key`, `az://container/key`.

A key names an object, one of the parts that it is split into, or a folder; with `*`, `?` or `[` it is a pattern.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import obstore
from obstore.store import ObjectStore

from slm_contract.config import Part
from slm_runtime.errors import (
    InvalidModel,
    SourceChanged,
    SourceDrifted,
    SourceError,
    SourceInvalid,
    SourceNotFound,
    SourceUnauthorized,
)
from slm_runtime.models.sources.artifact import CHUNK, PlainFile
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.folders import folder_of, is_graph
from slm_runtime.models.sources.object_errors import typed
from slm_runtime.models.sources.object_stores import open_store
from slm_runtime.models.sources.projectors import choose_part
from slm_runtime.models.sources.remote import (
    RemoteFile,
    RemoteModel,
    pattern_folder,
    safe_path,
    signature_beside,
)
from slm_runtime.models.sources.shards import Chosen, Listed, is_gguf, is_pattern, parts_of
from slm_runtime.models.sources.site import Site

MAX_LISTED: Final = 10_000
"""Objects that are looked at for a model."""
_PAGE: Final = 1000
_SHOWN: Final = 5


@dataclass(frozen=True)
class _Object:
    """What a store says of one object."""

    key: str
    size: int
    etag: str | None
    version: str | None
    """What it can be asked for by when it was overwritten; None where the bucket keeps no versions."""

    @classmethod
    def of(cls, meta: Any) -> Self:
        etag, version = meta["e_tag"], meta["version"]
        if etag and not etag.endswith('"'):
            # Azure lists them so; what is compared, and sent, has its quotes.
            etag = f'"{etag}"'
        return cls(meta["path"], meta["size"], etag, None if version in {None, "null"} else version)


@dataclass(frozen=True)
class _Bucket:
    store: ObjectStore = field(repr=False)
    server: str
    address: str
    """`s3://bucket/`, for messages."""

    def find(self, key: str, version: str | None = None) -> _Object | None:
        """Ask for an object's first byte: of a refusal, what tells its cause comes with no answer to a HEAD.

        None: it isn't there.
        """
        options: obstore.GetOptions = {"range": (0, 1)}
        if version is not None:
            options["version"] = version
        try:
            with typed(self.address + key, self.server):
                got = obstore.get(self.store, key, options=options)
        except SourceNotFound:
            return None
        return _Object.of(got.meta)

    def below(self, folder: str) -> list[_Object]:
        """List all objects below a folder.

        Raises
        ------
        SourceInvalid
            They are too many to be one model's.
        """
        where = f"{self.address}{folder}"
        found: list[_Object] = []
        with typed(where, self.server):
            for page in obstore.list(self.store, folder or None, chunk_size=_PAGE):
                found += map(_Object.of, page)
                if len(found) > MAX_LISTED:
                    break
        if len(found) > MAX_LISTED:
            raise SourceInvalid(
                f"{where} has more than {MAX_LISTED:,} objects.",
                "Name the model's own folder or file in spec.model.source.",
            )
        return found

    def names(self, folder: str) -> list[str]:
        """Say what is in a folder, as far as its first page tells."""
        with typed(f"{self.address}{folder}", self.server):
            page = next(iter(obstore.list(self.store, folder or None, chunk_size=_PAGE)), ())
        skip = len(folder) + 1 if folder else 0
        return sorted({meta["path"][skip:].partition("/")[0] for meta in page})


@dataclass(frozen=True)
class ObjectBlob:
    """An object, of the version that was found."""

    bucket: _Bucket
    object: _Object
    pinned: bool = False
    """Whether it is asked for by its version, for it isn't the newest."""

    @property
    def where(self) -> str:
        return self.bucket.address + self.object.key

    @property
    def size(self) -> int:
        return self.object.size

    @property
    def version(self) -> str | None:
        return self.object.version or self.object.etag

    @property
    def ranged(self) -> bool:
        return True

    @contextmanager
    def read(self, start: int = 0, stop: int | None = None) -> Iterator[Iterator[bytes]]:
        etag = self.object.etag
        options: obstore.GetOptions = {"range": (start, self.size if stop is None else stop)}
        if self.pinned:
            options["version"] = self.object.version
        elif etag is not None and not etag.startswith("W/"):
            options["if_match"] = etag
        with typed(self.where, self.bucket.server):
            got = obstore.get(self.bucket.store, self.object.key, options=options)
        now = _Object.of(got.meta)
        if (now.etag, now.size) != (etag, self.size):
            raise SourceChanged(f"{self.where} changed while it was fetched.")
        yield self._chunks(got.stream(min_chunk_size=CHUNK))

    def _chunks(self, stream: Iterable[bytes]) -> Iterator[bytes]:
        with typed(self.where, self.bucket.server):
            for chunk in stream:
                yield bytes(chunk)


@contextmanager
def from_object_store(uri: str, site: Site, asked: Asked, /) -> Iterator[RemoteModel]:
    """Ask an object store what there is."""
    address = site.route(uri)
    scheme, _, rest = address.partition("://")
    name, _, key = rest.partition("/")
    store, server = open_store(address, site)
    bucket = _Bucket(store, server, f"{scheme}://{name}/")
    if is_pattern(key):
        yield _chosen(bucket, pattern_folder(key), key, asked)
    elif key.endswith("/") or not key:
        yield _chosen(bucket, key.rstrip("/"), None, asked)
    elif is_graph(key):
        yield _chosen(bucket, folder_of(key), key, asked)
    elif asked.part is Part.OWN_PROJECTOR and is_gguf(key):
        yield _chosen(bucket, key.rpartition("/")[0], key, asked)
    else:
        yield _named(bucket, key, asked)


def _named(bucket: _Bucket, key: str, asked: Asked) -> RemoteModel:
    found, revision = bucket.find(key), asked.revision
    if revision is not None and (found is None or found.version != revision):
        return _model(bucket, [_pinned(bucket, key, revision)], revision, pinned=True)
    if found is None:
        return _folder(bucket, key, asked)
    parts = [found if each == key else _part(bucket, each) for each in parts_of(key)]
    return _model(bucket, parts, found.version if len(parts) == 1 else None)


def _pinned(bucket: _Bucket, key: str, revision: str) -> _Object:
    try:
        found = bucket.find(key, revision)
    except SourceInvalid:
        found = None
    if found is None:
        raise SourceDrifted(f"{bucket.address}{key} is there no more as it was ({revision}).")
    return found


def _part(bucket: _Bucket, key: str) -> _Object:
    found = bucket.find(key)
    if found is None:
        raise SourceNotFound(f"{bucket.address}{key} isn't there, and it is a part of the model.")
    return found


def _folder(bucket: _Bucket, key: str, asked: Asked) -> RemoteModel:
    """Take what has no such object for a folder; where it is none either, say what there is."""
    try:
        listed = bucket.below(key)
    except SourceUnauthorized as failure:
        raise SourceNotFound(
            f"There is no {bucket.address}{key}; what there is the credentials may not list.", failure.remedy
        ) from None
    if not listed:
        raise SourceNotFound(f"There is no {bucket.address}{key}{_nearest(bucket, key)}.")
    return _chosen_of(bucket, listed, key, None, asked)


def _chosen(bucket: _Bucket, folder: str, pattern: str | None, asked: Asked) -> RemoteModel:
    listed = bucket.below(folder)
    if not listed:
        raise SourceNotFound(f"There is nothing in {bucket.address}{folder}{_nearest(bucket, folder)}.")
    return _chosen_of(bucket, listed, folder, pattern, asked)


def _chosen_of(
    bucket: _Bucket, listed: Iterable[_Object], folder: str, pattern: str | None, asked: Asked
) -> RemoteModel:
    objects = {each.key: each for each in listed}
    files = (Listed(each.key, each.size) for each in objects.values())
    chosen = choose_part(files, pattern, f"{bucket.address}{folder}", asked)
    model = _model(bucket, [objects[key] for key in chosen.paths], chosen=chosen)
    return replace(model, variant=chosen.variant, offered=chosen.offered)


def _model(
    bucket: _Bucket,
    objects: list[_Object],
    revision: str | None = None,
    *,
    pinned: bool = False,
    chosen: Chosen | None = None,
) -> RemoteModel:
    """Make a model of objects, whose first is what an engine opens."""
    keys = [each.key for each in objects]
    name = (chosen or Chosen(tuple(keys))).name
    files = tuple(_file(bucket, each, name(each.key), pinned=pinned) for each in objects)
    signature = signature_beside(keys, lambda key: _file(bucket, _there(bucket, key), key).artifact)
    return RemoteModel(files, revision, signature=signature)


def _file(bucket: _Bucket, found: _Object, name: str, *, pinned: bool = False) -> RemoteFile:
    if found.size == 0:
        raise InvalidModel(f"{bucket.address}{found.key} is empty.")
    base = safe_path(name).rpartition("/")[2]
    return RemoteFile(name, PlainFile(base, ObjectBlob(bucket, found, pinned)))


def _there(bucket: _Bucket, key: str) -> _Object:
    found = bucket.find(key)
    if found is None:
        raise SourceNotFound(f"There is no {bucket.address}{key}.")
    return found


def _nearest(bucket: _Bucket, key: str) -> str:
    folder, _, name = key.rpartition("/")
    try:
        names = bucket.names(folder)
    except SourceError:
        return ""
    near = difflib.get_close_matches(name, names, _SHOWN, 0.3) or names[:_SHOWN]
    return (
        f"; {bucket.address}{folder} has {', '.join(near)}"
        if near
        else f"; {bucket.address}{folder} is empty"
    )
