"""Models that are mounted: on a claim (`pvc://claim/path`), or in an image that kubelet has pulled.

They are served where they lie, not copied.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from slm_contract.config import Part
from slm_contract.source import SourcePin
from slm_runtime.errors import InvalidModel, SourceInvalid, SourceNotFound, SourceUnauthorized
from slm_runtime.models.sources.artifact import FileBlob, PlainFile
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.folders import folder_of, is_graph
from slm_runtime.models.sources.projectors import choose_part
from slm_runtime.models.sources.remote import (
    RemoteFile,
    RemoteModel,
    pattern_folder,
    safe_path,
    signature_beside,
)
from slm_runtime.models.sources.shards import Chosen, Listed, is_pattern, parts_of
from slm_runtime.models.sources.site import Site

MAX_LISTED: Final = 10_000
"""Files that are looked at for a model."""
_UNMOUNTED: Final = {
    "claim": "Look at the pod's volumes, and at the claim.",
    "image": "Kubernetes mounts images from 1.35 on, in 1.33 and 1.34 with the feature gate ImageVolume of API server and"
    " kubelet: turn it on, or write another spec.cache.mode.",
}
_EMPTY: Final = {
    "claim": "Correct spec.model.source, or put the file there.",
    "image": "Correct spec.model.source; where it names another artifact than an image (ModelPack, Docker Model Runner,"
    " `oras push`), of which containerd mounts nothing, make an image of it, or write another spec.cache.mode.",
}


@contextmanager
def from_claim(uri: str, site: Site, asked: Asked, /) -> Iterator[RemoteModel]:
    """Look at the claim that is mounted."""
    claim, _slash, path = uri.removeprefix("pvc://").partition("/")
    if not claim:
        raise SourceInvalid(f"{uri!r} names no claim.", "Write pvc://claim/path/to/model.gguf.")
    yield _Mounted("claim", f"pvc://{claim}/", site).model(_below(path), asked)


@contextmanager
def from_image(uri: str, site: Site, asked: Asked, pin: SourcePin | None) -> Iterator[RemoteModel]:
    """Look at the image that is mounted.

    Parameters
    ----------
    pin
        By whose revision it is mounted: the container runtime has held every layer against it.
    """
    address, _, path = uri.partition("#")
    yield _Mounted("image", f"{address}#", site).model(_below(unquote(path).removeprefix("./")), asked, pin)


def _below(path: str) -> str:
    """A path below what is mounted; empty: all of it."""
    path = path.strip("/")
    return safe_path(path) if path else path


class _Mounted:
    def __init__(self, kind: str, address: str, site: Site) -> None:
        """`address`: of the files, to which their paths are added."""
        self._kind = kind
        self._address = address
        self._root = site.places.source_dir.resolve()
        if not self._root.is_dir():
            raise SourceNotFound(
                f"The {kind} of {address} isn't mounted at {site.places.source_dir}.", _UNMOUNTED[kind]
            )

    def model(self, path: str, asked: Asked, pin: SourcePin | None = None) -> RemoteModel:
        chosen = self._chosen(path, asked)
        paths = chosen.paths
        signature = signature_beside(paths, lambda each: self._file(each, each).artifact)
        return RemoteModel(
            tuple(self._file(each, chosen.name(each)) for each in paths),
            variant=chosen.variant,
            offered=chosen.offered,
            in_place=True,
            signature=signature,
            known_as=pin,
        )

    def _chosen(self, path: str, asked: Asked) -> Chosen:
        """Paths of the model's files."""
        is_file = self._is_file(path)
        beside = asked.part is Part.OWN_PROJECTOR and is_file
        if is_file and not beside and not is_graph(path):
            return Chosen(parts_of(path))
        pattern = path if is_file or is_pattern(path) else None
        if is_file:
            folder = path.rpartition("/")[0] if beside else folder_of(path)
        else:
            folder = path if pattern is None else pattern_folder(pattern)
        files = list(self._files(folder))
        if not files:
            raise SourceNotFound(
                f"There is nothing at {self._address}{path} that is a file.", _EMPTY[self._kind]
            )
        return choose_part(files, pattern, f"{self._address}{folder}", asked)

    def _file(self, path: str, name: str) -> RemoteFile:
        real = self._real(path)
        where = f"{self._address}{path}"
        if not real.is_file():
            raise SourceNotFound(f"{where} isn't there.")
        if not os.access(real, os.R_OK):
            raise SourceUnauthorized(
                f"{where} can't be read by user {os.getuid()}.",
                "Let the pod's user or group read it: spec.podTemplate has runAsUser, runAsGroup and fsGroup.",
            )
        blob = FileBlob(real)
        if blob.size == 0:
            raise InvalidModel(f"{where} is empty.")
        return RemoteFile(name, PlainFile(safe_path(name).rpartition("/")[2], blob))

    def _is_file(self, path: str) -> bool:
        return bool(path) and self._real(path).is_file()

    def _real(self, path: str) -> Path:
        """Return where a path leads, links followed.

        Raises
        ------
        SourceInvalid
            It leads out of what is mounted.
        """
        real = (self._root / path).resolve()
        if not real.is_relative_to(self._root):
            raise SourceInvalid(
                f"{self._address}{path} is a link that leads out of the {self._kind}.",
                "Put the file itself there.",
            )
        return real

    def _files(self, folder: str) -> Iterator[Listed]:
        """All files below a folder; links to folders aren't followed, and what is hidden isn't seen."""
        looked = 0
        self._real(folder)
        for place, folders, names in os.walk(self._root / folder):
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            for name in names:
                looked += 1
                if looked > MAX_LISTED:
                    raise SourceInvalid(
                        f"{self._address}{folder} has more than {MAX_LISTED:,} files.",
                        "Name the model's own folder or file in spec.model.source.",
                    )
                path = Path(place, name)
                if not name.startswith(".") and path.is_file():
                    yield Listed(str(path.relative_to(self._root)), path.stat().st_size)
