"""Paths of fields as text: names with dots between them; knows no expressions."""

import re
from collections.abc import Iterator, Sequence

from app.pql.schema import ObjectType, Type, leaves
from app.pql.syntax.tokens import bare_name

_PATH_NAME = re.compile(r"`((?:[^`]|``)+)`|([^.`][^.]*)")
_PATH = re.compile(rf"(?:{_PATH_NAME.pattern})(?:\.(?:{_PATH_NAME.pattern}))*")


def path_names(path: str) -> tuple[str, ...] | None:
    """The names of a dotted path; names in backquotes may contain dots. None for text that is no path.

    >>> path_names("homeAddress.zip code"), path_names("order.`total.net`"), path_names("a..b")
    (('homeAddress', 'zip code'), ('order', 'total.net'), None)
    """
    if _PATH.fullmatch(path) is None:
        return None
    return tuple(quoted.replace("``", "`") or plain for quoted, plain in _PATH_NAME.findall(path))


def written_path(names: Sequence[str]) -> str:
    """The inverse of `path_names`, as it stands in an expression; valid after a dot as well as without one.

    >>> written_path(["xEvent", "Order Date"]), written_path(["a.b", "in"])
    ('xEvent.`Order Date`', '`a.b`.`in`')
    """
    return ".".join(map(bare_name, names))


def leaf_paths(schema: ObjectType, above: tuple[str, ...] = ()) -> Iterator[tuple[str, Type]]:
    """The paths and types of `leaves`."""
    for names, type_ in leaves(schema, above):
        yield written_path(names), type_
