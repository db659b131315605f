"""Executes an erasure job: in each place it searches, records how much it found, and only then deletes.

Every step is idempotent: this or a later attempt finds what is left. Nothing that a job, upload or streaming turn still
reads is deleted: earlier ones are waited for, and later ones no longer find the person.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.erasure import cut, purge, search, subject
from app.engine.erasure.memberships import stray_files
from app.engine.erasure.subject import Subject
from app.engine.limits.pool import Cancelled
from app.engine.members.membership import MembershipFiles
from app.engine.store.lake import Lake, TenantLake
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.access.audit import Entry
from app.services.evaluation.expressions import data_sources
from app.services.jobs.erasure import memberships, texts
from app.services.jobs.preview import requests as previews
from app.services.merge_policies import DEFAULT_POLICY_ID, all_policies, default_policy
from app.storage.columns import columns
from app.storage.job_log import KINDS
from app.storage.queue.attempts import Attempt
from app.storage.tables.datasets import UNSETTLED, BatchRow, DatasetRow
from app.storage.tables.erasure_jobs import ErasureJobRow
from app.storage.tables.jobs import RUNNING, WAITING, JobKind, JobPhase, JobStatus
from app.storage.tables.streaming import StreamingTurnRow
from app.storage.tenancy import within

LOOK_SECONDS = 0.1
"""How often to check whether earlier work has ended."""

_BATCHES = columns(BatchRow)
_DATASETS = columns(DatasetRow)
_TURNS = columns(StreamingTurnRow)


@dataclass(slots=True)
class _Run:
    """An erasure during one attempt; `places` are the rows found by place."""

    attempt: Attempt
    lake: TenantLake
    scope: Scope
    person: Subject
    places: dict[str, int]
    fraction: float
    default_policy: str = DEFAULT_POLICY_ID
    datasets: dict[str, str] = field(default_factory=dict)
    """Names by id."""

    def check(self) -> None:
        """Raises `Cancelled`. Thread-safe."""
        if self.attempt.interrupted():
            raise Cancelled

    async def advance(self, fraction: float) -> None:
        """Records a completed step; a step reached for the first time counts as a sign of life."""
        if fraction > self.fraction:
            self.fraction = fraction
            await self.attempt.update(fraction=fraction, lost_leases=0)

    async def note(self, found: Mapping[str, int], **values: object) -> None:
        """Records the findings before deletion, because an attempt that searches again finds less."""
        for place, count in found.items():
            self.places[place] = max(count, self.places.get(place, 0))
        listed = [[place, count] for place, count in self.places.items()]
        await self.attempt.update(places=listed, fraction=self.fraction, **values)


async def run_erasure_job(attempt: Attempt, lake: Lake, _threads: int) -> None:
    """Runs a claimed erasure to its end, or as far as this attempt gets. Raises `Refusal`."""
    run = await _begin(attempt, lake)
    if run is not None:
        try:
            for steps_done, step in enumerate(STEPS, 1):
                run.check()
                await step(run)
                await run.advance(steps_done / (len(STEPS) + 1))
            await _look_again(run)
        except Cancelled:
            return
    await asyncio.to_thread(subject.forget, lake.tenant(attempt.tenant), attempt.job.id)
    await attempt.finish(JobStatus.SUCCEEDED, write=lambda session: _audit(session, attempt))


async def _audit(session: AsyncSession, attempt: Attempt) -> None:
    """Records the erasure by the salted hash of the identity, so that inquiries about the person can be answered."""
    job: ErasureJobRow = attempt.job
    scope = Scope(job.organisation, job.sandbox, job.created_by)
    entry = Entry(scope, attempt.clock, "eraseProfile", request_id=job.id, resource_id=job.digest)
    await entry.write(session, "ERASED")


async def _begin(attempt: Attempt, lake: Lake) -> _Run | None:
    """None if only the completion remains to be recorded."""
    job: ErasureJobRow = attempt.job
    scope, tenant = Scope(job.organisation, job.sandbox, job.created_by), lake.tenant(attempt.tenant)
    async with attempt.database.session() as session:
        sources = await data_sources(session, scope)
        policies = [policy.id for policy in await all_policies(session, scope)]
        default = await default_policy(session, scope)
    await attempt.update(phase=job.phase if job.phase == JobPhase.WRITING else JobPhase.READING)
    named = [source.id for source in sources]
    person = await asyncio.to_thread(subject.find_subject, tenant, job.id, named, policies)
    if person is None:
        if job.phase == JobPhase.WRITING:
            return None
        message = "the identities of this job are no longer in the lake: start the erasure again"
        raise Refusal(ErrorCode.INVALID_STATE, message)
    run = _Run(attempt, tenant, scope, person, dict(job.places), job.fraction)
    run.default_policy = default.id if default is not None else DEFAULT_POLICY_ID
    return run


# ---------------------------------------------------------------- steps


async def _identities(run: _Run) -> None:
    """From here on, new data with the person's identities no longer belongs to this person."""
    await run.note({"Identities": await asyncio.to_thread(cut.count_identities, run.lake, run.person)})
    await asyncio.to_thread(cut.blank_identities, run.lake, run.person)


async def _rows(run: _Run) -> None:
    """The current versions of all datasets, including export datasets."""
    async with run.attempt.database.session() as session:
        named = within(select(_DATASETS.id, _DATASETS.name), DatasetRow, run.scope.tenant)
        run.datasets = {row.id: row.name for row in await session.execute(named.order_by(_DATASETS.name))}
    tables = await asyncio.to_thread(cut.tables, run.lake, run.datasets)
    names = {f"dataset {id}": f"Dataset {name}" for id, name in run.datasets.items()}
    for table in tables:
        rows = await asyncio.to_thread(cut.count_rows, run.person, table)
        await run.note({names.get(table.lock or "", "Deleted datasets"): rows})
        await asyncio.to_thread(cut.cut, run.lake, run.person, table, run.check)


async def _others(run: _Run) -> None:
    """Waits for jobs, uploads and streaming turns that started earlier: they may have read the person's data."""
    waiting = await _busy(run)
    if waiting:
        await run.attempt.update(phase=JobPhase.WAITING)
    while waiting:
        run.check()
        await asyncio.sleep(LOOK_SECONDS)
        waiting &= await _busy(run)
    await run.attempt.update(phase=JobPhase.EVALUATING)


async def _memberships(run: _Run) -> None:
    files = MembershipFiles(run.lake)
    async with run.attempt.database.session() as session:
        stored = await memberships.read(session, run.scope, files, run.person, run.default_policy)
    await run.note({"Memberships": stored.memberships})

    async def erase(session: AsyncSession) -> None:
        await memberships.erase(session, run.scope, files, run.person, run.default_policy)

    await run.attempt.write(erase)


async def _counts(run: _Run) -> None:
    """Updates the row counts of batches and datasets."""

    async def recount(session: AsyncSession) -> None:
        rows = within(select(*_BATCHES), BatchRow, run.scope.tenant)
        counted = list(await session.execute(rows.where(_BATCHES.status.in_(("ACTIVE", "DELETING")))))
        for dataset in run.datasets:
            mine = [row for row in counted if row.dataset_id == dataset]
            active = [row.id for row in mine if row.status == "ACTIVE"]
            there = await asyncio.to_thread(cut.batch_rows, run.lake, dataset, active)
            for row in mine:
                if there.get(row.id, row.row_count) != row.row_count:
                    change = within(update(BatchRow), BatchRow, run.scope.tenant).where(_BATCHES.id == row.id)
                    await session.execute(change.values(row_count=there[row.id]))
            total = sum(there.get(row.id, row.row_count) for row in mine)
            change = within(update(DatasetRow), DatasetRow, run.scope.tenant).where(_DATASETS.id == dataset)
            await session.execute(change.where(_DATASETS.row_count != total).values(row_count=total))

    await run.attempt.write(recount)


async def _files(run: _Run) -> None:
    """Files that must no longer be read: older versions, merged profiles, the identity graph, remains of failed
    jobs."""
    async with run.attempt.database.session() as session:
        sources = [source.id for source in await data_sources(session, run.scope)]
        policies = {policy.id for policy in await all_policies(session, run.scope)} | {DEFAULT_POLICY_ID}
    await asyncio.to_thread(purge.settle, run.lake, run.datasets, policies, run.check)
    gone = await asyncio.to_thread(purge.find_files, run.lake, run.person, sources, list(run.datasets), run.check)
    await run.note(gone.rows())
    await asyncio.to_thread(purge.remove_files, run.lake, gone)
    async with run.attempt.database.session() as session:
        files = await memberships.known_files(session, run.scope)
    for path in await asyncio.to_thread(stray_files, run.lake, run.person, files):
        await asyncio.to_thread(path.unlink, missing_ok=True)


async def _samples(run: _Run) -> None:
    await run.note({"Rejected rows": await asyncio.to_thread(purge.rejected_samples, run.lake, run.person)})
    await asyncio.to_thread(purge.remove_samples, run.lake, run.person)


async def _messages(run: _Run) -> None:
    database, tenant = run.attempt.database, run.scope.tenant
    async with database.session() as session:
        named = await texts.naming_previews(session, tenant, run.person)
    await run.note({"Previews": len(named)})
    for id in named:
        await previews.remove(database, run.lake.lake, tenant, id)
    # Without those that were deleted with their previews.
    async with database.session() as session:
        messages = await texts.count_messages(session, tenant, run.person)
    await run.note({"Messages": messages})

    async def clean(session: AsyncSession) -> None:
        await texts.clean_messages(session, tenant, run.person)

    if messages:
        await run.attempt.write(clean)
    if messages or named:
        await database.overwrite_deleted()


STEPS: tuple[Callable[[_Run], Awaitable[None]], ...] = (
    _identities,
    _rows,
    _others,
    _rows,  # Rows that this earlier work has written meanwhile.
    _memberships,
    _others,
    _memberships,  # Work that started before the first pass may have compared with the members of that time.
    _counts,
    _files,
    _samples,
    _messages,
)
"""In this order: first the person loses its identity, then what other work has written is removed, then the files that
must no longer be read."""


async def _look_again(run: _Run) -> None:
    traces = await asyncio.to_thread(search.traces, run.lake, run.person, run.check)
    traces |= await texts.named_in(run.attempt.database, run.scope.tenant, run.person)
    remaining = {f"Left in: {place}": count for place, count in traces.items()}
    await run.note(remaining, verified=not traces, phase=JobPhase.WRITING)


# ---------------------------------------------------------------- who else is at work


async def _busy(run: _Run) -> set[tuple[str, str]]:
    """Claimed jobs, batches being loaded or deleted, and the current streaming turn."""
    tenant, now = run.scope.tenant, run.attempt.clock()
    busy: set[tuple[str, str]] = set()
    async with run.attempt.database.session() as session:
        for kind, table in KINDS.items():
            if kind == JobKind.ERASURE:
                continue
            of = columns(table)
            pinned = (of.status.in_(WAITING)) & of.snapshot.is_not(None)
            live = within(select(of.id), table, tenant).where(or_(of.status.in_(RUNNING), pinned))
            busy |= {("job", id) for id in await session.scalars(live)}
        unsettled = within(select(_BATCHES.id), BatchRow, tenant).where(_BATCHES.status.in_(UNSETTLED))
        busy |= {("batch", id) for id in await session.scalars(unsettled)}
        turns = within(select(_TURNS.turn), StreamingTurnRow, tenant).where(_TURNS.lease_until > now)
        busy |= {("turn", str(turn)) for turn in await session.scalars(turns)}
    return busy
