"""Determines which stored columns a graph of nodes reads; knows no data.

Each value is traced back to the paths of which it may be a view: `element(1)` views what its binder's array views, a
filter is a view of its array, and so on. A path is read if a scalar or a map is at its end, or if a whole object is
needed (`isNull`, or objects compared as elements of sets).
"""

from collections.abc import Iterable, Mapping

from app.engine.store.bucket import Needs, Path
from app.pql.core import BINDERS, Node
from app.pql.schema import EVENTS, MEMBERSHIP, ArrayType, MapType, ObjectType, Segment

View = tuple[str, Path] | tuple[str, "Views"]
"""("profile" or "event", path), or ("group", views of the grouped values)."""
Views = frozenset[View]

_SAME_VIEW = frozenset({"filter", "top", "bottom", "distinct", "head", "intersection", "typed"})
_WHOLE = frozenset(
    {"is_null", "is_not_null", "distinct", "intersection", "intersects", "subset_of", "superset_of"}
    | {"set_eq", "set_ne", "in", "not_in", "group_by"}
)
_NO_VIEWS: Views = frozenset()


def needs_of(roots: Iterable[Node]) -> Needs:
    """The columns that conditions read from profiles and events; the path of an object means all of its leaves."""
    reading = _Reading()
    for root in roots:
        reading.follow(root)
    return reading.needs()


def segments_of(nodes: Iterable[Node]) -> frozenset[Segment] | None:
    """The segments whose entries in `segmentMembership` the nodes read, by namespace and id; None for any segment (the
    map's keys, or a computed key)."""
    segments: set[Segment] = set()
    for node in nodes:
        for operand in node.operands:
            namespace = _key(operand) if operand.op == "get" and _is_membership(operand.operands[0]) else None
            if _is_membership(operand) and (node.op != "get" or _key(node) is None):
                return None
            if namespace is not None:
                id = _key(node) if node.op == "get" else None
                if id is None:
                    return None
                segments.add((namespace, id))
    return frozenset(segments)


def _is_membership(node: Node) -> bool:
    return node.op == "field" and node.payload == (MEMBERSHIP,) and node.operands[0].op == "element"


def _key(get: Node) -> str | None:
    key = get.operands[1]
    return str(key.payload[0]) if key.op == "const" and key.payload[0] is not None else None


class _Reading:
    def __init__(self) -> None:
        self._leaves: set[tuple[str, Path]] = set()
        self._arrays: set[tuple[str, Path]] = set()
        self._events = False
        self._seen: set[tuple[Node, tuple[Views, ...]]] = set()
        self._known: dict[tuple[Node, tuple[Views, ...]], Views] = {}

    def follow(self, root: Node) -> None:
        """Visits each node in each context; uses a loop, since sums may be thousands of nodes deep."""
        stack: list[tuple[Node, Mapping[int, Views]]] = [(root, {0: frozenset({("profile", ())})})]
        while stack:
            node, levels = stack.pop()
            key = (node, _context(node, levels))
            if key in self._seen:
                continue
            self._seen.add(key)
            self._read(node, levels)
            unbound = node.unbound()
            inner = levels
            if node.op in BINDERS:
                inner = {**levels, node.payload[0]: self._views(node.operands[0], levels)}
            for at, operand in enumerate(node.operands):
                stack.append((operand, levels if at in unbound else inner))

    def needs(self) -> Needs:
        paths_of: dict[str, set[Path]] = {"profile": set(), "event": set()}
        for root, path in self._leaves:
            paths_of[root].add(path)
        for root, path in self._arrays:
            if path and not any(_below(other, path) for other in paths_of[root]):
                paths_of[root].add(path)
        for paths in paths_of.values():
            inside = {path for path in paths for at in range(1, len(path)) if path[:at] in paths}
            paths -= inside
        return Needs(frozenset(paths_of["profile"]), frozenset(paths_of["event"]), self._events)

    def _read(self, node: Node, levels: Mapping[int, Views]) -> None:
        if node.op == "field":
            for view in self._views(node, levels):
                if view[0] == "group":
                    continue
                root, path = view
                inner = node.type.element if isinstance(node.type, ArrayType) else node.type
                if root == "event":
                    self._events = True
                if isinstance(node.type, ArrayType) and isinstance(inner, ObjectType | ArrayType):
                    self._arrays.add((root, path))  # type: ignore[arg-type]
                elif not isinstance(inner, ObjectType):
                    self._leaves.add((root, path))  # type: ignore[arg-type]
        if node.op == "to_map":
            inner_levels = {**levels, node.payload[0]: self._views(node.operands[0], levels)}
            self._whole(self._views(node.operands[2], inner_levels))
        if node.op in _WHOLE:
            for operand in node.operands:
                inner = operand.type.element if isinstance(operand.type, ArrayType) else operand.type
                if isinstance(inner, ObjectType) and (operand.free or node.op not in BINDERS):
                    self._whole(self._views(operand, levels))

    def _whole(self, views: Views) -> None:
        self._leaves.update((view[0], view[1]) for view in views if view[0] != "group" and view[1])  # type: ignore[misc]

    def _views(self, node: Node, levels: Mapping[int, Views]) -> Views:
        if isinstance(node.type, MapType) and node.op != "field":
            return _NO_VIEWS  # a map is read completely
        key = (node, _context(node, levels))
        views = self._known.get(key)
        if views is None:
            views = self._known[key] = self._found(node, levels)
        return views

    def _found(self, node: Node, levels: Mapping[int, Views]) -> Views:
        if node.op == "element":
            return levels.get(node.payload[0], _NO_VIEWS)
        if node.op == "field":
            return self._field(node, levels)
        if node.op in _SAME_VIEW:
            return self._views(node.operands[0], levels)
        if node.op == "map":
            inner = {**levels, node.payload[0]: self._views(node.operands[0], levels)}
            return self._views(node.operands[1], inner)
        if node.op == "group_by":
            return frozenset({("group", self._views(node.operands[0], levels))})
        if node.op in ("if", "array"):
            items = node.operands[1:] if node.op == "if" else node.operands
            return frozenset().union(*(self._views(item, levels) for item in items))
        return _NO_VIEWS

    def _field(self, node: Node, levels: Mapping[int, Views]) -> Views:
        (name,) = node.payload
        views: set[View] = set()
        if isinstance(node.operands[0].type, MapType):
            return _NO_VIEWS
        for view in self._views(node.operands[0], levels):
            if view[0] == "group":
                views |= view[1] if name == "values" else frozenset()  # type: ignore[arg-type]
            elif view == ("profile", ()) and name == EVENTS:
                self._events = True
                views.add(("event", ()))
            else:
                views.add((view[0], (*view[1], name)))
        return frozenset(views)


def _context(node: Node, levels: Mapping[int, Views]) -> tuple[Views, ...]:
    return tuple(levels.get(level, _NO_VIEWS) for level in sorted(node.free))


def _below(path: Path, above: Path) -> bool:
    return path[: len(above)] == above
