"""The program as it is started: what it imports, in one file, completed by kubectl, of another version than the cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_slm.__main__ import VERBS, main
from kubectl_slm.completion import candidates
from kubectl_slm.errors import Exit
from kubectl_slm.verbs.version import lacking
from tests.zipapp import ROOT, build

HEAVY = {"pydantic", "yaml", "slm_operator.decide"}
"""What takes longer to import than anybody should wait for a table."""


@pytest.mark.parametrize("verb", ["list", "why", "show", "logs", "chat", "top", "rm", "run", "ps"])
def test_what_takes_long_to_import_is_imported_only_by_who_needs_it(verb: str) -> None:
    code = f"import sys, kubectl_slm.verbs.{verb}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert HEAVY.isdisjoint(loaded.split())


def test_in_one_file_it_runs_on_a_bare_python(tmp_path: Path) -> None:
    program = build(tmp_path / "kubectl-slm")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        # Without site-packages: what it needs is in it.
        command = [sys.executable, "-I", "-S", str(program), *words]
        return subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, check=False)

    assert "why" in run().stdout
    manifest = run("run", "phi-4-mini", "--dry-run")
    assert "catalog://phi-4-mini" in manifest.stdout, manifest.stderr
    for verb in ("list", "top", "models"):
        assert run(verb).returncode == Exit.UNREACHABLE
    planned = run("plan", "-f", os.devnull)
    assert planned.returncode == Exit.USAGE
    assert "pipx install" in planned.stderr
    program.rename(tmp_path / "kubectl_complete-slm")
    program = tmp_path / "kubectl_complete-slm"
    assert run("wh").stdout == "why\n:4\n"


def test_every_verb_stands_in_the_docs() -> None:
    page = (ROOT / "docs" / "kubectl-slm.md").read_text()
    assert [verb for verb in VERBS if f"`{verb}" not in page and f"slm {verb} " not in page] == []


def test_options_may_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["-n", "a", "run", "m", "--replicas", "2", "a question", "--dry-run", "-o", "json"]) == Exit.OK
    )
    assert json.loads(capsys.readouterr().out)["spec"]["replicas"] == 2


def test_kubectl_is_told_what_may_come_next() -> None:
    assert "why" in candidates(["w"])[0]
    assert "--nodes" in candidates(["plan", "--"])[0]
    assert candidates(["list", "-o", ""]) == (["json", "yaml"], 4)
    assert candidates(["plan", "-f", ""]) == ([], 0), "files"


def test_fields_that_the_cluster_lacks_are_named() -> None:
    ours = {"properties": {"spec": {"properties": {"a": {}, "list": {"items": {"properties": {"b": {}}}}}}}}
    theirs = {"properties": {"spec": {"properties": {"list": {"items": {"properties": {}}}}}}}
    assert list(lacking(ours, theirs)) == ["spec.a", "spec.list[].b"]
    assert list(lacking(ours, ours)) == []
