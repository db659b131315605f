"""Combines definitions into one graph of shared nodes, in evaluation order, with the columns it reads; knows no
data."""

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from app.engine.plan.projection import needs_of, segments_of
from app.engine.plan.rules import Rewriter
from app.engine.store.bucket import Needs
from app.pql.core import Node, walk
from app.pql.dependencies import in_order
from app.pql.schema import MEMBERSHIP, Segment

_NO_VALUES: Mapping[str, Node] = MappingProxyType({})


class Plan:
    """`definitions` maps ids to conditions; `values` maps ids to expressions of any type, evaluated after them.

    `needs` are the columns to read. `references` are the segments outside the plan whose stored memberships are needed.
    `segments` are those whose entries in `segmentMembership` are read (None: of any). `order` lists the ids in
    evaluation order. `users` maps each node to the number of nodes that use it. `last_users` maps each id to the nodes
    that no later definition or value uses.

    Raises `ValueError` if definitions form a cycle.
    """

    def __init__(self, definitions: Mapping[str, Node], values: Mapping[str, Node] = _NO_VALUES) -> None:
        self._definitions = definitions
        self._parts: dict[frozenset[str], Plan] = {}
        rewriter = Rewriter()
        self.conditions: dict[str, Node] = {id: rewriter.rewritten(node) for id, node in definitions.items()}
        self.values: dict[str, Node] = {id: rewriter.rewritten(node) for id, node in values.items()}
        roots = {**self.conditions, **self.values}
        if len(roots) < len(self.conditions) + len(self.values):
            raise ValueError("conditions and values need ids of their own")
        nodes = {id: list(walk(node)) for id, node in roots.items()}
        referred = {id: _references(of) for id, of in nodes.items()}
        self.order: tuple[str, ...] = tuple(in_order({id: referred[id] for id in self.conditions}))
        self.references: frozenset[str] = frozenset().union(*referred.values()) - self.conditions.keys()
        self.needs: Needs = needs_of(roots.values())
        self.segments: frozenset[Segment] | None = segments_of(node for of in nodes.values() for node in of)
        self.users: Counter[Node] = Counter(roots.values())
        last: dict[Node, str] = {}
        for id in (*self.order, *self.values):
            for node in nodes[id]:
                if node not in last:
                    self.users.update(set(node.operands))
                last[node] = id
        self.last_users: dict[str, frozenset[Node]] = {
            id: frozenset(node for node in nodes[id] if last[node] == id) for id in roots
        }

    def of(self, definitions: frozenset[str]) -> "Plan":
        """The plan of only these definitions; the others become references."""
        if definitions == self.conditions.keys():
            return self
        if definitions not in self._parts:
            self._parts[definitions] = Plan({id: node for id, node in self._definitions.items() if id in definitions})
        return self._parts[definitions]

    @property
    def needs_memberships(self) -> bool:
        """Whether the plan reads `segmentMembership`."""
        return any(path[0] == MEMBERSHIP for path in self.needs.profile)


def _references(nodes: Iterable[Node]) -> frozenset[str]:
    return frozenset(node.payload[0] for node in nodes if node.op == "in_segment")
