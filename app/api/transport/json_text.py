"""JSON of requests and answers: what one bad row in the variables of a request holds does not cost the others."""

import json
import re
from collections.abc import Mapping

import orjson

_BEYOND = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{300}")
"""What only Python's parser reads: halves of surrogate pairs, and numbers that are none or beyond a double."""
_LONG = re.compile(rb"[:\[,\s](?:-?[0-9]{20,}|-9[0-9]{18})\s*[,\]}]")
"""A whole number that may be beyond 64 bits, which orjson rounds."""
_MOST_VALUES = 2_000_000
"""So many values Python's parser reads, which takes several times as long and holds up everybody meanwhile."""
_MOST_DIGITS = 1_000


def read_json(data: str | bytes | bytearray) -> object:
    """The value, whole numbers exact. Texts and numbers that are no valid JSON or beyond it may stand in `variables`
    alone, where each is looked at by what it is for. Raises `JSONDecodeError`.

    >>> read_json('{"variables": {"a": "\\\\ud83d", "b": 123456789012345678901}}')
    {'variables': {'a': '\\ud83d', 'b': 123456789012345678901}}
    """
    raw = data.encode() if isinstance(data, str) else bytes(data)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        if not _BEYOND.search(raw) or _has_many(raw):
            raise
        lenient = _lenient(raw)
        if lenient is None:
            raise
        return lenient
    if not _LONG.search(raw):
        return value
    if _has_many(raw):
        message = f"a whole number of more than 64 bits among more than {_MOST_VALUES:,} values: send it as a text"
        raise orjson.JSONDecodeError(message, "", 0)
    exact = _lenient(raw)
    return value if exact is None else exact


def write_json(value: object) -> bytes:
    """As compact text. What quotes a half of a surrogate pair, or a longer number than 64 bits, is written in ASCII."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, separators=(",", ":"), default=_encoded).encode()


def _encoded(value: object) -> object:
    """A part of an answer that is text already."""
    if isinstance(value, orjson.Fragment):
        return orjson.loads(value.contents)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _has_many(raw: bytes) -> bool:
    return raw.count(b",") > _MOST_VALUES


def _lenient(raw: bytes) -> object | None:
    """What Python reads of it; None when that cannot be used."""
    try:
        value: object = json.loads(raw, parse_int=_whole)
        json.dumps(_without_variables(value), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return value


def _without_variables(message: object) -> object:
    """A request, or a message with one, but for what its variables hold."""
    if not isinstance(message, Mapping):
        return message
    inner = {"payload": _without_variables(message["payload"])} if "payload" in message else {}
    return {name: value for name, value in message.items() if name != "variables"} | inner


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)
