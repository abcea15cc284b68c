"""`oci://host/repository[:tag][@digest][#file]`: a model in a registry, whoever packed it.

Artifacts whose blobs are files: the CNCF's ModelPack, Docker's, what `oras push` makes. And those whose blobs are tar
archives: ModelPack again, KitOps' modelkits, images.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal
from urllib.parse import unquote

from slm_contract.config import PromptConfig
from slm_runtime.errors import SourceInvalid, SourceNotFound, UnsupportedFormat
from slm_runtime.models.sources.artifact import Artifact, PlainFile
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.docker_config import DOCKER_HUB
from slm_runtime.models.sources.folders import is_graph
from slm_runtime.models.sources.layer import Contents, Layer, PackedMember, look_into, member
from slm_runtime.models.sources.projectors import choose_part
from slm_runtime.models.sources.registry import Descriptor, Manifest, Reference, Repository, open_repository
from slm_runtime.models.sources.remote import RemoteFile, RemoteModel, safe_path, signature_beside
from slm_runtime.models.sources.shards import Chosen, Listed, is_gguf, is_pattern, parts_of
from slm_runtime.models.sources.site import Site
from slm_runtime.models.sources.tar import TarFile

SCHEME: Final = "oci://"
FILE_PATH: Final = "org.cncf.model.filepath"
TITLE: Final = "org.opencontainers.image.title"
UNPACK: Final = "io.deis.oras.content.unpack"
DOCKER_GGUF: Final = "application/vnd.docker.ai.gguf.v3"
DOCKER_LORA: Final = "application/vnd.docker.ai.gguf.v3.lora"
DOCKER_PROJECTOR: Final = "application/vnd.docker.ai.mmproj"
DOCKER_TEMPLATE: Final = "application/vnd.docker.ai.chat.template.jinja"
_ARCHIVE: Final = re.compile(r".*[.+]tar(?:[.+](?P<packing>gzip|zstd))?", re.IGNORECASE)
_BESIDE: Final = re.compile(r"application/vnd\.(?:cncf\.model|kitops\.modelkit)\.(?:docs?|code|dataset)\..*")
"""Layers of a model's artifact in which its model isn't."""
_Packing = Literal["gzip", "zstd", "none"]


@contextmanager
def from_registry(uri: str, site: Site, asked: Asked, /) -> Iterator[RemoteModel]:
    address, _, wanted = uri.partition("#")
    reference = _reference(address, site)
    with open_repository(reference, SCHEME, site) as repository:
        name = reference.digest or reference.tag or "latest"
        revision = asked.revision
        manifest = repository.manifest(name) if revision is None else repository.pinned(revision, "manifests")
        found = _Artifact(repository, manifest, f"{SCHEME}{reference}", asked)
        chosen = found.files(unquote(wanted).removeprefix("./").strip("/") or None)
        signature = signature_beside(list(chosen), found.beside)
        yield RemoteModel(
            tuple(chosen.values()),
            manifest.digest,
            variant=found.chosen.variant,
            offered=found.chosen.offered,
            prompt=found.prompt() if asked.part is None else None,
            signature=signature,
        )


def _reference(uri: str, site: Site) -> Reference:
    """Who is asked for what; the site may have a mirror for it."""
    named = _parse(uri)
    if named.host in DOCKER_HUB:
        library = "" if "/" in named.repository else "library/"
        named = Reference("docker.io", f"{library}{named.repository}", named.tag, named.digest)
    return _parse(site.route(f"{SCHEME}{named}"))


def _parse(uri: str) -> Reference:
    reference = Reference.parse(uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else None
    if reference is None:
        raise SourceInvalid(
            f"{uri!r} names nothing in a registry.",
            "Write oci://host/repository:tag or oci://host/repository@sha256:..., and #file where there are several.",
        )
    return reference


class _Artifact:
    def __init__(self, repository: Repository, manifest: Manifest, where: str, asked: Asked) -> None:
        self._repository = repository
        self._layers = manifest.layers
        self._where = where
        self._asked = asked
        self.chosen = Chosen(())
        """What `files` has found."""
        self._seen: dict[str, tuple[Layer, TarFile]] = {}
        """Files in layers, as far as layers were looked through."""
        if any(each.media_type == DOCKER_LORA for each in self._layers):
            raise UnsupportedFormat(
                f"{where} has a LoRA adapter in it: without that the model is another.",
                "Publish the adapter by itself, and name it in spec.model.adapters; or merge it into the model.",
            )

    def files(self, wanted: str | None) -> dict[str, RemoteFile]:
        """Of the blobs that are files, else of the files in layers, those that are the model, by their paths there.

        Raises
        ------
        SourceError
        """
        named = self._named()
        if wanted in named or any(is_gguf(each) or is_graph(each) for each in named):
            paths = self._choose([Listed(path, each.size) for path, each in named.items()], wanted)
            return {path: self._file(path, self.chosen.name(path), named[path]) for path in paths}
        return self._members(wanted)

    def beside(self, path: str) -> Artifact:
        """Another of the blobs that are files, or of the files that were seen in layers.

        Raises
        ------
        SourceNotFound
        """
        named = self._named()
        if path in named:
            return self._file(path, path, named[path]).artifact
        if path in self._seen:
            return member(*self._seen[path])
        raise SourceNotFound(f"{self._where} has no file {path}.")

    def prompt(self) -> PromptConfig | None:
        """The chat template that Docker's tools put beside a model."""
        for each in self._layers:
            if each.media_type == DOCKER_TEMPLATE:
                template = self._repository.document(each).decode(errors="replace")
                return PromptConfig(template=template)
        return None

    def _file(self, path: str, name: str, descriptor: Descriptor) -> RemoteFile:
        blob = self._repository.blob(descriptor)
        return RemoteFile(name, PlainFile(_base(path), blob), descriptor.sha256)

    def _named(self) -> dict[str, Descriptor]:
        """Blobs that are files, by the names that they were given."""
        unnamed = [each for each in self._layers if each.media_type == DOCKER_GGUF and not _name(each)]
        names = _names(self._where, len(unnamed))
        named = {name: each for each in self._layers if _packing(each) is None and (name := _name(each))}
        projectors = {
            f"mmproj-{number}.gguf": each
            for number, each in enumerate(self._layers)
            if each.media_type == DOCKER_PROJECTOR and not _name(each)
        }
        return named | projectors | dict(zip(names, unnamed, strict=True))

    def _members(self, wanted: str | None) -> dict[str, RemoteFile]:
        layers = self._archives(wanted)
        contents = [(layer, look_into(layer)) for layer in layers]
        found = self._seen
        for layer, content in contents:
            for file in content.files:
                found.setdefault(file.path, (layer, file))
        try:
            paths = self._choose([Listed(path, file.size) for path, (_, file) in found.items()], wanted)
        except SourceNotFound:
            unseen = self._unseen(contents, wanted)
            if unseen is None or self._asked.part is not None:
                raise
            return {unseen.path: unseen}
        if len(paths) > 1 and not all(found[path][0].in_place for path in paths):
            raise SourceInvalid(
                f"{self._where} has {len(paths)} files of a model in a layer that can only be transferred whole.",
                "Publish the files in layers that aren't compressed, in a registry that knows ranges.",
            )
        return {path: RemoteFile(self.chosen.name(path), member(*found[path])) for path in paths}

    def _choose(self, listed: Sequence[Listed], wanted: str | None) -> tuple[str, ...]:
        self.chosen = choose_part(listed, wanted, self._where, self._asked)
        return self.chosen.paths

    def _archives(self, wanted: str | None) -> list[Layer]:
        """Layers that may have the file, the uppermost first."""
        layers = []
        for each in reversed(self._layers):
            packing = _packing(each)
            if packing is None or (wanted is None and _BESIDE.fullmatch(each.media_type)):
                continue
            layers.append(
                Layer(self._repository.blob(each), each.sha256, None if packing == "none" else packing)
            )
        if not layers:
            kinds = ", ".join(dict.fromkeys(each.media_type[:80] for each in self._layers)) or "nothing"
            raise SourceNotFound(f"{self._where} has no GGUF file; it consists of {kinds}.")
        return layers

    def _unseen(self, contents: Sequence[tuple[Layer, Contents]], wanted: str | None) -> RemoteFile | None:
        """The file where it must be: in the only layer that wasn't looked through to its end."""
        unread = [layer for layer, content in contents if not content.complete]
        if not unread:
            return None
        if wanted is None or is_pattern(wanted) or len(unread) > 1 or parts_of(wanted) != (wanted,):
            raise SourceNotFound(
                f"{self._where} has no model in the beginnings of its compressed layers, which is all that is looked at.",
                "Name the file, oci://host/repository:tag#path/model.gguf, or publish it in a layer that isn't compressed.",
            )
        (layer,) = unread
        return RemoteFile(_base(wanted), PackedMember(wanted, layer.payload, layer, None))


def _packing(layer: Descriptor) -> _Packing | None:
    """How a layer's archive is compressed; None: it is a file, whatever type `oras push` gives to files."""
    match = _ARCHIVE.fullmatch(layer.media_type)
    if match is None:
        return None
    packing: _Packing = (
        "none" if match["packing"] is None else "gzip" if match["packing"].lower() == "gzip" else "zstd"
    )
    title = layer.annotation(TITLE)
    unpacked = (layer.annotation(UNPACK) or "").lower() == "true"
    is_file = title is not None and not unpacked and (packing == "none" or is_gguf(title))
    return None if is_file and layer.annotation(FILE_PATH) is None else packing


def _name(layer: Descriptor) -> str | None:
    return layer.annotation(FILE_PATH) or layer.annotation(TITLE)


def _names(where: str, count: int) -> list[str]:
    """Names for Docker's files that have none: by what they were asked for, and in their order."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", where.partition("@")[0].rpartition("/")[2])
    if count < 2:
        return [f"{stem}.gguf"] * count
    return [f"{stem}-{index:05}-of-{count:05}.gguf" for index in range(1, count + 1)]


def _base(path: str) -> str:
    return safe_path(path.rpartition("/")[2])
