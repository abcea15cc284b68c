"""Runs the steps of a framework's script, one after the other, and prints what each answered as one JSON document."""

import json
import os
from collections.abc import Callable
from typing import Any

BASE = os.environ["SLM_BASE"]
KEY = os.environ["SLM_KEY"]
MODEL = os.environ["SLM_MODEL"]
QUESTION = "What is the capital of France? Answer in one sentence."
CALL_FOR = "Call capital({})"
"""A model so small calls a tool, unforced, when it sees that the same question was answered by a call before."""


def tell(*steps: Callable[[], Any]) -> None:
    told = {}
    for step in steps:
        try:
            told[step.__name__] = step()
        except Exception as error:
            status = getattr(error, "status_code", None)
            told[step.__name__] = {"raised": type(error).__name__, "status": status, "message": str(error)}
    print(json.dumps(told))
