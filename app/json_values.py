"""JSON values as Python holds them; imports nothing of ours."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""A JSON value to read: its lists and objects may be any sequences and mappings."""

JsonObject: TypeAlias = "dict[str, JsonValue]"
"""A JSON object to write."""

JsonScalar: TypeAlias = bool | int | float | str | None
