"""The definitions that are evaluated outside jobs, in the order in which that can be done; knows no memberships."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.people.profiles import Snapshot
from app.engine.plan.plan import Plan
from app.pql.check.checker import check
from app.pql.consent import with_consent
from app.pql.core import Builder, Node
from app.scope import Scope
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.definitions import DefinitionRow
from app.storage.tenancy import same_tenant, within

log = logging.getLogger(__name__)

_AUDIENCES = columns(AudienceRow)
_DEFINITIONS = columns(DefinitionRow)
_STREAMED = or_(_AUDIENCES.evaluates_streaming, _AUDIENCES.evaluates_edge)


@dataclass(frozen=True, slots=True)
class LiveDefinition:
    """A published definition that is evaluated as soon as data lands, or also when a person's memberships are read."""

    id: str
    version: int
    expression: str
    merge_policy_id: str
    exclude_opt_out: bool


@dataclass(frozen=True, slots=True)
class Wave:
    """Definitions of one merge policy that are evaluated together; what else they refer to is in earlier waves."""

    merge_policy_id: str
    plan: Plan
    versions: Mapping[str, int]


async def has_live_definitions(session: AsyncSession, scope: Scope) -> bool:
    statement = within(select(_AUDIENCES.id), AudienceRow, scope.tenant)
    found = statement.where(_STREAMED, _AUDIENCES.lifecycle_state == "PUBLISHED").limit(1)
    return (await session.execute(found)).first() is not None


async def live_definitions(session: AsyncSession, scope: Scope, *, edge: bool = False) -> list[LiveDefinition]:
    """Those that are streamed, which EDGE ones are too; with `edge` the EDGE ones alone."""
    same = and_(
        same_tenant(_AUDIENCES, _DEFINITIONS),
        _AUDIENCES.id == _DEFINITIONS.id,
    )
    fields = (
        _DEFINITIONS.id,
        _DEFINITIONS.version,
        _DEFINITIONS.expression,
        _AUDIENCES.merge_policy_id,
        _AUDIENCES.exclude_opt_out,
    )
    joined = select(*fields).join_from(DefinitionRow, AudienceRow, same)
    chosen = joined.where(_AUDIENCES.evaluates_edge if edge else _STREAMED, _AUDIENCES.lifecycle_state == "PUBLISHED")
    rows = await session.execute(within(chosen, DefinitionRow, scope.tenant).order_by(_DEFINITIONS.id))
    return [LiveDefinition(*row) for row in rows]


def waves(
    definitions: Iterable[LiveDefinition],
    snapshots: Mapping[str, Snapshot],
    evaluated: Collection[str],
    aliases: Mapping[str, str],
) -> list[Wave]:
    """The definitions whose merge policy has a snapshot, in order. References to others read what is stored of the
    `evaluated`, which may be named by their `aliases`. One that does not check any more is left out with a warning; the
    next job tells its owner why."""
    builders = {policy: Builder() for policy in snapshots}
    given = [definition for definition in definitions if definition.merge_policy_id in snapshots]
    known = {definition.id for definition in given} | set(evaluated)
    conditions: dict[str, Node] = {}
    references: dict[str, frozenset[str]] = {}
    policies: dict[str, str] = {}
    for one in given:
        schema, builder = snapshots[one.merge_policy_id].schema, builders[one.merge_policy_id]
        checked = check(one.expression, schema, segments=known, aliases=aliases, builder=builder)
        if checked.condition is None:
            log.warning("definition %s is not streamed: %s", one.id, next(iter(checked.diagnostics)).message)
            continue
        condition = checked.condition
        conditions[one.id] = with_consent(condition, schema, builder) if one.exclude_opt_out else condition
        references[one.id], policies[one.id] = checked.references, one.merge_policy_id
    versions = {one.id: one.version for one in given}
    return [
        Wave(policies[ids[0]], Plan({id_: conditions[id_] for id_ in ids}), versions)
        for ids in in_order(references, policies)
    ]


def in_order(references: Mapping[str, Collection[str]], groups: Mapping[str, str]) -> list[Sequence[str]]:
    """The ids in as few runs of one group each as it takes for every id to come with or after those it refers to.

    >>> in_order({"a": [], "b": ["a"], "c": ["b"], "d": []}, {"a": "x", "b": "y", "c": "x", "d": "x"})
    [['a', 'd'], ['b'], ['c']]
    """
    waiting = dict(references)
    order: list[Sequence[str]] = []
    while waiting:
        ready = {group: _ready(waiting, groups, group) for group in sorted({groups[id_] for id_ in waiting})}
        most = max(ready.values(), key=len)
        if not most:
            raise ValueError(f"{sorted(waiting)} refer to one another in a circle")
        order.append(most)
        for id_ in most:
            del waiting[id_]
    return order


def _ready(waiting: Mapping[str, Collection[str]], groups: Mapping[str, str], group: str) -> list[str]:
    chosen: dict[str, None] = {}
    before = -1
    while before < len(chosen):
        before = len(chosen)
        for id_, others in waiting.items():
            if groups[id_] == group and all(other in chosen or other not in waiting for other in others):
                chosen[id_] = None
    return list(chosen)
