"""`kubectl slm create NAME -f Modelfile`: what Ollama's `create` reads, as an SLMDeployment."""

import argparse
from typing import Final

from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.others.converted import NotConverted
from kubectl_slm.others.delivering import checked_name, deliver, read, takes_apply

HELP: Final = "make an SLMDeployment of a Modelfile"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the SLMDeployment")
    parser.add_argument("-f", "--file", default="Modelfile", help="the Modelfile; - is what is piped in")
    parser.add_argument("--source", help="where the model is, in place of what FROM says")
    takes_apply(parser)


def run(args: argparse.Namespace) -> int:
    from kubectl_slm.others.modelfile import convert, decode

    name = checked_name(args.name)
    try:
        converted = convert(decode(read(args.file)), name, args.source)
    except NotConverted as error:
        raise CommandError(f"{args.file}: {error.message}", error.remedy, Exit.USAGE) from None
    return deliver(converted, args)
