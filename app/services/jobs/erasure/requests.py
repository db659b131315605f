"""Creates and lists erasure jobs; `erasure/run.py` is the part of the worker. The database never contains the
identity."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.erasure import subject as subjects
from app.engine.store.erased import Identity, note_erased
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal, Refusals
from app.scope import Scope
from app.services.jobs import shared as jobs
from app.services.lists.rows import get_rows
from app.services.lists.validation import LONGEST_KEY, is_text
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.job_log import add_job
from app.storage.tables.erasure_jobs import ErasureJobRow
from app.storage.tables.jobs import JobKind

KIND = JobKind.ERASURE
LONGEST_ID = 10_000
LONGEST_REASON = 1_000


@dataclass(frozen=True, slots=True)
class NewErasure:
    """Any identity of the person, and the reason; the reason is kept, so it must not identify the person."""

    namespace: str
    id: str
    reason: str | None = None
    idempotency_key: str | None = None

    @property
    def identity(self) -> Identity:
        return self.namespace, self.id


async def create(database: Database, lake: Lake, clock: Clock, scope: Scope, new: NewErasure) -> ErasureJobRow:
    """Queues a job. The same idempotency key within 24 hours returns the same job. Raises `Refusals`."""
    _refuse_misfits(new)
    now, tenant = clock(), lake.tenant(scope.tenant)
    erased = await asyncio.to_thread(note_erased, tenant, ())
    job = ErasureJobRow(
        **jobs.new_columns(scope, now, new_id(now), idempotency_key=new.idempotency_key),
        digest=erased.digest(new.identity),
        reason=new.reason,
        places=[],
        verified=False,
    )
    # Before workers can see the job; if it is never created, maintenance removes the note.
    await asyncio.to_thread(subjects.ask, tenant, job.id, new.identity)
    async with database.write(scope.tenant) as session:
        if new.idempotency_key is not None:
            earlier = await jobs.by_key(session, scope, KIND, new.idempotency_key, now)
            if earlier is not None:
                await asyncio.to_thread(subjects.forget, tenant, job.id)
                return (await get_many(session, scope, [earlier.id]))[earlier.id]
        await add_job(session, job, KIND)
        return (await get_many(session, scope, [job.id]))[job.id]


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, ErasureJobRow]:
    return await get_rows(session, ErasureJobRow, scope, ids)


def _refuse_misfits(new: NewErasure) -> None:
    refusals = []
    for name, value in (("namespace", new.namespace), ("id", new.id)):
        if not value.strip() or not is_text(value):
            message = f"{value!r} names nobody: send the {name} as it is written in the data"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("identity", name)))
        elif len(value) > LONGEST_ID:
            message = f"the {name} has {len(value):,} characters, at most {LONGEST_ID:,} are allowed"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("identity", name)))
    if refusals:
        raise Refusals(refusals)
    words = subjects.Subject(new.identity, frozenset({new.identity})).words
    for name, text, longest in (
        ("reason", new.reason, LONGEST_REASON),
        ("idempotency_key", new.idempotency_key, LONGEST_KEY),
    ):
        if text is not None and (new.id in text if name == "idempotency_key" else words.search(text)):
            message = "it names the person, and would be a trace of them: leave the id out"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, (name,)))
        elif text is not None and not (1 <= len(text) <= longest and is_text(text)):
            message = f"it may have 1 to {longest:,} characters without NUL, this one has {len(text):,}"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, (name,)))
    if refusals:
        raise Refusals(refusals)
