"""Structured logs on stderr: one line per event, as text for people or as JSON for machines."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from runtime.serving.settings import LogFormat

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


def configure(log_format: LogFormat) -> None:
    """Send this process's logs to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    # uvicorn logs every phase of its lifecycle; we log our own.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields logged with the event."""
    fields = {key: value for key, value in vars(record).items() if key not in _OWN}
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _time(record), "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps({**head, "pid": record.process, **_fields(record)}, default=str)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        traceback = fields.pop("traceback", None)
        # Text from clients is quoted, so that it cannot add lines to the log.
        told = " ".join(f"{key}={json.dumps(value, default=str)}" for key, value in fields.items())
        line = f"{_time(record)} {record.levelname.lower()} {record.getMessage()} {told}".rstrip()
        return f"{line}\n{traceback}" if traceback else line
