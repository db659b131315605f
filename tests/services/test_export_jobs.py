"""Exports as their users see them: refused with reasons, written whole or not at all, readable by any tool."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from deltalake import DeltaTable

from app.clock import FixedClock
from app.engine.ingest.formats import InputFile
from app.engine.store.lake import Lake
from app.errors import HasDependents, Refusal, Refusals
from app.scope import Scope
from app.services import merge_policies
from app.services.audiences import computed as definitions
from app.services.datasets import datasets
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import Uploaded, ingest_file
from app.services.jobs import shared as jobs
from app.services.jobs import watching
from app.services.jobs.export import requests as export_jobs
from app.services.jobs.export import run as export_runs
from app.services.jobs.export.input import ExportEvents, ExportFilter, ExportSegment, NewExport, TimeRange
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.services.lists.paging import PageRequest
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next, hand_back
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.export_jobs import ExportJobRow
from app.storage.tables.jobs import JobKind, JobStatus
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod
from app.storage.wakeups import Changes
from app.worker.jobs import Worker, WorkerOptions
from app.worker.service import Resources
from tests.services.conftest import SCOPE, Define
from tests.support.gateway import Gateway

SCHEMA = "_xdm.context.profile"
LEASE = timedelta(seconds=60)


@pytest.fixture
async def target(database: Database, clock: FixedClock) -> str:
    """An empty dataset for exports."""
    return (await datasets.create(database, clock, SCOPE, datasets.NewDataset("exports", DatasetKind.EXPORT))).id


@pytest.fixture
async def people(database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded, tmp_path: Path) -> Uploaded:
    """Records of 00001 (who has purchases too) and of 00003; 00002 has purchases only."""
    file = tmp_path / "people.csv"
    file.write_text("customer,city,age\n00001,Oslo,31\n00003,Bergen,\n")
    return await ingest_file(
        database,
        lake,
        clock,
        SCOPE,
        NewDataset("people", DatasetKind.PROFILE, "customer", "crm", None),
        InputFile(file, "CSV"),
    )


def folder(lake: Lake, target: str) -> Path:
    return lake.tenant(SCOPE.tenant).dataset(target)


def ask(target: str, **options: Any) -> NewExport:
    return NewExport(**{"destination_id": target, "schema_name": SCHEMA, **options})


def members(*ids: str, **options: Any) -> ExportFilter:
    return ExportFilter(tuple(ExportSegment(id_) for id_ in ids), **options)


async def evaluate(database: Database, lake: Lake, clock: FixedClock) -> None:
    """Runs the segment job that waits."""
    claim = await claim_next(database, clock, owner="test", lease=LEASE, kind=JobKind.SEGMENT)
    assert claim is not None
    await run_segment_job(Attempt(database, clock, claim), lake, 1)


async def claimed(database: Database, clock: FixedClock) -> Attempt:
    claim = await claim_next(database, clock, owner="test", lease=LEASE, kind=JobKind.EXPORT)
    assert claim is not None
    return Attempt(database, clock, claim)


async def export(database: Database, lake: Lake, clock: FixedClock, new: NewExport) -> ExportJobRow:
    """The job after it was created and run."""
    job = await export_jobs.create(database, lake, clock, SCOPE, new)
    await export_runs.run_export_job(await claimed(database, clock), lake, 1)
    return await job_of(database, job.id)


async def job_of(database: Database, id_: str) -> ExportJobRow:
    async with database.session() as session:
        return (await export_jobs.get_many(session, SCOPE, [id_]))[id_]


async def batches_of(database: Database, id_: str) -> list[Any]:
    async with database.session() as session:
        return (await export_jobs.batches_by_job(session, SCOPE, [id_], PageRequest(50)))[id_].items


def written(lake: Lake, target: str, columns: str = "profileId") -> list[Any]:
    """What DuckDB reads of the dataset's files, by profile id; the one column alone."""
    files = DeltaTable(folder(lake, target)).file_uris()
    if not files:
        return []
    rows = duckdb.execute(f"SELECT {columns} FROM read_parquet({files}) ORDER BY profileId, __batch").fetchall()
    return [row[0] if len(row) == 1 else row for row in rows]


async def refusals(database: Database, lake: Lake, clock: FixedClock, new: NewExport) -> list[tuple[str, str]]:
    """Path and message of each refusal; nothing was made."""
    with pytest.raises((Refusals, Refusal)) as caught:
        await export_jobs.create(database, lake, clock, SCOPE, new)
    async with database.session() as session:
        assert await export_jobs.count(session, SCOPE) == 0
        assert await segment_jobs.count(session, SCOPE) == 0
    error = caught.value
    assert isinstance(error, (Refusals, Refusal))
    found = error.refusals if isinstance(error, Refusals) else [error]
    return [(".".join(refusal.path), refusal.message) for refusal in found]


# ---------------------------------------------------------------- who and what


async def test_members_are_written_with_their_memberships_and_counted(
    database: Database, lake: Lake, clock: FixedClock, define: Define, people: Uploaded, target: str
) -> None:
    big, huge = await define("Big"), await define("Huge", "xEvent.sum(dollars) > 650")
    await segment_jobs.create(database, clock, SCOPE, [big.id, huge.id])
    await evaluate(database, lake, clock)
    at = clock()
    clock.advance(timedelta(hours=1))
    job = await export(database, lake, clock, ask(target, filter=members(big.id, huge.id)))
    assert (job.status, job.errors, job.fraction, job.profiles_read) == ("SUCCEEDED", [], 1.0, 3)
    rows = written(lake, target, "profileId, city, age, to_json(segmentMembership)")
    membership = {"status": "REALIZED", "lastQualificationTime": at.strftime("%Y-%m-%d %H:%M:%S+00")}
    assert [row[:3] for row in rows] == [("crm:00001", "Oslo", 31.0), ("crm:00002", None, None)]
    assert [json.loads(row[3]) for row in rows] == [
        {"AEPSegments": {big.id: membership}},
        {"AEPSegments": dict(sorted({big.id: membership, huge.id: membership}.items()))},
    ]
    (batch,) = await batches_of(database, job.id)
    assert (batch.status, batch.row_count, batch.segment_ids) == ("ACTIVE", 2, [big.id, huge.id])
    assert batch.bytes == sum(pa.table(DeltaTable(folder(lake, target)).get_add_actions())["size_bytes"].to_pylist())
    metrics = job.metrics or {}
    assert metrics["total_exported_profiles"] == 2
    assert metrics["exported_profiles_by_namespace"] == {"crm": 2}
    assert metrics["total_time"] == {"start": clock().isoformat(), "end": clock().isoformat(), "total_ms": 0}
    async with database.session() as session:
        assert (await datasets.get_many(session, SCOPE, [target]))[target].row_count == 2


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (None, ["crm:00001", "crm:00002", "crm:00003"]),
        (ExportFilter(), ["crm:00001", "crm:00003"]),
        (ExportFilter(empty_profiles=True), ["crm:00001", "crm:00002", "crm:00003"]),
        (ExportFilter(from_ingest_timestamp=datetime.fromisoformat("2100-01-01T00:00:00+00:00")), []),
        (
            ExportFilter(from_ingest_timestamp=datetime.fromisoformat("2000-01-01T00:00:00+00:00")),
            ["crm:00001", "crm:00003"],
        ),
    ],
)
async def test_without_segments_everybody_is_written_whom_the_filter_leaves(
    database: Database,
    lake: Lake,
    clock: FixedClock,
    people: Uploaded,
    target: str,
    filter: ExportFilter | None,
    expected: list[str],
) -> None:
    job = await export(database, lake, clock, ask(target, filter=filter))
    assert job.status == "SUCCEEDED"
    assert written(lake, target) == expected
    assert [batch.row_count for batch in await batches_of(database, job.id)] == [len(expected)]


async def test_statuses_and_the_time_of_qualification_choose_among_members(
    database: Database, lake: Lake, clock: FixedClock, define: Define, target: str
) -> None:
    a = await define("A", "xEvent.sum(dollars) > 650")
    await segment_jobs.create(database, clock, SCOPE, [a.id])
    await evaluate(database, lake, clock)
    first = clock()
    clock.advance(timedelta(days=1))
    await definitions.update(database, lake, clock, SCOPE, a.id, None, {"expression": "xEvent.sum(dollars) < 650"})
    await segment_jobs.create(database, clock, SCOPE, [a.id])
    await evaluate(database, lake, clock)
    second = clock()
    one = ["crm:00001"]
    for status, time, expected in [
        (("REALIZED", "EXISTING"), TimeRange(), one),
        (("EXITED",), TimeRange(), ["crm:00002"]),
        (("EXITED", "REALIZED"), TimeRange(end=first), ["crm:00002"]),
        (("EXITED", "REALIZED"), TimeRange(first, second), ["crm:00001", "crm:00002"]),
        (("EXITED", "REALIZED"), TimeRange(start=first + timedelta(seconds=1)), one),
        (("EXISTING",), TimeRange(), []),
    ]:
        filter = ExportFilter((ExportSegment(a.id, None, status),), time)
        job = await export(database, lake, clock, ask(target, filter=filter))
        (batch,) = await batches_of(database, job.id)
        assert [id_ for mine, id_ in written(lake, target, "__batch, profileId") if mine == batch.id] == expected


async def test_a_batch_for_each_segment_holds_its_members(
    database: Database, lake: Lake, clock: FixedClock, define: Define, target: str
) -> None:
    big, huge = await define("Big"), await define("Huge", "xEvent.sum(dollars) > 650")
    nobody = await define("Nobody", "xEvent.sum(dollars) > 5000")
    await segment_jobs.create(database, clock, SCOPE, all_definitions=True)
    await evaluate(database, lake, clock)
    new = ask(target, filter=members(huge.id, nobody.id, big.id), segment_per_batch=True)
    job = await export(database, lake, clock, new)
    batches = await batches_of(database, job.id)
    assert [(batch.segment_ids, batch.row_count) for batch in batches] == [
        ([huge.id], 1),
        ([nobody.id], 0),
        ([big.id], 2),
    ]
    rows = written(lake, target, "__batch, profileId, map_keys(segmentMembership['AEPSegments'])")
    assert rows == sorted(
        [
            (batches[0].id, "crm:00002", [huge.id]),
            (batches[2].id, "crm:00001", [big.id]),
            (batches[2].id, "crm:00002", [big.id]),
        ],
        key=lambda row: (row[1], row[0]),
    )
    assert (job.metrics or {})["total_exported_profiles"] == 2
    assert DeltaTable(folder(lake, target)).version() == 3


async def test_fields_and_events_are_those_asked_for(
    database: Database, lake: Lake, clock: FixedClock, people: Uploaded, target: str
) -> None:
    new = ask(target, fields=("city", "identityMap"), additional_fields=ExportEvents(("xEvent.dollars",)))
    await export(database, lake, clock, new)
    columns = "profileId, city, list_transform(xEvent, lambda e: e.dollars)"
    assert written(lake, target, columns) == [
        ("crm:00001", "Oslo", [12.5, 600.0]),
        ("crm:00002", None, [700.0]),
        ("crm:00003", "Bergen", []),
    ]
    names = ["__batch", "profileId", "identityMap", "city", "segmentMembership", "xEvent"]
    assert [field.name for field in DeltaTable(folder(lake, target)).schema().fields] == names


async def test_what_is_written_opens_in_duckdb_polars_and_arrow(
    database: Database, lake: Lake, clock: FixedClock, define: Define, people: Uploaded, target: str
) -> None:
    big = await define("Big")
    await segment_jobs.create(database, clock, SCOPE, [big.id])
    await evaluate(database, lake, clock)
    await export(database, lake, clock, ask(target, filter=members(big.id), additional_fields=ExportEvents()))
    place = folder(lake, target)
    ids, cities, dollars = ["crm:00001", "crm:00002"], ["Oslo", None], [[12.5, 600.0], [700.0]]
    assert written(lake, target) == ids
    table = pads.dataset(DeltaTable(place).file_uris()).to_table().sort_by("profileId")
    assert table["profileId"].to_pylist() == ids
    assert table["segmentMembership"].to_pylist()[0][0][1][0][1]["status"] == "REALIZED"
    frame = pl.read_delta(str(place)).sort("profileId")
    assert frame["city"].to_list() == cities
    assert [[event["dollars"] for event in events] for events in frame["xEvent"].to_list()] == dollars


async def test_people_of_linked_identities_are_written_as_one(
    database: Database, lake: Lake, clock: FixedClock, target: str, tmp_path: Path
) -> None:
    file = tmp_path / "linked.ndjson"
    file.write_text(
        '{"id": "1", "identityMap": {"mail": [{"id": "a@b"}]}, "city": "Oslo"}\n'
        '{"id": "2", "identityMap": {"mail": [{"id": "a@b"}]}, "age": 3}\n{"id": "3"}\n'
    )
    await ingest_file(
        database, lake, clock, SCOPE, NewDataset("p", DatasetKind.PROFILE, "id", "crm"), InputFile(file, "NDJSON")
    )
    linked = merge_policies.NewPolicy("linked", MergeMethod.TIMESTAMP_ORDERED, IdentityGraph.PDG)
    policy = await merge_policies.create(database, clock, SCOPE, linked)
    job = await export(database, lake, clock, ask(target, merge_policy_id=policy.id))
    assert job.merge_policy["name"] == "linked"
    assert written(lake, target, "profileId, city, age") == [("crm:1", "Oslo", 3.0), ("crm:3", None, None)]


# ---------------------------------------------------------------- refusals


async def test_everything_that_is_wrong_is_said_at_once(
    database: Database, lake: Lake, clock: FixedClock, define: Define, people: Uploaded
) -> None:
    late = clock()
    early = late - timedelta(days=1)
    never = await define("Never run")
    new = NewExport(
        destination_id=people.batch.dataset_id,
        schema_name="_xdm.context.experienceevent",
        fields=("city", "cty", "home.zip", "xEvent.dollars"),
        filter=ExportFilter(
            (
                ExportSegment("nothing"),
                ExportSegment(never.id),
                ExportSegment(never.id, "other"),
                ExportSegment(never.id, None, ()),
            ),
            TimeRange(late, early),
        ),
        additional_fields=ExportEvents(("dolars",), TimeRange(late, early)),
    )
    span = f"({late.isoformat()}) is after"
    assert await refusals(database, lake, clock, new) == [
        (
            "schema_name",
            "unsupported schema '_xdm.context.experienceevent': only '_xdm.context.profile' is available",
        ),
        ("additional_fields.from", f"`from` {span} `to` ({early.isoformat()}), so the range is empty"),
        (
            "filter.segment_qualification_time.start",
            f"`start` {span} `end` ({early.isoformat()}), so the range is empty",
        ),
        (
            "filter.segments.3.status",
            f"`status` of segment {never.id!r} is empty: name one or more of REALIZED, EXISTING, EXITED",
        ),
        ("fields.1", "the data have no field 'cty'; did you mean `city`?"),
        ("fields.2", "the data have no field 'home.zip'"),
        ("fields.3", "'xEvent.dollars' is about events, which are no attribute: ask for them by `additionalFields`"),
        ("additional_fields.fields.0", "the data have no field 'dolars'; did you mean `dollars`?"),
        ("destination.dataset_id", "'people' is of kind PROFILE: exports are written to datasets of kind EXPORT"),
        ("filter.segments.0.segment_id", "there is no audience 'nothing' in this sandbox"),
        (
            "filter.segments.2.segment_id",
            f"there is no audience {never.id!r} with the namespace 'other' in this sandbox",
        ),
        ("filter.segments.3.segment_id", "'Never run' is named twice: keep its first place"),
        (
            "filter.segments.1.segment_id",
            "'Never run' has never been evaluated, so its members are unknown: run a segment job first, "
            "or export with `evaluateFirst: true`",
        ),
    ]


async def test_what_does_not_go_together_is_refused(
    database: Database, lake: Lake, clock: FixedClock, people: Uploaded, target: str
) -> None:
    time = TimeRange(start=clock())
    for new, expected in [
        (ask("none"), [("destination.dataset_id", "there is no dataset 'none' in this sandbox")]),
        (
            ask(target, merge_policy_id="none"),
            [("merge_policy_id", "there is no merge policy 'none' in this sandbox")],
        ),
        (
            ask(target, segment_per_batch=True),
            [
                (
                    "destination.segment_per_batch",
                    "a batch for each segment needs segments: name them in `filter.segments`, or omit this",
                )
            ],
        ),
        (
            ask(target, filter=ExportFilter(segment_qualification_time=time)),
            [
                (
                    "filter.segment_qualification_time",
                    "this is about segments: name them in `filter.segments`, or omit it",
                )
            ],
        ),
        (
            ask(target, evaluate_first=True),
            [
                (
                    "evaluate_first",
                    "the sandbox has no published definitions, so the job has nothing to run: publish one first",
                )
            ],
        ),
        (
            ask(target, filter=members(*map(str, range(1501)))),
            [("filter.segments", "1,501 segments are more than 1,500: split them over several exports")],
        ),
    ]:
        assert (await refusals(database, lake, clock, new))[: len(expected)] == expected


async def test_an_export_that_contradicts_its_dataset_fails_and_leaves_it_as_it_was(
    database: Database, lake: Lake, clock: FixedClock, people: Uploaded, target: str, tmp_path: Path
) -> None:
    await export(database, lake, clock, ask(target, fields=("age",)))
    before = written(lake, target, "profileId, age")
    other = Scope("acme", "other", "ann")
    file = tmp_path / "old.csv"
    file.write_text("customer,age\n1,old\n")
    await ingest_file(
        database,
        lake,
        clock,
        other,
        NewDataset("people", DatasetKind.PROFILE, "customer", "crm", None),
        InputFile(file, "CSV"),
    )
    there = (await datasets.create(database, clock, other, datasets.NewDataset("exports", DatasetKind.EXPORT))).id
    (lake.tenant(other.tenant).dataset(there).parent).mkdir(parents=True, exist_ok=True)
    folder(lake, target).rename(lake.tenant(other.tenant).dataset(there))
    await export_jobs.create(database, lake, clock, other, ask(there))
    run = await claimed(database, clock)
    with pytest.raises(Refusal, match="the column 'age' has another type in the dataset than in the data now"):
        await export_runs.run_export_job(run, lake, 1)
    lake.tenant(other.tenant).dataset(there).rename(folder(lake, target))
    assert written(lake, target, "profileId, age") == before


# ---------------------------------------------------------------- evaluated first


async def test_the_segments_are_evaluated_first(
    database: Database, changes: Changes, lake: Lake, clock: FixedClock, define: Define, target: str
) -> None:
    big = await define("Big")
    await define("Other")
    new = ask(target, filter=members(big.id), evaluate_first=True)
    made = await export_jobs.create(database, lake, clock, SCOPE, new)
    assert await claim_next(database, clock, owner="test", lease=LEASE, kind=JobKind.EXPORT) is None
    async with database.session() as session:
        evaluation = await segment_jobs.segments_by_job(session, SCOPE, [made.waits_for or ""], PageRequest(9))
    assert [row.definition_id for row in evaluation[made.waits_for or ""].items] == [big.id]
    stop = asyncio.Event()
    worker = Worker(
        Resources(database, changes, lake, clock), WorkerOptions(concurrency=1, lease_seconds=3000, threads=1)
    )
    working = asyncio.create_task(worker.run(stop))
    async for state in watching.watch(database, changes, SCOPE, JobKind.EXPORT, made.id):
        last = state
    stop.set()
    await working
    assert (last.status, last.errors) == ("SUCCEEDED", [])
    assert written(lake, target) == ["crm:00001", "crm:00002"]


async def test_an_export_fails_when_its_evaluation_did(
    database: Database, lake: Lake, clock: FixedClock, define: Define, target: str
) -> None:
    big = await define("Big")
    made = await export_jobs.create(
        database, lake, clock, SCOPE, ask(target, filter=members(big.id), evaluate_first=True)
    )
    await segment_jobs.cancel(database, clock, SCOPE, made.waits_for or "")
    run = await claimed(database, clock)
    with pytest.raises(Refusal) as caught:
        await export_runs.run_export_job(run, lake, 1)
    assert caught.value.message == (
        f"the segment job {made.waits_for!r}, which the export asked for, has ended as CANCELLED: "
        "see its errors, then export again"
    )


async def test_cancelling_an_export_cancels_the_evaluation_it_waits_for(
    database: Database, lake: Lake, clock: FixedClock, define: Define, target: str
) -> None:
    big = await define("Big")
    made = await export_jobs.create(
        database, lake, clock, SCOPE, ask(target, filter=members(big.id), evaluate_first=True)
    )
    assert (await export_jobs.cancel(database, clock, SCOPE, made.id)).status == "CANCELLED"
    async with database.session() as session:
        assert (await segment_jobs.get_many(session, SCOPE, [made.waits_for or ""])).popitem()[1].status == "CANCELLED"


# ---------------------------------------------------------------- keys, cancelling, crashes


async def test_a_key_belongs_to_one_kind_of_job_and_gives_one_job(
    database: Database, lake: Lake, clock: FixedClock, define: Define, target: str
) -> None:
    big = await define("Big")
    other = await segment_jobs.create(database, clock, SCOPE, [big.id], idempotency_key="k")
    made = await asyncio.gather(
        *(export_jobs.create(database, lake, clock, SCOPE, ask(target), idempotency_key="k") for _ in range(20))
    )
    assert len({job.id for job in made}) == 1
    assert made[0].id != other.id
    clock.advance(timedelta(hours=24, seconds=1))
    assert (await export_jobs.create(database, lake, clock, SCOPE, ask(target), "k")).id != made[0].id


class Killed(BaseException):
    """The process is gone: nothing of the code behind it is run."""


async def interrupted(run: Attempt, lake: Lake, monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
    """Runs the export until a function has been called so often; then it ends as if killed."""
    calls = 0
    whole = getattr(export_runs, name)

    def call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Killed
        return whole(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(export_runs, name, call)
        with pytest.raises(Killed):
            await export_runs.run_export_job(run, lake, 1)


@pytest.mark.parametrize(
    ("name", "after"), [("asdict", 1), ("land", 0), ("land", 1), ("_write_batches", 0), ("span", 0)]
)
async def test_a_killed_export_is_finished_by_the_next_attempt_with_each_row_once(
    database: Database,
    lake: Lake,
    clock: FixedClock,
    define: Define,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    after: int,
) -> None:
    big, huge = await define("Big"), await define("Huge", "xEvent.sum(dollars) > 650")
    await segment_jobs.create(database, clock, SCOPE, [big.id, huge.id])
    await evaluate(database, lake, clock)
    new = ask(target, filter=members(big.id, huge.id), segment_per_batch=True)
    job = await export_jobs.create(database, lake, clock, SCOPE, new)
    await interrupted(await claimed(database, clock), lake, monkeypatch, name, after)
    clock.advance(LEASE + timedelta(seconds=1))
    second = await claimed(database, clock)
    assert second.token == 2
    await export_runs.run_export_job(second, lake, 1)
    assert written(lake, target) == ["crm:00001", "crm:00002", "crm:00002"]
    assert [batch.row_count for batch in await batches_of(database, job.id)] == [2, 1]
    assert not lake.exports()
    async with database.session() as session:
        assert (await datasets.get_many(session, SCOPE, [target]))[target].row_count == 3


async def test_a_cancelled_export_leaves_nothing(
    database: Database, lake: Lake, clock: FixedClock, people: Uploaded, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await export_jobs.create(database, lake, clock, SCOPE, ask(target))
    run = await claimed(database, clock)
    await interrupted(run, lake, monkeypatch, "_files", 0)
    assert list(lake.exports()) == [job.id]
    await hand_back(database, run.claim, clock())
    assert (await export_jobs.cancel(database, clock, SCOPE, job.id)).status == "CANCELLED"
    assert (await export_jobs.cancel(database, clock, SCOPE, job.id)).status == "CANCELLED"
    await export_runs.tidy(database, lake)
    assert not lake.exports()
    assert not folder(lake, target).exists()
    assert await batches_of(database, job.id) == []


async def test_an_export_that_is_cancelled_while_it_runs_leaves_nothing(
    database: Database, lake: Lake, clock: FixedClock, people: Uploaded, target: str
) -> None:
    job = await export_jobs.create(database, lake, clock, SCOPE, ask(target))
    run = await claimed(database, clock)
    assert (await export_jobs.cancel(database, clock, SCOPE, job.id)).status == "CANCELLING"
    run.note_status(JobStatus.CANCELLING)
    await export_runs.run_export_job(run, lake, 1)
    assert (await job_of(database, job.id)).status == "CANCELLED"
    assert not lake.exports()
    assert not folder(lake, target).exists()


async def test_an_export_is_cancelled_at_the_last_moment_or_not_at_all(
    database: Database, lake: Lake, clock: FixedClock, people: Uploaded, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await export_jobs.create(database, lake, clock, SCOPE, ask(target))
    run = await claimed(database, clock)
    await interrupted(run, lake, monkeypatch, "land", 0)
    for _ in range(2):  # with a worker, and with nobody at it
        with pytest.raises(Refusal) as caught:
            await export_jobs.cancel(database, clock, SCOPE, job.id)
        assert caught.value.message == (
            "the export is publishing its batches and is about to end: it can no longer be cancelled"
        )
        if (await job_of(database, job.id)).lease_until is not None:
            await hand_back(database, run.claim, clock())
    await export_runs.run_export_job(await claimed(database, clock), lake, 1)
    assert (await job_of(database, job.id)).status == "SUCCEEDED"
    with pytest.raises(Refusal, match="the job has succeeded and can no longer be cancelled"):
        await export_jobs.cancel(database, clock, SCOPE, job.id)


async def test_what_a_given_up_export_had_made_visible_is_taken_back(
    database: Database,
    lake: Lake,
    clock: FixedClock,
    define: Define,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await export(database, lake, clock, ask(target))
    before = written(lake, target, "__batch, profileId")
    big, huge = await define("Big"), await define("Huge")
    await segment_jobs.create(database, clock, SCOPE, [big.id, huge.id])
    await evaluate(database, lake, clock)
    new = ask(target, filter=members(big.id, huge.id), segment_per_batch=True)
    job = await export_jobs.create(database, lake, clock, SCOPE, new)
    for _ in range(5):
        await interrupted(await claimed(database, clock), lake, monkeypatch, "land", 1)
        clock.advance(LEASE + timedelta(seconds=1))
    assert await claim_next(database, clock, owner="test", lease=LEASE, kind=JobKind.EXPORT) is None
    assert (await job_of(database, job.id)).status == "FAILED"
    await export_runs.tidy(database, lake)
    assert written(lake, target, "__batch, profileId") == before
    assert not lake.exports()


async def test_two_exports_into_one_new_dataset_at_once_both_land(
    database: Database, lake: Lake, clock: FixedClock, people: Uploaded, target: str
) -> None:
    for fields in (("city",), ("age",)):
        await export_jobs.create(database, lake, clock, SCOPE, ask(target, fields=fields))
    runs = [await claimed(database, clock), await claimed(database, clock)]
    await asyncio.gather(*(export_runs.run_export_job(run, lake, 1) for run in runs))
    assert written(lake, target) == ["crm:00001"] * 2 + ["crm:00002"] * 2 + ["crm:00003"] * 2


async def test_a_merge_policy_stays_while_an_export_needs_it_and_is_remembered_afterwards(
    database: Database, lake: Lake, clock: FixedClock, people: Uploaded, target: str
) -> None:
    new = merge_policies.NewPolicy("mine", MergeMethod.TIMESTAMP_ORDERED, IdentityGraph.NONE)
    policy = await merge_policies.create(database, clock, SCOPE, new)
    job = await export_jobs.create(database, lake, clock, SCOPE, ask(target, merge_policy_id=policy.id))
    with pytest.raises(HasDependents) as caught:
        await merge_policies.delete(database, SCOPE, policy.id)
    assert caught.value.message == f"the export jobs {job.id} use it: wait until they end, or cancel them first"
    assert list(caught.value.dependents) == [("ExportJob", job.id)]
    await export_jobs.cancel(database, clock, SCOPE, job.id)
    await merge_policies.delete(database, SCOPE, policy.id)
    assert export_jobs.policy_of(await job_of(database, job.id)).name == "mine"


# ---------------------------------------------------------------- for schedules, lists


async def test_a_schedule_keeps_an_export_as_json_and_gets_it_back(
    database: Database, lake: Lake, clock: FixedClock, define: Define, people: Uploaded, target: str
) -> None:
    never = await define("Never run")
    new = NewExport(
        target,
        SCHEMA,
        ("city",),
        None,
        ExportFilter((ExportSegment(never.id),), TimeRange(clock()), clock(), True),
        ExportEvents(("dollars",), TimeRange(None, clock())),
        True,
        True,
    )
    kept = await export_jobs.validate(database, lake, clock, SCOPE, new)
    assert [(one.segment_id, one.namespace) for one in kept.segments] == [(never.id, "AEPSegments")]
    assert NewExport.from_json(kept.as_json()) == kept
    with pytest.raises(Refusals):
        await export_jobs.validate(database, lake, clock, SCOPE, ask("none"))
    origin = jobs.Origin("SCHEDULER", "s1", "r1")
    job = await export_jobs.create(database, lake, clock, SCOPE, kept, origin=origin)
    assert (job.source, job.schedule_id, job.run_id) == ("SCHEDULER", "s1", "r1")
    async with database.session() as session:
        page = await jobs.page_by_schedule(session, SCOPE, ["s1", "s2"], PageRequest(50))
        counts = await jobs.counts_by_schedule(session, SCOPE, ["s1", "s2"])
    by_kind = {state.kind: state.row for state in page["s1"].items}
    assert (len(by_kind), by_kind[JobKind.EXPORT].id, by_kind[JobKind.SEGMENT].id) == (2, job.id, job.waits_for)
    assert (by_kind[JobKind.EXPORT].destination_id, by_kind[JobKind.SEGMENT].all_definitions) == (target, False)
    assert (page["s2"].items, counts) == ([], {"s1": 2, "s2": 0})


async def test_lists_are_chosen_by_segment_destination_and_schedule(
    database: Database, lake: Lake, clock: FixedClock, define: Define, target: str
) -> None:
    big = await define("Big")
    second = (await datasets.create(database, clock, SCOPE, datasets.NewDataset("second", DatasetKind.EXPORT))).id
    a = await export_jobs.create(database, lake, clock, SCOPE, ask(target, filter=members(big.id), evaluate_first=True))
    clock.advance(timedelta(seconds=1))
    b = await export_jobs.create(database, lake, clock, SCOPE, ask(second), origin=jobs.Origin("SCHEDULER", "s1", "r1"))
    filters: list[tuple[Mapping[str, Any], list[str]]] = [
        ({}, [b.id, a.id]),
        ({"segment_id": big.id}, [a.id]),
        ({"destination_id": second}, [b.id]),
        ({"schedule_id": "s1"}, [b.id]),
        ({"source": ["API"]}, [a.id]),
        ({"status": ["FAILED"]}, []),
    ]
    for chosen, expected in filters:
        async with database.session() as session:
            page = await export_jobs.page(session, SCOPE, PageRequest(9), export_jobs.ExportJobFilter(**chosen))
            count = await export_jobs.count(session, SCOPE, export_jobs.ExportJobFilter(**chosen))
        assert ([job.id for job in page.items], count) == (expected, len(expected))


async def test_members_that_a_batch_has_made_since_the_last_job_are_exported(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}, {"id": "2", "tier": "tin"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.job()
    await gateway.people([{"id": "2", "tier": "gold"}, {"id": "1", "tier": "tin"}])
    await gateway.stream()
    target = (
        await datasets.create(
            gateway.database, gateway.clock, SCOPE, datasets.NewDataset("exports", DatasetKind.EXPORT)
        )
    ).id
    await export(gateway.database, gateway.lake, gateway.clock, ask(target, filter=members(gold)))
    assert written(gateway.lake, target, "profileId, tier") == [("crm:2", "gold")]
