"""What of these expressions can be evaluated: conditions over the data of their merge policies, and what is wrong."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from app.errors import Diagnostic
from app.pql.check.checker import check
from app.pql.consent import with_consent
from app.pql.core import Builder, Node
from app.pql.schema import ObjectType


@dataclass(frozen=True, slots=True)
class Source:
    """An expression to be evaluated for the profiles of a merge policy; `exclude_opt_out` leaves out who opted out."""

    id: str
    expression: str
    merge_policy_id: str
    exclude_opt_out: bool


@dataclass(frozen=True, slots=True)
class Conditions:
    """By id the conditions, with the segments that each refers to; of the others the first diagnostic says why not."""

    nodes: dict[str, Node] = field(default_factory=dict)
    references: dict[str, frozenset[str]] = field(default_factory=dict)
    diagnostics: dict[str, Diagnostic] = field(default_factory=dict)


def read_conditions(
    sources: Iterable[Source],
    schemas: Mapping[str, ObjectType],
    segments: Container[str],
    aliases: Mapping[str, str],
) -> Conditions:
    """Checks each expression against the schema of its merge policy's data, of which there must be one.

    Expressions of one merge policy share their nodes. `segments` are the ids that `inSegment` may name, `aliases`
    other names of them.
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
