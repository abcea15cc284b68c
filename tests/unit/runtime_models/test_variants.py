"""Sources that have one model in several number formats: which is taken, and that it is the same one later."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig, Quantization
from slm_contract.source import SourcePin
from slm_runtime.errors import RuntimeFailure, SourceDrifted, SourceInvalid, SourceNotFound
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.remote import RemoteModel
from slm_runtime.models.sources.resolve import open_as_pinned, open_model
from slm_runtime.models.sources.shards import Listed, choose
from slm_runtime.models.sources.site import Site
from slm_runtime.models.sources.variants import format_of
from tests.support.hub import Hub
from tests.support.registry import DOCKER_MANIFEST, Registry, registry_server
from tests.unit.runtime_models.hub_cases import paths

F16, Q8_0, Q4_K_M, Q4_0, Q3_K_M = (Quantization(name) for name in ("F16", "Q8_0", "Q4_K_M", "Q4_0", "Q3_K_M"))
SHARDS = ("f16/m-f16-00001-of-00002.gguf", "f16/m-f16-00002-of-00002.gguf")
REPOSITORY = {
    "README.md": b"#",
    "m-q4_k_m.gguf": b"GGUF four",
    "m-Q8_0.gguf": b"GGUF eight",
    "mmproj-F16.gguf": b"GGUF projector",
    **{path: b"GGUF" + path.encode() for path in SHARDS},
}
FILES = [Listed(path, len(data)) for path, data in REPOSITORY.items()]


def strictly(wanted: Quantization) -> Asked:
    return Asked(formats=(wanted,), strict=True)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("m-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-3b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("m.i1-IQ4_XS.gguf", "IQ4_XS"),
        ("m.Q8_0.gguf", "Q8_0"),
        ("m-fp16.gguf", "F16"),
        ("m-bf16.gguf", "BF16"),
        ("BF16/m-BF16-00001-of-00002.gguf", "BF16"),
        ("Q6_K/m-00001-of-00002.gguf", "Q6_K"),
        ("m-UD-Q4_K_M.gguf", "UD-Q4_K_M"),
        ("m-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("m-f16-Q8_0.gguf", "Q8_0"),
        ("Q4_K_M/m-Q8_0.gguf", "Q8_0"),
        ("qwen3-4b.gguf", None),
        ("faq8_0.gguf", None),
        ("m.gguf", None),
    ],
)
def test_the_format_that_a_name_says(path: str, name: str | None) -> None:
    assert format_of(path) == name


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (strictly(Q4_K_M), ("m-q4_k_m.gguf",)),
        (strictly(Q8_0), ("m-Q8_0.gguf",)),
        (strictly(F16), SHARDS),
        (strictly(Q4_0), SHARDS),
        (Asked(formats=(Q4_0, Q4_K_M)), SHARDS),
        (Asked(formats=(Q4_K_M, Q4_0)), ("m-q4_k_m.gguf",)),
    ],
    ids=["its file", "another", "its shards", "what it is derived of", "derived, as preferred", "there"],
)
@pytest.mark.parametrize("path", [None, "*m-*"])
def test_one_is_chosen_by_its_format(path: str | None, asked: Asked, chosen: tuple[str, ...]) -> None:
    found = choose(FILES, path, "hf://o/r", asked)
    assert (found.paths, found.variant) == (chosen, chosen[0])
    assert found.offered == ("F16", "Q4_K_M", "Q8_0")


def test_without_sixteen_bits_it_is_derived_of_eight() -> None:
    few = [each for each in FILES if each.path not in SHARDS]
    assert choose(few, None, "hf://o/r", strictly(Q4_0)).paths == ("m-Q8_0.gguf",)


@pytest.mark.parametrize("asked", [strictly(Q8_0), Asked(formats=(Q4_K_M,))])
def test_a_file_that_is_named_or_the_only_one_is_taken_whatever_its_name(asked: Asked) -> None:
    assert choose(FILES, SHARDS[0], "hf://o/r", asked).paths == SHARDS
    assert choose([Listed("m.gguf")], None, "hf://o/r", asked).paths == ("m.gguf",)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (strictly(Q8_0), "has no Q8_0, and nothing that it could be derived of"),
        (Asked(formats=(Q8_0, F16)), "has none of the formats that are chosen from"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(asked: Asked, words: str) -> None:
    files = [Listed("m-Q4_K_M.gguf", 1 << 20), Listed("m-Q2_K.gguf", 1 << 19)]
    with pytest.raises(SourceNotFound) as caught:
        choose(files, None, "hf://o/r", asked)
    assert words in caught.value.message
    assert "its models are m-Q2_K.gguf (0.5 MiB), m-Q4_K_M.gguf (1.0 MiB)" in caught.value.message


def test_names_of_strangers_are_no_longer_than_a_report_may_be() -> None:
    files = [Listed(f"m-Q4_{letter * 200}.gguf") for letter in "abc"]
    files += [Listed(f"m-Q4_{number}.gguf") for number in range(100)]
    offered = choose(files, None, "hf://o/r", strictly(Q4_0)).offered
    assert len(offered) == 16
    assert max(map(len, offered)) < 16


def test_a_path_that_no_pin_holds_is_not_chosen() -> None:
    files = [Listed(f"{'d' * 240}/m-Q8_0.gguf"), Listed("m-Q4_0.gguf")]
    with pytest.raises(SourceNotFound, match="has no Q8_0"):
        choose(files, None, "hf://o/r", strictly(Q8_0))


def test_two_of_one_format_are_told_apart() -> None:
    files = [Listed("a-Q8_0.gguf"), Listed("b-Q8_0.gguf"), Listed("a-Q4_0.gguf")]
    with pytest.raises(
        SourceInvalid, match=r"more than one model to make Q8_0 of: a-Q8_0\.gguf, b-Q8_0\.gguf"
    ):
        choose(files, None, "hf://o/r", strictly(Q8_0))


# The sources.


def names(model: RemoteModel) -> list[str]:
    return [each.path for each in model.files]


def pinned(uri: str, asked: Asked, site: Site, **config: object) -> ModelConfig:
    """A model as the operator writes it when it was looked at."""
    with open_model(uri, site, asked) as model:
        pin = model.pin
    return ModelConfig(name="m", source=uri, quantization=asked.formats[0], pin=pin, **config)  # type: ignore[arg-type]


def test_a_hub_s_variant_is_pinned_by_its_file_and_asked_for_by_its_address(hub: Hub, site: Site) -> None:
    commit = hub.publish("org/repo", REPOSITORY)
    model = pinned("hf://org/repo", strictly(F16), site)
    assert model.pin is not None
    assert (model.pin.revision, model.pin.path) == (commit, SHARDS[0])
    hub.publish("org/repo", {**REPOSITORY, "other-f16.gguf": b"GGUF other"})
    before = len(hub.asked)
    with open_as_pinned(model, site) as found:
        assert names(found) == [path.rpartition("/")[2] for path in SHARDS]
        assert found.pin == model.pin
    assert not any("/api/" in each for each in paths(hub)[before:]), "nothing is listed to choose from again"


def test_another_variant_beside_the_chosen_one_is_no_drift(hub: Hub, site: Site) -> None:
    hub.publish("org/repo", {path: data for path, data in REPOSITORY.items() if path != "m-Q8_0.gguf"})
    model = pinned("hf://org/repo", strictly(Q4_K_M), site)
    hub.publish("org/repo", REPOSITORY)
    with open_model("hf://org/repo", site, Asked.by(model)) as found:
        assert model.pin is not None
        assert found.pin.digest == model.pin.digest


def test_a_claim_s_variant_stays_the_chosen_one(site: Site, tmp_path: Path) -> None:
    claim = tmp_path / "claim"
    site = dataclasses.replace(site, places=dataclasses.replace(site.places, source_dir=claim))
    for path, data in REPOSITORY.items():
        (claim / path).parent.mkdir(parents=True, exist_ok=True)
        (claim / path).write_bytes(data)
    model = pinned("pvc://models", strictly(Q4_0), site)
    (claim / "m-Q4_0.gguf").write_bytes(b"GGUF newer")
    with open_as_pinned(model, site) as found:
        assert names(found) == [path.rpartition("/")[2] for path in SHARDS]
        assert found.pin == model.pin
    for path in SHARDS:
        (claim / path).unlink()
    with (
        pytest.raises(SourceDrifted, match=r"has no f16/m-f16-00001-of-00002\.gguf any more"),
        open_as_pinned(model, site),
    ):
        pass


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registry_server() as server:
        yield server


def test_an_artifact_s_variant(registry: Registry, site: Site) -> None:
    titled = [
        registry.blob(data, annotations={"org.opencontainers.image.title": path})
        for path, data in REPOSITORY.items()
    ]
    uri, digest = f"oci://{registry.host}/team/m:v1", registry.push("team/m:v1", *titled)
    model = pinned(uri, strictly(Q8_0), site)
    assert model.pin is not None
    assert (model.pin.revision, model.pin.path) == (digest, "m-Q8_0.gguf")
    registry.push("team/m:v1", titled[0])
    with open_as_pinned(model, site) as found:
        assert (names(found), found.pin) == (["m-Q8_0.gguf"], model.pin)


# Ollama's tags.

KIND = "application/vnd.ollama.image."


def push(registry: Registry, tag: str, name: str | None, family: str = "llama", size: str = "1.2B") -> str:
    """A tag whose configuration says what it is; None: it says nothing."""
    said = {} if name is None else {"model_family": family, "model_type": size, "file_type": name}
    config = registry.blob(json.dumps(said).encode(), "application/vnd.docker.container.image.v1+json")
    layer = registry.blob(f"GGUF {tag}".encode(), KIND + "model")
    return registry.push(f"library/m:{tag}", layer, media_type=DOCKER_MANIFEST, config=config)


@pytest.mark.parametrize(
    ("tag", "wanted", "chosen"),
    [
        ("1b", Q4_K_M, "1b"),
        ("1b", Q8_0, "1b-instruct-q8_0"),
        ("1b", Q4_0, "1b-instruct-fp16"),
        ("latest", Q8_0, "q8_0"),
        ("1b-instruct-q4_K_M", Q8_0, "1b-instruct-q8_0"),
        ("1b-instruct-q8_0", Q4_0, "1b-instruct-fp16"),
    ],
)
def test_ollama_has_formats_under_tags(
    registry: Registry, site: Site, tag: str, wanted: Quantization, chosen: str
) -> None:
    for each, name in (
        ("latest", "Q4_K_M"),
        ("1b", "Q4_K_M"),
        ("1b-instruct-q4_K_M", "Q4_K_M"),
        ("1b-instruct-q8_0", "Q8_0"),
        ("1b-instruct-fp16", "F16"),
        ("q8_0", "Q8_0"),
    ):
        push(registry, each, name)
    # One of that name, and of another model.
    push(registry, "1b-q8_0", "Q8_0", size="8.0B")
    uri = f"ollama://{registry.host}/library/m:{tag}"
    model = pinned(uri, strictly(wanted), site)
    with open_as_pinned(model, site) as found:
        assert names(found) == [f"m-{chosen}.gguf"]
        assert found.pin == model.pin
    assert model.pin == SourcePin(
        revision=found.revision, digest=found.pin.digest, path=None if chosen == tag else chosen
    )
    push(registry, chosen, "Q8_0", family="other")
    with open_as_pinned(model, site) as found:
        assert found.pin == model.pin, "what was pinned is asked for by its digest"


def test_a_format_that_ollama_has_not(registry: Registry, site: Site) -> None:
    push(registry, "1b", "Q4_K_M")
    uri = f"ollama://{registry.host}/library/m:1b"
    with pytest.raises(RuntimeFailure) as caught, open_model(uri, site, strictly(Q8_0)):
        pass
    assert isinstance(caught.value, SourceNotFound)
    assert "is Q4_K_M, and has no Q8_0 under the tags" in caught.value.message
    assert "1b-q8_0, 1b-instruct-q8_0" in caught.value.message
    with open_model(uri, site, Asked(formats=(Q8_0, Q3_K_M))) as found:
        assert names(found) == ["m-1b.gguf"], "Auto serves what there is, and says so"


def test_a_tag_that_says_nothing_is_looked_at_itself(registry: Registry, site: Site) -> None:
    push(registry, "1b", None)
    registry.put("library/m:odd", {"schemaVersion": 2, "layers": [], "config": "?"})
    with open_model(f"ollama://{registry.host}/library/m:1b", site, strictly(Q8_0)) as found:
        assert (names(found), found.variant) == (["m-1b.gguf"], None)
