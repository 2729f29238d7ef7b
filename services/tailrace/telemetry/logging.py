"""Logs of services: one JSON object a line, on stderr."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# The loggers that librdkafka is given.
_LIBRARIES = tuple(
    f"tailrace.streaming.backends.kafka.{name}" for name in ("backend", "consumer", "producer", "reading")
)
_COMPLAINT = 40  # characters: what it is and whose, as in "FAIL [scorer#producer-1] [thrd:127.0.0.1..."
_SELDOM_S = 10.0


class JsonFormatter(logging.Formatter):
    """time, level, service, logger, message, what was given as ``extra``, and the exception where there is one."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class Seldom(logging.Filter):
    """Lets the same complaint of a client library through once in ten seconds: it is made with each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name not in _LIBRARIES:
            return True
        complaint = record.getMessage()[:_COMPLAINT]
        often = record.created - self._last.get(complaint, float("-inf")) < _SELDOM_S
        if not often:
            self._last[complaint] = record.created
        return not often


def log_as_json(service: str, level: str) -> None:
    """From now on everything that is logged in this process comes out as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    handler.addFilter(Seldom())
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(True)
