"""A source of several files, for what a fetch does with them: `listed+http://host/list.json` names them.

`python -m tests.support.listed fetch` is `slm-runtime fetch` that knows it.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

from pydantic import BaseModel, TypeAdapter

from slm_contract.config import ModelConfig, RuntimeConfig
from slm_runtime.__main__ import main
from slm_runtime.models.sources import resolve
from slm_runtime.models.sources.artifact import Blob, PlainFile
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.http import HttpBlob
from slm_runtime.models.sources.remote import RemoteFile, RemoteModel
from slm_runtime.models.sources.site import Site
from tests.support.ports import free_port

SCHEME: Final = "listed+http"


class Listed(BaseModel):
    path: str
    url: str | None = None
    """Relative to the list; None: the path."""
    sha256: str | None = None
    empty: bool = False


Listing = TypeAdapter(list[Listed])


def listing(files: list[Listed]) -> bytes:
    return Listing.dump_json(files)


@dataclass(frozen=True)
class EmptyBlob:
    where: str
    size: int = 0
    version: str = "empty"
    ranged: bool = True

    @contextmanager
    def read(self, _start: int = 0, _stop: int | None = None) -> Iterator[Iterator[bytes]]:
        yield iter(())


@contextmanager
def listed(uri: str, site: Site, asked: Asked, /) -> Iterator[RemoteModel]:
    url = uri.removeprefix("listed+")
    with site.client() as client:
        with client.get(url) as response:
            files = Listing.validate_json(response.read())

        def blob(file: Listed) -> Blob:
            address = urljoin(url, file.url or file.path)
            return EmptyBlob(address) if file.empty else HttpBlob.probe(client, address)

        yield RemoteModel(
            tuple(RemoteFile(each.path, PlainFile(each.path, blob(each)), each.sha256) for each in files),
            asked.revision,
        )


def environment(source: str, folder: Path) -> dict[str, str]:
    """Of a fetch that is a process of its own, with all its places in a folder."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "SLM_"))}
    return {
        **own,
        "NO_PROXY": "127.0.0.1",
        "PIP_CONFIG_FILE": os.devnull,
        "SLM_CONFIG": RuntimeConfig(model=ModelConfig(name="m", source=source)).to_json(),
        "SLM_HOST": "127.0.0.1",
        "SLM_OPS_PORT": str(free_port()),
        "SLM_MODEL_DIR": str(folder / "models"),
        "SLM_TERMINATION_MESSAGE": str(folder / "termination"),
        "SLM_CREDENTIALS_DIR": str(folder / "credentials"),
        "SLM_CA_BUNDLE": str(folder / "ca.crt"),
    }


def known() -> dict[str, resolve.Source]:
    """Every scheme, and this one."""
    return {**resolve.SOURCES, SCHEME: listed}


if __name__ == "__main__":
    vars(resolve)["SOURCES"] = known()
    sys.exit(main())
