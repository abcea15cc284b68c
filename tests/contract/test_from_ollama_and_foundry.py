"""docs/from-ollama-and-foundry.md: what stands side by side there is what the command line makes, and nothing is missing."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_slm.others import environment, foundry
from kubectl_slm.others.commands import counterparts
from kubectl_slm.others.converted import Draft
from kubectl_slm.others.foundry.convert import KEYS
from kubectl_slm.others.modelfile import convert
from kubectl_slm.others.modelfile.parameters import KEPT, LEFT_OUT
from kubectl_slm.others.modelfile.parser import INSTRUCTIONS
from tests.unit.kubectl_slm.held import valid

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "from-ollama-and-foundry.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)


def theirs_and_ours(language: str) -> tuple[str, dict[str, Any]]:
    """A block in their language, and the document that follows it."""
    at = next(
        number
        for number, (name, _) in enumerate(BLOCKS)
        if name == language and BLOCKS[number + 1][0] == "yaml"
    )
    return BLOCKS[at][1], yaml.safe_load(BLOCKS[at + 1][1])


def test_the_modelfile_and_its_deployment() -> None:
    modelfile, document = theirs_and_ours("dockerfile")
    converted = convert(modelfile, "assistant")
    assert (converted.document, converted.notes) == (document, ())
    valid(document)


def test_the_variables_and_their_deployment() -> None:
    variables, document = theirs_and_ours("sh")
    draft = Draft()
    draft.put("model.source", "ollama://qwen2.5:3b")
    environment.configure(draft, environment.variables(variables))
    assert draft.converted("qwen2-5-3b").document == document
    valid(document)


def test_the_configuration_and_its_deployment() -> None:
    configuration, document = theirs_and_ours("json")
    draft = Draft()
    foundry.configure(draft, configuration)
    assert draft.converted("phi-4-mini").document == document
    valid(document)


@pytest.mark.parametrize(
    "words",
    [[each.upper() for each in INSTRUCTIONS], KEPT, LEFT_OUT, environment.SETTINGS, KEYS],
    ids=lambda _: "",
)
def test_every_word_of_theirs_has_its_line(words: list[str]) -> None:
    rows = (
        "\n".join(line for line in PAGE.splitlines() if line.startswith("|"))
        + PAGE[PAGE.index("`FOUNDRY_MODEL`") :]
    )
    assert [word for word in words if f"`{word}`" not in rows and f"`{word} " not in rows] == []


def test_the_commands_are_those_that_convert_tells() -> None:
    page = (ROOT / "docs" / "kubectl-slm.md").read_text()
    rows = re.findall(
        r"^\| `((?:ollama|foundry|models|deploy) [^`]+)`.*? \| `(kubectl slm [^`]+)`", page, re.MULTILINE
    )
    assert len(rows) >= 10
    for theirs, ours in rows:
        for told in counterparts(theirs):
            assert told.why.split()[:3] == ours.split()[:3], theirs
