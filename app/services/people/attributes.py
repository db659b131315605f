"""Chosen attributes of a profile, by dotted paths."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import ErrorCode, Refusal
from app.storage.columns import StoredValues


def project(attributes: Mapping[str, object], paths: Sequence[str]) -> StoredValues:
    """Only what the dotted paths name, in its place; arrays are followed. Raises `Refusal` for a malformed path.

    >>> project({"commerce": {"order": {"total": 3, "id": "a"}}, "device": "phone"}, ["commerce.order.total"])
    {'commerce': {'order': {'total': 3}}}
    """
    tree: StoredValues = {}
    for path in split_paths(paths):
        branch = tree
        for name in path:
            branch = branch.setdefault(name, {})
    return _pruned(attributes, tree) if tree else {}


def split_paths(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Raises `Refusal` for a path with an empty name."""
    for at, path in enumerate(paths):
        if not all(path.split(".")):
            message = f"{path!r} is not a path: write names with dots between them, like homeAddress.country"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("paths", str(at)))
    return [tuple(path.split(".")) for path in paths]


def _pruned(value: object, tree: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_pruned(item, tree) for item in value]
    if not tree or not isinstance(value, Mapping):
        return value
    # A branch without an end of its own (a path that ends here) keeps everything below it.
    return {name: _pruned(value[name], branch) for name, branch in tree.items() if name in value}
