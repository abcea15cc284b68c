"""`hf://org/repository[/file, pattern or folder][@revision]`: a model on the Hugging Face hub, or on a mirror of it.

A file that is named is asked for by its address alone. That is what every mirror knows, and the hub lets six times as many
of such requests pass as of those to its API. For a pattern, a folder or a whole repository the API has to list the files.

Bytes come by plain ranges, each of which the hub redirects anew, since signed addresses don't last. Where they lead to has
ETags of its own, or none: which bytes they are, the hub's own answer says.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, NamedTuple
from urllib.parse import unquote

from slm_contract.config import Part
from slm_runtime.errors import SourceInvalid, SourceNotFound
from slm_runtime.models.sources.address import origin, split_login
from slm_runtime.models.sources.artifact import PlainFile
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.http import PROBE, HttpBlob, HttpClient
from slm_runtime.models.sources.hub import Hub, HubFile, NoListing, is_commit
from slm_runtime.models.sources.projectors import choose_part
from slm_runtime.models.sources.remote import RemoteFile, RemoteModel, safe_path, signature_beside
from slm_runtime.models.sources.shards import Chosen, Listed, is_gguf, is_pattern, parts_of
from slm_runtime.models.sources.site import Site

HUB: Final = "https://huggingface.co"
_ADDRESS: Final = re.compile(
    r"hf://(?P<repository>\w[\w.-]{0,95}/\w[\w.-]{0,95})"
    r"(?:/(?P<path>[^@#]*))?(?:@(?P<revision>(?!.*\.\.)\w[\w./+-]{0,199}))?",
    re.ASCII,
)


class Address(NamedTuple):
    """What a URI names."""

    repository: str
    path: str | None
    revision: str

    @classmethod
    def parse(cls, uri: str) -> "Address":
        """Take a URI apart.

        Raises
        ------
        SourceInvalid
        """
        match = _ADDRESS.fullmatch(uri)
        if match is None:
            raise SourceInvalid(
                f"{uri!r} names nothing on a Hugging Face hub.",
                "Write hf://org/repository; behind it /file.gguf, a /*pattern* or a /folder, and @revision.",
            )
        path = unquote(match["path"] or "").strip("/")
        return cls(match["repository"], path or None, match["revision"] or "main")


@contextmanager
def from_hub(uri: str, site: Site, wanted: Asked, /) -> Iterator[RemoteModel]:
    """Ask a hub for a model: a `Source`, as `resolve` has them."""
    uri = site.route(uri)
    address = Address.parse(uri)
    default = site.environment.get("HF_ENDPOINT") or HUB
    endpoint, login = split_login(site.route.endpoint(uri, default))
    asked = site.route(f"{endpoint}/{address.repository}")
    authorization = site.credentials().authorization() or login
    pinned = wanted.revision is not None
    hub = Hub(endpoint, asked, address.repository, wanted.revision or address.revision, pinned=pinned)
    with site.client({origin(asked): authorization} if authorization else {}, refusal=hub.refusal) as client:
        yield _Resolver(hub, client, wanted).model(wanted.variant or address.path)


class _Answer(NamedTuple):
    """A file as the hub answers for it."""

    path: str
    blob: HttpBlob
    sha256: str | None
    commit: str | None

    def file(self, name: str) -> RemoteFile:
        """As a file of the model, as it is called there."""
        return RemoteFile(name, PlainFile(name.rpartition("/")[2], self.blob), self.sha256)


@dataclass(frozen=True)
class _Resolver:
    hub: Hub
    client: HttpClient
    wanted: Asked

    def model(self, path: str | None) -> RemoteModel:
        if path is None or is_pattern(path) or not is_gguf(path) or self.wanted.part is Part.OWN_PROJECTOR:
            return self._listed(path)
        try:
            chosen = Chosen(parts_of(path), variant=self.wanted.variant)
            return self._model([HubFile(each) for each in chosen.paths], self.hub.revision, chosen)
        except SourceNotFound as missing:
            try:
                return self._listed(path)
            except NoListing:
                raise missing from None

    def _listed(self, path: str | None) -> RemoteModel:
        """Choose from what there is."""
        listing = self.hub.listing(self.client)
        files = {each.path: each for each in listing.files}
        listed = (Listed(each.path, each.size) for each in listing.files)
        chosen = choose_part(listed, path, f"hf://{self.hub.repository}", self.wanted)
        return self._model([files[each] for each in chosen.paths], listing.revision, chosen)

    def _model(self, files: Sequence[HubFile], revision: str, chosen: Chosen) -> RemoteModel:
        """Ask for each file, all of them at the commit that the first one is of."""
        first = self._ask(files[0], revision)
        commit = first.commit or (revision if is_commit(revision) else None)
        if commit is not None:
            pinned = replace(first.blob, url=self.hub.file_url(first.path, commit))
            first = first._replace(blob=pinned)
        others = (self._ask(each, commit or revision) for each in files[1:])
        signature = signature_beside(
            [each.path for each in files],
            lambda path: self._ask(HubFile(path), commit or revision).file(path).artifact,
        )
        return RemoteModel(
            tuple(each.file(chosen.name(each.path)) for each in (first, *others)),
            commit,
            variant=chosen.variant,
            offered=chosen.offered,
            signature=signature,
        )

    def _ask(self, file: HubFile, revision: str) -> _Answer:
        hub, url = self.hub, self.hub.file_url(safe_path(file.path), revision)
        with self.client.get(url, PROBE) as response:
            sha256 = hub.said_sha256(response) or file.sha256
            # An answer may be silent of the checksum, as mirrors are, but not name another.
            identify = None if sha256 is None else lambda answer: hub.said_sha256(answer) or sha256
            blob = HttpBlob.seen(self.client, url, response, identify)
            size, commit = hub.said_size(response) or file.size, hub.said_commit(response)
        if blob.size is None:
            blob = replace(blob, size=size)
        elif size not in {None, blob.size}:
            raise SourceInvalid(
                f"{blob.where} has {blob.size:,} bytes where {size:,} are listed: it isn't the file itself.",
                "Look at the mirror: it may give the pointers of files that are kept as LFS instead of the files.",
            )
        return _Answer(file.path, blob, sha256, commit)
