"""Removes a person from all stored memberships, and from the counts of audiences and their history.

Everything happens in one transaction: new files are written beside the old ones first, and then the rows refer to them.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.erasure.memberships import bits, rewritten
from app.engine.erasure.subject import Subject
from app.engine.members.membership import Membership, MembershipFiles, Ordinals
from app.scope import Scope
from app.services.audiences.reads import publish_change
from app.services.evaluation.heads import NO_RUN, patch_run
from app.storage.columns import StoredValues, columns
from app.storage.queue.turns import lock_turn
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.jobs import JobBucketRow
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tables.previews import PreviewRow
from app.storage.tables.streaming import MembershipPatchRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_BUCKETS = columns(JobBucketRow)
_CHANGES = columns(MembershipChangeRow)
_PATCHES = columns(MembershipPatchRow)
_PREVIEWS = columns(PreviewRow)


@dataclass(frozen=True, slots=True)
class _File:
    """A file with the person, and its contents; `turn` is that of a patch, None for a file of a run. `counts` are those
    of its row."""

    run: str
    bucket: int
    name: str
    counts: Mapping[str, Any]
    memberships: Mapping[str, Membership]
    ordinals: Ordinals
    turn: int | None = None

    def members(self, audience: str) -> Ordinals:
        """The person's places that are members."""
        membership = self.memberships.get(audience)
        return Ordinals() if membership is None else membership.members & self.ordinals

    def corrected(self, stored: "Stored") -> StoredValues:
        """The counts without the person."""
        if "counts" in self.counts:  # Of a segment job.
            return {**self.counts, "counts": self._by_audience(self.counts["counts"], stored)}
        if "by_namespace" in self.counts:  # Of a preview.
            return self._one(self.run, self.counts, stored)
        return self._by_audience(self.counts, stored)

    def _by_audience(self, counts: Mapping[str, Any], stored: "Stored") -> StoredValues:
        return {audience: self._one(audience, counted, stored) for audience, counted in counts.items()}

    def _one(self, audience: str, counts: Mapping[str, Any], stored: "Stored") -> StoredValues:
        membership = self.memberships.get(audience)
        if membership is None:
            return dict(counts)
        inside, entered = self.members(audience), membership.entered & self.ordinals
        gone = {
            "matched": len(inside),
            "members": len(inside),
            "realized": len(entered),
            "existing": len(inside - entered),
            "exited": len(membership.exited & self.ordinals),
        }
        rest = {name: max(counts[name] - number, 0) for name, number in gone.items() if name in counts}
        by_namespace = less(counts["by_namespace"], stored.namespaces(audience, self.bucket, inside))
        return {**counts, **rest, "by_namespace": by_namespace}


def less(counts: Mapping[str, int], gone: Mapping[str, int]) -> dict[str, int]:
    """
    >>> less({"crm": 2, "email": 1}, {"email": 1, "phone": 1})
    {'crm': 2}
    """
    return {name: rest for name, count in counts.items() if (rest := count - gone.get(name, 0)) > 0}


@dataclass(slots=True)
class Stored:
    """Everything stored in the person's buckets, read once. `policies` are the audiences' merge policies."""

    subject: Subject
    policies: Mapping[str, str]
    files: list[_File] = field(default_factory=list)
    patches: dict[int, list[Any]] = field(default_factory=dict)
    """Rows by bucket, newest turn first."""

    @property
    def memberships(self) -> int:
        """The number of memberships that include the person: one per run or preview, audience and bucket."""
        return sum(
            bits(membership, file.ordinals) > 0 for file in self.files for membership in file.memberships.values()
        )

    @property
    def audiences(self) -> list[str]:
        return sorted({audience for file in self.files for audience in file.memberships})

    def inside(self, audience: str, run: str, turn: int) -> dict[int, Ordinals]:
        """The person's places that were members in a state of the audience, by bucket."""
        by_bucket: dict[int, Ordinals] = {}
        for bucket in {file.bucket for file in self.files}:
            patch = next((row for row in self.patches.get(bucket, ()) if row.turn <= turn), None)
            streamed = patch is not None and patch.bases.get(audience) == run
            for file in self.files:
                holds = file.turn == patch.turn if streamed and patch is not None else file.run == run
                if file.bucket == bucket and holds:
                    by_bucket[bucket] = file.members(audience)
        return by_bucket

    def namespaces(self, audience: str, bucket: int, people: Ordinals) -> Counter[str]:
        """For each namespace, in how many of these places the person had an identity."""
        by_name = self.subject.namespaces.get(self.policies.get(audience, ""), {}).get(bucket, {})
        return Counter({name: len(members & people) for name, members in by_name.items()})


async def read(
    session: AsyncSession, scope: Scope, files: MembershipFiles, subject: Subject, default_policy: str
) -> Stored:
    """The files with the person. Raises `MembershipLost`."""
    buckets = sorted(subject.ordinals)
    runs = within(select(*_BUCKETS), JobBucketRow, scope.tenant).where(_BUCKETS.bucket.in_(buckets))
    patched = within(select(*_PATCHES), MembershipPatchRow, scope.tenant).where(_PATCHES.bucket.in_(buckets))
    policies = within(select(_AUDIENCES.id, _AUDIENCES.merge_policy_id), AudienceRow, scope.tenant)
    stored = Stored(subject, {row.id: row.merge_policy_id or default_policy for row in await session.execute(policies)})
    rows = [(row.job_id, row, None) for row in await session.execute(runs)]
    for patch in await session.execute(patched.order_by(_PATCHES.turn.desc())):
        stored.patches.setdefault(patch.bucket, []).append(patch)
        rows.append((patch_run(patch.turn), patch, patch.turn))

    def look() -> None:
        for run, row, turn in rows:
            ordinals = subject.ordinals[row.bucket]
            # Export jobs record other files for their buckets.
            memberships = files.read(run, row.bucket, row.file) if row.file else {}
            if any(bits(membership, ordinals) for membership in memberships.values()):
                stored.files.append(_File(run, row.bucket, row.file, row.counts, memberships, ordinals, turn))

    await asyncio.to_thread(look)
    return stored


async def erase(
    session: AsyncSession, scope: Scope, files: MembershipFiles, subject: Subject, default_policy: str
) -> None:
    """Writes all of them without the person, and removes the person from every count, in the caller's transaction."""
    await lock_turn(session, scope.tenant)
    stored = await read(session, scope, files, subject, default_policy)
    if not stored.files:
        return
    await _correct_audiences(session, scope, stored)
    await _correct_history(session, scope, stored)
    for file in stored.files:
        name = await asyncio.to_thread(
            rewritten, files, file.run, file.bucket, file.name, file.memberships, file.ordinals
        )
        values = {"file": name, "counts": file.corrected(stored)}
        if file.turn is not None:
            patch = within(update(MembershipPatchRow), MembershipPatchRow, scope.tenant)
            key = (_PATCHES.turn == file.turn, _PATCHES.bucket == file.bucket)
            await session.execute(patch.where(*key).values(**values))
            continue
        row = within(update(JobBucketRow), JobBucketRow, scope.tenant)
        await session.execute(row.where(_BUCKETS.job_id == file.run, _BUCKETS.bucket == file.bucket).values(**values))
        preview = within(update(PreviewRow), PreviewRow, scope.tenant).where(_PREVIEWS.id == file.run)
        matched = _PREVIEWS.profiles_matched - len(file.members(file.run))
        await session.execute(preview.values(profiles_matched=matched))


async def known_files(session: AsyncSession, scope: Scope) -> set[tuple[str, str]]:
    """The run and file of every referenced file."""
    runs = await session.execute(within(select(_BUCKETS.job_id, _BUCKETS.file), JobBucketRow, scope.tenant))
    turns = await session.execute(within(select(_PATCHES.turn, _PATCHES.file), MembershipPatchRow, scope.tenant))
    return {(run, file) for run, file in runs} | {(patch_run(turn), file) for turn, file in turns}


async def _correct_audiences(session: AsyncSession, scope: Scope, stored: Stored) -> None:
    fields = (_AUDIENCES.id, _AUDIENCES.membership_run_id, _AUDIENCES.total_profiles, _AUDIENCES.by_namespace)
    shown = within(select(*fields), AudienceRow, scope.tenant).where(_AUDIENCES.id.in_(stored.audiences))
    newest = max((row.turn for rows in stored.patches.values() for row in rows), default=0)
    for row in list(await session.execute(shown)):
        inside = stored.inside(row.id, row.membership_run_id or NO_RUN, newest)
        if not any(inside.values()):
            continue
        namespaces = Counter[str]()
        for bucket, people in inside.items():
            namespaces.update(stored.namespaces(row.id, bucket, people))
        change = within(update(AudienceRow), AudienceRow, scope.tenant).where(_AUDIENCES.id == row.id)
        total = max((row.total_profiles or 0) - sum(map(len, inside.values())), 0)
        await session.execute(change.values(total_profiles=total, by_namespace=less(row.by_namespace, namespaces)))
        await publish_change(session, scope, row.id)


async def _correct_history(session: AsyncSession, scope: Scope, stored: Stored) -> None:
    rows = within(select(*_CHANGES), MembershipChangeRow, scope.tenant)
    mine = rows.where(_CHANGES.audience_id.in_(stored.audiences)).order_by(_CHANGES.sequence)
    before: dict[str, dict[int, Ordinals]] = {}
    for row in list(await session.execute(mine)):
        inside = stored.inside(row.audience_id, row.run_id, row.turn)
        earlier = before.get(row.audience_id, {})
        before[row.audience_id] = inside
        both = {*inside, *earlier}
        gone = {
            "total_profiles": sum(map(len, inside.values())),
            "entered": sum(len(inside.get(at, Ordinals()) - earlier.get(at, Ordinals())) for at in both),
            "exited": sum(len(earlier.get(at, Ordinals()) - inside.get(at, Ordinals())) for at in both),
        }
        if any(gone.values()):
            values = {name: max(getattr(row, name) - number, 0) for name, number in gone.items()}
            change = within(update(MembershipChangeRow), MembershipChangeRow, scope.tenant)
            await session.execute(change.where(_CHANGES.sequence == row.sequence).values(**values))
