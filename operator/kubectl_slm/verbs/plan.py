"""`kubectl slm plan -f FILE`: what the operator would do, before anybody asks it to."""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kubectl_slm import output
from kubectl_slm.errors import Exit
from kubectl_slm.output import Colour, coloured

HELP: Final = "what would become of a manifest: class, memory, pods, hosts; exit code 1 where it doesn't fit"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--filename", metavar="FILE", required=True, help="the manifest; `-`: standard input"
    )
    parser.add_argument(
        "--nodes", metavar="FILE", help="what `kubectl get nodes -o json` says; asks no cluster"
    )
    parser.add_argument(
        "--values",
        metavar="FILE",
        action="append",
        default=[],
        help="the chart's values, or the operator's settings; a later file wins; asks no cluster",
    )
    parser.add_argument("--facts", metavar="FILE", action="append", default=[], help="reports of inspections")
    parser.add_argument(
        "--offline", action="store_true", help="ask no cluster, not even for what no file says"
    )
    many = parser.add_argument_group("capacity", "how many replicas it takes, by what was measured")
    many.add_argument(
        "--bench", metavar="FILE", help="what `kubectl slm bench NAME -o json` has measured of it"
    )
    many.add_argument("--for", metavar="PEOPLE", type=int, dest="people", help="who ask at the same time")
    many.add_argument(
        "--prompt-tokens", type=int, default=500, metavar="TOKENS", help="of each question (500)"
    )
    many.add_argument("--answer-tokens", type=int, default=200, metavar="TOKENS", help="of each answer (200)")
    many.add_argument(
        "--first-token", type=float, default=2.0, metavar="SECONDS", help="the most to wait for it (2)"
    )
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    from kubectl_slm.planning.plans import plans

    found = plans(args)
    if not output.emit(found, args.output):
        print("\n\n".join(_printed(each) for each in found))
    fits = [each["fits"] for each in found]
    return Exit.NO if False in fits else Exit.UNKNOWN if None in fits else Exit.OK


def _printed(plan: Mapping[str, Any]) -> str:
    verdict = {
        True: coloured("fits", Colour.GOOD),
        False: coloured("doesn't fit or can't be served", Colour.BAD),
        None: coloured("isn't known before its header is read", Colour.WAITING),
    }[plan["fits"]]
    memory, model = plan["memory"], plan["model"]
    lines = [
        ("Class", plan["class"]),
        ("  because", plan["because"]),
        ("  and not", _listed(f"{each['hardware']}: {each['reason']}" for each in plan["rejected"])),
        ("Source", model.get("source")),
        ("File", model.get("resolved")),
        ("Size", output.size(model.get("sizeBytes"))),
        ("Context", str(model.get("contextLength") or "")),
        ("Memory", memory.get("request")),
        ("  of which", memory.get("explanation")),
        ("Pods", f"{plan['replicas']} of {plan['image']}" if plan["image"] else None),
        ("Asks", _listed(plan["hosts"]) or "no host"),
        ("Measured", _listed(plan["measured"])),
        ("Capacity", _capacity(plan.get("capacity"))),
        ("To be read", _listed(plan["unread"])),
        ("Wrong", _listed(f"{each['reason']}: {each['message']}" for each in plan["faults"])),
        ("  do", _listed(each["remedy"] for each in plan["faults"])),
        ("Note", _listed(plan["notes"])),
    ]
    return f"{plan['name']} {verdict}\n{output.facts(lines)}"


def _capacity(told: Mapping[str, Any] | None) -> str | None:
    if told is None:
        return None
    pods = "1 replica" if told["replicas"] == 1 else f"{told['replicas']} replicas"
    words = (
        f"{pods}, {told['streams']} answers at once each: first token after {told['firstTokenSeconds']:.1f} s"
    )
    return _listed(
        (
            f"{words}, whole after {told['answerSeconds']:.0f} s",
            *(f"given that {each}" for each in told["assumptions"]),
        )
    )


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(lines)
