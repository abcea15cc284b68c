"""`kubectl_complete-slm`: what may be written next, as kubectl's own completion asks its plugins in every shell."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from kubectl_slm import read
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import CommandError

NO_FILES: Final = 4
"""Of kubectl's protocol: offer nothing but these; 0: files too."""
_NAMED: Final = frozenset({"NAME"})


def main(argv: Sequence[str] | None = None) -> int:
    """Words as they stand on the line behind `kubectl slm`, the last one unfinished."""
    words = list(sys.argv[1:] if argv is None else argv) or [""]
    offered, directive = candidates(words)
    print("\n".join([*(each for each in offered if each.startswith(words[-1])), f":{directive}"]))
    return 0


def candidates(words: Sequence[str]) -> tuple[list[str], int]:
    """What may stand in the last one's place, and kubectl's directive."""
    from kubectl_slm.__main__ import VERBS, parser_of

    *before, last = words
    verb = next((each for each in before if each in VERBS), None)
    if verb is None:
        return sorted(VERBS), NO_FILES
    parser, _ = parser_of(verb)
    actions = list(parser._actions)  # noqa: SLF001
    if last.startswith("-"):
        return [
            option for each in actions for option in each.option_strings if option.startswith("--")
        ], NO_FILES
    asked = next((each for each in actions if before and before[-1] in each.option_strings), None)
    if asked is not None and asked.nargs != 0:
        return ([str(each) for each in asked.choices], NO_FILES) if asked.choices else ([], 0)
    if any(each.metavar in _NAMED for each in actions if not each.option_strings):
        return _names(before), NO_FILES
    return [], 0


def _names(before: Sequence[str]) -> list[str]:
    """Of SLMDeployments; none where the cluster doesn't answer: whoever types isn't told of errors."""
    options = argparse.ArgumentParser(add_help=False)
    for names in (("--context",), ("-n", "--namespace"), ("--kubeconfig",)):
        options.add_argument(*names)
    given, _ = options.parse_known_args(before)
    try:
        found: Iterable[read.Document] = Cluster.of(given).deployments()
    except CommandError:
        return []
    return [read.name_of(each) for each in found]
