"""`kubectl slm show NAME`: all that was decided and measured of one."""

import argparse
from typing import Final

from kubectl_slm import output, read
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import Exit

HELP: Final = "what was decided of one, why, and what was measured"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the SLMDeployment")
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    document = Cluster.of(args).deployment(args.name)
    if not output.emit(document, args.output):
        print(output.facts(_facts(document)))
    return Exit.OK


def _facts(document: read.Document) -> list[tuple[str, str | None]]:
    def told(*path: str) -> str:
        return read.text(document, *path)

    ready = read.conditions(document).get("Ready")
    speed = read.part(document, "performance") or {}
    rejected = read.part(document, "placement", "rejected") or ()
    adapters = read.part(document, "model", "adapters") or ()
    return [
        ("Name", f"{read.namespace_of(document)}/{read.name_of(document)}"),
        ("Status", f"{read.reason(document)}: {ready.message}" if ready else read.reason(document)),
        ("Model", read.model_name(document)),
        ("Source", told("model", "source") or document["spec"]["model"].get("source")),
        ("File", told("model", "resolved")),
        ("Architecture", told("model", "architecture")),
        ("Quantization", told("model", "quantization")),
        ("  chosen", told("model", "quantizationReason")),
        ("Size", output.size(read.part(document, "model", "sizeBytes"))),
        ("SHA-256", told("model", "sha256")),
        ("License", told("model", "license")),
        ("Context", told("model", "contextLength")),
        ("Adapters", "\n".join(str(each["name"]) for each in adapters)),
        ("Placed on", told("placement", "selected")),
        ("  because", told("placement", "reason")),
        ("  and not", "\n".join(f"{each['hardware']}: {each['reason']}" for each in rejected)),
        ("Runs on", told("acceleration", "device")),
        ("Memory", told("memory", "request")),
        ("  of which", told("memory", "explanation")),
        ("First token", f"{speed['firstTokenMs']} ms" if "firstTokenMs" in speed else None),
        ("Speed", f"{speed['tokensPerSecond']:.1f} tokens/s" if "tokensPerSecond" in speed else None),
        ("Endpoint", told("endpoint")),
        ("Address", told("address")),
        ("Key", f"Secret {told('keySecret')}" if told("keySecret") else None),
        ("Nodes", ", ".join(read.part(document, "nodes") or ())),
    ]
