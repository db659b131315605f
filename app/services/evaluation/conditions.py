"""Checks expressions against the data of their merge policies, and collects conditions and diagnostics."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from app.errors import Diagnostic
from app.pql.check.checker import check
from app.pql.consent import with_consent
from app.pql.core import Builder, Node
from app.pql.schema import ObjectType


@dataclass(frozen=True, slots=True)
class Source:
    """An expression to evaluate for the profiles of a merge policy; `exclude_opt_out` excludes profiles that have opted
    out."""

    id: str
    expression: str
    merge_policy_id: str
    exclude_opt_out: bool


@dataclass(frozen=True, slots=True)
class Conditions:
    """By id: the conditions and the segments that each references; for invalid expressions, the first diagnostic."""

    nodes: dict[str, Node] = field(default_factory=dict)
    references: dict[str, frozenset[str]] = field(default_factory=dict)
    diagnostics: dict[str, Diagnostic] = field(default_factory=dict)


def read_conditions(
    sources: Iterable[Source],
    schemas: Mapping[str, ObjectType],
    segments: Container[str],
    aliases: Mapping[str, str],
) -> Conditions:
    """Checks each expression against the schema of its merge policy, which must be among `schemas`.

    Expressions of one merge policy share their nodes. `segments` are the ids that `inSegment` may name; `aliases` maps
    other names to ids.
    """
    builders = {policy: Builder() for policy in schemas}
    conditions = Conditions()
    for source in sources:
        schema, builder = schemas[source.merge_policy_id], builders[source.merge_policy_id]
        checked = check(source.expression, schema, segments=segments, aliases=aliases, builder=builder)
        if checked.condition is None:
            conditions.diagnostics[source.id] = next(iter(checked.diagnostics))
            continue
        node = checked.condition
        conditions.nodes[source.id] = with_consent(node, schema, builder) if source.exclude_opt_out else node
        conditions.references[source.id] = checked.references
    return conditions
