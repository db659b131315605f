"""Chaos: workers are killed, frozen and cut off at random moments, and each result is compared with an undisturbed one.

    python -m tests.support.chaos --rounds 100 [--seed 7] [--database sqlite|postgresql|both]

Real `segmentation worker` processes evaluate a job over 23,570 people in 16 buckets, after a batch that touches some of
each, so that both the merged view and the memberships are made anew. Between them stand a database of either kind and
a lake. Every round prints what was done when and what became of it; the seed is printed first and repeats the moments
and the choices (not the speed of the machine). Ends with exit code 1 when any result differs.
"""

import argparse
import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pyroaring import BitMap
from sqlalchemy import select, text, update

from app.clock import utc_now
from app.engine.ingest.formats import InputFile
from app.engine.members.membership import MembershipFiles
from app.engine.store.delta import open_table
from app.scope import Scope, Tenant
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.segment import requests as segment_jobs
from app.services.maintenance.doctor import examine
from app.settings import Settings
from app.storage.columns import columns
from app.storage.job_log import read_updates
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import BatchRow, DatasetKind, DatasetRow
from app.storage.tables.jobs import FINAL, JobBucketRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.wiring import Services, open_services
from tests.support import processes
from tests.support.cuttable import CuttableServer
from tests.support.databases import fresh_database, postgresql_url

ROOT = Path(__file__).parents[2]
PURCHASES = ROOT / "tests" / "data" / "cdnow_purchases.csv"
SCOPE = Scope("default", "prod", "chaos")
LEASE_SECONDS = 2.0
PATIENCE_SECONDS = 90.0
UPLOADS = Tenant("default", "uploads")
"""A sandbox whose data no definition of the world looks at."""
STOP_SECONDS = 10.0
WORKERS = 2
STALLING = """
import os, pathlib, signal
from app.storage.sessions import writing

commit = writing.WriteSession.commit

async def stall_and_commit(self):
    if pathlib.Path(f"stall.{os.getpid()}").exists():
        os.kill(os.getpid(), signal.SIGSTOP)
    await commit(self)

writing.WriteSession.commit = stall_and_commit
writing.ABANDONED_SECONDS = 3.0
"""
"""Makes a worker for which there is a file `stall.PID` stop within its next transaction."""

Result = dict[str, Any]
"""By name of the definition what became of it: counts, and by bucket who is in, who came and who went."""


def expressions(count: int) -> list[str]:
    """Work of different kinds; some of the people who are in after the first half of the data leave in the second."""
    kinds: list[Callable[[int], str]] = [
        lambda n: f"xEvent[dollars > {n}].count() >= 2",
        lambda n: f"xEvent.count() <= {n % 5 + 1} and xEvent.sum(dollars) > {n}",
        lambda n: f"xEvent[quantity = {n % 9}].sum(dollars) > {n}",
        lambda n: (
            f"CHAIN(xEvent, timestamp, [A: WHAT(dollars > {n}), B: WHAT(dollars > {n + 1}) WHEN(<= {n} days after A)])"
        ),
    ]
    return [kinds[n % len(kinds)](n + 1) for n in range(count)]


# ---------------------------------------------------------------- the world


@dataclass
class World:
    """A sandbox whose audiences stand as after the first half of the data, and the workers that share it."""

    services: Services
    folder: Path
    worker_url: str
    server: CuttableServer | None = None
    truth: Result = field(default_factory=dict)
    seconds: float = 0.0
    heads: str = ""
    customers: list[str] = field(default_factory=list)
    rounds: int = 0
    workers: list[processes.Command] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
        environment |= {
            "SEGMENTATION_DATABASE_URL": self.worker_url,
            "SEGMENTATION_DATA_DIR": str(self.folder),
            "SEGMENTATION_LEASE_SECONDS": str(LEASE_SECONDS),
            "SEGMENTATION_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        return environment

    def start_worker(self) -> processes.Command:
        with (self.folder / "workers.log").open("ab") as log:
            process = processes.start(
                ["worker"], self.folder, self.environment(), stdout=log, stderr=log, first=STALLING
            )
        self.workers.append(process)
        return process

    async def victim(self, choice: random.Random) -> processes.Command:
        """A worker, most times the one that is at work."""
        async with self.services.database.session() as session:
            owners = list(await session.scalars(select(columns(SegmentJobRow).lease_owner)))
        pids = {owner.split(":")[1] for owner in owners if owner is not None}
        busy = [worker for worker in self.workers if str(worker.pid) in pids]
        return choice.choice(busy if busy and choice.random() < 0.8 else self.workers)

    def replace(self, process: processes.Command) -> None:
        self.workers.remove(process)
        self.start_worker()

    async def touch(self) -> None:
        """Some people of every bucket get a record that no definition looks at: the view must be made anew."""
        self.rounds += 1
        file = self.folder / "touch.csv"
        rows = [f"{customer},{self.rounds}" for customer in self.customers[self.rounds % 7 :: 97]]
        file.write_text("\n".join(["customer_id,round", *rows]))
        database, lake = self.services.database, self.services.lake
        await ingest_file(
            database,
            lake,
            utc_now,
            SCOPE,
            NewDataset("people", DatasetKind.PROFILE, "customer_id", "customer", None),
            InputFile(file, "CSV"),
        )

    async def start_job(self) -> str:
        """A job over all definitions, that starts where the undisturbed one did."""
        async with self.services.database.write() as session:
            await session.execute(update(AudienceRow).values(membership_run_id=self.heads))
        return (await segment_jobs.create(self.services.database, utc_now, SCOPE, all_definitions=True)).id

    async def job(self, id: str) -> Any:
        async with self.services.database.session() as session:
            return (await segment_jobs.get_many(session, SCOPE, [id]))[id]

    def start_upload(self, file: Path) -> processes.Command:
        """A process that loads a file of events into a sandbox of its own."""
        arguments = ["ingest", str(file), "--dataset", file.stem, "--kind", "event"]
        arguments += ["--id", "id", "--time", "at", "--sandbox", UPLOADS.sandbox]
        with (self.folder / "workers.log").open("ab") as log:
            return processes.start(arguments, self.folder, self.environment(), stdout=log, stderr=log)

    async def upload_states(self, name: str) -> tuple[list[str], int, int]:
        """Statuses of the batches of a dataset, and its rows by the database and in the lake."""
        async with self.services.database.session() as session:
            dataset = (await session.scalars(select(DatasetRow).where(DatasetRow.name == name))).first()  # type: ignore[arg-type]
            if dataset is None:
                return [], 0, 0
            batch = columns(BatchRow)
            batches = await session.scalars(select(batch.status).where(batch.dataset_id == dataset.id))
            statuses = sorted(batches)
        table = open_table(self.services.lake.tenant(UPLOADS).dataset(dataset.id))
        return statuses, dataset.row_count, sum(file.rows for file in table.files) if table else 0

    async def ended(self, id: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """The job as soon as it has ended, or as it is when it has not in time."""
        deadline = time.monotonic() + seconds
        while (job := await self.job(id)).status not in FINAL and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        return job

    async def moment(self, id: str, choice: random.Random) -> Any:
        """Waits for a random time after the job was made, or for a random part of it to be done."""
        if choice.random() < 0.4:
            await asyncio.sleep(choice.uniform(0, self.seconds / 2))
            return await self.job(id)
        fraction = choice.uniform(0, 0.99)
        while (job := await self.job(id)).fraction < fraction and job.status not in FINAL:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return job

    async def result(self, job_id: str) -> Result:
        files = MembershipFiles(self.services.lake.tenant(SCOPE.tenant))
        async with self.services.database.session() as session:
            audience = columns(AudienceRow)
            named = await session.execute(select(audience.id, audience.name))
            names: dict[str, str] = {row.id: row.name for row in named}
            segments = columns(SegmentJobDefinitionRow).job_id == job_id
            rows = list(await session.scalars(select(SegmentJobDefinitionRow).where(segments)))
            buckets = list(await session.scalars(select(JobBucketRow).where(JobBucketRow.job_id == job_id)))  # type: ignore[arg-type]
            shown = set(await session.scalars(select(audience.membership_run_id)))
        found: Result = {
            names[row.definition_id]: {
                "counts": (row.profile_count, row.by_status, row.by_namespace, row.error),
                "buckets": {},
            }
            for row in rows
        }
        now = (await self.job(job_id)).evaluated_at
        for row in buckets:
            for id_, one in files.read(job_id, row.bucket, row.file).items():
                times = {at == now: BitMap(cohort) for at, cohort in one.qualified}
                found[names[id_]]["buckets"][row.bucket] = (one.members, one.entered, one.exited, times)
        return {**found, "audiences show this run": shown == {job_id}, "buckets": len(buckets)}

    async def log_problem(self, job_id: str) -> str | None:
        """What is wrong with the update log, which is to be without gaps and to go forward only."""
        async with self.services.database.session() as session:
            states = [state.row for state in await read_updates(session, SCOPE.tenant, job_id, 0)]
        if [state.sequence for state in states] != list(range(1, len(states) + 1)):
            return "the update log has gaps"
        if any(later.fraction < earlier.fraction for earlier, later in pairwise(states)):
            return "progress went back"
        return None


@asynccontextmanager
async def world(database_url: str, folder: Path, definitions_count: int) -> AsyncIterator[World]:
    """A world whose undisturbed result is known, in an empty database and folder."""
    async with AsyncExitStack() as stack:
        worker_url, server = database_url, None
        if database_url.startswith("postgresql"):
            server = await stack.enter_async_context(CuttableServer.open(database_url))
            worker_url = server.url(urlsplit(database_url).path.lstrip("/"))
        settings = Settings(data_dir=folder, database_url=database_url)
        services = await stack.enter_async_context(open_services(settings))
        made = World(services, folder, worker_url, server)
        header, *lines = PURCHASES.read_text().splitlines()
        made.customers = sorted({line.split(",")[header.split(",").index("customer_id")] for line in lines})
        try:
            made.start_worker()
            await _load(made, header, lines[::2])
            for at, expression in enumerate(expressions(definitions_count)):
                new = NewDefinition(name=f"{at:03d}", expression=expression)
                await definitions.create(services.database, services.lake, utc_now, SCOPE, new)
            first = await segment_jobs.create(services.database, utc_now, SCOPE, all_definitions=True)
            _expect(await made.ended(first.id))
            made.heads = first.id
            await _load(made, header, lines[1::2])
            await made.touch()
            job = await _undisturbed(made)
            made.seconds = (job.finished_at - job.started_at).total_seconds()
            made.truth = await made.result(job.id)
            for _ in range(WORKERS - 1):
                made.start_worker()
            yield made
        finally:
            for process in made.workers:
                process.kill()
                process.wait()


async def _load(made: World, header: str, lines: list[str]) -> None:
    file = made.folder / "half.csv"
    file.write_text("\n".join([header, *lines]))
    await ingest_file(
        made.services.database,
        made.services.lake,
        utc_now,
        SCOPE,
        NewDataset("purchases", DatasetKind.EVENT, "customer_id", "customer", "date"),
        InputFile(file, "CSV"),
    )


async def _undisturbed(made: World) -> Any:
    job = await made.ended(await made.start_job())
    _expect(job)
    return job


def _expect(job: Any) -> None:
    if (job.status, job.attempts) != ("SUCCEEDED", 1):
        raise RuntimeError(f"the undisturbed job is {job.status} after {job.attempts} attempts: {job.errors}")


# ---------------------------------------------------------------- disturbances

Disturb = Callable[[World, random.Random], Coroutine[Any, Any, str]]


async def kill(made: World, choice: random.Random) -> str:
    process = await made.victim(choice)
    process.kill()
    process.wait()
    made.replace(process)
    return "killed"


async def freeze(made: World, choice: random.Random) -> str:
    """Frozen for longer than its lease, then continued: it does not know that it was overtaken."""
    process, seconds = await made.victim(choice), LEASE_SECONDS + choice.uniform(0.5, 2.5)
    process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(seconds)
    process.send_signal(signal.SIGCONT)
    return f"frozen for {seconds:.1f} s"


async def stall(made: World, choice: random.Random) -> str:
    """Frozen in the middle of its next transaction, for less or more time than PostgreSQL lets it keep its locks."""
    process, seconds = await made.victim(choice), choice.uniform(0.5, 8.0)
    order = made.folder / f"stall.{process.pid}"
    await asyncio.to_thread(order.touch)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(order.unlink)
    process.send_signal(signal.SIGCONT)
    return f"frozen in a transaction for up to {seconds:.1f} s"


async def terminate(made: World, choice: random.Random) -> str:
    process = await made.victim(choice)
    made.replace(process)
    began = time.monotonic()
    process.terminate()
    try:
        code = await asyncio.to_thread(process.wait, STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"a worker did not stop within {STOP_SECONDS:.0f} s of SIGTERM") from None
    # One that is still starting has no handler yet and simply ends, or has one that says by its code what ended it.
    if code not in {0, -signal.SIGTERM, 128 + signal.SIGTERM}:
        raise AssertionError(f"a worker ended with code {code} after SIGTERM")
    return f"stopped within {time.monotonic() - began:.1f} s"


async def cut(made: World, _choice: random.Random) -> str:
    """PostgreSQL ends every connection of the workers."""
    async with made.services.database.write() as session:
        await session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND backend_type = 'client backend' AND client_addr IS NOT NULL"
            )
        )
    return "connections cut"


async def away(made: World, choice: random.Random) -> str:
    seconds = choice.uniform(0.5, 4.0)
    assert made.server is not None
    async with made.server.away():
        await asyncio.sleep(seconds)
    return f"database away for {seconds:.1f} s"


async def lock(made: World, choice: random.Random) -> str:
    """On SQLite, a writer that does not end for a while."""
    seconds = choice.uniform(0.5, 4.0)
    connection = sqlite3.connect(
        made.services.database.location, timeout=30, isolation_level=None, check_same_thread=False
    )
    try:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        await asyncio.sleep(seconds)
        connection.execute("ROLLBACK")
    finally:
        connection.close()
    return f"database locked for {seconds:.1f} s"


DISTURBANCES: dict[str, tuple[Disturb, ...]] = {
    "sqlite": (kill, freeze, stall, terminate, lock),
    "postgresql": (kill, freeze, stall, terminate, cut, away),
}


# ---------------------------------------------------------------- uploads

UPLOADED_ROWS = 20_000


async def disturbed_upload(made: World, choice: random.Random) -> tuple[str, str | None]:
    """Kills, freezes or stops a process that loads a file, then sends the file again: the story, and what is wrong."""
    name = f"upload{made.rounds}"
    file = made.folder / f"{name}.csv"
    rows = "\n".join(f"{number % 3_000},2026-01-01T00:00:00Z,{number}" for number in range(UPLOADED_ROWS))
    await asyncio.to_thread(file.write_text, f"id,at,amount\n{rows}\n")
    process = made.start_upload(file)
    while process.poll() is None and not (await made.upload_states(name))[0]:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await asyncio.sleep(choice.uniform(0, 1.5))
    act = choice.choice(("killed", "frozen", "stopped"))
    if act == "killed":
        process.kill()
    elif act == "stopped":
        process.terminate()
    else:
        process.send_signal(signal.SIGSTOP)
        await _settled(made, name)
        process.send_signal(signal.SIGCONT)
    waited = STOP_SECONDS if act == "stopped" else PATIENCE_SECONDS
    try:
        await asyncio.to_thread(process.wait, waited)
    except subprocess.TimeoutExpired:
        process.kill()
        return f"upload {act}", f"an upload did not end within {waited:.0f} s"
    await _settled(made, name)
    after = await made.upload_states(name)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while again := await asyncio.to_thread(made.start_upload(file).wait, PATIENCE_SECONDS):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.2)  # The database may be away just now.
    statuses, counted, stored = await made.upload_states(name)
    story = f"upload {act}: {'/'.join(after[0])}, then {'/'.join(statuses)}"
    findings = await examine(made.services.database, made.services.lake, utc_now)
    problems = [finding.problem for finding in findings if finding.where.endswith(f"/{UPLOADS.sandbox}")]
    if again or problems or after[1] != after[2] or (counted, stored) != (UPLOADED_ROWS, UPLOADED_ROWS):
        return story, f"exit {again}, {after} then {counted}/{stored} rows; {problems}"
    return story, None


async def _settled(made: World, name: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "LOADING" in (await made.upload_states(name))[0] and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


# ---------------------------------------------------------------- rounds


@dataclass(frozen=True)
class Outcome:
    """`problem` is None when the result is that of the undisturbed job, bit for bit."""

    story: str
    done: tuple[str, ...]
    attempts: int
    problem: str | None


async def play(made: World, choice: random.Random) -> Outcome:
    """One round: a job, one to three disturbances at random moments, and a look at what came of it."""
    await made.touch()
    kinds = DISTURBANCES[made.services.database.dialect]
    plan = [(choice.choice(kinds), random.Random(choice.random())) for _ in range(choice.randint(1, 3))]
    id_, began = await made.start_job(), time.monotonic()

    async def disturb(act: Disturb, own: random.Random) -> str:
        job = await made.moment(id_, own)
        at = time.monotonic() - began
        return f"{await act(made, own)} at {at:.1f} s ({job.phase} {job.fraction:.0%})"

    upload = asyncio.create_task(disturbed_upload(made, random.Random(choice.random())))
    acts = [disturb(act, own) for act, own in plan]
    try:
        told = await asyncio.gather(*acts)
    except AssertionError as error:
        await upload
        return Outcome(str(error), tuple(act.__name__ for act, _ in plan), 0, str(error))
    job = await made.ended(id_)
    await asyncio.sleep(0.3)  # what a frozen worker still wants to write would come now
    uploaded, upload_problem = await upload
    problem = await _compared(made, id_, job) or upload_problem
    story = (
        f"{', '.join(told)}; {uploaded}: {job.status} after {job.attempts} attempts, {time.monotonic() - began:.1f} s"
    )
    return Outcome(story, tuple(act.__name__ for act, _ in plan), job.attempts, problem)


async def _compared(made: World, id_: str, job: Any) -> str | None:
    if (job.status, job.fraction) != ("SUCCEEDED", 1.0):
        return f"the job is {job.status} at {job.fraction:.0%}: {job.errors}"
    if job.profiles_read != job.total_profiles:
        return f"{job.profiles_read} of {job.total_profiles} people were read"
    result = await made.result(id_)
    different = sorted(name for name in made.truth if result.get(name) != made.truth[name])
    if different:
        return f"{', '.join(different[:5])} differ from the undisturbed job"
    return await made.log_problem(id_)


def play_rounds(dialect: str, count: int, seed: int, definitions_count: int) -> Counter[str]:
    """That many rounds on a database of this kind."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segmentation-chaos-")))
        url = f"sqlite:///{folder / 'chaos.db'}"
        if dialect == "postgresql":
            url = stack.enter_context(fresh_database(stack.enter_context(postgresql_url())))
        return asyncio.run(rounds(url, folder, count, seed, definitions_count))


async def rounds(url: str, folder: Path, count: int, seed: int, definitions_count: int) -> Counter[str]:
    """The same on an empty database and in an empty folder: how often what was done, and what came of it."""
    outcomes: Counter[str] = Counter()
    async with world(url, folder, definitions_count) as made:
        say(f"{made.services.database.dialect}: an undisturbed job takes {made.seconds:.1f} s")
        for number in range(1, count + 1):
            outcome = await play(made, random.Random(f"{seed}/{number}"))
            say(f"  round {number}: {outcome.story}: {'equal' if outcome.problem is None else outcome.problem}")
            outcomes.update(outcome.done)
            outcomes["resumed"] += outcome.attempts > 1
            outcomes["equal" if outcome.problem is None else "WRONG"] += 1
        if outcomes["WRONG"]:
            say((folder / "workers.log").read_text()[-20_000:])
    return outcomes


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--definitions", type=int, default=240)
    chosen = parser.parse_args()
    say(f"seed {chosen.seed}")
    dialects = ["sqlite", "postgresql"] if chosen.database == "both" else [chosen.database]
    total: Counter[str] = Counter()
    for at, dialect in enumerate(dialects):
        share = chosen.rounds // len(dialects) + (at < chosen.rounds % len(dialects))
        total += play_rounds(dialect, share, chosen.seed, chosen.definitions)
    say(", ".join(f"{name} {number}" for name, number in sorted(total.items())))
    raise SystemExit(1 if total["WRONG"] else 0)


if __name__ == "__main__":
    main()
