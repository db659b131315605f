"""Where the present membership of each audience lies: the one place that knows; it reads no people and no rules.

A run writes one file for each bucket, and the newest run of an audience is its *head*. Streaming evaluation puts
*patches* on top: for a bucket the file of the newest turn, with the audiences in it and the head that each change was
made on. A new head replaces the patches on the old one by being another.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from sqlalchemy import BigInteger, and_, column, func, or_, select, true, values
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.members.membership import Membership, MembershipFiles
from app.engine.members.regraph import MembershipSource, followed, together
from app.engine.plan.plan import Plan
from app.json_values import JsonObject
from app.pql.schema import Segment
from app.scope import Scope
from app.services.evaluation.pins import HeadPins
from app.storage.columns import columns, table
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.jobs import JobBucketRow
from app.storage.tables.streaming import MembershipPatchRow
from app.storage.tenancy import same_tenant, within

NO_RUN = ""
"""The head that a patch of an audience without any run is made on."""

_AUDIENCES = columns(AudienceRow)
_BUCKETS = columns(JobBucketRow)
_PATCHES = columns(MembershipPatchRow)


@dataclass(frozen=True, slots=True)
class Patch:
    """What a streaming turn left of a bucket; `bases` are the audiences in its file, with their heads of then."""

    turn: int
    file: str
    bases: Mapping[str, str]

    def as_json(self) -> JsonObject:
        return {"turn": self.turn, "file": self.file, "bases": dict(self.bases)}


@dataclass(frozen=True, slots=True)
class Heads:
    """`runs` is the newest run by audience; `names` the file of each bucket by run; `patches` the newest by bucket.

    `graphs` are the versions of the identity graph whose persons are the members; an audience that is not there has
    fragments. Other versions and kinds of people are told by `people`. `policies` are the merge policies, where there
    is one.
    """

    runs: Mapping[str, str]
    names: Mapping[str, Mapping[int, str]]
    patches: Mapping[int, Patch] = field(default_factory=dict)
    graphs: Mapping[str, int] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)

    @property
    def turn(self) -> int:
        """The newest turn that these heads show, 0 for none: with the runs, what `read_heads` needs to find them."""
        return max((patch.turn for patch in self.patches.values()), default=0)

    @property
    def audiences(self) -> set[str]:
        """All that have a run, or members by streaming alone."""
        return {*self.runs, *(audience for bucket in self.patches for audience in self.patched(bucket))}

    def patched(self, bucket: int) -> set[str]:
        """The audiences whose membership in a bucket is in its patch."""
        patch = self.patches.get(bucket)
        if patch is None:
            return set()
        return {audience for audience, base in patch.bases.items() if base == self.runs.get(audience, NO_RUN)}

    def as_json(self) -> JsonObject:
        """Names of objects are texts there, also of buckets."""
        return {
            "runs": dict(self.runs),
            "names": {run: {str(bucket): file for bucket, file in names.items()} for run, names in self.names.items()},
            "patches": {str(bucket): patch.as_json() for bucket, patch in self.patches.items()},
            "graphs": dict(self.graphs),
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        return cls(
            value["runs"],
            {run: {int(bucket): file for bucket, file in names.items()} for run, names in value["names"].items()},
            {int(bucket): Patch(**patch) for bucket, patch in value["patches"].items()},
            value["graphs"],
        )

    def people(self, files: MembershipFiles, audiences: Iterable[str], graph: int | None) -> MembershipSource:
        """The memberships of these audiences as those of the people of this version of the identity graph (None:
        fragments). May read all buckets once. Raises `FileNotFoundError` when that version is gone."""
        by_graph: dict[int | None, list[str]] = defaultdict(list)
        for audience in sorted(set(audiences)):
            by_graph[self.graphs.get(audience)].append(audience)
        return together([followed(files.lake, self._found(files, ids), old, graph) for old, ids in by_graph.items()])

    def standing(
        self, files: MembershipFiles, plan: Plan, entries: Mapping[str, Segment], graph: int | None
    ) -> Callable[[int], dict[Segment, Membership]]:
        """By bucket what `segmentMembership` holds of the people of a version of the identity graph, for the segments
        that the plan names. `entries` are their names there."""
        if not plan.needs_memberships:
            return lambda bucket: {}
        named = [id_ for id_, entry in entries.items() if plan.segments is None or entry in plan.segments]
        source = self.people(files, self.audiences.intersection(named), graph)
        return lambda bucket: {entries[id_]: membership for id_, membership in source.read(bucket).items()}

    def _found(self, files: MembershipFiles, audiences: Sequence[str]) -> MembershipSource:
        """As they were written."""
        runs = {self.runs.get(audience, NO_RUN) for audience in audiences}
        buckets = {*self.patches, *(bucket for run in runs for bucket in self.names.get(run, ()))}
        return MembershipSource(lambda bucket: self.many(files, bucket, audiences), frozenset(buckets))

    def one(self, files: MembershipFiles, audience: str, bucket: int) -> Membership | None:
        """None for an audience without members there, or without any run."""
        return self.many(files, bucket, [audience]).get(audience)

    def many(
        self, files: MembershipFiles, bucket: int, audiences: Iterable[str] | None = None
    ) -> dict[str, Membership]:
        """Those of one bucket, of some audiences or of all that have any; each file is read once."""
        patched = self.patched(bucket)
        requested = {*self.runs, *patched} if audiences is None else set(audiences)
        by_run: dict[str, list[str]] = defaultdict(list)
        for audience in requested - patched:
            if audience in self.runs:
                by_run[self.runs[audience]].append(audience)
        memberships: dict[str, Membership] = {}
        for run_id, ids in by_run.items():
            if (name := self.names.get(run_id, {}).get(bucket)) is not None:
                memberships |= files.read(run_id, bucket, name, ids)
        if from_patch := requested & patched:
            patch = self.patches[bucket]
            memberships |= files.read(patch_run(patch.turn), bucket, patch.file, from_patch)
        return memberships

    def of(self, files: MembershipFiles, audience: str, first: int = 0) -> Iterator[tuple[int, Membership]]:
        """The audience's memberships by bucket, from bucket `first` on, read one at a time."""
        written = self.names.get(self.runs.get(audience, NO_RUN), {})
        for bucket in sorted({*written, *self.patches}):
            if bucket >= first and (membership := self.one(files, audience, bucket)) is not None:
                yield bucket, membership


def patch_run(turn: int) -> str:
    """The run under which a streaming turn writes its files."""
    return f"streaming-{turn}"


async def read_heads(
    session: AsyncSession,
    scope: Scope,
    pins: HeadPins | None = None,
    *,
    now: datetime | None = None,
) -> Heads:
    """The heads as they are at `now`, or those that a job has pinned."""
    if pins is not None:
        return (await read_pinned(session, scope, [pins]))[0]
    patches = await _newest_patches(session, scope)
    rows = await _head_rows(session, scope, now)
    runs = {row.id: row.membership_run_id for row in rows if row.membership_run_id is not None}
    graphs = {row.id: row.membership_graph for row in rows if row.membership_graph is not None}
    policies = {row.id: row.merge_policy_id for row in rows if row.merge_policy_id is not None}
    return Heads(runs, await _files(session, scope, set(runs.values())), patches, graphs, policies)


async def read_pinned(session: AsyncSession, scope: Scope, pins: Sequence[HeadPins]) -> list[Heads]:
    """Those that jobs or the log of changes have pinned, in two statements at most."""
    runs = {run for pin in pins for run in pin.runs.values()}
    names = await _files(session, scope, runs) if runs else {}
    turns = {pin.turn for pin in pins if pin.turn}
    patches = await _patches_at(session, scope, turns) if turns else {}
    return [Heads(pin.runs, names, patches.get(pin.turn, {}), pin.graphs) for pin in pins]


async def head_runs(session: AsyncSession, scope: Scope, now: datetime | None = None) -> dict[str, str]:
    """The newest run of each audience that has one and whose members have not expired by `now`."""
    rows = await _head_rows(session, scope, now)
    return {row.id: row.membership_run_id for row in rows if row.membership_run_id is not None}


async def _head_rows(session: AsyncSession, scope: Scope, now: datetime | None) -> list[Any]:
    """Of all audiences, since one without a run may have members by streaming alone, but those that have expired."""
    fields = (
        _AUDIENCES.id,
        _AUDIENCES.membership_run_id,
        _AUDIENCES.membership_graph,
        _AUDIENCES.merge_policy_id,
    )
    there = within(select(*fields), AudienceRow, scope.tenant)
    if now is not None:
        there = there.where(or_(_AUDIENCES.expires_at.is_(None), _AUDIENCES.expires_at > now))
    return list(await session.execute(there))


async def _files(session: AsyncSession, scope: Scope, runs: Collection[str]) -> dict[str, dict[int, str]]:
    statement = within(select(_BUCKETS.job_id, _BUCKETS.bucket, _BUCKETS.file), JobBucketRow, scope.tenant)
    names: dict[str, dict[int, str]] = defaultdict(dict)
    for row in await session.execute(statement.where(_BUCKETS.job_id.in_(sorted(runs)))):
        names[row.job_id][row.bucket] = row.file
    return dict(names)


async def _newest_patches(session: AsyncSession, scope: Scope) -> dict[int, Patch]:
    """By bucket."""
    fields = select(_PATCHES.bucket, _PATCHES.turn, _PATCHES.file, _PATCHES.bases).where(_PATCHES.newest)
    rows = await session.execute(within(fields, MembershipPatchRow, scope.tenant))
    return {row.bucket: Patch(row.turn, row.file, row.bases) for row in rows}


async def _patches_at(session: AsyncSession, scope: Scope, turns: Collection[int]) -> dict[int, dict[int, Patch]]:
    """By turn, for each bucket the newest patch of those up to it."""
    asked = values(column("turn", BigInteger), name="asked").data([(turn,) for turn in sorted(turns)]).cte("asked")
    keys = select(_PATCHES.organisation, _PATCHES.sandbox, _PATCHES.bucket).where(_PATCHES.newest)
    buckets = within(keys, MembershipPatchRow, scope.tenant).subquery("buckets")
    earlier = table(MembershipPatchRow).alias("earlier")
    newest = (
        select(func.max(earlier.c.turn))
        .where(same_tenant(earlier.c, buckets.c), earlier.c.bucket == buckets.c.bucket, earlier.c.turn <= asked.c.turn)
        .scalar_subquery()
    )
    pairs = (
        select(asked.c.turn.label("asked"), buckets.c.bucket, newest.label("turn"))
        .select_from(asked.join(buckets, true()))
        .subquery("newest")
    )
    fields = select(pairs.c.asked, _PATCHES.bucket, _PATCHES.turn, _PATCHES.file, _PATCHES.bases)
    same = and_(_PATCHES.bucket == pairs.c.bucket, _PATCHES.turn == pairs.c.turn)
    patches: dict[int, dict[int, Patch]] = defaultdict(dict)
    for row in await session.execute(within(fields.join(pairs, same), MembershipPatchRow, scope.tenant)):
        patches[row.asked][row.bucket] = Patch(row.turn, row.file, row.bases)
    return patches
