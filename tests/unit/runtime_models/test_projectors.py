"""Projectors of vision models: which of a source's files they are, what their headers say, and how they are brought."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig, Part, RuntimeConfig
from slm_contract.places import ExitCode
from slm_contract.report import FailureReason, ModelFacts
from slm_runtime.errors import (
    InvalidModel,
    RuntimeFailure,
    SourceInvalid,
    SourceNotFound,
    UnsupportedArchitecture,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect, inspect_file, table
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.projectors import choose_part
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.shards import Listed
from slm_runtime.models.sources.site import Site
from slm_runtime.serve import engine_config
from tests.support.hub import Hub
from tests.support.projector import KINDS, TinyProjector
from tests.support.registry import DOCKER_MANIFEST, Registry, registry_server
from tests.support.web import WebServer
from tests.unit.runtime_models.test_command import Pod

OLLAMA = "application/vnd.ollama.image."
DOCKER = "application/vnd.docker.ai."


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return TinyProjector().write(tmp_path_factory.mktemp("projector") / "mmproj.gguf").read_bytes()


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registry_server() as server:
        yield server


def chosen(files: str, path: str | None = None, part: Part = Part.OWN_PROJECTOR) -> str:
    (found,) = choose_part(map(Listed, files.split()), path, "the source", Asked(part=part)).paths
    return found


@pytest.mark.parametrize(
    ("files", "path", "taken"),
    [
        ("m.gguf mmproj.gguf", None, "mmproj.gguf"),
        ("m-Q4_K_M.gguf mmproj-BF16.gguf mmproj-F16.gguf mmproj-F32.gguf", None, "mmproj-F16.gguf"),
        ("m.gguf mmproj-m-f32.gguf mmproj-m-bf16.gguf", "m.gguf", "mmproj-m-bf16.gguf"),
        ("m.gguf mmproj-m-fp32.gguf mmproj-m-fp16.gguf", "m.gguf", "mmproj-m-fp16.gguf"),
        ("m.gguf m.mmproj-Q8_0.gguf mmproj-Q4_0.gguf", "m.gguf", "m.mmproj-Q8_0.gguf"),
        ("a/m.gguf a/mmproj-F32.gguf mmproj-F16.gguf", "a/m.gguf", "a/mmproj-F32.gguf"),
        ("a/b/m.gguf mmproj-F16.gguf c/mmproj-F16.gguf", "a/b/m.gguf", "mmproj-F16.gguf"),
        ("m-Q4_K_M.gguf mmproj-F16.gguf", "*Q4_K_M*", "mmproj-F16.gguf"),
        ("m-Q4_K_M.gguf MMPROJ-model-f16.gguf mmproj.json", None, "MMPROJ-model-f16.gguf"),
    ],
)
def test_the_one_beside_the_model_is_taken(files: str, path: str | None, taken: str) -> None:
    assert chosen(files, path) == taken


@pytest.mark.parametrize(
    ("files", "path", "taken"),
    [
        ("vision.gguf mmproj-F16.gguf", "vision.gguf", "vision.gguf"),
        ("m.gguf mmproj-F16.gguf mmproj-F32.gguf", "*f32*", "mmproj-F32.gguf"),
        ("m.gguf a/mmproj-F16.gguf b/mmproj-F32.gguf", "b", "b/mmproj-F32.gguf"),
        ("m.gguf mmproj-F16.gguf", None, "mmproj-F16.gguf"),
    ],
)
def test_one_that_is_named_is_taken(files: str, path: str | None, taken: str) -> None:
    assert chosen(files, path, Part.PROJECTOR) == taken


def test_none_or_several_is_told_with_a_remedy() -> None:
    with pytest.raises(SourceNotFound, match="has no projector") as missing:
        chosen("m.gguf b/mmproj-F16.gguf", "a/m.gguf")
    assert "spec.model.projector" in missing.value.remedy
    with pytest.raises(
        SourceInvalid, match=r"more than one projector: mmproj-a-f16\.gguf, mmproj-b-f16\.gguf"
    ):
        chosen("m.gguf mmproj-a-f16.gguf mmproj-b-f16.gguf")


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_says_what_it_reads_and_for_whom(kind: str, tmp_path: Path) -> None:
    written = TinyProjector(kind=kind, output=96)
    facts = inspect_file(written.write(tmp_path / "mmproj.gguf"))
    told = facts.projector
    assert told is not None
    assert (facts.kind, facts.architecture, told.kind, told.output_length) == ("projector", "clip", kind, 96)
    dynamic = kind == "qwen2vl_merger"
    assert told.image_size == (64 * 2 * written.patch_size if dynamic else written.image_size)
    assert f"a projector of pictures ({kind})" in table(facts)


def test_the_largest_picture_decides_where_they_differ(tmp_path: Path) -> None:
    small, large = (
        inspect_file(TinyProjector(image_size=side).write(tmp_path / f"{side}.gguf")).projector
        for side in (28, 56)
    )
    assert small is not None
    assert large is not None
    assert large.compute_elements > 3 * small.compute_elements


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sound": True}, UnsupportedArchitecture),
        ({"image_size": 0}, InvalidModel),
        ({"image_size": 1 << 20}, InvalidModel),
        ({"patch_size": 0}, InvalidModel),
        ({"kind": ""}, InvalidModel),
    ],
    ids=str,
)
def test_what_can_not_be_read_is_refused_by_name(
    changes: dict[str, object], error: type[RuntimeFailure], tmp_path: Path
) -> None:
    path = TinyProjector().write(tmp_path / "mmproj.gguf")
    data = path.read_bytes()
    if changes.pop("sound", None):
        data = data.replace(b"clip.has_vision_encoder", b"clip.has_violin_encoder")
    for name, value in changes.items():
        assert isinstance(value, int | str)
        data = _patched(data, name, value)
    path.write_bytes(data)
    with pytest.raises(error) as refused:
        inspect_file(path)
    assert refused.value.remedy


def _patched(data: bytes, name: str, value: int | str) -> bytes:
    """The file with another number in its header, or without its kind."""
    if isinstance(value, str):
        return data.replace(b"clip.projector_type", b"clip.projector_hype")
    key = f"clip.vision.{name}".encode()
    start = data.index(key) + len(key) + 4
    return data[:start] + value.to_bytes(4, "little") + data[start + 4 :]


def own(source: str) -> ModelConfig:
    return ModelConfig(name="projector", source=source, part=Part.OWN_PROJECTOR)


def bring(model: ModelConfig, site: Site) -> ModelFacts:
    pin = inspect(model.source, site, asked=Asked.by(model)).pin
    found = Fetch(model.model_copy(update={"pin": pin}), site).run().model
    assert found.facts.projector is not None
    assert found.facts.pin == pin
    return found.facts


def test_a_hub_s_repository(hub: Hub, site: Site, tiny: bytes, projector: bytes) -> None:
    commit = hub.publish("org/vl", {"m-Q4_K_M.gguf": tiny, "mmproj-F16.gguf": projector})
    for source in ("hf://org/vl", "hf://org/vl/m-Q4_K_M.gguf"):
        facts = bring(own(source), site)
        assert facts.pin is not None
        assert (facts.file_name, facts.pin.revision) == ("mmproj-F16.gguf", commit)
        assert inspect(source, site).file_name == "m-Q4_K_M.gguf"
    hub.publish("org/vl", {"m-Q4_K_M.gguf": tiny + b"new"})
    pinned = own("hf://org/vl").model_copy(update={"pin": facts.pin})
    assert ModelFolder(site.places.model_dir, pinned).require().facts.projector == facts.projector
    with open_model("hf://org/vl", site, Asked(commit, part=Part.OWN_PROJECTOR)) as remote:
        assert [each.path for each in remote.files] == ["mmproj-F16.gguf"]


def test_ollama_s_layer(registry: Registry, site: Site, tiny: bytes, projector: bytes) -> None:
    layers = {"model": tiny, "projector": projector, "system": b"Be brief."}
    registry.push(
        "library/vl:latest",
        *(registry.blob(data, OLLAMA + kind) for kind, data in layers.items()),
        media_type=DOCKER_MANIFEST,
    )
    assert bring(own(f"ollama://{registry.host}/library/vl"), site).file_name == "vl-latest-mmproj.gguf"
    registry.push("library/text:latest", registry.blob(tiny, OLLAMA + "model"), media_type=DOCKER_MANIFEST)
    with pytest.raises(SourceNotFound, match="has no projector among its layers"):
        bring(own(f"ollama://{registry.host}/library/text"), site)


@pytest.mark.parametrize("title", [None, "mmproj-model-f16.gguf"])
def test_docker_s_layer(
    registry: Registry, site: Site, tiny: bytes, projector: bytes, title: str | None
) -> None:
    named = {} if title is None else {"org.cncf.model.filepath": title}
    registry.push(
        "ai/vl:latest",
        registry.blob(tiny, DOCKER + "gguf.v3"),
        registry.blob(projector, DOCKER + "mmproj", named),
        registry.blob(b"{{ messages }}", DOCKER + "chat.template.jinja"),
    )
    source = f"oci://{registry.host}/ai/vl:latest"
    assert "mmproj" in bring(own(source), site).file_name
    assert inspect(source, site).kind == "model"


def test_a_claim(site: Site, tiny: bytes, projector: bytes, tmp_path: Path) -> None:
    site = replace(site, places=replace(site.places, source_dir=tmp_path / "claim"))
    folder = site.places.source_dir / "vl"
    folder.mkdir(parents=True)
    (folder / "m.gguf").write_bytes(tiny)
    (folder / "mmproj-f16.gguf").write_bytes(projector)
    for path in ("vl/m.gguf", "vl"):
        assert bring(own(f"pvc://models/{path}"), site).file_name == "mmproj-f16.gguf"


@pytest.mark.parametrize("source", ["https://host/m.gguf", "pypi://package@1.0/m.gguf"])
def test_beside_what_can_not_be_listed_it_has_to_be_named(source: str, site: Site) -> None:
    with pytest.raises(SourceInvalid) as refused, open_model(source, site, Asked(part=Part.OWN_PROJECTOR)):
        pass
    assert "spec.model.projector.source" in refused.value.remedy


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    return Pod(tmp_path, monkeypatch)


def test_it_is_fetched_with_the_model_and_reaches_the_engine(
    pod: Pod, web: WebServer, tiny: bytes, projector: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.configure(web.put("m.gguf", tiny))
    named = ModelConfig(name="projector", source=web.put("v.gguf", projector), part=Part.PROJECTOR)
    config = RuntimeConfig(model=pod.model, projector=named)
    monkeypatch.setenv("SLM_CONFIG", config.to_json())
    assert pod.run("-m", "slm_runtime", "fetch").returncode == ExitCode.OK
    model, found = (ModelFolder(pod.volume, each).require() for each in (pod.model, named))
    assert found.path.read_bytes() == projector
    assert engine_config(config, model, model.path, [found.path]).projector == str(found.path)
    without = RuntimeConfig(model=pod.model)
    assert engine_config(without, model, model.path, []).projector is None


@pytest.mark.parametrize("swapped", [True, False])
def test_each_in_the_other_s_place_is_refused(
    pod: Pod, web: WebServer, tiny: bytes, projector: bytes, swapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.configure(web.put("m.gguf", projector if swapped else tiny))
    named = ModelConfig(name="projector", source=web.put("v.gguf", tiny), part=Part.PROJECTOR)
    config = RuntimeConfig(model=pod.model, projector=None if swapped else named)
    monkeypatch.setenv("SLM_CONFIG", config.to_json())
    assert pod.run("-m", "slm_runtime", "fetch").returncode == ExitCode.FETCH_PERMANENT
    failure = pod.last_words().failure
    assert failure is not None
    assert failure.reason is FailureReason.INVALID_MODEL
    assert "is a projector, and a model is wanted" in failure.message or not swapped
    assert "is a model, and a projector is wanted" in failure.message or swapped


def test_equal_arguments_give_equal_bytes(tmp_path: Path, projector: bytes) -> None:
    assert TinyProjector().write(tmp_path / "a.gguf").read_bytes() == projector
    assert replace(TinyProjector(), seed=1).write(tmp_path / "b.gguf").read_bytes() != projector
