"""Selected attributes of a profile, by dotted paths."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import ErrorCode, Refusal
from app.pql.syntax.paths import path_names
from app.storage.columns import StoredValues


def project(attributes: Mapping[str, object], paths: Sequence[str]) -> StoredValues:
    """Keeps only what the dotted paths name, in its place; follows arrays. Raises `Refusal` for a malformed path.

    >>> project({"commerce": {"order": {"total": 3, "id": "a"}}, "device": "phone"}, ["commerce.order.total"])
    {'commerce': {'order': {'total': 3}}}
    >>> project({"home": {"city": "Rome", "zip": "00118"}}, ["home", "home.zip"])
    {'home': {'city': 'Rome', 'zip': '00118'}}
    """
    tree: StoredValues = {}
    for path in sorted(split_paths(paths), key=len):
        branch = tree
        for name in path:
            if branch.get(name) == {}:  # A shorter path keeps everything below it.
                break
            branch = branch.setdefault(name, {})
    return _pruned(attributes, tree) if tree else {}


def split_paths(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Splits dotted paths, in which names may stand in backquotes. Raises `Refusal` for any other text."""
    names = [path_names(path) for path in paths]
    for at, split in enumerate(names):
        if split is None:
            message = f"{paths[at]!r} is not a path: write names with dots between them, like homeAddress.country"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("paths", str(at)))
    return [split for split in names if split is not None]


def _pruned(value: object, tree: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_pruned(item, tree) for item in value]
    if not tree or not isinstance(value, Mapping):
        return value
    # A branch without branches of its own keeps everything below it; beside `a.b`, the path `a` adds nothing.
    return {name: _pruned(value[name], branch) for name, branch in tree.items() if name in value}
