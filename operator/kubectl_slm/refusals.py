"""kubectl's words of a failure → a sentence with its remedy and an exit code."""

import re
from typing import Final

from kubectl_slm.errors import CommandError, Exit

_INSTALL: Final = (
    "install the operator with its CRD (docs/install.md), or name the cluster that has it with --context"
)
_KNOWN: Final = (
    (r'doesn.t have a resource type "slmdeploy|no matches for kind "SLMDeployment"', Exit.NO, _INSTALL),
    (
        r"unknown field|strict decoding error",
        Exit.NO,
        "the cluster's CRD is older than this program: upgrade the operator's CRD (`kubectl slm version` compares them)",
    ),
    (
        r"\(Forbidden\)|is forbidden",
        Exit.FORBIDDEN,
        "ask for a role that allows it, such as the chart's slm-operator-edit",
    ),
    (r"\(NotFound\)", Exit.NOT_FOUND, "look for it with `kubectl slm list -A`"),
    (
        r"\(Unauthorized\)|must be logged in|credentials|^error: EOF",
        Exit.FORBIDDEN,
        "log in again: `kubectl auth whoami` says whom the cluster takes you for",
    ),
    (
        r"context.*(?:does not exist|was not found)|no context exists",
        Exit.USAGE,
        "`kubectl config get-contexts` lists those that there are",
    ),
    (
        r"refused|unable to connect|no such host|i/o timeout|deadline exceeded|connection reset|server API group list",
        Exit.UNREACHABLE,
        "`kubectl cluster-info` looks for the same cluster: start it, or choose another with --context or KUBECONFIG",
    ),
    (
        r"no such file or directory|error loading config file",
        Exit.USAGE,
        "name the file that there is with --kubeconfig",
    ),
)
"""In this order: what it says, and what to do."""


def refusal(told: str, context: str | None = None) -> CommandError:
    """What kubectl says on its standard error, for people.

    Parameters
    ----------
    context
        That was asked for; None: the current one.
    """
    words = _words(told)
    for pattern, code, remedy in _KNOWN:
        if re.search(pattern, told, re.IGNORECASE):
            where = f"context {context}: " if context and code is Exit.UNREACHABLE else ""
            return CommandError(f"{where}{words}", remedy, code)
    return CommandError(words, "these are kubectl's words: correct what they name")


def _words(told: str) -> str:
    """The last line that says something, without what kubectl puts before it."""
    lines = [line for line in told.strip().splitlines() if not re.match(r"[EWI]\d{4} ", line)] or [
        "kubectl failed"
    ]
    first = next(
        (line for line in lines if re.match(r"(error|Error from server|Unable|The )", line)), lines[-1]
    )
    rest = lines[lines.index(first) + 1 :]
    plain = re.sub(r"^(error: |Error from server( \(\w+\))?: )", "", first)
    return "\n".join([re.sub(r'^error when \w+ing "STDIN": ', "", plain), *rest])
