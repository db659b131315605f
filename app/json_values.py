"""Types of JSON values in Python; imports none of our modules."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""A JSON value for reading: its lists and objects may be any sequences and mappings."""

JsonObject: TypeAlias = "dict[str, JsonValue]"
"""A JSON object for writing."""

JsonScalar: TypeAlias = bool | int | float | str | None
