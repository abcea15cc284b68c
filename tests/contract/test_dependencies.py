"""What the two programs import is what their images have: the dependencies of their own extra, and no test's."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
OURS = {"slm_contract", "slm_operator", "slm_runtime"}


def declared(*extras: str) -> set[str]:
    shared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return {named(each) for extra in (shared, *(EXTRAS[name] for name in extras)) for each in extra}


def named(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")


def imported(folder: Path) -> dict[str, Path]:
    """Top-level packages that aren't Python's own, and a file that wants each."""
    found: dict[str, Path] = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            else:
                continue
            found |= {name.partition(".")[0]: path for name in names}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | OURS}


@pytest.mark.parametrize(
    ("folder", "extras"),
    [("operator", ("operator",)), ("runtime", ("runtime", "llama-cpp", "onnx", "convert"))],
)
def test_what_is_imported_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    distributions = packages_distributions()
    known = declared(*extras)
    for name, path in imported(ROOT / folder).items():
        provided = {named(each) for each in distributions[name]}
        assert provided & known, f"{path.relative_to(ROOT)} imports {name}, which no extra of {folder} has"
