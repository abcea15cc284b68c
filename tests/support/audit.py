"""Reads an API server's audit log, a JSON line for each event, while it is being written."""

import json
from pathlib import Path
from typing import Any


def end(log: Path) -> int:
    """The byte behind what is written by now; the last line may still be growing, and isn't."""
    return log.read_bytes().rfind(b"\n") + 1


def events(log: Path, begin: int = 0) -> list[dict[str, Any]]:
    """Those from the byte *begin* on, oldest first."""
    with log.open("rb") as lines:
        lines.seek(begin)
        return [json.loads(line) for line in lines if line.endswith(b"\n")]
