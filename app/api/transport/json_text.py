"""JSON of requests and answers: what one bad row in the variables of a request holds does not cost the others."""

import json
import re
from collections.abc import Mapping

import orjson

_BEYOND = re.compile(rb"\\u[dD][89a-fA-F]|NaN|Infinity|[eE]\+?[0-9]{3}|[0-9]{300}")
"""What only Python's parser reads: halves of surrogate pairs, and numbers that are none or beyond a double."""
_LONG = re.compile(rb"[0-9]{20}|-9[0-9]{18}")
"""Digits that may be a whole number beyond 64 bits, which orjson rounds."""
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
        if not _BEYOND.search(raw):
            raise
        lenient = _lenient(raw)
        if lenient is None:
            raise
        return lenient
    exact = _lenient(raw) if _LONG.search(raw) else None
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
