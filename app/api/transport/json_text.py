"""JSON of requests and responses: invalid values in one row of the variables do not affect other rows."""

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

_BEYOND = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{300}")
"""Only Python's parser accepts these: lone surrogates, non-numbers, and numbers outside the range of a double."""
_LONG = re.compile(rb"[:\[,\s](?:-?[0-9]{20,}|-9[0-9]{18})\s*[,\]}]")
"""An integer that may exceed 64 bits, which orjson rounds."""
_ROWS = b"rows"
"""Duplicate names in objects are only searched for in texts with this name; elsewhere the last value counts."""
_NAME = re.compile(rb'"\s*:')
_MOST_VALUES = 2_000_000
"""Maximum number of values for Python's parser, which is several times as slow and blocks other requests."""
_MOST_DIGITS = 1_000


def read_json(data: str | bytes | bytearray) -> object:
    """Parses JSON, with exact integers. Only `variables` may contain strings and numbers that are invalid or out of
    range in JSON, because each is validated there for its use. Raises `JSONDecodeError`.

    >>> read_json('{"variables": {"a": "\\\\ud83d", "b": 123456789012345678901}}')
    {'variables': {'a': '\\ud83d', 'b': 123456789012345678901}}
    """
    raw = data.encode() if isinstance(data, str) else bytes(data)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        if not _BEYOND.search(raw):
            raise
        if _has_many(raw):
            raise _too_many("NaN, Infinity, a number beyond a double or half of a surrogate pair") from None
        lenient = _lenient(raw)
        if lenient is None:
            raise
        return lenient
    has_long, has_twice = _LONG.search(raw), _ROWS in raw and _has_twice(raw, value)
    if not has_long and not has_twice:
        return value
    if _has_many(raw):
        raise _too_many("a whole number of more than 64 bits" if has_long else "an object with a name twice")
    exact = _lenient(raw)
    return value if exact is None else exact


class TwiceNamed(dict[str, object]):
    """A JSON object with a duplicate name. Its `items` are all pairs of the source, so that it is written unchanged."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def items(self) -> Any:
        return self._pairs


def write_json(value: object) -> bytes:
    """Compact JSON text; in ASCII if a value contains a lone surrogate or an integer beyond 64 bits."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":"), default=_encoded).encode()


def _encoded(value: object) -> object:
    """A part of a response that is already encoded."""
    if isinstance(value, orjson.Fragment):
        return orjson.loads(value.contents)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _has_twice(raw: bytes, value: object) -> bool:
    """Whether an object may have a duplicate name: then fewer names were parsed than the text has."""
    try:
        parsed = orjson.dumps(value)
    except TypeError:  # nested too deeply for orjson to write
        return True
    return len(_NAME.findall(raw)) > len(_NAME.findall(parsed))


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    named = dict(pairs)
    return named if len(named) == len(pairs) else TwiceNamed(pairs)


def _too_many(what: str) -> orjson.JSONDecodeError:
    message = f"{what} among more than {_MOST_VALUES:,} values, where no row is looked at by itself: send fewer at once"
    return orjson.JSONDecodeError(message, "", 0)


def _has_many(raw: bytes) -> bool:
    return raw.count(b",") > _MOST_VALUES


def _lenient(raw: bytes) -> object | None:
    """The value as Python parses it; None if that is unusable."""
    try:
        value: object = json.loads(raw, parse_int=_whole, object_pairs_hook=_object)
        json.dumps(_without_variables(value), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return value


def _without_variables(message: object) -> object:
    """A request, or a message with one, without the contents of its variables."""
    if not isinstance(message, Mapping):
        return message
    inner = {"payload": _without_variables(message["payload"])} if "payload" in message else {}
    return {name: value for name, value in message.items() if name != "variables"} | inner


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)
