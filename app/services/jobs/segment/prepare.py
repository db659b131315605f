"""What a segment job evaluates, for which people and in which order: fixed by the first attempt, restored by later
ones."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.people.profiles import Snapshot, open_snapshots, reopen
from app.engine.store.lake import Lake
from app.errors import Diagnostic
from app.pql.check.checker import check_value
from app.pql.core import Node
from app.pql.dependencies import StageIds, in_passes
from app.pql.schema import Segment
from app.scope import Scope
from app.services.evaluation.conditions import Source, read_conditions
from app.services.evaluation.expressions import data_sources, read_segments
from app.services.evaluation.heads import Heads, read_heads
from app.services.evaluation.pins import HeadPins, SegmentPins
from app.services.evaluation.progress import Progress
from app.services.evaluation.sandboxes import read_time_zone
from app.services.jobs.segment.requests import freeze_again
from app.services.lists.rows import as_row, select_rows
from app.services.merge_policies import get_many as get_policies
from app.services.merge_policies import policy_as_json, policy_from_json, rule_of
from app.storage.columns import columns
from app.storage.queue.attempts import Attempt
from app.storage.tables.audiences import AudienceRow, AudienceType, LifecycleState
from app.storage.tables.jobs import JobStatus
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_PARTS = columns(SegmentJobDefinitionRow)


@dataclass(slots=True)
class SegmentRun:
    """A job during one attempt. Changes are counted relative to `heads`. `snapshots` are by merge policy. `entries` are
    the names of audiences in `segmentMembership`. `segments` are the ids that `inSegment` may name, and `aliases` maps
    other names to ids."""

    scope: Scope
    evaluated_at: datetime
    definitions: dict[str, SegmentJobDefinitionRow]
    heads: Heads
    entries: Mapping[str, Segment]
    segments: Collection[str]
    aliases: Mapping[str, str]
    pins: SegmentPins
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    conditions: dict[str, Node] = field(default_factory=dict)
    references: dict[str, frozenset[str]] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)
    limits: dict[str, Node] = field(default_factory=dict)
    """The values by which definitions with a limit order their profiles."""

    def graph_of(self, definition: str) -> int | None:
        """The version of the identity graph for whose persons a definition is evaluated; None for fragments."""
        return self.snapshots[self.definitions[definition].merge_policy_id].graph_version

    def profiles_by_policy(self) -> dict[str, int]:
        return {id_: snapshot.total_profiles for id_, snapshot in self.snapshots.items()}

    def fail(self, errors: Mapping[str, dict[str, str]]) -> None:
        """Records these errors, and errors for all definitions that reference a failed one."""
        failed = set(errors)
        self.errors |= errors
        while failed:
            for id_ in failed:
                self.conditions.pop(id_, None)
            causes, failed = failed, set()
            for id_ in self.conditions:
                if failed_references := self.references[id_] & causes:
                    self.errors[id_] = _dependency_error(failed_references)
                    failed.add(id_)

    def passes(self) -> list[list[StageIds]]:
        """The passes over all buckets, each as stages by merge policy."""
        return in_passes(
            {id_: self.references[id_] for id_ in self.conditions},
            {id_: self.definitions[id_].merge_policy_id for id_ in self.conditions},
            {id_: self.graph_of(id_) for id_ in self.conditions},
            self.limits.keys(),
        )


async def prepare(attempt: Attempt, lake: Lake, progress: Progress) -> SegmentRun | None:
    """Fixes what the job reads, in the first attempt; later attempts use the same. None if the job has ended.

    Raises `Cancelled` if this attempt should end before that.
    """
    job: SegmentJobRow = attempt.job
    scope = Scope(job.organisation, job.sandbox, user=job.created_by)
    if job.snapshot is None:
        await _freeze(attempt, scope)
    async with attempt.database.session() as session:
        definitions = {row.definition_id: row for row in await _definitions(session, scope, job.id)}
        if not definitions:
            error = {"code": "NOT_FOUND", "message": "all definitions of the job were deleted before it started"}
            await attempt.finish(JobStatus.FAILED, errors=[error])
            return None
        policies = await get_policies(session, scope, {row.merge_policy_id for row in definitions.values()})
        datasets = await data_sources(session, scope)
        pins = None if job.snapshot is None else SegmentPins.from_json(job.snapshot)
        if pins is not None:
            # Later attempts use the policies of the first, regardless of changes.
            policies |= {id_: policy_from_json(attempt.tenant, policy) for id_, policy in pins.merge_policies.items()}
        heads = await read_heads(session, scope, None if pins is None else pins.heads)
        audiences = {row.id: row for row in await _audiences(session, scope)}
        segments = await read_segments(session, scope)
        zone = await read_time_zone(session, scope, lake)
    rules = [rule_of(policies[id_]) for id_ in sorted(policies)]
    tenant = lake.tenant(attempt.tenant)
    if pins is None:
        snapshots = await asyncio.to_thread(open_snapshots, tenant, rules, datasets, progress.view, progress.threads)
        pins = _pin(
            attempt.clock(), policies, snapshots, heads, {id_: audiences[id_] for id_ in definitions}, audiences
        )
        pins = replace(pins, time_zone=zone.key)
        total = sum(snapshot.total_profiles for snapshot in snapshots.values())
        await attempt.update(snapshot=pins.as_json(), evaluated_at=pins.evaluated_at, total_profiles=total)
    else:
        snapshots = {
            rule.id: await asyncio.to_thread(reopen, tenant, rule, datasets, pins.data_of(rule.id)) for rule in rules
        }
    heads = replace(heads, runs={id_: heads.runs[id_] for id_ in pins.heads.runs})
    names = {*definitions, *audiences}
    run = SegmentRun(scope, pins.now, definitions, heads, segments.entries, names, segments.aliases, pins, snapshots)
    _check(run, audiences)
    return run


async def _freeze(attempt: Attempt, scope: Scope) -> None:
    job: SegmentJobRow = attempt.job
    async with attempt.database.session() as session:
        definition_ids = (
            None
            if job.all_definitions
            else {definition.definition_id for definition in await _definitions(session, scope, job.id)}
        )

    async def freeze(session: AsyncSession) -> None:
        await freeze_again(session, scope, job.id, job.created_at, definition_ids)

    await attempt.write(freeze)


def _pin(
    now: datetime,
    policies: Mapping[str, MergePolicyRow],
    snapshots: Mapping[str, Snapshot],
    heads: Heads,
    evaluated: Mapping[str, AudienceRow],
    audiences: Mapping[str, AudienceRow],
) -> SegmentPins:
    """An external audience that has expired has no members."""
    expired = {id_ for id_, row in audiences.items() if row.expires_at is not None and row.expires_at <= now}
    runs = {id_: run_id for id_, run_id in heads.runs.items() if id_ not in expired}
    return SegmentPins(
        evaluated_at=now,
        merge_policies={id_: policy_as_json(policy) for id_, policy in policies.items()},
        lake={id_: snapshot.pinned for id_, snapshot in snapshots.items()},
        heads=HeadPins(runs, heads.turn, heads.graphs),
        inactive=frozenset(id_ for id_, row in evaluated.items() if row.lifecycle_state == LifecycleState.INACTIVE),
        without_consent=frozenset(id_ for id_, row in evaluated.items() if not row.exclude_opt_out),
    )


# ---------------------------------------------------------------- what can be evaluated


def _check(run: SegmentRun, audiences: Mapping[str, AudienceRow]) -> None:
    """Checks each definition against the schema of its merge policy. Records the conditions in `run`, and the errors of
    the other definitions and of their dependents. Inactive definitions are not evaluated: others read their stored
    memberships."""
    errors: dict[str, dict[str, str]] = {}
    pins = run.pins
    sources: list[Source] = []
    for id_, definition in run.definitions.items():
        policy = definition.merge_policy_id
        if id_ in pins.inactive:
            run.errors[id_] = _INACTIVE
        elif policy not in run.snapshots:
            message = f"its merge policy {policy!r} was deleted; choose another one, then run again"
            errors[id_] = {"code": "NOT_FOUND", "message": message}
        else:
            sources.append(Source(id_, definition.expression, policy, id_ not in pins.without_consent))
    schemas = {policy: snapshot.schema for policy, snapshot in run.snapshots.items()}
    conditions = read_conditions(sources, schemas, run.segments, run.aliases)
    run.conditions, run.references = conditions.nodes, conditions.references
    diagnostics = conditions.diagnostics | _read_limits(run)
    run.fail(errors | {id_: _invalid(diagnostic) for id_, diagnostic in diagnostics.items()})
    evaluated = run.heads.audiences
    run.fail(
        {id_: error for id_ in run.conditions if (error := _not_evaluated(run, id_, audiences, evaluated)) is not None}
    )


def _read_limits(run: SegmentRun) -> dict[str, Diagnostic]:
    """Adds the values of limits and their references; returns their errors."""
    wrong: dict[str, Diagnostic] = {}
    for id_ in run.conditions:
        definition = run.definitions[id_]
        if definition.kept is None:
            continue
        schema = run.snapshots[definition.merge_policy_id].schema
        checked = check_value(definition.kept["by"], schema, segments=run.segments, aliases=run.aliases)
        if checked.node is None:
            wrong[id_] = checked.diagnostics[0]
            continue
        run.limits[id_] = checked.node
        run.references[id_] |= checked.references
    return wrong


def _invalid(diagnostic: Diagnostic) -> dict[str, str]:
    place = f"line {diagnostic.line}, column {diagnostic.column}"
    message = f"{place}: {diagnostic.message}; change the expression, then run again"
    return {"code": "INVALID_EXPRESSION", "message": message}


def _not_evaluated(
    run: SegmentRun, id_: str, audiences: Mapping[str, AudienceRow], known: Collection[str]
) -> dict[str, str] | None:
    """A computed audience that was never evaluated is not an empty one; an external one without members is."""
    missing = [
        audiences[other]
        for other in sorted(run.references[id_] - run.conditions.keys() - set(known))
        if other in audiences and audiences[other].type == AudienceType.SEGMENT_DEFINITION
    ]
    if not missing:
        return None
    names = ", ".join(f"{row.name!r} ({row.id})" for row in missing)
    message = f"it refers to {names}, which has never been evaluated; run it first, or both in one job"
    return {"code": "DEPENDENCY_NOT_EVALUATED", "message": message}


_INACTIVE = {
    "code": "INACTIVE",
    "message": "the audience is inactive, so it was not evaluated and its members are unchanged"
    "; publish it, then run again",
}


def _dependency_error(causes: frozenset[str] | set[str]) -> dict[str, str]:
    message = f"it refers to {', '.join(sorted(causes))}, which failed in this job; fix it, then run again"
    return {"code": "DEPENDENCY_FAILED", "message": message}


# ---------------------------------------------------------------- reads


async def _definitions(session: AsyncSession, scope: Scope, job_id: str) -> list[SegmentJobDefinitionRow]:
    statement = select_rows(SegmentJobDefinitionRow, scope).where(_PARTS.job_id == job_id)
    return [as_row(SegmentJobDefinitionRow, row) for row in await session.execute(statement)]


async def _audiences(session: AsyncSession, scope: Scope) -> list[AudienceRow]:
    names = ("id", "name", "type", "lifecycle_state", "expires_at", "exclude_opt_out")
    statement = within(select(*(_AUDIENCES[name] for name in names)), AudienceRow, scope.tenant)
    return [as_row(AudienceRow, row) for row in await session.execute(statement)]
