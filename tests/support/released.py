"""Keeps a release's schema, for the test that names what breaks its clients: `python -m tests.support.released`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphql import build_schema, parse, print_ast, visit
from graphql.language import Node, Visitor

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "tests" / "data" / "released.graphql"


class _WithoutDescriptions(Visitor):
    """Of clients' interest is the shape alone."""

    def enter(self, node: Node, *_: object) -> Node | None:
        without: dict[str, Any] = {"description": None}
        return replace(node, **without) if getattr(node, "description", None) else None


def without_descriptions(schema: str) -> str:
    """The same schema language text, without what it says in words. Raises `GraphQLError` for an invalid schema."""
    build_schema(schema)
    return print_ast(visit(parse(schema, no_location=True), _WithoutDescriptions())) + "\n"


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "schema.graphql"
    RELEASED.write_text(without_descriptions(source.read_text()))
