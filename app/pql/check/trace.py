"""Records the node of each written part of an expression, for displaying values beside the text."""

from dataclasses import dataclass, field

from app.pql.check.scopes import Names
from app.pql.core import Node
from app.pql.syntax.nodes import Expr


@dataclass(frozen=True, slots=True)
class Part:
    """`node` is the value of a part; `arrays` are (level, array) of the enclosing binders, outermost first."""

    node: Node
    arrays: tuple[tuple[int, Node], ...]


@dataclass(slots=True)
class Trace:
    """Parts keyed by the identity of their syntax nodes, which live as long as the tree; `conditions` holds those used
    as tests."""

    parts: dict[int, Part] = field(default_factory=dict)
    conditions: dict[int, Node] = field(default_factory=dict)

    def note(self, expr: Expr, node: Node, scope: Names) -> None:
        around = [(place.depth, place.array) for place in scope.around() if place.array is not None]
        self.parts[id(expr)] = Part(node, tuple((level, array) for level, array in reversed(around) if array))
