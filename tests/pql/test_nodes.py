"""The tree: every field that holds nodes is walked, in the order of writing."""

from dataclasses import fields

from app.pql.syntax import nodes
from app.pql.syntax.nodes import PARTS, Literal, Located, Step, children

NODES = ("Expr", "Occurs", "Clause", "Step")


def test_the_table_of_parts_names_every_field_that_holds_nodes() -> None:
    classes = [each for each in vars(nodes).values() if isinstance(each, type) and issubclass(each, Located)]
    held = {
        each: {field.name for field in fields(each) if any(name in str(field.type) for name in NODES)}
        for each in classes
    }
    assert {each: names for each, names in held.items() if names} == {each: set(names) for each, names in PARTS.items()}


def test_children_come_as_written_and_without_what_is_left_out() -> None:
    what, where, count = Literal(1), Literal(2), Literal(3)
    assert list(children(Step("A", what, where=where, count=count))) == [what, where, count]
    assert list(children(Step("A", what))) == [what]
    assert list(children(what)) == []
