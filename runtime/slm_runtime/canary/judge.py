"""Whether an answer is as expected: `python -m slm_runtime.canary.judge`, a process of its own.

A pattern may take for ever on an answer, and a schema too: the API process can end this one.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final


def _matches(pattern: str, answer: str) -> bool:
    return re.search(pattern, answer) is not None


def _conforms(schema: str, answer: str) -> bool:
    from jsonschema import Draft202012Validator

    wanted = json.loads(schema)
    Draft202012Validator.check_schema(wanted)
    try:
        document: Any = json.loads(answer)
    except ValueError:
        return False
    return bool(Draft202012Validator(wanted).is_valid(document))


CHECKS: Final[Mapping[str, Callable[[str, str], bool]]] = {"regex": _matches, "json_schema": _conforms}
"""By the expectation; each takes what is expected, then the answer."""


def main() -> int:
    """Read `[expectation, expected, answer]`, JSON; write `true` or `false`, or end with 1 and say what is wrong."""
    check, expected, answer = json.load(sys.stdin)
    try:
        print(json.dumps(CHECKS[check](expected, answer)))
    except Exception as error:
        # Whatever the pattern or the schema makes of the libraries that read them.
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
