"""Folders of ONNX: what is brought of a source, what is read of it, and what is refused by name."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from slm_contract.config import ModelConfig, ModelFormat
from slm_contract.report import ModelFacts
from slm_runtime.errors import (
    InvalidModel,
    RuntimeFailure,
    SourceInvalid,
    SourceNotFound,
    UnsupportedArchitecture,
    UnsupportedFormat,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect, inspect_file
from slm_runtime.models.onnx_folder import MAX_JSON, onnx_facts
from slm_runtime.models.sources.asked import LATEST, Asked
from slm_runtime.models.sources.folders import choose_model
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.shards import Listed
from slm_runtime.models.sources.site import Site
from tests.support import onnx_folder as made
from tests.support.hub import Hub
from tests.support.onnx_folder import decoder, encoder_folder, folder
from tests.support.registry import Registry, registry_server, tar
from tests.unit.runtime_models.conftest import FetchOf

BROUGHT = [
    "model.onnx",
    "chat_template.jinja",
    "genai_config.json",
    "model.onnx.data",
    "tokenizer.json",
    "tokenizer_config.json",
]
ONNX, GGUF = Asked(format=ModelFormat.ONNX), Asked(format=ModelFormat.GGUF)


def facts(files: Mapping[str, bytes]) -> ModelFacts:
    """Of files as they come, a few bytes at a time."""
    graph = sorted(files, key=lambda each: (not each.endswith("model.onnx"), each))
    return onnx_facts([(each, len(files[each]), _pieces(files[each])) for each in graph])


def _pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 7] for at in range(0, len(data), 7)]


def write(place: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return place


def chosen(paths: list[str], path: str | None = None, asked: Asked = LATEST) -> tuple[str, ...]:
    return choose_model([Listed(each, 1) for each in paths], path, "hf://o/m", asked).paths


def test_a_decoder_is_known_by_its_configuration_and_its_graph() -> None:
    found = facts(folder())
    assert (found.format, found.file_name, found.architecture, found.encoder) == (
        "ONNX",
        "model.onnx",
        "llama",
        False,
    )
    assert (found.kv_heads, found.key_length, found.kv_type) == ((2, 2), 8, "f32")
    assert found.kv_elements == 2 * 2 * 2 * 8
    assert (found.quantization, found.parameter_count) == ("int4", made.VOCABULARY * made.WIDTH)
    blocks = made.VOCABULARY * made.WIDTH // made.BLOCK
    assert found.weights_bytes == made.VOCABULARY * made.WIDTH // 2 + 4 * blocks
    assert found.resident_bytes == made.VOCABULARY * made.WIDTH // 2 + 8 * blocks
    assert (found.context_length, found.vocab_size, found.has_chat_template) == (1024, made.VOCABULARY, True)


def test_an_encoder_is_known_by_what_its_graph_gives() -> None:
    found = facts({**encoder_folder()})
    assert (found.file_name, found.architecture, found.encoder) == ("onnx/model.onnx", "bert", True)
    assert (found.kv_elements, found.quantization, found.context_length) == (0, "fp32", 512)
    assert found.weights_bytes == 4 * made.WIDTH * 4 * made.WIDTH


def test_keys_and_values_are_in_the_graph_s_own_number_format() -> None:
    assert facts(folder(decoder(kv=TensorProto.FLOAT16))).kv_type == "f16"


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"model.onnx.data": None}, InvalidModel, "has its weights in model.onnx.data, and that isn't there"),
        ({"model.onnx.data": b"short"}, InvalidModel, "reads up to byte 1,024"),
        ({"tokenizer.json": None}, InvalidModel, "no tokenizer.json"),
        ({"tokenizer.json": b"{"}, InvalidModel, "tokenizer.json can't be read"),
        ({"genai_config.json": None}, InvalidModel, "neither genai_config.json nor config.json"),
        ({"genai_config.json": b"[1]"}, InvalidModel, "genai_config.json can't be read"),
        ({"genai_config.json": b'{"model": 1}'}, InvalidModel, "no model.decoder"),
        ({"genai_config.json": b"{" * 100_000}, InvalidModel, "genai_config.json can't be read"),
        ({"genai_config.json": b" " * (MAX_JSON + 1)}, InvalidModel, "more than any model's"),
        ({"model.onnx": b"<!DOCTYPE html>"}, InvalidModel, "model.onnx is no ONNX graph"),
        ({"model.onnx": b""}, InvalidModel, "model.onnx is no ONNX graph"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file_s_name(
    change: dict[str, bytes | None], kind: type[RuntimeFailure], said: str
) -> None:
    files = {name: data for name, data in {**folder(), **change}.items() if data is not None}
    with pytest.raises(kind) as caught:
        facts(files)
    assert said in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("location", ["../weights.data", "/etc/passwd", "a/../../b", "..\\b", ".hidden", ""])
def test_a_graph_that_reads_outside_of_its_folder_is_refused(location: str) -> None:
    with pytest.raises(InvalidModel, match="outside of its folder"):
        facts(folder(decoder(location)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocab_size": 8}, "tokens up to 63, and the model knows 8"),
        ({"vocab_size": "many"}, "vocab_size in genai_config.json is 'many'"),
        ({"context_length": 0}, "context_length in genai_config.json is 0"),
        ({"type": "x" * 100}, "doesn't name the model's type"),
        ({"decoder": {**made.CONFIG["model"]["decoder"], "num_key_value_heads": 3}}, "says 3 heads of 8"),
        ({"decoder": {**made.CONFIG["model"]["decoder"], "head_size": 16}}, "takes heads of 8"),
        ({"decoder": {**made.CONFIG["model"]["decoder"], "num_hidden_layers": 1}}, "more blocks than the 1"),
        (
            {"decoder": {**made.CONFIG["model"]["decoder"], "num_hidden_layers": 100_000}},
            "num_hidden_layers is 100000",
        ),
        ({"decoder": {**made.CONFIG["model"]["decoder"], "filename": "other.onnx"}}, "no other.onnx"),
    ],
)
def test_what_doesn_t_go_together_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidModel) as caught:
        facts(folder(**changes))
    assert said in caught.value.message


def test_what_no_engine_runs_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedFormat, match=r"the operator my\.ops\.Twist"):
        facts(folder(decoder(domain="my.ops")))
    with pytest.raises(UnsupportedFormat, match="keys and values in a number format"):
        facts(folder(decoder(kv=TensorProto.DOUBLE)))
    with pytest.raises(UnsupportedArchitecture, match="graphs of its own for pictures"):
        facts(folder(vision={"filename": "vision.onnx"}))
    files = folder()
    files["model.onnx"] = made.encoder().SerializeToString()
    with pytest.raises(UnsupportedArchitecture, match="keeps no keys and values"):
        facts(files)


def test_no_cut_and_no_changed_byte_of_a_graph_ends_in_anything_but_a_sentence() -> None:
    graph = decoder().SerializeToString()
    refused = 0
    for at in range(0, len(graph), 3):
        for data in (graph[:at], graph[:at] + bytes([graph[at] ^ 0xFF]) + graph[at + 1 :]):
            try:
                facts({**folder(), "model.onnx": data})
            except RuntimeFailure:
                refused += 1
    assert refused > len(graph) // 3


def test_of_a_source_the_folder_is_taken_and_no_more_than_it_needs() -> None:
    assert chosen([*folder()]) == tuple(BROUGHT)
    assert chosen([f"cpu/int4/{each}" for each in folder()], "cpu/int4") == tuple(
        f"cpu/int4/{each}" for each in BROUGHT
    )
    assert chosen([f"cpu/int4/{each}" for each in folder()], "*INT4*") == tuple(
        f"cpu/int4/{each}" for each in BROUGHT
    )
    assert chosen([*folder(), "model.json", ".hidden.json"]) == tuple(BROUGHT)
    assert "weights.data" in chosen([*folder(), "weights.data", "data.bin"])
    assert chosen([*encoder_folder()]) == (
        "onnx/model.onnx",
        "1_Pooling/config.json",
        "config.json",
        "modules.json",
        "tokenizer.json",
    )
    named = chosen([*encoder_folder(), "onnx/model_quantized.onnx_data"], "onnx/model_quantized.onnx")
    assert named[0] == "onnx/model_quantized.onnx"
    assert "onnx/model_quantized.onnx_data" in named
    assert "onnx/model.onnx" not in named


def test_where_both_formats_are_the_spec_says_which() -> None:
    both = [*folder(), "m-Q4_0.gguf"]
    assert chosen(both) == ("m-Q4_0.gguf",)
    assert chosen(both, asked=GGUF) == ("m-Q4_0.gguf",)
    assert chosen(both, asked=ONNX) == tuple(BROUGHT)
    with pytest.raises(SourceNotFound, match="has no ONNX model"):
        chosen(["m-Q4_0.gguf"], asked=ONNX)
    with pytest.raises(SourceNotFound, match="no GGUF model"):
        chosen([*folder()], asked=GGUF)


def test_several_folders_or_graphs_are_named() -> None:
    two = [f"{each}/{name}" for each in ("cpu", "cuda") for name in folder()]
    with pytest.raises(SourceInvalid, match="more than one ONNX model: cpu, cuda"):
        chosen(two)
    assert chosen(two, "cuda")[0] == "cuda/model.onnx"
    with pytest.raises(SourceInvalid, match="more than one graph"):
        chosen(["config.json", "a.onnx", "b.onnx"])


def test_a_hub_s_folder_is_fetched_whole_verified_and_pinned(hub: Hub, site: Site, fetch_of: FetchOf) -> None:
    files = {f"cpu/int4/{name}": data for name, data in folder().items()}
    commit = hub.publish("org/m", files)
    uri = "hf://org/m/cpu/int4@main"
    seen = inspect(uri, site)
    fetched = fetch_of(uri).run().model
    assert seen.pin == fetched.facts.pin
    assert seen.pin is not None
    assert seen.pin.revision == commit
    assert seen.model_copy(update={"files": (), "pin": None}) == fetched.facts.model_copy(
        update={"files": (), "pin": None, "sha256": None}
    )
    assert [each.path for each in fetched.facts.files] == BROUGHT
    assert all(each.sha256 for each in fetched.facts.files)
    for each in BROUGHT:
        assert fetched.beside(each).read_bytes() == folder()[each]
    assert not (fetched.path.parent / "README.md").exists()


def test_a_folder_on_a_claim_is_served_where_it_lies(site: Site, tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    write(claim / "models/m", folder())
    at = dataclasses.replace(site, places=dataclasses.replace(site.places, source_dir=claim))
    fetched = Fetch(ModelConfig(name="m", source="pvc://data/models/m"), at).run().model
    assert fetched.facts.format == "ONNX"
    assert fetched.path.resolve() == claim / "models/m/model.onnx"
    assert fetched.beside("model.onnx.data").resolve() == claim / "models/m/model.onnx.data"
    (claim / "models/m/model.onnx.data").unlink()
    (claim / "models/m/model.onnx.data").symlink_to("/etc/hostname")
    with pytest.raises(SourceInvalid, match="leads out of the claim"):
        Fetch(ModelConfig(name="m", source="pvc://data/models/"), at).run()


@pytest.mark.parametrize("packed", [False, True])
def test_an_artifact_in_a_registry_is_a_folder_by_its_blobs_or_by_a_layer(site: Site, packed: bool) -> None:
    with registry_server() as registry:
        _push(registry, packed=packed)
        with open_model(f"oci://{registry.host}/m:1", site) as model:
            assert [each.path for each in model.files] == BROUGHT


def _push(registry: Registry, *, packed: bool) -> None:
    title = "org.opencontainers.image.title"
    if packed:
        layer = tar(*((f"m/{name}", data) for name, data in folder().items()))
        registry.push("m:1", registry.blob(layer, "application/vnd.oci.image.layer.v1.tar"))
        return
    blobs = (
        registry.blob(data, "application/octet-stream", {title: name}) for name, data in folder().items()
    )
    registry.push("m:1", *blobs)


def test_a_local_folder_is_read_where_it_lies(tmp_path: Path) -> None:
    place = write(tmp_path / "m", folder())
    assert inspect_file(place).file_name == "model.onnx"
    assert inspect_file(place / "model.onnx") == inspect_file(place)
    assert inspect_file(write(tmp_path / "e", encoder_folder()) / "onnx/model.onnx").encoder


def test_another_format_than_is_asked_for_is_refused(hub: Hub, fetch_of: FetchOf) -> None:
    hub.publish("org/m", folder())
    with pytest.raises(UnsupportedFormat, match="served in the number formats that its graph has"):
        fetch_of("hf://org/m", quantization="Q4_0").run()
    with pytest.raises(SourceInvalid, match="a model of ONNX is a folder"):
        fetch_of("https://host/model.onnx").run()


def test_what_was_asked_for_before_has_the_key_that_it_had() -> None:
    plain = ModelConfig(name="m", source="hf://org/m")
    keys = {plain.model_copy(update={"format": each}).key for each in (ModelFormat.AUTO, ModelFormat.GGUF)}
    assert keys == {plain.key}
    assert plain.model_copy(update={"format": ModelFormat.ONNX}).key != plain.key
    assert "resident" not in json.dumps(plain.model_dump(mode="json"))
