"""`kubectl slm chat NAME`: talk with a model in the terminal."""

import argparse
import sys
import time
from contextlib import closing, suppress
from typing import Final

from kubectl_slm import output
from kubectl_slm.asking.conversation import Conversation
from kubectl_slm.asking.model import Broken, Model, Usage, model_of
from kubectl_slm.cluster import Cluster
from kubectl_slm.errors import CommandError, Exit
from kubectl_slm.output import Colour

HELP: Final = "talk with a model; over the API server, with the key of its Secret"
QUOTES: Final = '"""'
_EXAMPLE: Final = "such as temperature=0"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the SLMDeployment")
    takes_prompt(parser)


def takes_prompt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", nargs="*", help="asked once; without it, a conversation")
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help=f"a parameter, {_EXAMPLE}",
        dest="given",
    )
    parser.add_argument("--key-file", metavar="FILE", help="a key, rather than that of the Secret")
    parser.add_argument("--verbose", action="store_true", help="say how many tokens it took, and how fast")


def run(args: argparse.Namespace) -> int:
    talk = Conversation(system=args.system)
    for each in args.given:
        name, separator, value = each.partition("=")
        told = (
            talk.command(f"/set {name} {value}") if separator else f"{each!r} has no value: write {_EXAMPLE}"
        )
        if told:
            raise CommandError(told, "`kubectl slm chat --help` says more", Exit.USAGE)
    prompt = " ".join(args.prompt)
    if not sys.stdin.isatty() and (piped := sys.stdin.read().strip()):
        prompt = f"{prompt}\n\n{piped}" if prompt else piped
    cluster = Cluster.of(args)
    document = cluster.deployment(args.name)
    with cluster.proxy() as proxy:
        model = model_of(cluster, proxy, document, args.key_file)
        if prompt or not sys.stdin.isatty():
            if not prompt:
                raise CommandError("nothing was asked", "write a prompt, or pipe one in", Exit.USAGE)
            return _once(model, talk, prompt, verbose=args.verbose)
        return _conversation(model, talk, verbose=args.verbose)


def _once(model: Model, talk: Conversation, prompt: str, *, verbose: bool) -> int:
    talk.ask(prompt)
    return Exit.OK if _answer(model, talk, verbose=verbose) else Exit.NO


def _conversation(model: Model, talk: Conversation, *, verbose: bool) -> int:
    with suppress(ImportError):
        # Only by being imported it gives `input` a history and keys to edit with.
        import readline  # noqa: F401
    print(output.coloured(f"{model.name}: ask; /help says what else. Ctrl-D leaves.", Colour.FAINT))
    while not talk.over:
        try:
            line = _read()
        except EOFError:
            print()
            break
        except KeyboardInterrupt:
            print()
            continue
        if not line.strip():
            continue
        if line.startswith("/"):
            if told := talk.command(line.strip()):
                print(told)
            continue
        talk.ask(line)
        try:
            _answer(model, talk, verbose=verbose)
        except CommandError as error:
            talk.answered("")
            print(output.coloured(f"{error.message}\n→ {error.remedy}", Colour.BAD))
    return Exit.OK


def _read() -> str:
    """A line, or several between three quotation marks.

    Raises
    ------
    EOFError, KeyboardInterrupt
    """
    line = input(">>> ")
    if not line.startswith(QUOTES):
        return line
    text = line.removeprefix(QUOTES)
    while not text.rstrip().endswith(QUOTES):
        text += "\n" + input("... ")
    return text.rstrip().removesuffix(QUOTES)


def _answer(model: Model, talk: Conversation, *, verbose: bool) -> bool:
    """Print an answer as it comes, and keep it; whether it came to its end.

    Raises
    ------
    CommandError
    """
    usage, began, first, text, whole = Usage(), time.monotonic(), 0.0, "", True
    pieces = model.ask(talk.messages, talk.parameters, usage)
    try:
        # Closing it ends the request: the server computes no more.
        with closing(pieces):
            for piece in pieces:
                first = first or time.monotonic()
                text += piece
                print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print(output.coloured(" (ended)", Colour.FAINT))
        whole = False
    except Broken as error:
        print()
        told = (
            f"the answer breaks off: {error}. Ask again; `kubectl slm why` says whether a pod has gone away"
        )
        print(output.coloured(told, Colour.BAD, sys.stderr), file=sys.stderr)
        whole = False
    talk.answered(text)
    if usage.finish == "length":
        print(
            output.coloured("(cut at max_tokens, or where the context is full)", Colour.FAINT),
            file=sys.stderr,
        )
    if verbose and first:
        seconds = time.monotonic() - first
        speed = (
            f", {usage.answer_tokens / seconds:.1f} tokens/s" if seconds and usage.answer_tokens > 1 else ""
        )
        told = f"first token after {first - began:.2f} s, {usage.prompt_tokens} + {usage.answer_tokens} tokens{speed}"
        print(output.coloured(told, Colour.FAINT, sys.stderr), file=sys.stderr)
    return whole
