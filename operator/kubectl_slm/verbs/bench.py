"""`kubectl slm bench NAME`: how fast a model answers one client and several, measured beside it."""

import argparse
import secrets
import sys
import time
from typing import Any, Final

from kubectl_slm import output, read
from kubectl_slm.asking.benching import CONTAINER, bench_job, key_entry, measured
from kubectl_slm.cluster import Cluster
from kubectl_slm.containers import telling
from kubectl_slm.errors import CommandError, Exit

HELP: Final = "tokens/s and first token for one client and several, by a Job beside the model"
_PACE: Final = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the SLMDeployment")
    parser.add_argument("--streams", default="1,4,8", help="how many clients at once, each in turn (1,4,8)")
    parser.add_argument("--tokens", type=int, default=96, help="that each client asks for (96)")
    parser.add_argument("--prompt-words", type=int, default=40, help="of each client's prompt (40)")
    parser.add_argument(
        "--timeout", type=float, default=900, metavar="SECONDS", help="how long to wait (900)"
    )
    output.takes_format(parser)


def run(args: argparse.Namespace) -> int:
    document = Cluster.of(args).deployment(args.name)
    cluster = Cluster(args.context, read.namespace_of(document), args.kubeconfig)
    pods = cluster.pods(read.namespace_of(document), args.name)
    voice = telling(pods, "serve")
    if not read.part(document, "readyReplicas") or voice is None:
        raise CommandError(
            f"{args.name} doesn't serve: {read.reason(document)}", f"`kubectl slm why {args.name}` says why"
        )
    serving = next(each for each in pods if each["metadata"]["name"] == voice.pod)
    asked = [
        "--streams",
        args.streams,
        "--tokens",
        str(args.tokens),
        "--prompt-words",
        str(args.prompt_words),
    ]
    name = f"{args.name}-bench-{secrets.token_hex(3)}"
    cluster.create(bench_job(document, serving, name, _entry(cluster, document), asked))
    print(f"Job {name} measures {args.name}, which answers others meanwhile", file=sys.stderr)
    try:
        log = _log(cluster, name, args.timeout)
    finally:
        cluster.delete("job", name)
    rows = measured(log)
    if not rows:
        raise CommandError(f"nothing was measured: {log.strip() or 'the Job said nothing'}", "try again")
    _show(rows, args)
    return Exit.OK


def _entry(cluster: Cluster, document: read.Document) -> str | None:
    secret = read.text(document, "keySecret")
    if not secret or (document["spec"].get("auth") or {}).get("mode") == "None":
        return None
    return key_entry(cluster.get("secret", secret).get("data") or {})


def _log(cluster: Cluster, job: str, seconds: float) -> str:
    """Of its pod, once it has ended.

    Raises
    ------
    CommandError
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for pod in cluster.get("pods", selector=f"job-name={job}")["items"]:
            if pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
                return cluster.log(pod["metadata"]["name"], CONTAINER)
        time.sleep(_PACE)
    raise CommandError(
        f"Job {job} isn't done after {seconds:.0f} s",
        "give it longer with --timeout; where its pod finds no node, `kubectl get events` says why",
    )


def _show(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    if output.emit(
        {"name": args.name, "tokens": args.tokens, "promptWords": args.prompt_words, "measured": rows},
        args.output,
    ):
        return
    fastest = max(each["tokensPerSecond"] for each in rows)
    shown = [
        [
            f"{each['streams']:.0f}",
            f"{each['tokensPerSecond']:.1f}",
            f"{each['firstTokenMs']:.0f} ms",
            f"{each['gapP99Ms']:.0f} ms",
            "█" * max(1, round(24 * each["tokensPerSecond"] / fastest)),
        ]
        for each in rows
    ]
    print(output.table(["STREAMS", "TOK/S", "FIRST TOKEN", "GAP P99", ""], shown))
