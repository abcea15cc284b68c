"""`python -m slm_operator.crd` prints the CustomResourceDefinition, with `--reference` the page that documents it."""

import argparse
from typing import Any

import yaml
from typing_extensions import override

from slm_operator.crd.reference import reference_page
from slm_operator.crd.schema import crd


class _Plain(yaml.SafeDumper):
    """YAML without anchors: people read it."""

    @override
    def ignore_aliases(self, data: Any) -> bool:
        return True


def crd_text() -> str:
    """The CRD as YAML, the same bytes for the same models."""
    return yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m slm_operator.crd", description=__doc__)
    parser.add_argument("--reference", action="store_true", help="print the reference page instead")
    print(reference_page() if parser.parse_args().reference else crd_text(), end="")


if __name__ == "__main__":
    main()
