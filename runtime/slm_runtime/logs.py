"""Logs on stderr: JSON lines for machines, short lines where a person is watching."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from typing_extensions import override

_encoder: Final = msgspec.json.Encoder()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was logged with `extra={"fields": {...}}`."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


class JsonLines(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encoder.encode(line).decode()


class ForPeople(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(
            f"{name}={value}" for name, value in _fields(record).items() if value not in {None, ""}
        )
        when = self.formatTime(record, "%H:%M:%S")
        text = f"{when} {record.levelname:<7} {record.getMessage()} {fields}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ForPeople() if sys.stderr.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
