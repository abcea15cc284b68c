"""`kubectl slm VERB`: the command line, the table of verbs, and errors as sentences."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, Protocol, cast

from kubectl_slm.errors import CommandError, Exit

VERBS: Final = {
    "plan": "plan",
    "models": "models",
    "pull": "pull",
    "run": "run",
    "chat": "chat",
    "show": "show",
    "why": "why",
    "logs": "logs",
    "top": "top",
    "bench": "bench",
    "rm": "rm",
    "list": "list",
    "ps": "ps",
    "create": "create",
    "convert": "convert",
    "version": "version",
    "ls": "list",
}
"""By verb: its module in `kubectl_slm.verbs`. An abbreviation stands below what it is short for."""


class Verb(Protocol):
    """What a module of `kubectl_slm.verbs` offers."""

    HELP: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of its own."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit code. Raises CommandError where it can't."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit code says how it went (:class:`kubectl_slm.errors.Exit`)."""
    try:
        code = _main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except (CommandError, ModuleNotFoundError) as failure:
        error = failure if isinstance(failure, CommandError) else _missing(failure)
        print(error.message, *([f"→ {error.remedy}"] if error.remedy else []), sep="\n", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read has had enough; what Python would still flush at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    else:
        return code


def _main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="kubectl slm",
        description="Small language models in a cluster: plan, run, ask, explain.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="store_true", help="say this")
    parser.add_argument("verb", nargs="?", metavar="VERB", help="one of those below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    _connection(parser, None)
    before = parser.parse_args(argv)
    if before.verb is None:
        parser.epilog = _overview()
        parser.print_help()
        return Exit.OK
    if before.verb not in VERBS:
        raise CommandError(f"there is no verb {before.verb!r}", _nearest(before.verb), Exit.USAGE)
    chosen, verb = parser_of(before.verb)
    rest = ["--help"] if before.help else before.rest
    # Options may stand between a name and a prompt.
    return verb.run(chosen.parse_intermixed_args(rest, before))


def parser_of(name: str) -> tuple[argparse.ArgumentParser, Verb]:
    """What a verb takes."""
    verb = _load(name)
    parser = argparse.ArgumentParser(prog=f"kubectl slm {name}", description=verb.HELP)
    verb.configure(parser)
    _connection(parser, argparse.SUPPRESS)
    return parser, verb


def _connection(parser: argparse.ArgumentParser, default: str | None) -> None:
    """What every verb takes, before it or behind it: handed on to kubectl."""
    group = parser.add_argument_group("cluster")
    group.add_argument("--context", default=default, help="context of the kubeconfig")
    group.add_argument(
        "-n", "--namespace", default=default, help="namespace; without it, that of the context"
    )
    group.add_argument(
        "--kubeconfig", default=default, metavar="FILE", help="instead of kubectl's own choice"
    )


def _load(name: str) -> Verb:
    return cast("Verb", import_module(f"kubectl_slm.verbs.{VERBS[name]}"))


def _missing(error: ImportError) -> CommandError:
    """The program in one file lacks what is compiled for one kind of machine."""
    return CommandError(
        f"this verb needs the package {error.name}, which isn't here",
        "install the program whole: `pipx install 'slm-operator[cli]'`, or `uv tool install 'slm-operator[cli]'`",
        Exit.USAGE,
    )


def _overview() -> str:
    rows = [(name, _load(name).HELP) for name, module in VERBS.items() if name == module]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {words}" for name, words in rows]
    return "\n".join(["verbs (`kubectl slm VERB --help` says more):", *lines])


def _nearest(verb: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(verb, VERBS, n=1)
    return f"did you mean `kubectl slm {near[0]}`?" if near else "`kubectl slm --help` lists them"


if __name__ == "__main__":
    sys.exit(main())
