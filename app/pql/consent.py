"""Consent: profiles that have opted out are never members of audiences that respect it (segmentation-service.md,
"Consent")."""

from collections.abc import Sequence

from app.pql.core import Builder, Node
from app.pql.schema import ObjectType, Scalar

OPTED_OUT: tuple[tuple[tuple[str, ...], tuple[str | bool, ...]], ...] = (
    (("optInOut", "globalOptout"), (True,)),
    (("consents", "marketing", "any", "val"), ("n", "dn")),
)
"""Path of a field → its values that mean an opt-out."""


def with_consent(condition: Node, schema: ObjectType, builder: Builder) -> Node:
    """The condition, restricted to profiles that have not opted out. A profile without the fields has not opted out.

    >>> builder = Builder()
    >>> everybody = builder.condition("truth", builder.constant(True, Scalar.BOOLEAN))
    >>> with_consent(everybody, ObjectType({}), builder) is everybody
    True
    """
    refused = [
        builder.condition("eq", field, builder.constant(value, field.type))
        for path, values in OPTED_OUT
        if (field := _field(path, schema, builder)) is not None
        for value in values
        if field.type is (Scalar.BOOLEAN if isinstance(value, bool) else Scalar.STRING)
    ]
    if not refused:
        return condition
    return builder.condition("and", condition, *(builder.condition("not", purpose) for purpose in refused))


def _field(path: Sequence[str], schema: ObjectType, builder: Builder) -> Node | None:
    """The scalar field of the profile at this path; None if the schema has none."""
    node = builder.node("element", schema, payload=(0,))
    for name in path:
        if not isinstance(node.type, ObjectType) or name not in node.type.fields:
            return None
        node = builder.node("field", node.type.fields[name], node, payload=(name,))
    return node
