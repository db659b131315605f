"""Many definitions as one graph of shared nodes, in order, with the columns that it reads; knows no data.

Definitions that others refer to by `in_segment` come first. Conditions of filters are taken apart so that their most
selective and most shared part (a test of a text, such as the type of an event) is a filter of its own, which all
definitions then start from.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from app.engine.plan.projection import needs_of
from app.engine.store.bucket import Needs
from app.pql.core import BINDERS, Builder, Node, walk
from app.pql.schema import ArrayType, Scalar

_NARROWING = frozenset({"filter", "exists"})
_EXTREME = {"lt": "min", "le": "min", "gt": "max", "ge": "max"}
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
_ORDERED = frozenset({Scalar.NUMBER, Scalar.STRING, Scalar.DATE, Scalar.TIMESTAMP})


class Plan:
    """`definitions` are ids with conditions.

    `needs` is what has to be read, `references` the segments outside the plan whose stored membership is asked for,
    `order` the ids in the order of evaluation, `users` how many nodes use a node, and `last_users` the nodes that no
    later definition uses.

    Raises `ValueError` when definitions refer to one another in a circle.
    """

    def __init__(self, definitions: Mapping[str, Node]) -> None:
        lowering = _Lowering()
        self.conditions: dict[str, Node] = {id: lowering.lowered(node) for id, node in definitions.items()}
        nodes = {id: list(walk(node)) for id, node in self.conditions.items()}
        referred = {id: _references(of) for id, of in nodes.items()}
        self.order: tuple[str, ...] = _ordered(referred)
        self.references: frozenset[str] = frozenset().union(*referred.values()) - self.conditions.keys()
        self.needs: Needs = needs_of(self.conditions.values())
        self.users: Counter[Node] = Counter(self.conditions.values())
        last: dict[Node, str] = {}
        for id in self.order:
            for node in nodes[id]:
                if node not in last:
                    self.users.update(set(node.operands))
                last[node] = id
        self.last_users: dict[str, frozenset[Node]] = {
            id: frozenset(node for node in nodes[id] if last[node] == id) for id in self.order
        }


class _Lowering:
    """Rewrites graphs, operands first, into equal ones that are cheaper to evaluate; one object for equal nodes."""

    def __init__(self) -> None:
        self._builder = Builder()
        self._done: dict[Node, Node] = {}
        self._binds: dict[Node, bool] = {}

    def lowered(self, root: Node) -> Node:
        for node in walk(root):
            if node not in self._done:
                operands = tuple(self._done[operand] for operand in node.operands)
                made = self._builder.node(node.op, node.type, *operands, payload=node.payload)
                self._done[node] = self._narrowed(made)
        return self._done[root]

    def _narrowed(self, node: Node) -> Node:
        """`A[text test and cheap and nested]` as `A[text test][cheap][nested]`; what speaks of outer elements too comes
        after what does not."""
        if node.op not in _NARROWING:
            return node
        array, condition = node.operands
        level = node.payload[0]
        parts = _conjuncts(condition)
        apart = [part for part in parts if node.op == "exists" and level not in part.free]
        parts = [part for part in parts if part not in apart]
        if not parts:
            return node
        first = next((part for part in parts if _is_text_test(part, level)), None)
        rest = [part for part in parts if part is not first]
        nested = [part for part in rest if self._has_binder(part)]
        cheap = [part for part in rest if part not in nested]
        pairing = [part for part in cheap if not part.free <= array.free | {level}]
        own = [part for part in cheap if part not in pairing]
        stages = [[first] if first is not None else [], own, pairing, nested]
        *before, last = [stage for stage in stages if stage]
        for stage in before:
            array = self._builder.node("filter", array.type, array, self._all(stage), payload=(level,))
        made = self._builder.node(node.op, node.type, array, self._all(last), payload=node.payload)
        made = self._by_extreme(made) if node.op == "exists" else made
        return self._all([*apart, made])

    def _by_extreme(self, node: Node) -> Node:
        """`exists(A, f > g)`, where g speaks of outer elements only, as `max(A, f) > g`: nothing is paired."""
        array, condition = node.operands
        level = node.payload[0]
        if condition.op not in _EXTREME:
            return node
        op, (f, g) = condition.op, condition.operands
        if level in g.free:
            op, f, g = _MIRRORED[op], g, f
        outer = (f.free - {level}) | array.free
        if level in g.free or f.type not in _ORDERED or max(outer, default=-1) >= max(g.free, default=-1):
            return node
        extreme = self._builder.node(_EXTREME[op], f.type, array, f, payload=(level,))
        return self._builder.condition(op, extreme, g)

    def _all(self, parts: list[Node]) -> Node:
        return parts[0] if len(parts) == 1 else self._builder.condition("and", *parts)

    def _has_binder(self, root: Node) -> bool:
        for node in walk(root):
            if node not in self._binds:
                self._binds[node] = node.op in BINDERS or any(self._binds[operand] for operand in node.operands)
        return self._binds[root]


def _conjuncts(condition: Node) -> list[Node]:
    """The parts of a conjunction, of inner ones too."""
    if condition.op != "and":
        return [condition]
    return [part for operand in condition.operands for part in _conjuncts(operand)]


def _is_text_test(node: Node, level: int) -> bool:
    """Whether the node asks if a text of the element is one of a few."""
    if node.op not in ("eq", "equals", "in") or node.free != {level}:
        return False
    text, other = node.operands[0].type, node.operands[1]
    return text is Scalar.STRING and not other.free and other.type in (Scalar.STRING, ArrayType(Scalar.STRING))


def _references(nodes: Iterable[Node]) -> frozenset[str]:
    return frozenset(node.payload[0] for node in nodes if node.op == "in_segment")


def _ordered(referred: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """Ids after those that they refer to, else as given."""
    order: list[str] = []
    done: set[str] = set()
    for start in referred:
        path = [(start, iter(sorted(referred[start] & referred.keys())))] if start not in done else []
        open_ids = [start]
        while path:
            id, others = path[-1]
            other = next(others, None)
            if other is None:
                path.pop()
                open_ids.pop()
                if id not in done:
                    done.add(id)
                    order.append(id)
            elif other in open_ids:
                circle = " → ".join([*open_ids[open_ids.index(other) :], other])
                raise ValueError(f"definitions refer to one another in a circle: {circle}")
            elif other not in done:
                path.append((other, iter(sorted(referred[other] & referred.keys()))))
                open_ids.append(other)
    return tuple(order)
