"""Rules about the tree itself."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path
    for folder in ("operator", "runtime", "tests", "bench", "examples")
    for path in (ROOT / folder).rglob("*.py")
)
HARD_END = 500


def test_no_source_root_is_a_package() -> None:
    """`operator/__init__.py` would shadow the standard library's `operator`, and nothing would start."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert not (ROOT / "runtime" / "__init__.py").exists()
    assert not list((ROOT / "operator").glob("*.py"))
    assert not list((ROOT / "runtime").glob("*.py"))
    assert not list((ROOT / "tests").rglob("operator/__init__.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_of_a_readable_size(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= HARD_END
