"""Checks the database and the lake against each other, and reports problems and remedies; changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.clock import Clock
from app.engine.ingest.notes import committed_batch
from app.engine.maintenance.inspection import (
    LogDamaged,
    TableState,
    layout_problem,
    table_state,
    unknown_folders,
    unreadable,
)
from app.engine.store.lake import Lake, TenantLake
from app.errors import LakeAway
from app.scope import Scope, Tenant
from app.services.evaluation.heads import patch_run, read_heads
from app.services.maintenance.readiness import LEFT
from app.services.maintenance.retention import all_tenants
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.job_log import KINDS
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import UNSETTLED, BatchRow, BatchStatus, DatasetKind, DatasetRow
from app.storage.tables.erasure_jobs import ErasureJobRow
from app.storage.tables.jobs import RUNNING, WAITING
from app.storage.tenancy import within

SETTLED = timedelta(hours=1)
"""Younger files may not be committed to a table yet."""
NAMED = 5
"""Number of names in one finding; the rest are only counted."""

_AUDIENCES = columns(AudienceRow)
_BATCHES = columns(BatchRow)
_DATASETS = columns(DatasetRow)
_ERASURES = columns(ErasureJobRow)


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem. `check` is one of `CHECKS`, or `tables` or `folders`, which belong to no sandbox."""

    check: str
    where: str
    problem: str
    advice: str


@dataclass(frozen=True, slots=True)
class _Sandbox:
    database: Database
    lake: Lake
    tenant: Tenant
    now: datetime
    checksums: bool

    @property
    def where(self) -> str:
        return f"{self.tenant.organisation}/{self.tenant.sandbox}"

    def finding(self, check: str, problem: str, advice: str) -> Finding:
        return Finding(check, self.where, problem, advice)

    async def table(self, folder: Path) -> TableState | None:
        """Raises `LogDamaged`."""
        return await asyncio.to_thread(table_state, folder, self.now - SETTLED, checksums=self.checksums)


async def examine(database: Database, lake: Lake, clock: Clock, *, checksums: bool = False) -> list[Finding]:
    """All problems. If the schema is not this program's, nothing else is checked.

    With `checksums`, reads every file of the lake and compares it with what was written.
    """
    try:
        differences = await database.differences()
        async with database.session() as session:
            tenants = await all_tenants(session) if not differences else []
    except Exception as error:
        advice = "start the database, or restore it from a copy; nothing else was checked"
        return [Finding("tables", "database", f"it cannot be read: {_first_line(error)}", advice)]
    if differences:
        advice = "run `segmentation migrate`; if that does not fix it, restore the database from a copy"
        return [Finding("tables", "database", difference, advice) for difference in differences]
    keys = {(tenant.organisation, tenant.sandbox) for tenant in tenants}
    advice = "it only takes up space: remove it, or point SEGMENTATION_DATABASE_URL to the database that knows it"
    findings = [
        Finding("folders", folder, "the lake has data of a sandbox that the database does not know", advice)
        for folder in await asyncio.to_thread(unknown_folders, lake.root, keys)
    ]
    for tenant in tenants:
        sandbox = _Sandbox(database, lake, tenant, clock(), checksums)
        for name, check in CHECKS.items():
            findings += await _checked(sandbox, name, check)
    return findings


async def _checked(sandbox: _Sandbox, name: str, check: Callable[[_Sandbox], AsyncIterator[Finding]]) -> list[Finding]:
    """The findings of one check. Damage that aborts a check is a finding too, and does not stop other checks."""
    findings: list[Finding] = []
    try:
        async for finding in check(sandbox):
            findings.append(finding)
    except Exception as error:
        advice = "restore what it names from a copy of the lake or of the database, and run the doctor again"
        findings.append(Finding(name, sandbox.where, f"it cannot be checked: {_first_line(error)}", advice))
    return findings


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0][:200]}"


async def _layout(sandbox: _Sandbox) -> AsyncIterator[Finding]:
    problem = await asyncio.to_thread(layout_problem, sandbox.lake.tenant(sandbox.tenant))
    if problem is not None:
        advice = (
            "restore layout.json from a copy of the lake: without it no profile can be looked up, and new profiles get "
            "wrong buckets"
        )
        yield sandbox.finding("layout", problem, advice)


async def _batches(sandbox: _Sandbox) -> AsyncIterator[Finding]:
    lake, ask = sandbox.lake.tenant(sandbox.tenant), within(select(BatchRow), BatchRow, sandbox.tenant)
    async with sandbox.database.session() as session:
        batches = list(await session.scalars(ask.where(_BATCHES.status == BatchStatus.ACTIVE).order_by(_BATCHES.id)))
        lost = list(await session.scalars(ask.where(_BATCHES.lease_until < sandbox.now - LEFT)))
    kinds = {id_: kind for id_, kind, *_ in await _dataset_rows(sandbox)}
    for batch in batches:
        if kinds.get(batch.dataset_id) not in _LOADED:
            continue
        try:
            landed = await asyncio.to_thread(committed_batch, lake, batch.dataset_id, batch.id)
        except LakeAway:
            raise
        except (OSError, ValueError, KeyError):
            landed = None
        if landed is None:
            yield sandbox.finding(
                "batches",
                f"batch {batch.id} is ACTIVE, but the lake has nothing of it in dataset {batch.dataset_id}",
                "restore the dataset's folder from a copy, or delete the dataset and send its files again",
            )
    for batch in lost:
        advice = "start `segmentation worker` or `serve`: it settles the batch within a minute"
        yield sandbox.finding("batches", f"batch {batch.id} is {batch.status}, but no process works on it", advice)


_LOADED = frozenset({DatasetKind.PROFILE, DatasetKind.EVENT, DatasetKind.AUDIENCE})
"""The kinds of datasets whose batches are loaded files."""
_IN_TABLES = _LOADED | {DatasetKind.EXPORT}
"""The kinds of datasets whose rows are in a table of their own."""


async def _datasets(sandbox: _Sandbox) -> AsyncIterator[Finding]:
    lake = sandbox.lake.tenant(sandbox.tenant)
    unsettled, erases = await _unsettled(sandbox), await _erases(sandbox)
    for id_, kind, name, row_count in await _dataset_rows(sandbox):
        if kind not in _IN_TABLES:
            continue
        where = f"dataset {name!r} ({id_})"
        try:
            state = await sandbox.table(lake.dataset(id_))
        except LogDamaged as damage:
            advice = "restore its folder from a copy of the lake, or delete the dataset and load it again"
            yield sandbox.finding("datasets", f"{where}: {damage}", advice)
            continue
        rows = state.rows if state is not None else 0
        # The database counts a batch shortly after its rows are committed, or once it is settled. Rows of an erased
        # person are deleted before they are counted.
        counted = rows - await _uncounted(lake, id_, unsettled.get(id_, ()))
        if rows != row_count and counted != row_count and not (erases and counted < row_count):
            problem = f"{where} has {rows:,} rows in the lake, but {row_count:,} in the database"
            yield sandbox.finding(
                "datasets", problem, "a batch was lost or landed twice: see the batches, or load the files again"
            )
        if state is None:
            continue
        for what, files in (("are missing", state.missing), ("cannot be read", state.damaged)):
            if files:
                problem = f"{where}: files {what}: {_names(files)}"
                advice = "restore them from a copy of the lake, or delete the dataset and load or export it again"
                yield sandbox.finding("datasets", problem, advice)
        if state.stray:
            problem = f"{where}: nothing refers to {_names(state.stray)}"
            yield sandbox.finding("files", problem, "they only take up space: remove them")


async def _identities(sandbox: _Sandbox) -> AsyncIterator[Finding]:
    lake = sandbox.lake.tenant(sandbox.tenant)
    try:
        state = await sandbox.table(lake.identities)
    except LogDamaged as damage:
        advice = "restore the folder `identities` from a copy of the lake: until then nothing can be loaded"
        yield sandbox.finding("identities", str(damage), advice)
        return
    if state is None:
        return
    if broken := (*state.missing, *state.damaged):
        advice = "restore them from a copy of the lake: until then batches and jobs of these buckets fail"
        yield sandbox.finding("identities", f"files are missing or cannot be read: {_names(broken)}", advice)
    if state.stray:
        yield sandbox.finding("files", f"identities: nothing refers to {_names(state.stray)}", "remove them")


async def _heads(sandbox: _Sandbox) -> AsyncIterator[Finding]:
    """Audiences whose recorded members are missing: the files of a run, or of later streaming turns."""
    scope = Scope(sandbox.tenant.organisation, sandbox.tenant.sandbox, "doctor")
    ask = within(select(_AUDIENCES.id, _AUDIENCES.name), AudienceRow, sandbox.tenant).order_by(_AUDIENCES.id)
    async with sandbox.database.session() as session:
        names = {row.id: row.name for row in await session.execute(ask)}
        heads = await read_heads(session, scope)
    # By run, or by streaming turn: its file names, and the audiences in them.
    places = [
        (run_id, list(heads.names.get(run_id, {}).values()), {id_ for id_, run in heads.runs.items() if run == run_id})
        for run_id in sorted(set(heads.runs.values()))
    ]
    places += [
        # A patch outlives the audiences deleted since.
        (patch_run(patch.turn), [patch.file], heads.patched(bucket) & names.keys())
        for bucket, patch in heads.patches.items()
    ]
    for run_id, files, audiences in places:
        folder = sandbox.lake.tenant(sandbox.tenant).membership(run_id)
        # They are small, so all of them are checked.
        lost = await asyncio.to_thread(unreadable, folder, files, checksums=True) if audiences else []
        for id_ in sorted(audiences if lost else ()):
            yield sandbox.finding(
                "heads",
                f"audience {names[id_]!r} ({id_}) shows run {run_id}, "
                f"whose files are missing or cannot be read: {_names(lost)}",
                "run a segment job of it, which counts its members as new; "
                "create an external one again over its dataset",
            )


async def _jobs(sandbox: _Sandbox) -> AsyncIterator[Finding]:
    """Waiting jobs that no worker claims."""
    unfinished: set[str] = set()
    for kind, row in KINDS.items():
        of = columns(row)
        live = within(select(*of), row, sandbox.tenant).where(of.status.in_(WAITING | RUNNING))
        async with sandbox.database.session() as session:
            jobs = list(await session.execute(live.order_by(of.id)))
        unfinished.update(job.id for job in jobs)
        # An export cannot start while the segment job that it waits for is running.
        jobs = [job for job in jobs if getattr(job, "waits_for", None) not in unfinished]
        working = any(job.lease_until is not None and job.lease_until >= sandbox.now for job in jobs)
        for job in jobs:
            since = job.lease_until or job.updated_at
            # A queue may be long, but one without any worker is a problem.
            if since < sandbox.now - LEFT and not (working and job.lease_until is None):
                problem = (
                    f"{kind.lower()} job {job.id} is {job.status}, and no worker has processed it since {since:%F %T}Z"
                )
                yield sandbox.finding(JOBS, problem, "start `segmentation worker`: it resumes the job")


JOBS = "jobs"
CHECKS: dict[str, Callable[[_Sandbox], AsyncIterator[Finding]]] = {
    "layout": _layout,
    "identities": _identities,
    "batches": _batches,
    "datasets": _datasets,
    "heads": _heads,
    JOBS: _jobs,
}


async def _unsettled(sandbox: _Sandbox) -> dict[str, list[BatchRow]]:
    """The batches of each dataset that are being loaded or deleted, including those abandoned by a dead process."""
    ask = within(select(BatchRow), BatchRow, sandbox.tenant).where(_BATCHES.status.in_(UNSETTLED))
    by_dataset: dict[str, list[BatchRow]] = {}
    async with sandbox.database.session() as session:
        for batch in await session.scalars(ask):
            by_dataset.setdefault(batch.dataset_id, []).append(batch)
    return by_dataset


async def _erases(sandbox: _Sandbox) -> bool:
    """Whether an erasure is in progress, which recounts the rows of all datasets."""
    begun = _ERASURES.status.in_(WAITING | RUNNING), _ERASURES.attempts > 0
    ask = within(select(_ERASURES.id), ErasureJobRow, sandbox.tenant).where(*begun).limit(1)
    async with sandbox.database.session() as session:
        return (await session.scalar(ask)) is not None


async def _uncounted(lake: TenantLake, dataset_id: str, batches: Sequence[BatchRow]) -> int:
    """Rows in the lake that the database does not count yet; negative for deleted rows."""
    rows = 0
    for batch in batches:
        committed = await asyncio.to_thread(committed_batch, lake, dataset_id, batch.id)
        rows += (committed.row_count if committed is not None else 0) - batch.row_count
    return rows


async def _dataset_rows(sandbox: _Sandbox) -> list[Any]:
    ask = select(_DATASETS.id, _DATASETS.kind, _DATASETS.name, _DATASETS.row_count)
    async with sandbox.database.session() as session:
        return list(await session.execute(within(ask, DatasetRow, sandbox.tenant).order_by(_DATASETS.id)))


def _names(files: Sequence[str]) -> str:
    more = f" and {len(files) - NAMED:,} more" if len(files) > NAMED else ""
    return ", ".join(files[:NAMED]) + more
