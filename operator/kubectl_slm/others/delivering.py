"""What `create` and `convert` share: files are read, notes are told, and the document is printed or applied."""

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.others.converted import Converted
from slm_operator.crd.names import NAME_LIMIT

NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def takes_apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--apply", action="store_true", help="into the cluster; without it, it is printed")


def read(file: str) -> bytes:
    """A file; `-` is what is piped in.

    Raises
    ------
    CommandError
    """
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CommandError(
            f"{file} can't be read: {error.strerror}", "name another file with -f", Exit.USAGE
        ) from None


def checked_name(name: str) -> str:
    """A name that an SLMDeployment may have.

    Raises
    ------
    CommandError
    """
    if NAME.fullmatch(name) and len(name) <= NAME_LIMIT:
        return name
    raise CommandError(
        f"{name[:80]!r} becomes a Service, and can't be the name of one",
        f"write at most {NAME_LIMIT} small letters, digits and '-', a letter first",
        Exit.USAGE,
    )


def deliver(converted: Converted, args: argparse.Namespace) -> int:
    """Tell what could not be kept, and print or apply the rest.

    Raises
    ------
    CommandError
    """
    for note in converted.notes:
        print(note.sentence, file=sys.stderr)
    if not args.apply:
        print(_yaml(converted), end="")
        return Exit.OK
    from kubectl_slm.cluster import Cluster

    Cluster.of(args).apply(converted.document)
    print(f"{converted.document['metadata']['name']} is applied; `kubectl slm why` says how it goes")
    return Exit.OK


def _yaml(converted: Converted) -> str:
    """Texts of several lines as blocks: somebody reads and keeps it."""
    import yaml

    class Blocks(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Blocks.add_representer(str, text)
    return yaml.dump(converted.document, Dumper=Blocks, sort_keys=False, allow_unicode=True, width=110)
