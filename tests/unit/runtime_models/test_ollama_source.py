"""Models in Ollama's registry, and what their Modelfiles say of prompts."""

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from slm_contract.config import ModelConfig, PromptConfig, PromptMessage, PromptParameters
from slm_contract.gotemplate import translate
from slm_contract.places import FETCH_ENV
from slm_contract.source import FetchConfig, Mirror
from slm_runtime.errors import (
    ChecksumMismatch,
    InvalidModel,
    RuntimeFailure,
    SourceDrifted,
    SourceInvalid,
    SourceNotFound,
    UnsupportedFormat,
)
from slm_runtime.fetching.fetch import Fetch
from slm_runtime.fetching.inspect import inspect
from slm_runtime.models.folder import ModelFolder
from slm_runtime.models.sources.asked import Asked
from slm_runtime.models.sources.ollama import _parse
from slm_runtime.models.sources.resolve import open_model
from slm_runtime.models.sources.site import Site
from tests.support.gguf import TinyLora
from tests.support.registry import DOCKER_MANIFEST, Answer, Descriptor, Registry, registry_server
from tests.unit.runtime_models.conftest import FetchOf

KIND = "application/vnd.ollama.image."


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registry_server() as server:
        server.redirects = True
        yield server


def push(registry: Registry, name: str, model: bytes, **layers: bytes) -> str:
    described = [registry.blob(data, KIND + kind) for kind, data in {"model": model, **layers}.items()]
    return registry.push(name, *described, media_type=DOCKER_MANIFEST)


def refusal(uri: str, site: Site, revision: str | None = None) -> RuntimeFailure:
    with pytest.raises(RuntimeFailure) as caught, open_model(uri, site, Asked(revision)):
        pass
    return caught.value


def prompt(registry: Registry, site: Site, **layers: bytes) -> PromptConfig | None:
    push(registry, "library/m:latest", b"GGUF", **layers)
    with open_model(f"ollama://{registry.host}/library/m", site) as model:
        return model.prompt


def test_a_model_is_fetched_with_what_its_modelfile_says(
    registry: Registry, site: Site, fetch_of: FetchOf, tiny: bytes
) -> None:
    parameters = {
        "temperature": 0.25,
        "top_k": 7,
        "top_p": 0.75,
        "min_p": 0.125,
        "typical_p": 0.5,
        "repeat_penalty": 1.5,
        "repeat_last_n": 16,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "seed": 11,
        "num_predict": 2,
        "stop": ["<|im_end|>", "END"],
        "num_ctx": 4096,
        "num_gpu": 99,
    }
    push(
        registry,
        "library/tiny:135m",
        tiny,
        system=b"Be kind.",
        template=b"{{ .Prompt }}",
        params=json.dumps(parameters).encode(),
        messages=json.dumps(
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
        ).encode(),
        license=b"Do as you like",
    )
    uri = f"ollama://{registry.host}/library/tiny:135m"
    fetched = fetch_of(uri).run().model
    expected = PromptConfig(
        system="Be kind.",
        stop=("<|im_end|>", "END"),
        parameters=PromptParameters(
            temperature=0.25,
            top_k=7,
            top_p=0.75,
            min_p=0.125,
            typical_p=0.5,
            repeat_penalty=1.5,
            repeat_last_n=16,
            frequency_penalty=0.5,
            presence_penalty=-0.5,
            seed=11,
            max_tokens=2,
        ),
        messages=(PromptMessage(role="user", content="Hi"), PromptMessage(role="assistant", content="Yo")),
    )
    assert (fetched.path.name, fetched.prompt) == ("tiny-135m.gguf", expected)
    assert fetched.path.read_bytes() == tiny
    left = ModelFolder(site.places.model_dir, ModelConfig(name="m", source=uri)).require()
    assert left.prompt == expected
    assert {each.authorization for each in registry.asked} == {None}


def test_other_words_with_the_same_weights_are_another_model(
    registry: Registry, site: Site, tiny: bytes
) -> None:
    """Else a volume that has the weights would go on with what was said with them first."""
    uri = f"ollama://{registry.host}/library/m"
    fetched = []
    for system in (b"Be kind.", b"Be brief."):
        push(registry, "library/m:latest", tiny, system=system)
        with open_model(uri, site) as model:
            config = ModelConfig(name="m", source=uri, pin=model.pin)
        fetched.append(Fetch(config, site).run())
    assert [each.model.prompt and each.model.prompt.system for each in fetched] == ["Be kind.", "Be brief."]
    assert not any(each.cached for each in fetched)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"temperature": 9}, None),
        ({"temperature": "hot", "top_k": 3}, PromptParameters(top_k=3)),
        ({"num_predict": -1, "seed": -5, "top_p": 2}, None),
        ({"temperature": 0, "repeat_last_n": -1}, PromptParameters(temperature=0, repeat_last_n=-1)),
        ({"num_ctx": 8192, "mirostat": 2, "unheard_of": {}}, None),
        ({"temperature": None, "top_k": [1], "min_p": {}}, None),
        ({"top_k": 10**400, "repeat_penalty": math.inf, "temperature": math.nan}, None),
    ],
)
def test_what_cant_be_is_left_out(
    registry: Registry, site: Site, said: dict[str, object], kept: PromptParameters | None
) -> None:
    found = prompt(registry, site, params=json.dumps(said).encode())
    assert found == (None if kept is None else PromptConfig(parameters=kept))


@pytest.mark.parametrize(
    "params", [b"no json", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"stop": 5}', b'{"stop": [""]}']
)
def test_parameters_that_are_none(registry: Registry, site: Site, params: bytes) -> None:
    assert prompt(registry, site, params=params) is None


def test_one_stop_string_is_a_list_of_one(registry: Registry, site: Site) -> None:
    assert prompt(registry, site, params=b'{"stop": "END"}') == PromptConfig(stop=("END",))


def test_a_system_message_that_isnt_what_its_digest_says(registry: Registry, site: Site) -> None:
    system: Descriptor = registry.blob(b"Be kind.", KIND + "system")
    registry.push("library/m:latest", registry.blob(b"GGUF", KIND + "model"), system)
    registry.spoil(system["digest"], b"Be evil.")
    assert isinstance(refusal(f"ollama://{registry.host}/library/m", site), ChecksumMismatch)


@pytest.mark.parametrize(
    ("uri", "host", "repository", "tag"),
    [
        ("ollama://smollm2", "registry.ollama.ai", "library/smollm2", "latest"),
        ("ollama://smollm2:135m", "registry.ollama.ai", "library/smollm2", "135m"),
        ("ollama://library/smollm2:135m", "registry.ollama.ai", "library/smollm2", "135m"),
        ("ollama://me/smollm2", "registry.ollama.ai", "me/smollm2", "latest"),
        ("ollama://hf.co/me/Smol-GGUF:Q4_K_M", "hf.co", "me/Smol-GGUF", "Q4_K_M"),
        ("ollama://host:5000/smollm2", "host:5000", "library/smollm2", "latest"),
        ("ollama://localhost/smollm2:x", "localhost", "library/smollm2", "x"),
        ("ollama://host.example/smollm2", "host.example", "library/smollm2", "latest"),
    ],
)
def test_names_are_read_as_ollama_reads_them(uri: str, host: str, repository: str, tag: str) -> None:
    found = _parse(uri)
    assert (found.host, found.repository, found.tag) == (host, repository, tag)


@pytest.mark.parametrize(
    "uri",
    [
        "ollama://",
        "ollama:///",
        "ollama://a b",
        "ollama://name:",
        "ollama://host/..",
        "ollama://user@host/a/b",
        f"ollama://name@sha256:{'0' * 64}",
        "ollama://name#file",
        "ollama://name?x",
    ],
)
def test_names_that_are_none(uri: str, site: Site) -> None:
    assert isinstance(refusal(uri, site), SourceInvalid)


def test_a_file_gets_a_name_that_it_may_have(registry: Registry, site: Site) -> None:
    push(registry, "library/m:_x", b"GGUF")
    with open_model(f"ollama://{registry.host}/library/m:_x", site) as model:
        assert [each.path for each in model.files] == ["m-_x.gguf"]


def test_an_adapter_is_a_part_of_the_model(
    registry: Registry, fetch_of: FetchOf, site: Site, tiny: bytes, tmp_path: Path
) -> None:
    adapter = TinyLora().write(tmp_path / "lora.gguf").read_bytes()
    push(registry, "library/m:latest", tiny, adapter=adapter)
    source = f"ollama://{registry.host}/library/m"
    model = fetch_of(source).run().model
    assert model.facts.own_adapters == ("m-latest-adapter-1.gguf",)
    assert model.beside("m-latest-adapter-1.gguf").read_bytes() == adapter
    assert model.path.read_bytes() == tiny
    looked_at = inspect(source, site)
    assert looked_at.own_adapters == model.facts.own_adapters
    assert looked_at.pin == model.facts.pin
    push(registry, "library/alone:latest", tiny)
    alone = inspect(f"ollama://{registry.host}/library/alone", site)
    weights = sum(a.nbytes + b.nbytes for a, b in TinyLora().pairs().values())
    assert model.facts.weights_bytes - alone.weights_bytes == pytest.approx(weights, abs=1024)


@pytest.mark.parametrize("architecture", ["qwen2", None], ids=["of another model", "a model"])
def test_what_is_no_adapter_of_the_model_is_refused(
    registry: Registry, fetch_of: FetchOf, tiny: bytes, tmp_path: Path, architecture: str | None
) -> None:
    other = tiny
    if architecture is not None:
        other = TinyLora().write(tmp_path / "lora.gguf", architecture=architecture).read_bytes()
    push(registry, "library/m:latest", tiny, adapter=other)
    fetch: Fetch = fetch_of(f"ollama://{registry.host}/library/m")
    with pytest.raises(InvalidModel, match="no adapter of the model it comes with"):
        fetch.run()
    assert not list(fetch.folder.path.glob("*.gguf"))


def test_a_projector_is_left_out_with_a_word(
    registry: Registry, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "slm.source"):
        assert prompt(registry, site, projector=b"GGUF", template=b"{{ .Prompt }}") is None
    told = [record.message.split()[1] for record in caplog.records if record.name == "slm.source"]
    assert told == ["projector"]


def test_a_template_is_taken_over_as_a_chat_template(registry: Registry, site: Site) -> None:
    go = "{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}<assistant>"
    found = prompt(registry, site, template=go.encode())
    assert found == PromptConfig(template=translate(go))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (b"{{ .Prompt }}", []),
        (b"{{ .Prompt }}{{ .Response }}", []),
        (b"a\n{{ yesterdayDate }}", ["line 2: the function 'yesterdayDate' has no counterpart"]),
        (b"\xff{{", ["line 1: a {{ has no }}"]),
    ],
)
def test_with_another_template_the_models_own_counts(
    registry: Registry, site: Site, caplog: pytest.LogCaptureFixture, template: bytes, words: list[str]
) -> None:
    with caplog.at_level(logging.INFO, "slm.source"):
        assert prompt(registry, site, template=template) is None
    told = [vars(record)["fields"]["reason"] for record in caplog.records if record.name == "slm.source"]
    assert told == words


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "boss"},
                7,
            ],
            PromptConfig(
                system="Be kind.\n\nBe brief.", messages=(PromptMessage(role="user", content="Hi"),)
            ),
        ),
        ([], PromptConfig(system="Be kind.")),
        ({"role": "user"}, PromptConfig(system="Be kind.")),
        ([{"role": "user", "content": None}], PromptConfig(system="Be kind.")),
    ],
)
def test_messages_are_turns_before_every_conversation(
    registry: Registry, site: Site, said: object, kept: PromptConfig
) -> None:
    assert prompt(registry, site, system=b"Be kind.", messages=json.dumps(said).encode()) == kept
    assert prompt(registry, site, system=b"Be kind.", messages=b"{[") == PromptConfig(system="Be kind.")


def test_a_model_that_is_no_gguf_file(registry: Registry, site: Site) -> None:
    registry.push("library/m:latest", registry.blob(b"{}", KIND + "tensor"))
    failure = refusal(f"ollama://{registry.host}/library/m", site)
    assert isinstance(failure, UnsupportedFormat)
    assert KIND + "tensor" in failure.message
    assert isinstance(refusal(f"ollama://{registry.host}/library/other", site), SourceNotFound)


def test_a_pinned_model_stays_when_its_tag_moves(registry: Registry, site: Site) -> None:
    uri = f"ollama://{registry.host}/library/m"
    old = push(registry, "library/m:latest", b"GGUF, old")
    manifest = registry.manifest(f"library/m:{old}")
    new = push(registry, "library/m:latest", b"GGUF, new")
    for revision, size in ((old, len(b"GGUF, old")), (new, len(b"GGUF, new"))):
        with open_model(uri, site, Asked(revision)) as model:
            assert (model.revision, model.files[0].artifact.payload.size) == (revision, size)
    # Ollama's own registry has it as a blob, and as nothing else.
    registry.delete("library/m", old)
    registry.blob(manifest)
    with open_model(uri, site, Asked(old)) as model:
        assert model.revision == old
    registry.instead[f"/v2/library/m/blobs/{old}"] = Answer(404)
    assert isinstance(refusal(uri, site, old), SourceDrifted)


@pytest.mark.parametrize(
    ("source", "mirror"),
    [
        ("ollama://", "ollama://HOST/"),
        ("ollama://", "oci://HOST/"),
        ("ollama://registry.ollama.ai/", "ollama://HOST/"),
        ("ollama://", "http://HOST"),
        ("https://registry.ollama.ai/", "http://HOST/"),
    ],
)
def test_mirrors_of_ollamas_registry(
    registry: Registry, site: Site, environment: dict[str, str], source: str, mirror: str
) -> None:
    push(registry, "library/m:latest", b"GGUF")
    stands = Mirror(source=source, mirror=mirror.replace("HOST", registry.host))
    environment[FETCH_ENV] = FetchConfig(mirrors=(stands,), hosts=("127.0.0.1",)).to_json()
    with open_model("ollama://m", site) as model:
        assert [each.path for each in model.files] == ["m-latest.gguf"]
