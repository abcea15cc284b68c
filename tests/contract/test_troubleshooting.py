"""docs/troubleshooting.md names every failure that the runtime can report and every one that the operator adds."""

import ast
import re
from pathlib import Path

from slm_contract.report import FailureReason

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def operator_faults() -> set[str]:
    """Constants that a call in the operator takes as `reason` where it makes a fault, by keyword or in first place."""
    found = set()
    for path in (ROOT / "operator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).lower().endswith("fault"):
                words = [each.value for each in node.keywords if each.arg == "reason"] + node.args[:1]
                found |= {each.value for each in words if isinstance(each, ast.Constant)}
    return {str(each) for each in found if re.fullmatch(r"([A-Z][a-z]+)+", str(each))}


def test_every_failure_of_the_runtime_has_its_line() -> None:
    assert [reason.value for reason in FailureReason if reason.value not in PAGE] == []


def test_every_fault_of_the_operator_has_its_line() -> None:
    faults = operator_faults()
    assert len(faults) > 5
    assert sorted(reason for reason in faults if reason not in PAGE) == []
