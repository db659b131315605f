"""Where the present membership of each audience lies: the one place that knows; it reads no people and no rules."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.membership import Membership, MembershipFiles
from app.scope import Scope
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.jobs import JobBucketRow
from app.storage.tenancy import within

_AUDIENCES: Any = AudienceRow.__table__.c  # type: ignore[attr-defined]
_BUCKETS: Any = JobBucketRow.__table__.c  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Heads:
    """`runs` is the newest run by audience; `names` the file of each bucket by run. A run has one file for a bucket."""

    runs: Mapping[str, str]
    names: Mapping[str, Mapping[int, str]]

    def one(self, files: MembershipFiles, audience: str, bucket: int) -> Membership | None:
        """None for an audience without members there, or without any run."""
        return self.many(files, bucket, [audience]).get(audience)

    def many(
        self, files: MembershipFiles, bucket: int, audiences: Iterable[str] | None = None
    ) -> dict[str, Membership]:
        """Those of one bucket, of some audiences or of all that have any; each file is read once."""
        by_run: dict[str, list[str]] = defaultdict(list)
        for audience in self.runs if audiences is None else audiences:
            if audience in self.runs:
                by_run[self.runs[audience]].append(audience)
        found: dict[str, Membership] = {}
        for run_id, wanted in by_run.items():
            if (name := self.names.get(run_id, {}).get(bucket)) is not None:
                found |= files.read(run_id, bucket, name, wanted)
        return found

    def of(self, files: MembershipFiles, audience: str, first: int = 0) -> Iterator[tuple[int, Membership]]:
        """The audience's memberships by bucket, from bucket `first` on, read one at a time."""
        for bucket in sorted(self.names.get(self.runs.get(audience, ""), {})):
            if bucket >= first and (found := self.one(files, audience, bucket)) is not None:
                yield bucket, found


async def read_heads(session: AsyncSession, scope: Scope, runs: Mapping[str, str] | None = None) -> Heads:
    """The heads as they are now, or those of the `runs` given (audience → run)."""
    known = await head_runs(session, scope) if runs is None else runs
    return Heads(known, await _files(session, scope, set(known.values())))


async def head_runs(session: AsyncSession, scope: Scope) -> dict[str, str]:
    """The newest run of each audience that has one."""
    statement = within(select(_AUDIENCES.id, _AUDIENCES.membership_run_id), AudienceRow, scope.tenant)
    rows = await session.execute(statement.where(_AUDIENCES.membership_run_id.is_not(None)))
    return {row.id: row.membership_run_id for row in rows}


async def _files(session: AsyncSession, scope: Scope, runs: Collection[str]) -> dict[str, dict[int, str]]:
    statement = within(select(_BUCKETS.job_id, _BUCKETS.bucket, _BUCKETS.file), JobBucketRow, scope.tenant)
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for row in await session.execute(statement.where(_BUCKETS.job_id.in_(sorted(runs)))):
        found[row.job_id][row.bucket] = row.file
    return dict(found)
