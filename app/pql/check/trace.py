"""What each written part of an expression became, for those who show values beside the text."""

from dataclasses import dataclass, field

from app.pql.check.scopes import Names
from app.pql.core import Node
from app.pql.syntax.nodes import Expr


@dataclass(frozen=True, slots=True)
class Part:
    """`node` is the value of a part; `arrays` are (level, array) of the binders around it, outermost first."""

    node: Node
    arrays: tuple[tuple[int, Node], ...]


@dataclass(slots=True)
class Trace:
    """Parts by the identity of their syntax, which lives as long as its tree; `conditions` where a test was needed."""

    parts: dict[int, Part] = field(default_factory=dict)
    conditions: dict[int, Node] = field(default_factory=dict)

    def note(self, expr: Expr, node: Node, scope: Names) -> None:
        around = [(place.depth, place.array) for place in scope.around() if place.array is not None]
        self.parts[id(expr)] = Part(node, tuple((level, array) for level, array in reversed(around) if array))
