"""Everything in the tree that is made from something else in it: `make generate`. The contract tests hold it."""

from pathlib import Path

from slm_operator.crd.__main__ import crd_text
from slm_operator.crd.reference import reference_page
from tests.chart import generate as chart

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    (ROOT / "crds" / "slmdeployments.slm-operator.io.yaml").write_text(crd_text())
    (ROOT / "docs" / "reference" / "slmdeployment.md").write_text(reference_page())
    chart.main()


if __name__ == "__main__":
    main()
