"""`kubectl slm logs NAME`: the log of the container that has something to say."""

import argparse
import sys
from typing import Final

from kubectl_slm.cluster import Cluster
from kubectl_slm.containers import Voice, telling
from kubectl_slm.errors import CommandError

HELP: Final = "the log of what inspects, fetches, serves or has crashed"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the SLMDeployment")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it is written")
    parser.add_argument("--tail", type=int, metavar="LINES", help="the last ones only")
    parser.add_argument(
        "-c", "--container", choices=("fetch", "serve", "inspect"), help="rather than the telling one"
    )
    parser.add_argument(
        "-p", "--previous", action="store_true", help="of the container before the last restart"
    )


def run(args: argparse.Namespace) -> int:
    cluster = Cluster.of(args)
    document = cluster.deployment(args.name)
    pods = cluster.pods(document["metadata"]["namespace"], args.name)
    voice = telling(pods, args.container)
    if voice is None:
        raise CommandError(
            f"no container of {args.name} has begun yet",
            f"`kubectl slm why {args.name}` says what it waits for",
        )
    voice = Voice(voice.pod, voice.container, voice.previous or args.previous)
    before = ", before its restart" if voice.previous else ""
    print(f"{voice.pod}, container {voice.container}{before}:", file=sys.stderr)
    chosen = Cluster(args.context, document["metadata"]["namespace"], args.kubeconfig)
    more = ["--follow"] if args.follow and not voice.previous else []
    more += [] if args.tail is None else [f"--tail={args.tail}"]
    more += ["--previous"] if voice.previous else []
    return chosen.hand_over("logs", voice.pod, "-c", voice.container, *more)
