"""The life of a batch under faults: frozen, stopped and cut-off loaders, and the same file sent twice."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import FixedClock
from app.engine.ingest import batch as batch_engine
from app.engine.ingest import storing
from app.engine.ingest.formats import InputFile
from app.engine.ingest.reading import Reading
from app.engine.ingest.rows import DatasetShape
from app.engine.ingest.stop import Stop, Stopped
from app.engine.store import delta
from app.engine.store.delta import open_table
from app.engine.store.lake import Lake, write_atomically
from app.errors import ErrorCode, Refusal, Unconfirmed
from app.services.datasets import batches, datasets, uploads
from app.services.datasets.uploads import Uploaded, UploadOptions, upload_batch
from app.services.maintenance.doctor import examine
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.datasets import BatchRow, DatasetKind
from app.storage.tenancy import within
from tests.services.conftest import SCOPE

LEASE = timedelta(seconds=60)


class Pause:
    """Holds the first thread that comes by, as a frozen process is held."""

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def paused(*args: Any, **options: Any) -> Any:
            if not self.reached.is_set():
                self.reached.set()
                assert self.released.wait(60)
            return original(*args, **options)

        return paused


class World:
    def __init__(self, database: Database, lake: Lake, clock: FixedClock, folder: Path) -> None:
        self.database, self.lake, self.clock, self.folder = database, lake, clock, folder
        self.dataset = ""

    async def create(self, kind: str = "EVENT") -> None:
        new = datasets.NewDataset("visits", DatasetKind(kind), "id", "crm", "at" if kind == "EVENT" else None)
        self.dataset = (await datasets.create(self.database, self.clock, SCOPE, new)).id

    def file(self, rows: str = "1,2026-01-01,5\n2,2026-01-02,6\n", header: str = "id,at,amount") -> Path:
        path = self.folder / "rows.csv"
        path.write_text(f"{header}\n{rows}")
        return path

    def send(self, file: Path | None = None, **options: Any) -> "asyncio.Task[Uploaded]":
        self.clock.advance(timedelta(seconds=1))
        return asyncio.create_task(
            upload_batch(
                self.database,
                self.lake,
                self.clock,
                SCOPE,
                self.dataset,
                InputFile(file or self.file(), "CSV"),
                UploadOptions(**options),
            )
        )

    async def states(self) -> list[tuple[str, int]]:
        async with self.database.session() as session:
            rows = await session.scalars(
                within(select(BatchRow), BatchRow, SCOPE.tenant).order_by(columns(BatchRow).id)
            )
            return [(row.status, row.row_count) for row in rows]

    async def rows(self) -> tuple[int, int]:
        """By the database, and in the lake."""
        async with self.database.session() as session:
            counted = (await datasets.get_many(session, SCOPE, [self.dataset]))[self.dataset].row_count
        table = open_table(self.lake.tenant(SCOPE.tenant).dataset(self.dataset))
        return counted, sum(file.rows for file in table.files) if table else 0

    async def reconcile(self) -> None:
        await batches.reconcile(self.database, self.lake, self.clock)

    def strays(self) -> list[str]:
        folder = self.lake.tenant(SCOPE.tenant).dataset(self.dataset)
        table = open_table(folder)
        known = {file.name for file in table.files} if table else set()
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")}
        return sorted(name for name in found - known if not name.startswith("_delta_log"))


@pytest.fixture
async def world(database: Database, lake: Lake, clock: FixedClock, tmp_path: Path) -> World:
    world = World(database, lake, clock, tmp_path)
    await world.create()
    return world


# Where the loader freezes: before it looks whether the batch is still its own, and in every gap of the commit.
PLACES = {
    "before the note": (storing, "write_atomically"),
    "before the table": (delta, "_partitioned_table"),
    "before a column": (delta, "write_deltalake"),
    "before the files": (delta, "_added"),
}
FIRST = ("before the note", "before the table", "before the files")
LATER = ("before the note", "before a column", "before the files")


@pytest.mark.parametrize(
    ("place", "earlier"), [*((place, False) for place in FIRST), *((place, True) for place in LATER)]
)
async def test_a_loader_that_wakes_after_it_was_given_up_changes_nothing(
    world: World, place: str, earlier: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:
        await world.send()
    module, name = PLACES[place]
    pause = Pause()
    monkeypatch.setattr(module, name, pause(getattr(module, name)))
    wider = world.file("3,2026-01-03,7,x\n", "id,at,amount,note")
    sending = world.send(wider)
    await asyncio.to_thread(pause.reached.wait, 60)
    world.clock.advance(LEASE + timedelta(seconds=1))
    await world.reconcile()
    rows = (2, 2) if earlier else (0, 0)
    assert await world.states() == [*([("ACTIVE", 2)] if earlier else []), ("FAILED", 0)]
    table = open_table(world.lake.tenant(SCOPE.tenant).dataset(world.dataset))
    assert table is not None
    pause.released.set()
    with pytest.raises(Refusal) as caught:
        await sending
    assert caught.value.code == ErrorCode.INVALID_STATE
    assert "none of its rows is stored" in caught.value.message
    assert "60 seconds" in caught.value.message
    left = open_table(world.lake.tenant(SCOPE.tenant).dataset(world.dataset))
    assert left is not None
    assert (left.version, left.schema) == (table.version, table.schema), "the table is as it was given up"
    assert (await world.rows(), world.strays()) == (rows, [])
    assert await world.states() == [*([("ACTIVE", 2)] if earlier else []), ("FAILED", 0)]
    await world.send(wider)
    assert await world.rows() == (rows[0] + 1, rows[1] + 1), "the same file lands when it is sent again"
    assert await examine(world.database, world.lake, world.clock) == []


async def test_a_loader_that_wakes_after_its_commit_counts_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = Pause()
    monkeypatch.setattr("app.services.datasets.uploads.ingest", pause(batch_engine.ingest))
    sending = world.send()
    await asyncio.to_thread(pause.reached.wait, 60)
    async with world.database.session() as session:
        batch = (await session.scalars(select(BatchRow))).one()
    shape = DatasetShape("EVENT", "id", "crm", "at")
    tenant = world.lake.tenant(SCOPE.tenant)
    await asyncio.to_thread(batch_engine.ingest, tenant, world.dataset, shape, InputFile(world.file(), "CSV"), batch.id)
    world.clock.advance(LEASE + timedelta(seconds=1))
    await world.reconcile()
    assert await world.states() == [("ACTIVE", 2)]
    pause.released.set()
    assert (await sending).batch.status == "ACTIVE"
    assert await world.rows() == (2, 2)


async def test_a_loader_whose_lease_ran_out_goes_on_when_nobody_gave_it_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause()
    monkeypatch.setattr("app.engine.ingest.storing.write_atomically", pause(write_atomically))
    sending = world.send()
    await asyncio.to_thread(pause.reached.wait, 60)
    world.clock.advance(LEASE * 10)
    pause.released.set()
    assert (await sending).batch.row_count == 2
    assert await world.rows() == (2, 2)


@pytest.mark.parametrize("how", ["event", "cancelled"])
async def test_work_that_is_stopped_leaves_nothing(world: World, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB is interrupted in the middle of a query that would last for minutes."""
    endless = threading.Event()
    original = Reading._stage

    def stage(reading: Reading, *args: Any) -> None:
        endless.set()
        reading.database.execute("SELECT count(*) FROM range(100000000) a, range(1000) b WHERE hash(a.range) = b.range")
        original(reading, *args)

    monkeypatch.setattr(Reading, "_stage", stage)
    stopping = asyncio.Event()
    sending = world.send(stopping=[stopping], idempotency_key="k")
    await asyncio.to_thread(endless.wait, 60)
    if how == "event":
        stopping.set()
        with pytest.raises(Refusal) as caught:
            await sending
        assert "none of its rows is stored" in caught.value.message
    else:
        sending.cancel()
        with pytest.raises((asyncio.CancelledError, Refusal)):
            await sending
    assert (await world.states(), await world.rows(), world.strays()) == ([("FAILED", 0)], (0, 0), [])
    scratch = world.lake.tenant(SCOPE.tenant).folder / "scratch"
    assert list(scratch.iterdir()) == []
    assert await examine(world.database, world.lake, world.clock) == []
    monkeypatch.undo()
    assert (await world.send(idempotency_key="k")).batch.row_count == 2, "the key of a failed batch is free"


async def test_waiting_for_another_upload_can_be_stopped(world: World) -> None:
    held = world.lake.tenant(SCOPE.tenant).lock(f"dataset {world.dataset}")
    with held:
        stopping = asyncio.Event()
        sending = world.send(stopping=[stopping])
        while await world.states() != [("LOADING", 0)]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stopping.set()
        with pytest.raises(Refusal):
            await sending
    assert await world.states() == [("FAILED", 0)]


def test_a_stop_is_looked_at_between_items() -> None:
    stop = Stop()
    items = stop.checked([1, 2])
    assert next(items) == 1
    stop.request()
    with pytest.raises(Stopped):
        next(items)


# ---------------------------------------------------------------- the database goes away


async def test_a_batch_that_was_not_confirmed_is_named_and_found_by_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_args: Any) -> None:
        raise ConnectionError("gone")

    land = batches.land
    monkeypatch.setattr(batches, "land", away)
    monkeypatch.setattr(uploads, "CONFIRM_SECONDS", 0.0)
    with pytest.raises(Unconfirmed) as caught:
        await world.send(idempotency_key="k")
    monkeypatch.setattr(batches, "land", land)
    assert caught.value.batch_id in str(caught.value)
    assert (await world.states(), await world.rows()) == ([("LOADING", 0)], (0, 2))
    assert await examine(world.database, world.lake, world.clock) == [], "a commit that is not counted yet is known"
    world.clock.advance(LEASE + timedelta(seconds=1))
    again = await world.send(idempotency_key="k")
    assert (again.batch.id, again.repeated, again.batch.row_count) == (caught.value.batch_id, True, 2)
    assert (await world.states(), await world.rows()) == ([("ACTIVE", 2)], (2, 2))


async def test_a_database_that_comes_back_in_time_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    land, failures = batches.land, [ConnectionError("gone")] * 2

    async def flaky(*args: Any) -> None:
        if failures:
            raise failures.pop()
        await land(*args)

    monkeypatch.setattr(batches, "land", flaky)
    monkeypatch.setattr(uploads, "_RETRY_SECONDS", 0.0)
    assert (await world.send()).batch.status == "ACTIVE"
    assert await world.rows() == (2, 2)


# ---------------------------------------------------------------- idempotency


async def test_the_same_key_gives_the_same_batch_for_a_day(world: World) -> None:
    rejecting = world.file("1,2026-01-01,5\n2,never,6\n")
    first = await world.send(rejecting, idempotency_key="k")
    again = await world.send(rejecting, idempotency_key="k")
    assert (again.batch.id, again.rejected, again.repeated) == (first.batch.id, first.rejected, True)
    assert await world.rows() == (1, 1)
    other = await world.send(rejecting, idempotency_key="another")
    assert (other.batch.id != first.batch.id, await world.rows()) == (True, (2, 2))
    world.clock.advance(timedelta(hours=24))
    later = await world.send(rejecting, idempotency_key="k")
    assert (later.repeated, await world.rows()) == (False, (3, 3))


async def test_a_key_that_came_with_other_content_is_refused(world: World) -> None:
    first = await world.send(idempotency_key="k")
    with pytest.raises(Refusal) as caught:
        await world.send(world.file("9,2026-01-01,5\n"), idempotency_key="k")
    assert (caught.value.code, caught.value.path) == (ErrorCode.ALREADY_EXISTS, ("idempotency_key",))
    assert caught.value.message == (
        f"the idempotency key 'k' was used at {first.batch.created_at:%F %T}Z for other content (batch "
        f"{first.batch.id}), and would hide this: send it with a key of its own"
    )
    assert (await world.states(), await world.rows()) == ([("ACTIVE", 2)], (2, 2))
    assert (await world.send(idempotency_key="k")).repeated


async def test_a_key_is_one_of_its_dataset(world: World) -> None:
    await world.send(idempotency_key="k")
    new = datasets.NewDataset("others", DatasetKind.EVENT, "id", "crm", "at")
    first = world.dataset
    world.dataset = (await datasets.create(world.database, world.clock, SCOPE, new)).id
    assert not (await world.send(idempotency_key="k")).repeated
    world.dataset = first
    assert await world.rows() == (2, 2)


async def test_of_many_at_once_one_loads(world: World) -> None:
    file = world.file()
    sent = await asyncio.gather(*(world.send(file, idempotency_key="k") for _ in range(5)))
    assert len({one.batch.id for one in sent}) == 1
    assert sorted(one.repeated for one in sent) == [False, True, True, True, True]
    assert (await world.states(), await world.rows()) == ([("ACTIVE", 2)], (2, 2))


async def test_of_many_at_once_another_loads_when_the_first_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = Pause()
    monkeypatch.setattr("app.engine.ingest.storing.write_atomically", pause(write_atomically))
    stopping = asyncio.Event()
    first = world.send(idempotency_key="k", stopping=[stopping])
    await asyncio.to_thread(pause.reached.wait, 60)
    second = world.send(idempotency_key="k")
    requested, request = threading.Event(), Stop.request

    def announced(stop: Stop) -> None:
        request(stop)
        requested.set()

    monkeypatch.setattr(Stop, "request", announced)
    stopping.set()
    await asyncio.to_thread(requested.wait, 60)
    pause.released.set()
    with pytest.raises(Refusal):
        await first
    assert not (await second).repeated
    assert await world.rows() == (2, 2)


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_that_cannot_be_one_is_refused(world: World, key: str) -> None:
    with pytest.raises(Refusal) as caught:
        await world.send(idempotency_key=key)
    assert (caught.value.code, caught.value.path) == (ErrorCode.INVALID_INPUT, ("idempotency_key",))
    assert await world.states() == []


# ---------------------------------------------------------------- duplicates


async def test_rows_of_a_file_are_in_rejected_or_duplicates(world: World) -> None:
    header = "id,at,amount,_id"
    first = await world.send(world.file("1,2026-01-01,5,a\n1,2026-01-01,5,a\n2,never,6,b\n2,2026-01-02,6,c\n", header))
    counts = (first.batch.row_count, first.batch.rejected_rows, first.batch.duplicate_rows)
    assert counts == (2, 1, 1)
    again = await world.send(world.file("1,2026-01-01,5,a\n2,2026-01-02,6,c\n2,2026-01-02,6,d\n", header))
    assert (again.batch.row_count, again.batch.rejected_rows, again.batch.duplicate_rows) == (1, 0, 2)


async def test_records_that_a_later_row_replaces_are_duplicates(
    database: Database, lake: Lake, clock: FixedClock, tmp_path: Path
) -> None:
    world = World(database, lake, clock, tmp_path)
    await world.create("PROFILE")
    sent = await world.send(world.file("1,x\n2,y\n1,z\n", "id,name"))
    assert (sent.batch.row_count, sent.batch.rejected_rows, sent.batch.duplicate_rows) == (2, 0, 1)
