"""The definitions evaluated outside jobs, in dependency order; knows no memberships."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.people.profiles import Snapshot
from app.engine.plan.plan import Plan
from app.pql.core import walk
from app.pql.dependencies import in_passes
from app.pql.eligibility import reads_clock
from app.scope import Scope
from app.services.evaluation.conditions import Conditions, Source, read_conditions
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow, LifecycleState
from app.storage.tables.definitions import DefinitionRow
from app.storage.tenancy import same_tenant, within

log = logging.getLogger(__name__)

_AUDIENCES = columns(AudienceRow)
_DEFINITIONS = columns(DefinitionRow)
_STREAMED = or_(_AUDIENCES.evaluates_streaming, _AUDIENCES.evaluates_edge)


@dataclass(frozen=True, slots=True)
class LiveDefinition:
    """A published definition that is evaluated as soon as data arrives or, for EDGE, also when memberships are read."""

    id: str
    version: int
    expression: str
    merge_policy_id: str
    exclude_opt_out: bool


@dataclass(frozen=True, slots=True)
class LiveStage:
    """Definitions of one merge policy that are evaluated together; other definitions they reference are in earlier
    stages. Their people are the persons of version `graph` of the identity graph, or fragments if it is None.

    The results of those in `by_clock` can change as time passes; no other definition references them.
    """

    merge_policy_id: str
    graph: int | None
    plan: Plan
    versions: Mapping[str, int]
    by_clock: frozenset[str]


async def has_live_definitions(session: AsyncSession, scope: Scope) -> bool:
    statement = within(select(_AUDIENCES.id), AudienceRow, scope.tenant)
    published = statement.where(_STREAMED, _AUDIENCES.lifecycle_state == LifecycleState.PUBLISHED).limit(1)
    return (await session.execute(published)).first() is not None


async def live_definitions(session: AsyncSession, scope: Scope, *, edge: bool = False) -> list[LiveDefinition]:
    """The streamed definitions, which include EDGE definitions; with `edge` only the EDGE definitions."""
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
    published = joined.where(
        _AUDIENCES.evaluates_edge if edge else _STREAMED, _AUDIENCES.lifecycle_state == LifecycleState.PUBLISHED
    )
    rows = await session.execute(within(published, DefinitionRow, scope.tenant).order_by(_DEFINITIONS.id))
    return [LiveDefinition(*row) for row in rows]


def live_passes(
    definitions: Iterable[LiveDefinition],
    snapshots: Mapping[str, Snapshot],
    evaluated: Collection[str],
    aliases: Mapping[str, str],
) -> list[list[LiveStage]]:
    """The definitions whose merge policy has a snapshot, in passes and stages (`in_passes`). References to other
    definitions read the stored memberships of `evaluated`, which can be named by their `aliases`. A definition that no
    longer checks is skipped with a warning; the next job reports the error to its owner."""
    live = [definition for definition in definitions if definition.merge_policy_id in snapshots]
    segments = {definition.id for definition in live} | set(evaluated)
    sources = [Source(each.id, each.expression, each.merge_policy_id, each.exclude_opt_out) for each in live]
    schemas = {policy: snapshot.schema for policy, snapshot in snapshots.items()}
    conditions = read_conditions(sources, schemas, segments, aliases)
    for id_, diagnostic in conditions.diagnostics.items():
        log.warning("definition %s is not streamed: %s", id_, diagnostic.message)
    versions = {definition.id: definition.version for definition in live}
    policies = {definition.id: definition.merge_policy_id for definition in live}
    graphs = {id_: snapshots[policy].graph_version for id_, policy in policies.items()}
    changing = _by_clock(conditions)

    def stage(policy: str, ids: Iterable[str]) -> LiveStage:
        plan = Plan({id_: conditions.nodes[id_] for id_ in ids})
        return LiveStage(policy, snapshots[policy].graph_version, plan, versions, changing.intersection(ids))

    return [[stage(*unit) for unit in units] for units in in_passes(conditions.references, policies, graphs)]


def _by_clock(conditions: Conditions) -> frozenset[str]:
    changing = {id_ for id_, node in conditions.nodes.items() if reads_clock(walk(node))}
    while more := {id_ for id_, others in conditions.references.items() if changing.intersection(others)} - changing:
        changing |= more
    return frozenset(changing)
