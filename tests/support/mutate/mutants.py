"""The small changes of a module: an operator for its neighbour, a constant plus one, a condition negated, a result or a
call left out."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of a module in one place: the node's number in the order of `ast.walk`, and new values of its fields."""

    lines: tuple[int, ...]
    """Where the node begins, and the innermost statement around it."""
    what: str
    node: int
    fields: dict[str, object]

    def tree(self, source: str) -> ast.Module:
        """The changed module, with the positions of the unchanged one."""
        tree = ast.parse(source)
        changed = next(node for number, node in enumerate(ast.walk(tree)) if number == self.node)
        for name, value in self.fields.items():
            setattr(changed, name, value)
        return ast.fix_missing_locations(tree)


def mutants(source: str) -> list[Mutant]:
    """Every change in one place.

    >>> [(one.lines[0], one.what) for one in mutants("def f(a):\\n    return a < 1")]
    [(2, 'return a < 1 -> return None'), (2, 'a < 1: Lt -> LtE'), (2, '1 -> 2')]
    >>> ast.unparse(mutants("a = 1 < 2")[0].tree("a = 1 < 2"))
    'a = 1 <= 2'
    """
    tree = ast.parse(source)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return [
        Mutant(_lines(node, statements), what, number, fields)
        for number, node in enumerate(ast.walk(tree))
        for what, fields in _changes(node)
    ]


def _lines(node: ast.AST, statements: list[ast.stmt]) -> tuple[int, ...]:
    line = node.lineno if isinstance(node, ast.expr | ast.stmt) else 0
    around = max((one.lineno for one in statements if one.lineno <= line <= (one.end_lineno or 0)), default=line)
    return line, around


def _changes(node: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    text = ast.unparse(node) if isinstance(node, ast.expr | ast.stmt) else ""
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in SWAPPED:
            other = SWAPPED[type(operator)]
            yield f"{text}: {type(operator).__name__} -> {other.__name__}", {"ops": [other()]}
        case ast.BoolOp(op=operator) | ast.BinOp(op=operator) if type(operator) in SWAPPED:
            other = SWAPPED[type(operator)]
            yield f"{text}: {type(operator).__name__} -> {other.__name__}", {"op": other()}
        case ast.Constant(value=bool() as value):
            yield f"{value} -> {not value}", {"value": not value}
        case ast.Constant(value=int() | float() as value):
            yield f"{value} -> {value + 1}", {"value": value + 1}
        case ast.If(test=test):
            yield f"if {ast.unparse(test)} -> if not", {"test": ast.UnaryOp(ast.Not(), test)}
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield f"{text} -> return None", {"value": ast.Constant(None)}
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield f"{text} left out", {"value": ast.Constant(None)}
