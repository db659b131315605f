"""Ids as clients see them: opaque global ids, or raw ids; knows resources only by name."""

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import strawberry

from app.api.permissions import refuse_type
from app.errors import ErrorCode, Refusal
from app.services.lists.validation import is_text

if TYPE_CHECKING:
    from app.api.context import Operation


_NODE_TYPES: "dict[str, type[Node]]" = {}


@strawberry.interface(description="An object with a global id, for `node(id:)`.")
class Node:
    id: strawberry.ID = strawberry.field(description="Opaque global id, unique among all types.")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if Node in cls.__bases__:
            _NODE_TYPES[cls.__name__] = cls

    @classmethod
    async def fetch(cls, operation: "Operation", raw: str) -> Self | None:
        """The object with this raw id in the caller's tenant."""
        raise NotImplementedError(f"{cls.__name__} cannot be fetched by its id")


def global_id(type_name: str, raw: str) -> strawberry.ID:
    """
    >>> global_id("Audience", "0197")
    'QXVkaWVuY2U6MDE5Nw=='
    """
    return strawberry.ID(binascii.b2a_base64(f"{type_name}:{raw}".encode(), newline=False).decode())


def split_id(value: str) -> tuple[str | None, str]:
    """Type name and raw id of a global id; None and the value itself for a raw id.

    >>> split_id("QXVkaWVuY2U6MDE5Nw=="), split_id("0197")
    (('Audience', '0197'), (None, '0197'))
    """
    try:
        name, colon, raw = base64.b64decode(value, validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        return None, value
    well_formed = colon and name in node_types() and is_text(raw)
    return (name, raw) if well_formed else (None, value)


def node_types() -> Mapping[str, type[Node]]:
    """All types that implement Node, by name."""
    return _NODE_TYPES


def find_id(type_name: str, value: str) -> str | None:
    """The raw id in an argument; None for a global id of another type, which matches nothing."""
    name, raw = split_id(value)
    return raw if name in (None, type_name) else None


def need_id(type_name: str, value: str, *path: str) -> str:
    """The raw id in an input field. Raises `Refusal` for a global id of another type."""
    name, raw = split_id(value)
    if name in (None, type_name):
        return raw
    message = f"{value!r} is the id of an object of type {name}, but one of type {type_name} is asked for"
    raise Refusal(ErrorCode.NOT_FOUND, message, path)


def node_type(type_name: str) -> Any:
    """The type with this name, for references to a resource whose module is imported later."""
    return node_types()[type_name]


async def fetch_node(operation: "Operation", value: str) -> Any:
    """The object with a global id, of any type; None if it does not exist or the id is raw."""
    name, raw = split_id(value)
    if name is None:
        return None
    refuse_type(operation.scope, name)
    return await node_type(name).fetch(operation, raw)
