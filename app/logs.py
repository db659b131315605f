"""Logs: lines as text or as JSON, each with what it belongs to (request, tenant, job); a leaf that imports nothing of
ours. Fields hold ids and names of ours, never data of people."""

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
    """Every later line of this task, and of those that it starts, has these fields too."""
    _CONTEXT.set({**_CONTEXT.get(), **fields})


@contextmanager
def bound(**fields: Field) -> Iterator[None]:
    """The same for the lines of a block."""
    token = _CONTEXT.set({**_CONTEXT.get(), **fields})
    try:
        yield
    finally:
        _CONTEXT.reset(token)


def event(log: logging.Logger, message: str, level: int = logging.INFO, **fields: Field) -> None:
    """Logs something that happened, with fields of its own."""
    log.log(level, message, extra={"fields": fields})


def configure(format: Literal["text", "json"], level: str) -> None:
    """Sends the lines of the whole process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_with_context)
    handler.setFormatter(_Json() if format == "json" else _Text())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Two lines at each start about how, and none about what: what it changes it says at warning and above.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # With these at INFO every request to a key server or trace collector would be a line.
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
    """A value that ends where it seems to end: quoted unless it is plain."""
    text = f"{value:.1f}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else orjson.dumps(text).decode()
