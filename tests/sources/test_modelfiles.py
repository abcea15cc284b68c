"""Ollama's own readers are the judges: of every template that it brings, of ours, and of its own tests' Modelfiles."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_slm.others.converted import NotConverted
from kubectl_slm.others.modelfile import parse
from slm_contract.gotemplate import translate
from slm_runtime.templates.environment import make_environment
from tests.cluster import gotoolchain, tools
from tests.cluster.commands import run
from tests.support.go_templates import CONVERSATIONS, STORED, TOOLS, for_ollama, stored

Ask = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    process = subprocess.Popen(
        [tools.ollama_reads.path()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def asked(question: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer

    with process:
        yield asked
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def theirs() -> Path:
    module = tools.MODULES / "ollama-reads"
    listed = run(
        [gotoolchain.go(), "list", "-m", "-f", "{{.Dir}}", "github.com/ollama/ollama"],
        cwd=module,
        env=gotoolchain.environment(),
    )
    return Path(listed.strip())


def texts(ask: Ask, template: str) -> dict[str, str]:
    """What Ollama makes of it, by conversation."""
    found = {}
    for name, messages in CONVERSATIONS.items():
        for offered in (None, TOOLS):
            answer = ask({"template": template, "messages": for_ollama(messages), "tools": offered})
            assert not answer["Error"], (name, answer["Error"])
            found[f"{name}{' + tools' if offered else ''}"] = answer["Text"]
    return found


def translated(template: str) -> dict[str, str]:
    ours = make_environment().from_string(translate(template))
    return {
        f"{name}{' + tools' if offered else ''}": ours.render(messages=messages, tools=offered)
        for name, messages in CONVERSATIONS.items()
        for offered in (None, TOOLS)
    }


def test_every_template_that_ollama_brings_renders_the_same(ask: Ask, theirs: Path) -> None:
    templates = sorted((theirs / "template").glob("*.gotmpl"))
    assert len(templates) >= 20
    for path in templates:
        template = path.read_bytes().decode().replace("\r\n", "\n")
        assert translated(template) == texts(ask, template), path.name


def test_what_is_stored_of_go_is_what_go_says(ask: Ask) -> None:
    """`SLM_GO_TEMPLATES=write` stores it anew."""
    now = {
        name: {"template": each["template"], "texts": texts(ask, each["template"])}
        for name, each in stored().items()
    }
    if os.environ.get("SLM_GO_TEMPLATES") == "write":
        STORED.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")
    assert stored() == now


def test_its_own_tests_modelfiles_are_read_alike(ask: Ask, theirs: Path) -> None:
    source = (theirs / "parser" / "parser_test.go").read_text()
    quoted = [
        json.loads(each)
        for each in re.findall(r'"(?:[^"\\\n]|\\.)*"', source)
        if "FROM" in each or "PARAM" in each
    ]
    modelfiles = [*re.findall(r"`([^`]*)`", source), *quoted]
    parameters = re.findall(r'^\t\t("(?:[^"\\]|\\.)*"): +\{"', source, re.MULTILINE)
    modelfiles += ["FROM foo\nPARAMETER " + json.loads(each) + "\n" for each in parameters]
    read = 0
    for text in modelfiles:
        answer = ask({"modelfile": text})
        if answer["Error"]:
            # What it can't read we can't either, but for the instruction that people write all the same.
            with pytest.raises(NotConverted):
                parse(text)
            continue
        read += 1
        assert [_as_ollama_has_it(each.name, each.key, each.value) for each in parse(text)] == [
            (each["Name"], each["Args"]) for each in answer["Commands"]
        ]
    assert read >= 50


def _as_ollama_has_it(name: str, key: str, value: str) -> tuple[str, str]:
    if name == "message":
        return name, f"{key}: {value}"
    return {"from": "model", "parameter": key}.get(name, name), value
