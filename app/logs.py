"""Logging as text or JSON, with context fields (request, tenant, job); a leaf that imports none of our modules. Fields
contain our own ids and names, never personal data."""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

import orjson

Field = str | int | float | bool | None

_CONTEXT: ContextVar[Mapping[str, Field]] = ContextVar("log_context", default=MappingProxyType({}))
_PLAIN = re.compile(r"[\w.:/@+-]+")


def bind(**fields: Field) -> None:
    """Adds these fields to all later log lines of this task and of the tasks it starts."""
    _CONTEXT.set({**_CONTEXT.get(), **fields})


@contextmanager
def bound(**fields: Field) -> Iterator[None]:
    """Adds these fields to the log lines of the block."""
    token = _CONTEXT.set({**_CONTEXT.get(), **fields})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def event(log: logging.Logger, message: str, level: int = logging.INFO, **fields: Field) -> None:
    """Logs an event with additional fields."""
    log.log(level, message, extra={"fields": fields})


def configure(format: Literal["text", "json"], level: str) -> None:
    """Sends the process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_with_context)
    handler.setFormatter(_Json() if format == "json" else _Text())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Alembic logs two uninformative lines at each start; anything relevant is a warning or above.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # At INFO, every request to a key server or trace collector would be logged.
    logging.getLogger("urllib3").setLevel(logging.WARNING)


def _with_context(record: logging.LogRecord) -> bool:
    record.context = _CONTEXT.get()
    return True


def _fields(record: logging.LogRecord) -> dict[str, Field]:
    fields = {**getattr(record, "context", {}), **getattr(record, "fields", {})}
    return {name: value for name, value in fields.items() if value is not None}


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._second = -1
        self._shown = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 (the name is that of `logging`)
        """As usual, but each second is formatted once."""
        second = int(record.created)
        if second != self._second:
            self._second, self._shown = second, super().formatTime(record, datefmt).rpartition(",")[0]
        return f"{self._shown},{int(record.msecs):03}"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the name is that of `logging`)
        line = super().formatMessage(record)
        return " ".join((line, *(f"{name}={_shown(value)}" for name, value in _fields(record).items())))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def _shown(value: Field) -> str:
    """A value with unambiguous boundaries: quoted unless it is plain."""
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else orjson.dumps(text).decode()
