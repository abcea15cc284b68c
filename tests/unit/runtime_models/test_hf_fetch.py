"""Whole fetches from `hf://`."""

from contextlib import suppress
from pathlib import Path

import pytest

from slm_contract.config import AdapterConfig, ModelConfig
from slm_contract.places import ExitCode
from slm_contract.report import FetchReport
from slm_contract.source import SourcePin
from slm_runtime.errors import (
    ChecksumMismatch,
    SourceUnreachable,
    UnsupportedFormat,
)
from slm_runtime.fetching.command import FetchCommand
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.fetching.patience import Patience
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.sources.site import Site
from tests.support.gguf import TinyLora, write_tiny_gguf
from tests.support.hub import Hub, HubAsked
from tests.unit.runtime_models.conftest import FetchOf
from tests.unit.runtime_models.hub_cases import NEW, read, sha256


def test_a_whole_fetch(hub: Hub, fetch_of: FetchOf, tiny: bytes) -> None:
    commit = hub.publish("org/repo", {"gguf/m.gguf": tiny, "README.md": b"#"})
    fetched = fetch_of("hf://org/repo").run()
    facts = fetched.model.facts
    assert fetched.model.path.read_bytes() == tiny
    assert fetched.model.path.name == "m.gguf"
    assert facts.pin == SourcePin.of(commit, [("m.gguf", len(tiny), sha256(tiny), None)])


def test_what_the_other_server_sends_is_checked(hub: Hub, fetch_of: FetchOf, tiny: bytes) -> None:
    hub.publish("org/repo", {"m.gguf": tiny})
    bad = tiny[:-1] + bytes([tiny[-1] ^ 1])

    def corrupt(asked: HubAsked) -> None:
        if asked.server == "cdn":
            hub._signatures.update(dict.fromkeys(hub._signatures, bad))

    hub.before = corrupt
    corrupted = fetch_of("hf://org/repo")
    with pytest.raises(ChecksumMismatch) as caught:
        corrupted.run()
    assert sha256(tiny) in caught.value.message
    assert corrupted.folder.fetched() is None


def test_another_process_goes_on_where_one_stopped(
    hub: Hub, site: Site, fetch_of: FetchOf, tiny: bytes
) -> None:
    hub.publish("org/repo", {"m.gguf": tiny})
    hub.cut_after = 60_000
    with pytest.raises(SourceUnreachable):
        Fetch(
            ModelConfig(name="m", source="hf://org/repo"), site, patience=Patience(tries=1), block=100_000
        ).run()
    hub.cut_after = None
    hub.asked.clear()
    assert fetch_of("hf://org/repo").run().model.path.read_bytes() == tiny
    ranges = [each.range for each in hub.asked if each.server == "cdn" and each.range]
    starts = {int(each.removeprefix("bytes=").partition("-")[0]) % 100_000 for each in ranges}
    assert 60_000 in starts, "in the middle of a block"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("parts")
    write_tiny_gguf(folder / "m.gguf", shard_tensors=8)
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir())}


def test_a_whole_fetch_of_a_model_in_parts(
    hub: Hub, site: Site, fetch_of: FetchOf, parts: dict[str, bytes]
) -> None:
    assert len(parts) > 2
    hub.publish("org/repo", {f"q/{name}": data for name, data in parts.items()})
    split = fetch_of("hf://org/repo/q")
    with suppress(UnsupportedFormat):
        fetched = split.run()
        assert fetched.model.path.name == next(iter(parts))
        assert {name: (split.folder.path / name).read_bytes() for name in parts} == parts
    with suppress(UnsupportedFormat):
        assert len(inspect("hf://org/repo/q", site).files) == len(parts)
    assert read("hf://org/repo/q", site) == parts


def test_a_pinned_fetch_after_the_branch_has_moved(hub: Hub, site: Site, tiny: bytes) -> None:
    hub.publish("org/repo", {"m.gguf": tiny})
    pin = inspect("hf://org/repo", site).pin
    hub.publish("org/repo", {"m.gguf": NEW})
    model = ModelConfig(name="m", source="hf://org/repo", pin=pin)
    fetched = Fetch(model, site, patience=Patience(first_wait=0.001)).run()
    assert fetched.model.path.read_bytes() == tiny


def test_adapters_whose_source_moved_on_are_told(hub: Hub, site: Site, tiny: bytes, tmp_path: Path) -> None:
    old, new = (TinyLora(seed=seed).write(tmp_path / f"{seed}.gguf").read_bytes() for seed in range(2))
    hub.publish("org/m", {"m.gguf": tiny})
    adapters = []
    for name in ("moved", "stays"):
        source = f"hf://org/{name}/a.gguf"
        hub.publish(f"org/{name}", {"a.gguf": old})
        pin = inspect(source, site).pin
        adapters.append(AdapterConfig(name=name, source=source, pin=pin))
    now = hub.publish("org/moved", {"a.gguf": new})
    models = (ModelConfig(name="m", source="hf://org/m"), *adapters)
    assert FetchCommand(models, site, look_seconds=1).run() == ExitCode.OK
    moved = FetchReport.model_validate_json(site.places.termination_message.read_bytes()).moved
    assert moved is not None
    assert {name: pin.revision for name, pin in moved.items()} == {adapters[0].key: now}
    assert ModelFolder(site.places.model_dir, adapters[0]).require().path.read_bytes() == old, (
        "what was pinned is there"
    )
