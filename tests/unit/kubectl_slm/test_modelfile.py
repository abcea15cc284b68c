"""Modelfiles: read as Ollama reads them, and made into SLMDeployments."""

from typing import Any

import pytest

from kubectl_slm.others.bounds import BOUNDS, QUANTIZATIONS
from kubectl_slm.others.converted import Converted, NotConverted
from kubectl_slm.others.modelfile import convert, decode, parse
from kubectl_slm.others.modelfile.parameters import KEPT, LEFT_OUT
from slm_contract.config import Quantization
from slm_operator.crd.schema import crd
from slm_runtime.templates.environment import make_environment
from tests.unit.kubectl_slm.held import valid

ASSISTANT = '''FROM qwen2.5:3b
PARAMETER temperature 0.7
PARAMETER top_p 0.9
PARAMETER context_length 4096
PARAMETER num_gpu 1
PARAMETER num_thread 8
SYSTEM """
(several lines)
"""
# Custom model knowledge (optional)
FILE ./contoso_guidelines.txt
FILE ./security_protocols.pdf
'''
WITH_TEMPLATE = '''FROM phi4:mini
TEMPLATE """{{ .System }}
User: {{ .Prompt }}
Assistant: """
'''


def made(text: str, **more: Any) -> tuple[dict[str, Any], list[str]]:
    converted = convert(text, "m", **more)
    return valid(converted.document), [each.sentence for each in converted.notes]


def commands(text: str) -> list[tuple[int, str, str, str]]:
    return [(each.line, each.name, each.key, each.value) for each in parse(text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("SYSTEM plain words  ", "plain words"),
        ('SYSTEM "  kept  "', "  kept  "),
        ('SYSTEM """\na\n\n b"""', "\na\n\n b"),
        ('SYSTEM """a "quoted" word"""', 'a "quoted" word'),
        ('SYSTEM "a\nb"', "a\nb"),
        ('SYSTEM """"""', ""),
        ('SYSTEM ""', ""),
        ("SYSTEM ", ""),
        ("SYSTEM a # no comment", "a # no comment"),
        ("system small letters", "small letters"),
        ("  \t SyStEm \t indented", "indented"),
        ("SYSTEM a\r\n", "a"),
        ("SYSTEM a\u200b\u00a0b\x07", "ab"),
        ("SYSTEM 'single' \"inside\"", "'single' \"inside\""),
        ("SYSTEM grüße 你好👋", "grüße 你好👋"),
    ],
)
def test_a_value_is_read_as_ollama_reads_it(text: str, value: str) -> None:
    assert commands(f"FROM m\n{text}")[1] == (2, "system", "", value)


def test_each_instruction_knows_its_line() -> None:
    text = '# one\n\nFROM m\nTEMPLATE """\n\n"""\n\nPARAMETER stop  "a b"\nMESSAGE user Hi: you\n'
    assert commands(text) == [
        (3, "from", "", "m"),
        (4, "template", "", "\n\n"),
        (8, "parameter", "stop", "a b"),
        (9, "message", "user", "Hi: you"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_may_begin_with_a_byte_order_mark(encoding: str) -> None:
    assert commands(decode("FROM m\nSYSTEM grüße".encode(encoding)))[1][3] == "grüße"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no FROM"),
        ("PARAMETER a 1", "there is no FROM"),
        ("FROM m\nNOTHING x", "line 2: 'NOTHING' is no instruction"),
        ("FROM m\n1", "line 2: '1' is no instruction"),
        ("FROM", "line 1: FROM has no value"),
        ("FROM m\nSYSTEM\n", "line 2: SYSTEM has no value"),
        ("FROM m\nPARAMETER top_k\n", "line 2: PARAMETER has no value"),
        ("FROM m\nPARAMETER  \n", "line 2: a PARAMETER has no name"),
        ("FROM m\nMESSAGE boss do", "line 2: a MESSAGE has no role"),
        ('FROM m\n\nSYSTEM """never', "line 3: the quotes of SYSTEM are never closed"),
        ("FROM m\n" + "#" * (1 << 20), "longer than 1,048,576 characters"),
    ],
)
def test_what_ollama_cant_read_is_told_by_line(text: str, message: str) -> None:
    with pytest.raises(NotConverted) as caught:
        parse(text)
    assert message in caught.value.message
    assert caught.value.remedy.endswith((".", "3b", "0.7"))


def test_the_assistant_of_many_guides() -> None:
    spec, notes = made(ASSISTANT)
    assert spec == {
        "model": {
            "source": "ollama://qwen2.5:3b",
            "prompt": {"parameters": {"temperature": 0.7, "topP": 0.9}, "system": "\n(several lines)\n"},
        },
        "runtime": {"contextLength": 4096, "gpuLayers": 1, "threads": 8},
    }
    assert [each.partition(": ")[0] for each in notes] == ["line 4", "line 5", "line 11", "line 12"]
    assert "num_ctx" in notes[0]
    assert "SYSTEM" in notes[2]


def test_its_template_renders_what_ollama_would() -> None:
    spec, notes = made(WITH_TEMPLATE)
    template = make_environment().from_string(spec["model"]["prompt"]["template"])
    said = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    assert template.render(messages=said) == "S\nUser: Q\nAssistant: "
    assert not notes


@pytest.mark.parametrize("name", KEPT)
def test_every_parameter_that_means_something_is_kept(name: str) -> None:
    path = KEPT[name].path
    value: Any = max(1, int(BOUNDS[path].low))
    spec, _ = made(f"FROM m\nPARAMETER {name} {value}")
    for step in path.split("."):
        spec = spec[step]
    assert spec == value
    left, notes = made(f"FROM m\nPARAMETER {name} 99999999999")
    assert left == {"model": {"source": "ollama://m"}}
    assert notes[0].startswith(f"line 2: PARAMETER {name} 99999999999: spec.{path} takes ")


@pytest.mark.parametrize("name", LEFT_OUT)
def test_every_other_parameter_is_told_by_line(name: str) -> None:
    spec, notes = made(f"FROM m\n\nPARAMETER {name} 1")
    assert spec == {"model": {"source": "ollama://m"}}
    assert notes == [f"line 3: PARAMETER {name} 1: {LEFT_OUT[name]}"]


@pytest.mark.parametrize(
    ("parameters", "spec", "notes"),
    [
        ("num_gpu 0", {"hardware": {"preference": ["cpu"]}}, 0),
        ("num_gpu 00", {}, 1),
        ("num_gpu -1", {}, 1),
        ("num_gpu 20", {"runtime": {"gpuLayers": 20}}, 1),
        ("num_thread 0", {}, 1),
        ("num_predict -1", {}, 1),
        ("temperature hot", {}, 1),
        ("temperature nan", {}, 1),
        ("num_ctx 4096.5", {}, 1),
        ("num_ctx 1e400", {}, 1),
        ("unheard_of 1", {}, 1),
    ],
)
def test_values_that_mean_the_default_or_nothing(parameters: str, spec: dict[str, Any], notes: int) -> None:
    found, told = made(f"FROM m\nPARAMETER {parameters}")
    assert found == {"model": {"source": "ollama://m"}, **spec}
    assert len(told) == notes


def test_stops_add_up_and_are_bounded() -> None:
    text = "FROM m\n" + "".join(f'PARAMETER stop "<{number}>"\n' for number in (*range(20), 3))
    spec, notes = made(text)
    assert spec["model"]["prompt"]["stop"] == [f"<{number}>" for number in range(16)]
    assert len(notes) == 5
    assert "16 texts" in notes[0]


@pytest.mark.parametrize(
    ("named", "source", "quantization"),
    [
        ("llama3.2", "ollama://llama3.2", None),
        ("phi4:mini-q4_k_m", "ollama://phi4:mini-q4_k_m", None),
        ("registry.example:5000/team/m:1b", "ollama://registry.example:5000/team/m:1b", None),
        ("hf.co/org/repo-GGUF", "hf://org/repo-GGUF", "Q4_K_M"),
        ("huggingface.co/org/repo-GGUF:q8_0", "hf://org/repo-GGUF", "Q8_0"),
        ("hf.co/org/repo-GGUF:IQ2_M", "hf://org/repo-GGUF/*IQ2_M*.gguf", None),
        ("hf://org/repo/m.gguf@main", "hf://org/repo/m.gguf@main", None),
        ("https://host/path/m.gguf", "https://host/path/m.gguf", None),
        ("pvc://claim/m.gguf", "pvc://claim/m.gguf", None),
        ('"m"', "ollama://m", None),
    ],
)
def test_from_names_a_source(named: str, source: str, quantization: str | None) -> None:
    spec, notes = made(f"FROM {named}")
    assert spec["model"] == {"source": source, **({"quantization": quantization} if quantization else {})}
    assert not notes


@pytest.mark.parametrize(
    ("named", "remedy"),
    [
        ("./model.gguf", "pvc://claim/path/file.gguf"),
        ("/models/m", "pvc://claim/path/file.gguf"),
        ("~/m", "pvc://claim/path/file.gguf"),
        ("model.gguf", "pvc://claim/path/file.gguf"),
        ("C:\\models\\m.gguf", "pvc://claim/path/file.gguf"),
        ("/root/.ollama/models/blobs/sha256-" + "0" * 64, "the comment above it"),
        ("two words", "rite ollama://name:tag"),
        ("ftp://host/m.gguf", "rite https://..."),
        ("https://host", "rite https://host/path/model.gguf"),
    ],
)
def test_what_no_pod_can_reach_is_told_with_what_to_write(named: str, remedy: str) -> None:
    with pytest.raises(NotConverted) as caught:
        convert(f"# c\nFROM {named}", "m")
    assert caught.value.message.startswith("line 2: ")
    assert remedy in caught.value.remedy
    spec, _ = made(f"FROM {named}", source="pvc://claim/m.gguf")
    assert spec["model"]["source"] == "pvc://claim/m.gguf"


def test_messages_are_turns_before_every_conversation() -> None:
    spec, notes = made(
        'FROM m\nMESSAGE user "Is 7 prime?"\nMESSAGE assistant yes\nMESSAGE system Be brief.\n'
        'SYSTEM Be kind.\nMESSAGE user ""'
    )
    assert spec["model"]["prompt"] == {
        "messages": [{"role": "user", "content": "Is 7 prime?"}, {"role": "assistant", "content": "yes"}],
        "system": "Be kind.\n\nBe brief.",
    }
    assert [each.split(":")[0] for each in notes] == ["line 4", "line 6"]


def test_the_other_instructions() -> None:
    text = """FROM a
FROM b
ADAPTER hf://org/lora/l.gguf
LICENSE MIT
LICENSE and more
REQUIRES 0.14.0
RENDERER qwen3
PARSER qwen3
"""
    converted: Converted = convert(text, "m")
    spec = valid(converted.document)
    assert spec["model"] == {
        "source": "ollama://b",
        "adapters": [{"name": "adapter-1", "source": "hf://org/lora/l.gguf"}],
    }
    assert converted.document["metadata"]["annotations"] == {"slm-operator.io/license": "MIT\n\nand more"}
    assert [each.line for each in converted.notes] == [1, 3, 6, 7, 8]


@pytest.mark.parametrize("named", ["./lora.gguf", "pvc://claim/l.gguf", "catalog://x", "ollama-name"])
def test_an_adapter_that_no_pod_can_reach(named: str) -> None:
    with pytest.raises(NotConverted, match="line 2: ADAPTER"):
        convert(f"FROM m\nADAPTER {named}", "m")


@pytest.mark.parametrize(
    ("template", "line", "why"),
    [
        ("{{ .Prompt }}", 2, "passes the prompt through"),
        ("a\nb {{ yesterdayDate }}", 3, "'yesterdayDate' has no counterpart"),
        ("{{ range .Messages }}{{ .Content }}{{ end }}" + "x" * 17000, 2, "16,384"),
    ],
)
def test_a_template_that_cant_be_kept_is_told_by_line(template: str, line: int, why: str) -> None:
    spec, notes = made(f'FROM m\nTEMPLATE """{template}"""')
    assert spec == {"model": {"source": "ollama://m"}}
    assert notes[0].startswith(f"line {line}: TEMPLATE")
    assert why in notes[0]


def test_a_system_message_that_is_too_long_is_no_loss_in_silence() -> None:
    with pytest.raises(NotConverted, match="line 2: the system message has 9,000 characters"):
        convert(f"FROM m\nSYSTEM {'x' * 9000}", "m")


def test_the_last_system_message_and_template_count() -> None:
    spec, _ = made("FROM m\nSYSTEM one\nSYSTEM two")
    assert spec["model"]["prompt"] == {"system": "two"}


def test_the_bounds_are_those_of_the_schema() -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for path, bounds in BOUNDS.items():
        place = schema
        for step in path.split("."):
            place = place["properties"][step]
        assert (place["minimum"], place["maximum"]) == (bounds.low, bounds.high), path
        assert (place["type"] == "integer") is bounds.whole, path
    assert list(QUANTIZATIONS) == [each.value for each in Quantization]
