"""Names that docstring examples of `app` use without importing them. A pytest plugin, named in conftest.py."""

from typing import Any

import pytest

from app.engine.plan.outline import outline
from app.pql.check.checker import check
from app.pql.core import Builder, Node
from app.pql.schema import ArrayType, ObjectType, Scalar, Type

_ITEM = ObjectType({"sku": Scalar.STRING, "price": Scalar.NUMBER})
_EVENT: dict[str, Type] = {
    "type": Scalar.STRING,
    "timestamp": Scalar.TIMESTAMP,
    "total": Scalar.NUMBER,
    "items": ArrayType(_ITEM),
}
PEOPLE = ObjectType(
    {"vip": Scalar.BOOLEAN, "points": Scalar.NUMBER, "name": Scalar.STRING, "xEvent": ArrayType(ObjectType(_EVENT))}
)


def condition(text: str) -> Node:
    """What an expression about `PEOPLE` is checked to, before any rule."""
    checked = check(text, PEOPLE, segments=())
    assert checked.condition is not None, checked.diagnostics
    return checked.condition


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update(condition=condition, outline=outline, Builder=Builder)
