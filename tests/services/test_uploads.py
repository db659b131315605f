"""Batches: what lands, what is refused, and what becomes of a batch whose process died."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import FixedClock
from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.rows import DatasetShape
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.services.datasets import batches, datasets, uploads
from app.services.datasets.batches import reconcile
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import Uploaded, ingest_file
from app.services.lists.paging import PageRequest
from app.services.maintenance.retention import Keep
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.datasets import BatchRow, DatasetKind
from app.storage.tenancy import within
from app.worker.maintenance import Maintenance
from tests.services.conftest import SCOPE


async def states(database: Database) -> list[tuple[str, int, str | None]]:
    async with database.session() as session:
        rows = await session.scalars(within(select(BatchRow), BatchRow, SCOPE.tenant).order_by(columns(BatchRow).id))
        return [(row.status, row.row_count, row.error) for row in rows]


async def rows_of(database: Database, dataset_id: str) -> int:
    async with database.session() as session:
        return (await datasets.get_many(session, SCOPE, [dataset_id]))[dataset_id].row_count


async def abandoned(database: Database, clock: FixedClock, dataset_id: str) -> BatchRow:
    """A batch as a process leaves it that is killed while it loads."""
    async with database.session() as session:
        dataset = (await datasets.get_many(session, SCOPE, [dataset_id]))[dataset_id]
    clock.advance(timedelta(seconds=1))
    return (await batches.begin(database, clock, SCOPE, dataset))[0]


async def test_a_batch_counts_in_its_dataset(database: Database, purchases: Uploaded) -> None:
    assert (purchases.batch.status, purchases.batch.row_count, purchases.batch.rejected_rows) == ("ACTIVE", 3, 0)
    assert await rows_of(database, purchases.batch.dataset_id) == 3
    assert await states(database) == [("ACTIVE", 3, None)]


async def test_a_refused_file_leaves_a_failed_batch_and_no_row(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded, tmp_path: Path
) -> None:
    file = tmp_path / "other.csv"
    file.write_text("client,when,dollars\n00003,2026-01-01,1\n")
    clock.advance(timedelta(seconds=1))
    with pytest.raises(Refusal) as caught:
        await uploads.upload_batch(database, lake, clock, SCOPE, purchases.batch.dataset_id, InputFile(file, "CSV"))
    assert caught.value.code == ErrorCode.INVALID_INPUT
    assert await states(database) == [("ACTIVE", 3, None), ("FAILED", 0, caught.value.message)]
    assert await rows_of(database, purchases.batch.dataset_id) == 3


async def test_the_same_name_with_another_shape_is_refused(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded, tmp_path: Path
) -> None:
    file = tmp_path / "purchases.csv"
    with pytest.raises(Refusal) as caught:
        await ingest_file(
            database,
            lake,
            clock,
            SCOPE,
            NewDataset("purchases", DatasetKind.PROFILE, "customer", "crm", None),
            InputFile(file, "CSV"),
        )
    assert (caught.value.code, caught.value.path) == (ErrorCode.ALREADY_EXISTS, ("name",))
    assert await states(database) == [("ACTIVE", 3, None)]


async def test_a_lost_batch_that_did_not_land_has_failed(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded
) -> None:
    await abandoned(database, clock, purchases.batch.dataset_id)
    await reconcile(database, lake, clock)
    assert [status for status, *_ in await states(database)] == ["ACTIVE", "LOADING"], "its process may still live"
    clock.advance(timedelta(seconds=61))
    await reconcile(database, lake, clock)
    assert await states(database) == [
        ("ACTIVE", 3, None),
        ("FAILED", 0, "the process that loaded it died or was frozen: send the file again"),
    ]


async def test_a_lost_batch_whose_rows_landed_is_active_and_counted_once(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded, tmp_path: Path
) -> None:
    lost = await abandoned(database, clock, purchases.batch.dataset_id)
    shape = DatasetShape("EVENT", "customer", "crm", "when")
    file = tmp_path / "purchases.csv"
    await asyncio.to_thread(ingest, lake.tenant(SCOPE.tenant), lost.dataset_id, shape, InputFile(file, "CSV"), lost.id)
    clock.advance(timedelta(seconds=61))
    await asyncio.gather(*(reconcile(database, lake, clock) for _ in range(4)))
    assert await states(database) == [("ACTIVE", 3, None), ("ACTIVE", 3, None)]
    assert await rows_of(database, lost.dataset_id) == 6


async def test_processes_with_a_worker_look_after_lost_batches(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded
) -> None:
    await abandoned(database, clock, purchases.batch.dataset_id)
    clock.advance(timedelta(seconds=61))
    stop = asyncio.Event()
    keep = Keep(timedelta(days=1), timedelta(days=1), timedelta(days=1))
    keeping = asyncio.create_task(Maintenance(database, lake, clock, keep).keep(stop))
    while (await states(database))[1][0] == "LOADING":  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    stop.set()
    await keeping
    assert (await states(database))[1][0] == "FAILED"


async def test_batches_come_newest_first(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded, tmp_path: Path
) -> None:
    id_ = purchases.batch.dataset_id
    clock.advance(timedelta(seconds=1))
    later = await uploads.upload_batch(database, lake, clock, SCOPE, id_, InputFile(tmp_path / "purchases.csv", "CSV"))
    async with database.session() as session:
        page: Any = (await datasets.batches_by_dataset(session, SCOPE, [id_], PageRequest(5)))[id_]
    assert [batch.id for batch in page.items] == [later.batch.id, purchases.batch.id]


async def test_a_declaration_goes_with_the_dataset_that_could_not_be_created(
    database: Database, lake: Lake, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = {"properties": {"a": {"type": "integer"}}}
    new = NewDataset("orders", DatasetKind.PROFILE, "id", "crm", schema=schema)

    async def fail(*_: Any) -> None:
        raise OSError("the connection is lost")

    def folders() -> list[str]:
        return [path.name for path in lake.tenant(SCOPE.tenant).folder.glob("datasets/*/_declared.json")]

    with monkeypatch.context() as patched:
        patched.setattr("app.storage.sessions.writing.WriteSession.commit", fail)
        with pytest.raises(OSError, match="the connection is lost"):
            await datasets.create(database, clock, SCOPE, new, lake)
    assert folders() == []
    made = await datasets.create(database, clock, SCOPE, new, lake)
    assert len(folders()) == 1
    changes = datasets.DatasetChanges(schema={"properties": {"b": {"type": "string"}}})
    with monkeypatch.context() as patched:
        patched.setattr("app.storage.sessions.writing.WriteSession.commit", fail)
        with pytest.raises(OSError, match="the connection is lost"):
            await datasets.update(database, lake, clock, SCOPE, made.id, None, changes)
    shown = (await datasets.schemas_many(lake, SCOPE, [made.id]))[made.id]
    assert list(shown["properties"]) == ["a"]
