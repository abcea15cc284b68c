"""`kubectl slm` in one file: pure Python, so that it runs wherever a Python does. `make kubectl-slm`."""

import shutil
import sys
import tempfile
import zipapp
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = (
    ROOT / "operator" / "kubectl_slm",
    ROOT / "operator" / "slm_operator",
    ROOT / "runtime" / "slm_contract",
    Path(yaml.__file__).parent,
)
"""What it consists of; pydantic, which `plan` needs, is compiled for one kind of machine."""
MAIN = """\
import sys
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("kubectl slm needs Python 3.11 or newer: this is " + sys.version.split()[0])
if Path(sys.argv[0]).name.startswith("kubectl_complete"):
    from kubectl_slm.completion import main
else:
    from kubectl_slm.__main__ import main
sys.exit(main())
"""


def build(target: Path) -> Path:
    """Write the file; it answers to its name, and as `kubectl_complete-slm` completes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyi", "py.typed")
            shutil.copytree(package, Path(folder) / package.name, ignore=ignored)
        (Path(folder) / "__main__.py").write_text(MAIN)
        zipapp.create_archive(folder, target, interpreter="/usr/bin/env python3", compressed=True)
    return target


if __name__ == "__main__":
    built = build(ROOT / "dist" / "kubectl-slm.pyz")
    print(
        f"{built.relative_to(ROOT)}: {built.stat().st_size // 1024} KiB; put it on the PATH as kubectl-slm",
        file=sys.stderr,
    )
