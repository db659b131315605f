"""What a segment job evaluates, of whom and in which order: fixed in its first attempt, found again by a later one."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.people.profiles import Snapshot, open_snapshots, reopen
from app.engine.store.lake import Lake
from app.pql.check.checker import check
from app.pql.consent import with_consent
from app.pql.core import Builder, Node
from app.pql.schema import Segment
from app.scope import Scope
from app.services.evaluation.expressions import data_sources, read_segments
from app.services.evaluation.heads import Heads, read_heads
from app.services.evaluation.progress import Progress
from app.services.jobs.segment.requests import freeze_definitions
from app.services.lists.rows import select_rows
from app.services.merge_policies import get_many as get_policies
from app.services.merge_policies import policy_as_json, policy_from_json, rule_of
from app.storage.attempts import Attempt
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.jobs import JobStatus
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_PARTS = columns(SegmentJobDefinitionRow)

Pass = Sequence[tuple[str, Sequence[str]]]
"""What is evaluated of one bucket before the next: steps, each of them a merge policy and definitions."""


@dataclass(slots=True)
class SegmentRun:
    """A job as one attempt sees it. The changes are counted against `heads`; `snapshots` are by merge policy, and
    `entries` the names of audiences in `segmentMembership`."""

    scope: Scope
    evaluated_at: datetime
    definitions: dict[str, SegmentJobDefinitionRow]
    heads: Heads
    entries: Mapping[str, Segment]
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    conditions: dict[str, Node] = field(default_factory=dict)
    references: dict[str, frozenset[str]] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)

    def graph_of(self, definition: str) -> int | None:
        """The version of the identity graph whose persons a definition is evaluated for; None for fragments."""
        return self.snapshots[self.definitions[definition].merge_policy_id].graph_version

    def profiles_by_policy(self) -> dict[str, int]:
        return {id_: snapshot.total_profiles for id_, snapshot in self.snapshots.items()}

    def fail(self, errors: Mapping[str, dict[str, str]]) -> None:
        """Notes these errors, and with them those of all that refer to what failed."""
        failed = set(errors)
        self.errors |= errors
        while failed:
            for id_ in failed:
                self.conditions.pop(id_, None)
            causes, failed = failed, set()
            for id_ in self.conditions:
                if here := self.references[id_] & causes:
                    self.errors[id_] = _dependency_error(here)
                    failed.add(id_)

    def passes(self) -> list[Pass]:
        """Passes over all buckets, each of them steps. A definition comes in a later step than those of another merge
        policy that it refers to. It comes in a later pass when those are of another kind of people: who is in one
        bucket as a person is in others as fragments, so that all buckets must be known."""
        places: dict[str, tuple[int, int]] = {}
        known = {id_: sorted(self.references[id_] & self.conditions.keys()) for id_ in sorted(self.conditions)}
        for id_ in TopologicalSorter(known).static_order():
            places[id_] = max((self._place_after(id_, other, places[other]) for other in known[id_]), default=(0, 0))
        passes: dict[int, dict[tuple[int, str], list[str]]] = defaultdict(lambda: defaultdict(list))
        for id_ in sorted(places):
            number, step = places[id_]
            passes[number][step, self.definitions[id_].merge_policy_id].append(id_)
        return [[(policy, ids) for (_, policy), ids in sorted(passes[number].items())] for number in sorted(passes)]

    def _place_after(self, id_: str, other: str, place: tuple[int, int]) -> tuple[int, int]:
        number, step = place
        if self.graph_of(id_) != self.graph_of(other):
            return number + 1, 0
        return number, step + (self.definitions[id_].merge_policy_id != self.definitions[other].merge_policy_id)


async def prepare(attempt: Attempt, lake: Lake, progress: Progress) -> SegmentRun | None:
    """Fixes what the job reads, in its first attempt; a later attempt takes it as it is. None when it has ended.

    Raises `Cancelled` when this attempt is to end before that.
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
        pinned = job.snapshot or {}
        # A later attempt has the policies of the first, whatever has become of them since.
        policies |= {
            id_: policy_from_json(attempt.tenant, kept) for id_, kept in pinned.get("merge_policies", {}).items()
        }
        heads = await read_heads(session, scope, pinned.get("heads"), pinned.get("turn", 0), pinned.get("graphs"))
        audiences = {row.id: row for row in await _audiences(session, scope)}
        segments = await read_segments(session, scope)
    rules = [rule_of(policies[id_]) for id_ in sorted(policies)]
    tenant = lake.tenant(attempt.tenant)
    if job.snapshot is None:
        snapshots = await asyncio.to_thread(open_snapshots, tenant, rules, datasets, progress.view, progress.threads)
        pinned = _pinned(attempt.clock(), policies, snapshots, heads, definitions, audiences)
        total = sum(snapshot.total_profiles for snapshot in snapshots.values())
        evaluated_at = datetime.fromisoformat(pinned["evaluated_at"])
        await attempt.update(snapshot=pinned, evaluated_at=evaluated_at, total_profiles=total)
    else:
        snapshots = {
            rule.id: await asyncio.to_thread(reopen, tenant, rule, datasets, pinned["lake"][rule.id]) for rule in rules
        }
    heads = replace(heads, runs={id_: heads.runs[id_] for id_ in pinned["heads"]})
    evaluated_at = datetime.fromisoformat(pinned["evaluated_at"])
    run = SegmentRun(scope, evaluated_at, definitions, heads, segments.entries, snapshots)
    _check(run, pinned, audiences, segments.aliases)
    return run


async def _freeze(attempt: Attempt, scope: Scope) -> None:
    job: SegmentJobRow = attempt.job
    async with attempt.database.session() as session:
        chosen = (
            None
            if job.all_definitions
            else {definition.definition_id for definition in await _definitions(session, scope, job.id)}
        )

    async def freeze(session: AsyncSession) -> None:
        await freeze_definitions(session, scope, job.id, job.created_at, chosen)

    await attempt.write(freeze)


def _pinned(
    now: datetime,
    policies: Mapping[str, MergePolicyRow],
    snapshots: Mapping[str, Snapshot],
    heads: Heads,
    definitions: Mapping[str, Any],
    audiences: Mapping[str, Any],
) -> dict[str, Any]:
    """All that a result depends on, as JSON values. Of an external audience that has expired nobody is a member."""
    expired = {id_ for id_, row in audiences.items() if row.expires_at is not None and row.expires_at <= now}
    return {
        "evaluated_at": now.isoformat(),
        "merge_policies": {id_: policy_as_json(policy) for id_, policy in policies.items()},
        "lake": {id_: snapshot.pinned for id_, snapshot in snapshots.items()},
        "heads": {id_: run_id for id_, run_id in heads.runs.items() if id_ not in expired},
        "graphs": dict(heads.graphs),
        "turn": heads.turn,
        "inactive": sorted(id_ for id_ in definitions if audiences[id_].lifecycle_state == "INACTIVE"),
        "without_consent": sorted(id_ for id_ in definitions if not audiences[id_].exclude_opt_out),
    }


# ---------------------------------------------------------------- what can be evaluated


def _check(
    run: SegmentRun, pinned: Mapping[str, Any], audiences: Mapping[str, Any], aliases: Mapping[str, str]
) -> None:
    """Conditions of what checks against the schema of its merge policy's data; errors of the rest and of what refers
    to it. What is inactive is not evaluated: others read its stored membership."""
    builders = {id_: Builder() for id_ in run.snapshots}
    errors: dict[str, dict[str, str]] = {}
    for id_, definition in run.definitions.items():
        if id_ in pinned["inactive"]:
            run.errors[id_] = _INACTIVE
        elif definition.merge_policy_id not in run.snapshots:
            message = (
                f"its merge policy {definition.merge_policy_id!r} was deleted; give it another one and run it again"
            )
            errors[id_] = {"code": "NOT_FOUND", "message": message}
        else:
            error = _checked(run, definition, builders[definition.merge_policy_id], pinned, audiences, aliases)
            if error is not None:
                errors[id_] = error
    run.fail(errors)
    known = run.heads.audiences
    unknown = {
        id_: error for id_ in run.conditions if (error := _not_evaluated(run, id_, audiences, known)) is not None
    }
    run.fail(unknown)


def _checked(
    run: SegmentRun,
    definition: SegmentJobDefinitionRow,
    builder: Builder,
    pinned: Mapping[str, Any],
    audiences: Mapping[str, Any],
    aliases: Mapping[str, str],
) -> dict[str, str] | None:
    schema = run.snapshots[definition.merge_policy_id].schema
    checked = check(
        definition.expression, schema, segments={*run.definitions, *audiences}, aliases=aliases, builder=builder
    )
    if checked.condition is None:
        first = next(iter(checked.diagnostics))
        message = f"line {first.line}, column {first.column}: {first.message}; change the expression and run it again"
        return {"code": "INVALID_EXPRESSION", "message": message}
    condition = checked.condition
    if definition.definition_id not in pinned["without_consent"]:
        condition = with_consent(condition, schema, builder)
    run.conditions[definition.definition_id] = condition
    run.references[definition.definition_id] = checked.references
    return None


def _not_evaluated(
    run: SegmentRun, id_: str, audiences: Mapping[str, Any], known: Collection[str]
) -> dict[str, str] | None:
    """A computed audience that nobody has evaluated yet is not an empty one. An external one without members is."""
    missing = [
        audiences[other]
        for other in sorted(run.references[id_] - run.conditions.keys() - set(known))
        if other in audiences and audiences[other].type == "SEGMENT_DEFINITION"
    ]
    if not missing:
        return None
    names = ", ".join(f"{row.name!r} ({row.id})" for row in missing)
    message = f"it refers to {names}, which was never evaluated; run that one first, or both in one job"
    return {"code": "DEPENDENCY_NOT_EVALUATED", "message": message}


_INACTIVE = {
    "code": "INACTIVE",
    "message": "inactive audiences are not evaluated, its members stay as they were; publish it and run it again",
}


def _dependency_error(causes: frozenset[str] | set[str]) -> dict[str, str]:
    message = f"it refers to {', '.join(sorted(causes))}, which failed in this job; mend that one and run again"
    return {"code": "DEPENDENCY_FAILED", "message": message}


# ---------------------------------------------------------------- reads


async def _definitions(session: AsyncSession, scope: Scope, job_id: str) -> list[Any]:
    return list(await session.execute(select_rows(SegmentJobDefinitionRow, scope).where(_PARTS.job_id == job_id)))


async def _audiences(session: AsyncSession, scope: Scope) -> list[Any]:
    names = ("id", "name", "type", "lifecycle_state", "expires_at", "exclude_opt_out")
    return list(await session.execute(within(select(*(_AUDIENCES[name] for name in names)), AudienceRow, scope.tenant)))
