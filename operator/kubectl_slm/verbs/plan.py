"""`kubectl slm plan`."""

import argparse
from typing import Final

HELP: Final = "plan"


def configure(parser: argparse.ArgumentParser) -> None:
    """Take nothing."""


def run(args: argparse.Namespace) -> int:
    raise NotImplementedError
