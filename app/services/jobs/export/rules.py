"""Validation of exports: the input itself, and the sandbox objects that it names."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import or_
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.members.membership import STATUSES
from app.engine.people.profiles import schema_of
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.pql.schema import namespace_of
from app.scope import Scope
from app.services import merge_policies
from app.services.evaluation.expressions import data_sources
from app.services.evaluation.heads import read_heads
from app.services.jobs.export.input import (
    SCHEMA,
    ExportSegment,
    NewExport,
    TimeRange,
    path_refusals,
)
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.rows import as_row, get_rows, select_rows
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow, AudienceType
from app.storage.tables.datasets import DatasetKind, DatasetRow
from app.storage.tables.merge_policies import MergePolicyRow

MOST_SEGMENTS = segment_jobs.MOST_IDS

_AUDIENCES = columns(AudienceRow)


def form_refusals(new: NewExport) -> Iterator[Refusal]:
    """Errors that do not depend on the sandbox."""
    invalid = ErrorCode.INVALID_INPUT
    if new.schema_name != SCHEMA:
        message = f"unsupported schema {new.schema_name!r}: only {SCHEMA!r} is available"
        yield Refusal(invalid, message, ("schema_name",))
    if new.additional_fields is not None:
        yield from _range_refusals(new.additional_fields.ingested, ("additional_fields",), "from", "to")
    if new.segment_per_batch and not new.segments:
        message = "a batch for each segment needs segments: name them in `filter.segments`, or omit this"
        yield Refusal(invalid, message, ("destination", "segment_per_batch"))
    if new.filter is None:
        return
    time, path = new.filter.segment_qualification_time, ("filter", "segment_qualification_time")
    yield from _range_refusals(time, path, "start", "end")
    if (time.start or time.end) and not new.segments:
        yield Refusal(invalid, "this is about segments: name them in `filter.segments`, or omit it", path)
    if len(new.segments) > MOST_SEGMENTS:
        message = f"{len(new.segments):,} segments are more than {MOST_SEGMENTS:,}: split them over several exports"
        yield Refusal(ErrorCode.LIMIT_EXCEEDED, message, ("filter", "segments"))
    for at, segment in enumerate(new.segments):
        if not segment.status:
            message = f"`status` of segment {segment.segment_id!r} is empty: name one or more of {', '.join(STATUSES)}"
            yield Refusal(invalid, message, ("filter", "segments", str(at), "status"))


def _range_refusals(range: TimeRange, path: tuple[str, ...], start: str, end: str) -> Iterator[Refusal]:
    if range.start is not None and range.end is not None and range.start > range.end:
        message = (
            f"`{start}` ({range.start.isoformat()}) is after `{end}` ({range.end.isoformat()}), so the range is empty"
        )
        yield Refusal(ErrorCode.INVALID_INPUT, message, (*path, start))


async def unknown_paths(database: Database, lake: Lake, scope: Scope, new: NewExport) -> list[Refusal]:
    """Errors in the paths, according to the current data."""
    if not new.fields and not (new.additional_fields and new.additional_fields.fields):
        return []
    async with database.session() as session:
        datasets = await data_sources(session, scope)
    return list(path_refusals(new, await asyncio.to_thread(schema_of, lake.tenant(scope.tenant), datasets)))


# ---------------------------------------------------------------- what the sandbox holds


@dataclass(frozen=True, slots=True)
class Checked:
    policy: MergePolicyRow
    audiences: list[AudienceRow]


async def look_up(
    session: AsyncSession, scope: Scope, new: NewExport, refusals: list[Refusal], *, scheduled: bool
) -> Checked | None:
    """Looks up the sandbox objects that the input names; collects errors, and returns None if something is missing."""
    destination = (await get_rows(session, DatasetRow, scope, [new.destination_id])).get(new.destination_id)
    path = ("destination", "dataset_id")
    if destination is None:
        message = f"there is no dataset {new.destination_id!r} in this sandbox"
        refusals.append(Refusal(ErrorCode.NOT_FOUND, message, path))
    elif destination.kind != DatasetKind.EXPORT:
        message = f"{destination.name!r} is of kind {destination.kind}: exports are written to datasets of kind EXPORT"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, path))
    audiences = await _find_audiences(session, scope, new.segments, refusals)
    policies = await merge_policies.get_many(session, scope, await _policy_ids(session, scope, new, audiences))
    policy = policies.get(_chosen_policy(new, audiences, policies))
    if policy is None:
        message = f"there is no merge policy {new.merge_policy_id!r} in this sandbox"
        refusals.append(Refusal(ErrorCode.NOT_FOUND, message, ("merge_policy_id",)))
        return None
    evaluated = (await read_heads(session, scope)).audiences if new.segments else set()
    for at, audience in enumerate(audiences):
        if audience is not None:
            unknown = audience.id not in evaluated and not scheduled
            refusals += _audience_refusals(audience, at, new, unknown)
    if (
        new.evaluate_first
        and new.segments
        and not any(audience and audience.type == AudienceType.SEGMENT_DEFINITION for audience in audiences)
    ):
        message = "none of the segments is computed here, so there is nothing to evaluate first: omit this"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("evaluate_first",)))
    present = [audience for audience in audiences if audience is not None]
    return Checked(policy, present) if len(present) == len(audiences) else None


def _audience_refusals(audience: AudienceRow, at: int, new: NewExport, unknown: bool) -> Iterator[Refusal]:
    path = ("filter", "segments", str(at), "segment_id")
    computed = audience.type == AudienceType.SEGMENT_DEFINITION
    if computed and unknown and not new.evaluate_first:
        message = (
            f"{audience.name!r} has never been evaluated, so its members are unknown: run a segment job first, "
            "or export with `evaluateFirst: true`"
        )
        yield Refusal(ErrorCode.INVALID_STATE, message, path)


async def _policy_ids(
    session: AsyncSession, scope: Scope, new: NewExport, audiences: Sequence[AudienceRow | None]
) -> set[str]:
    default = await merge_policies.default_policy(session, scope)
    ids = {audience.merge_policy_id for audience in audiences if audience is not None}
    ids |= {new.merge_policy_id, default.id if default is not None else None}
    return {id_ for id_ in ids if id_ is not None}


def _chosen_policy(new: NewExport, audiences: Sequence[AudienceRow | None], policies: dict[str, MergePolicyRow]) -> str:
    """The requested policy, else the one shared by all segments, else the default."""
    if new.merge_policy_id is not None:
        return new.merge_policy_id
    named = [audience.merge_policy_id for audience in audiences if audience is not None]
    shared = {id_ for id_ in named if id_ is not None}
    return shared.pop() if len(shared) == 1 else next(policy.id for policy in policies.values() if policy.is_default)


async def _find_audiences(
    session: AsyncSession, scope: Scope, segments: Sequence[ExportSegment], refusals: list[Refusal]
) -> list[AudienceRow | None]:
    """The audience of each segment; None for a rejected one."""
    ids = [segment.segment_id for segment in segments]
    named = or_(_AUDIENCES.id.in_(ids), _AUDIENCES.audience_id.in_(ids))
    statement = select_rows(AudienceRow, scope).where(named)
    rows = [as_row(AudienceRow, row) for row in await session.execute(statement)] if ids else []
    audiences: list[AudienceRow | None] = []
    for at, segment in enumerate(segments):
        mine = [row for row in rows if segment.segment_id in (row.id, row.audience_id)]
        namespace = None if segment.namespace is None else namespace_of(segment.namespace)
        mine = [row for row in mine if namespace in (None, namespace_of(row.namespace))]
        refusal = _choice_refusal(segment, mine)
        row = next(iter(mine), None)
        if refusal is None and row is not None and row in audiences:
            refusal = Refusal(ErrorCode.INVALID_INPUT, f"{row.name!r} is named twice: keep its first place")
        if refusal is not None:
            refusals.append(
                Refusal(
                    refusal.code, refusal.message, ("filter", "segments", str(at), *(refusal.path or ["segment_id"]))
                )
            )
        audiences.append(None if refusal is not None else row)
    return audiences


def _choice_refusal(segment: ExportSegment, rows: Sequence[AudienceRow]) -> Refusal | None:
    where = "" if segment.namespace is None else f" with the namespace {segment.namespace!r}"
    if not rows:
        return Refusal(ErrorCode.NOT_FOUND, f"there is no audience {segment.segment_id!r}{where} in this sandbox")
    if len(rows) > 1:
        names = ", ".join(sorted(repr(row.namespace) for row in rows))
        message = f"{segment.segment_id!r} is an audience in several namespaces ({names}): specify one"
        return Refusal(ErrorCode.INVALID_INPUT, message, ["namespace"])
    return None
