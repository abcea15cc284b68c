"""`kubectl slm list`."""

import argparse
from typing import Final

HELP: Final = "list"


def configure(parser: argparse.ArgumentParser) -> None:
    """Take nothing."""


def run(args: argparse.Namespace) -> int:
    raise NotImplementedError
