"""A model of several files on the web server, and what must be true after every fetch of it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from slm_contract.config import ModelConfig
from slm_contract.report import Download
from slm_contract.source import SourcePin
from slm_runtime.errors import RuntimeFailure
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.sources.site import Site
from tests.support import listed
from tests.support.listed import Listed
from tests.support.web import File, WebServer
from tests.unit.runtime_models.waiting import eventually

BLOCK = 100_000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Published:
    """A model of three files on the web server: the tiny one, another large one, a small one."""

    web: WebServer
    site: Site
    data: dict[str, bytes]
    listed: list[Listed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listed = [Listed(path=path) for path in self.data]
        for path, data in self.data.items():
            self.web.put(path, data)
        self.tell()

    def tell(self) -> None:
        """Publish the list as it is now."""
        self.web.put("list.json", listed.listing(self.listed))

    def pin_checksums(self) -> None:
        self.listed = [Listed(path=path, sha256=sha256(data)) for path, data in self.data.items()]
        self.tell()

    def file(self, path: str) -> File:
        return self.web.files[f"/{path}"]

    @property
    def uri(self) -> str:
        return "listed+" + self.web.url("list.json")

    def fetch(self, *, pin: SourcePin | None = None, sha256: str | None = None) -> Fetch:
        model = ModelConfig(name="m", source=self.uri, pin=pin, sha256=sha256)
        return Fetch(model, self.site, patience=Patience(first_wait=0.001), block=BLOCK)

    def asked(self, path: str) -> list[str]:
        """The ranges of a file that were asked for, without the probe for its first byte."""
        ranges = [each.range or "all" for each in self.web.asked if each.path == f"/{path}"]
        return [each for each in ranges if each != "bytes=0-0"]

    def gone_at_last(self, path: str) -> None:
        """Let a file be found, and be gone when it is asked for after all others have come."""
        answers, others = iter([200, 404]), self.data.keys() - {path}
        folder = self.fetch().folder

        def answer(file: File) -> None:
            file.status = next(answers)
            if file.status == 404:
                eventually(lambda: folder.verified().keys() == others)

        self.file(path).before = answer

    def back(self, path: str) -> None:
        self.file(path).before = lambda file: setattr(file, "status", 200)


def named(folder: ModelFolder) -> set[str]:
    """The model's files that have their names, and the folder's own word that all is there."""
    own = {path for path in folder.path.rglob("*") if path.is_file()}
    return {str(path.relative_to(folder.path)) for path in own if not path.name.startswith(".")}


def assert_published(fetch: Fetch, data: dict[str, bytes]) -> None:
    """The right bytes under each name, nothing else, and figures that say so."""
    fetched = fetch.folder.require()
    assert named(fetch.folder) == {*data, "model.json"}
    assert {path.name for path in fetch.folder.path.glob(".*")} <= {".lock", ".served"}
    for path, content in data.items():
        assert (fetch.folder.path / path).read_bytes() == content
    assert {each.path: each.sha256 for each in fetched.facts.files} == {
        path: sha256(content) for path, content in data.items()
    }
    size = sum(map(len, data.values()))
    download = fetch.progress.download()
    assert (download.state, download.bytes_done, download.bytes_total) == ("Complete", size, size)


def refusal(fetch: Fetch, data: dict[str, bytes]) -> RuntimeFailure:
    """It is a typed one with a remedy, no model is there, and what has a name is right."""
    with pytest.raises(RuntimeFailure) as caught:
        fetch.run()
    assert caught.value.remedy
    assert fetch.folder.fetched() is None
    assert "model.json" not in named(fetch.folder)
    for path in named(fetch.folder):
        assert (fetch.folder.path / path).read_bytes() == data[path]
    return caught.value


def watched(published: Published, fetch: Fetch) -> list[Download]:
    """Collects the figures at each answer of the server."""
    seen: list[Download] = []
    for file in published.web.files.values():
        before = file.before

        def look(file: File, before: Callable[[File], None] = before) -> None:
            seen.append(fetch.progress.download())
            before(file)

        file.before = look
    return seen


def assert_sensible(seen: list[Download]) -> None:
    assert all(0 <= each.bytes_done <= each.bytes_total for each in seen if each.bytes_total is not None)
    assert all((each.bytes_per_second or 0) >= 0 and (each.eta_seconds or 0) >= 0 for each in seen)
