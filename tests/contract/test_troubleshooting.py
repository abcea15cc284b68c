"""docs/troubleshooting.md names every failure that the runtime can report and every one that the operator adds."""

import ast
from pathlib import Path

from slm_contract.report import FailureReason

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def operator_faults() -> set[str]:
    """Reasons that are written as `Fault(reason="...")` somewhere in the operator."""
    found = set()
    for path in (ROOT / "operator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Fault"):
                words = [each.value for each in node.keywords if each.arg == "reason"]
                found |= {each.value for each in words if isinstance(each, ast.Constant)}
    return found


def test_every_failure_of_the_runtime_has_its_line() -> None:
    assert [reason.value for reason in FailureReason if reason.value not in PAGE] == []


def test_every_fault_of_the_operator_has_its_line() -> None:
    faults = operator_faults()
    assert len(faults) > 5
    assert sorted(reason for reason in faults if reason not in PAGE) == []
