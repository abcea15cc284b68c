"""`kubectl slm why NAME`: one sentence and a remedy."""

import argparse
import dataclasses
from typing import Final

from kubectl_slm import output
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import Exit
from kubectl_slm.explain import explain
from kubectl_slm.output import Colour, coloured

HELP: Final = "why one doesn't serve, in a sentence, and what to do"
_COLOURS: Final = {"good": Colour.GOOD, "waiting": Colour.WAITING, "broken": Colour.BAD}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the SLMDeployment")
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    """Exit code 1 where something is broken, for scripts."""
    found = explain(Cluster.of(args).deployment(args.name))
    if not output.emit({**dataclasses.asdict(found), "more": list(found.more)}, args.output):
        print(f"{coloured(found.reason, _COLOURS[found.state])}: {found.sentence}")
        if found.remedy:
            print(f"→ {coloured(found.remedy, Colour.STRONG)}")
        for each in found.more:
            print(coloured(f"  {each}", Colour.FAINT))
    return Exit.NO if found.state == "broken" else Exit.OK
