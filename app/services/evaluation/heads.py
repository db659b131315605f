"""The location of each audience's current membership, known only here; reads no people and knows no rules.

A run writes one file per bucket, and an audience's newest run is its *head*. Streaming evaluation adds *patches*: per
bucket, the file of the newest turn, with its audiences and the head that each change applies to. A new head thereby
invalidates the patches on the old one.
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
"""The base of patches for an audience without a run."""

_AUDIENCES = columns(AudienceRow)
_BUCKETS = columns(JobBucketRow)
_PATCHES = columns(MembershipPatchRow)


@dataclass(frozen=True, slots=True)
class Patch:
    """The result of a streaming turn in a bucket; `bases` maps the audiences in its file to their heads at that
    time."""

    turn: int
    file: str
    bases: Mapping[str, str]

    def as_json(self) -> JsonObject:
        return {"turn": self.turn, "file": self.file, "bases": dict(self.bases)}


@dataclass(frozen=True, slots=True)
class Heads:
    """`runs` maps audiences to their newest runs, `names` runs to their file per bucket, `patches` buckets to their
    newest patch.

    `graphs` maps audiences to the version of the identity graph that their members refer to; members of audiences
    without an entry are fragments. `people` converts memberships to another version or kind. `policies` maps audiences
    to their merge policies, if any.
    """

    runs: Mapping[str, str]
    names: Mapping[str, Mapping[int, str]]
    patches: Mapping[int, Patch] = field(default_factory=dict)
    graphs: Mapping[str, int] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)

    @property
    def turn(self) -> int:
        """The newest turn among the patches, 0 if there are none. Together with the runs, `read_heads` needs it to read
        these heads again."""
        return max((patch.turn for patch in self.patches.values()), default=0)

    @property
    def audiences(self) -> set[str]:
        """All audiences with a run, or with members from streaming only."""
        return {*self.runs, *(audience for bucket in self.patches for audience in self.patched(bucket))}

    def patched(self, bucket: int) -> set[str]:
        """The audiences whose membership in this bucket is in its patch."""
        patch = self.patches.get(bucket)
        if patch is None:
            return set()
        return {audience for audience, base in patch.bases.items() if base == self.runs.get(audience, NO_RUN)}

    def as_json(self) -> JsonObject:
        """As JSON, in which bucket numbers become text keys."""
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
        """The memberships of these audiences, converted to the people of this version of the identity graph (None:
        fragments). May read all buckets once. Raises `FileNotFoundError` if that version no longer exists."""
        by_graph: dict[int | None, list[str]] = defaultdict(list)
        for audience in sorted(set(audiences)):
            by_graph[self.graphs.get(audience)].append(audience)
        return together([followed(files.lake, self._found(files, ids), old, graph) for old, ids in by_graph.items()])

    def standing(
        self, files: MembershipFiles, plan: Plan, entries: Mapping[str, Segment], graph: int | None
    ) -> Callable[[int], dict[Segment, Membership]]:
        """A function from bucket to the contents of `segmentMembership`, for people of one version of the identity
        graph and the segments that the plan names. `entries` maps audiences to their names there."""
        if not plan.needs_memberships:
            return lambda bucket: {}
        named = [id_ for id_, entry in entries.items() if plan.segments is None or entry in plan.segments]
        source = self.people(files, self.audiences.intersection(named), graph)
        return lambda bucket: {entries[id_]: membership for id_, membership in source.read(bucket).items()}

    def _found(self, files: MembershipFiles, audiences: Sequence[str]) -> MembershipSource:
        """The memberships as they were written."""
        runs = {self.runs.get(audience, NO_RUN) for audience in audiences}
        buckets = {*self.patches, *(bucket for run in runs for bucket in self.names.get(run, ()))}
        return MembershipSource(lambda bucket: self.many(files, bucket, audiences), frozenset(buckets))

    def one(self, files: MembershipFiles, audience: str, bucket: int) -> Membership | None:
        """One audience's membership in a bucket; None if it has none there."""
        return self.many(files, bucket, [audience]).get(audience)

    def many(
        self, files: MembershipFiles, bucket: int, audiences: Iterable[str] | None = None
    ) -> dict[str, Membership]:
        """The memberships of some audiences, or of all, in one bucket; reads each file once."""
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
        """The audience's memberships by bucket, starting at bucket `first`, read one at a time."""
        written = self.names.get(self.runs.get(audience, NO_RUN), {})
        for bucket in sorted({*written, *self.patches}):
            if bucket >= first and (membership := self.one(files, audience, bucket)) is not None:
                yield bucket, membership


def patch_run(turn: int) -> str:
    """The run id under which a streaming turn writes its files."""
    return f"streaming-{turn}"


async def read_heads(
    session: AsyncSession,
    scope: Scope,
    pins: HeadPins | None = None,
    *,
    now: datetime | None = None,
) -> Heads:
    """The heads as of `now`, or those that a job has pinned."""
    if pins is not None:
        return (await read_pinned(session, scope, [pins]))[0]
    patches = await _newest_patches(session, scope)
    rows = await _head_rows(session, scope, now)
    runs = {row.id: row.membership_run_id for row in rows if row.membership_run_id is not None}
    graphs = {row.id: row.membership_graph for row in rows if row.membership_graph is not None}
    policies = {row.id: row.merge_policy_id for row in rows if row.merge_policy_id is not None}
    return Heads(runs, await _files(session, scope, set(runs.values())), patches, graphs, policies)


async def read_pinned(session: AsyncSession, scope: Scope, pins: Sequence[HeadPins]) -> list[Heads]:
    """The heads pinned by jobs or by the log of changes, in at most two statements."""
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
    """Rows of all audiences that have not expired, including those without a run, which may have members from
    streaming."""
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
    """The newest patch of each bucket."""
    fields = select(_PATCHES.bucket, _PATCHES.turn, _PATCHES.file, _PATCHES.bases).where(_PATCHES.newest)
    rows = await session.execute(within(fields, MembershipPatchRow, scope.tenant))
    return {row.bucket: Patch(row.turn, row.file, row.bases) for row in rows}


async def _patches_at(session: AsyncSession, scope: Scope, turns: Collection[int]) -> dict[int, dict[int, Patch]]:
    """For each turn, the newest patch of each bucket up to that turn."""
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
