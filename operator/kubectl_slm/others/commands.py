"""The commands of Ollama's and Foundry Local's terminals, and what to write in their place."""

import re
from typing import Final

from kubectl_slm.others.converted import Note
from kubectl_slm.others.foundry.names import catalog_name

_COMMAND: Final = re.compile(
    r"""
    (?:^|[;&|]|\bRUN\s|\brun:|["'`])[ \t]*
    (?:
        (?P<ollama>ollama)[ \t]+
      | (?P<foundry>foundry(?:[- ]local)?)[ \t]+
      | (?=models?[ ](?:list|pull|test)\b|deploy[ ]--config\b)
    )
    (?P<words>[^;&|\#`\n]*)
    """,
    re.MULTILINE | re.VERBOSE,
)
_REST: Final = r"(?P<rest>\S.*)?"


def _reading(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace("MODEL", r"(?P<model>[^\s\"']+)").replace("REST", _REST))


COMMANDS: Final = (
    ("ollama", _reading(r"pull MODEL"), "kubectl slm pull {model} --size 5Gi"),
    ("ollama", _reading(r"run MODEL\s*$"), "kubectl slm run {model}"),
    ("ollama", _reading(r"run MODEL REST"), "kubectl slm run {model} {rest}"),
    ("ollama", _reading(r"create MODEL REST"), "kubectl slm create {model} {rest} --apply"),
    ("ollama", _reading(r"show MODEL"), "kubectl slm show NAME"),
    ("ollama", _reading(r"(list|ls)\b"), "kubectl slm list"),
    ("ollama", _reading(r"ps\b"), "kubectl slm ps"),
    ("ollama", _reading(r"rm MODEL"), "kubectl slm rm NAME"),
    (
        "ollama",
        _reading(r"stop MODEL"),
        'kubectl patch slm NAME --type merge -p \'{{"spec": {{"suspend": true}}}}\'',
    ),
    (
        "ollama",
        _reading(r"cp MODEL REST"),
        "kubectl slm show NAME -o yaml, and apply it under the other name",
    ),
    (
        "ollama",
        _reading(r"push MODEL"),
        "nothing: models are pushed where they are made; spec.model.source names any registry",
    ),
    ("ollama", _reading(r"serve\b"), "nothing: each SLMDeployment has a server of its own"),
    ("ollama", _reading(r"(--version|-v)\b"), "kubectl slm version"),
    ("foundry", _reading(r"models? list\b *REST"), "kubectl slm models {rest}"),
    ("foundry", _reading(r"models? (pull|download) MODEL"), "kubectl slm pull {model} --size 5Gi"),
    (
        "foundry",
        _reading(r"models? test MODEL REST"),
        "kubectl slm bench NAME, once {model} is deployed",
    ),
    ("foundry", _reading(r"models? run MODEL"), "kubectl slm run {model}"),
    (
        "foundry",
        _reading(r"models? info\b"),
        "kubectl slm show NAME; before it is deployed kubectl slm plan -f FILE",
    ),
    (
        "foundry",
        _reading(r"models? (load|unload)\b"),
        "spec.runtime.keepAlive: a model that nobody asks leaves memory",
    ),
    ("foundry", _reading(r"service\b"), "kubectl slm list and kubectl slm why NAME"),
    ("foundry", _reading(r"cache\b"), "kubectl slm show NAME; unused models go by themselves"),
    ("foundry", _reading(r"deploy --config MODEL"), "kubectl slm convert {model} --apply"),
    (
        "foundry",
        _reading(r"init\b"),
        "nothing: the operator is installed with Helm, and there is no other state",
    ),
    ("foundry", _reading(r"--version\b"), "kubectl slm version"),
)
"""By program: how a command is read, and what stands for it."""


def counterparts(text: str) -> list[Note]:
    """Of each command in a script, a Dockerfile or a workflow: its line, and what to write."""
    found = []
    for match in _COMMAND.finditer(text):
        words = _whole(" ".join(match["words"].split()))
        program = "ollama" if match["ollama"] else "foundry"
        line = text.count("\n", 0, match.start("words")) + 1
        what = " ".join(filter(None, (match["ollama"], (match["foundry"] or "").strip(), words)))
        found.append(Note(line, what, _counterpart(program, words)))
    return found


def _counterpart(program: str, words: str) -> str:
    for whose, pattern, instead in COMMANDS:
        match = pattern.match(words) if whose == program else None
        if match:
            said = {name: value or "" for name, value in match.groupdict().items()}
            if program == "foundry" and "model" in said:
                said["model"] = catalog_name(said["model"]) or said["model"]
            return instead.format(**said).strip()
    return "`kubectl slm --help` lists what there is"


def _whole(words: str) -> str:
    """Without the quote that closes the string that the command stands in."""
    last = words[-1:]
    return words[:-1] if last in {'"', "'"} and words.count(last) % 2 else words
