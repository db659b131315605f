"""People who are erased: nothing of them is left in any place, and nothing of others goes."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from app.clock import FixedClock, utc_now
from app.engine.ingest.formats import InputFile
from app.engine.ingest.rows import RejectedRow
from app.errors import Refusal, Refusals
from app.scope import Scope
from app.services.audiences import external
from app.services.audiences.definition_rules import Limit
from app.services.datasets import datasets
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import UploadOptions, ingest_file, rows_as_file, upload_batch
from app.services.insight import changes as membership_changes
from app.services.jobs import watching
from app.services.jobs.erasure import requests as erasures
from app.services.jobs.erasure.run import run_erasure_job
from app.services.jobs.export import input as export_input
from app.services.jobs.export import requests as export_jobs
from app.services.jobs.export.run import run_export_job
from app.services.jobs.preview import requests as previews
from app.services.jobs.preview.run import run_preview
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.services.lists.paging import PageRequest
from app.services.maintenance.doctor import examine
from app.services.maintenance.retention import Keep
from app.services.maintenance.retention import clean as clean_up
from app.services.merge_policies import ensure_default
from app.storage.columns import Row, columns
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.datasets import BatchRow, DatasetKind, DatasetRow
from app.storage.tables.erasure_jobs import ErasureJobRow
from app.storage.tables.jobs import JobKind, JobStatus
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.wakeups import Changes
from tests.services.conftest import SCOPE, Gateway
from tests.support import killed_erasure, processes

LEASE = timedelta(minutes=5)
ANN, MAIL, DEVICE = "customer-00017", "ann.smith@example.com", "device-4711"


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(utc_now())


def later(gateway: Gateway) -> None:
    gateway.clock.advance(timedelta(seconds=1))


async def claimed(gateway: Gateway, kind: JobKind) -> Attempt:
    claim = await claim_next(gateway.database, gateway.clock, owner="test", lease=LEASE, kind=kind)
    assert claim is not None
    return Attempt(gateway.database, gateway.clock, claim)


async def erase(gateway: Gateway, id: str = ANN, namespace: str = "crm", **options: Any) -> ErasureJobRow:
    new = erasures.NewErasure(namespace, id, **options)
    job = await erasures.create(gateway.database, gateway.lake, gateway.clock, SCOPE, new)
    run = await claimed(gateway, JobKind.ERASURE)
    await run_erasure_job(run, gateway.lake, 1)
    assert run.ended_as == "SUCCEEDED"
    return await erasure(gateway, job.id)


async def erasure(gateway: Gateway, id: str) -> ErasureJobRow:
    async with gateway.database.session() as session:
        return (await erasures.get_many(session, SCOPE, [id]))[id]


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Every text of every file: a look of its own, which shares no code with the product's."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name == "erased.json":
            continue
        content = path.read_bytes().decode(errors="replace")
        if path.suffix == ".parquet":
            content += json.dumps(pq.ParquetFile(path).read().to_pylist(), default=str)
        yield path.relative_to(folder).as_posix(), content


def naming(folder: Path, *ids: str) -> list[str]:
    return [name for name, content in texts(folder) if any(id in content for id in ids)]


async def naming_tables(gateway: Gateway, *ids: str) -> list[str]:
    """The tables of the database with a row that names one, and SQLite's files with a byte of it."""
    found = []
    async with gateway.database.session() as session:
        for table in Row.metadata.sorted_tables:
            rows = str([tuple(row) for row in await session.execute(select(table))])
            found += [table.name for id in ids if id in rows]
    if gateway.database.dialect == "sqlite":
        files = Path(gateway.database.location).parent.glob(f"{Path(gateway.database.location).name}*")
        found += [path.name for path in files for id in ids if id.encode() in path.read_bytes()]
    return found


async def export(gateway: Gateway, audience: str, name: str) -> str:
    new = datasets.NewDataset(name, DatasetKind.EXPORT)
    destination = (await datasets.create(gateway.database, gateway.clock, SCOPE, new)).id
    filter = export_input.ExportFilter((export_input.ExportSegment(audience, None, ("REALIZED", "EXISTING")),))
    wanted = export_input.NewExport(
        destination_id=destination,
        schema_name="_xdm.context.profile",
        filter=filter,
        additional_fields=export_input.ExportEvents((), export_input.TimeRange()),
    )
    await export_jobs.create(gateway.database, gateway.lake, gateway.clock, SCOPE, wanted, None)
    await run_export_job(await claimed(gateway, JobKind.EXPORT), gateway.lake, 1)
    return destination


async def preview(gateway: Gateway, expression: str, limit: Limit | None = None) -> str:
    new = previews.NewPreview(expression, limit=limit)
    row = await previews.create(gateway.database, gateway.lake, gateway.clock, SCOPE, new)
    run = await claimed(gateway, JobKind.PREVIEW)
    await run_preview(run, gateway.lake, 1)
    assert run.ended_as == "SUCCEEDED"
    return row.id


async def fill(gateway: Gateway) -> str:
    """One person in every place that keeps anything of people, among others; gives an audience that it is in."""
    everybody = [{"id": f"other-{number}", "tier": "gold", "city": "Rome"} for number in range(40)]
    linked = {"email": [{"id": MAIL}], "device": [{"id": DEVICE}]}
    await gateway.people([*everybody, {"id": ANN, "tier": "gold", "city": "Oslo", "identityMap": linked}])
    later(gateway)
    audience = await gateway.define("gold", 'tier = "gold"')
    await gateway.job(audience)
    later(gateway)
    visits = [{"id": one["id"], "timestamp": "2026-06-01T00:00:00Z", "page": "home"} for one in everybody]
    await gateway.events([*visits, {"id": ANN, "timestamp": "2026-06-02T00:00:00Z", "page": "cart"}])
    later(gateway)
    await gateway.stream()
    later(gateway)
    file = gateway.folder / "more.ndjson"
    rows = [
        {"id": ANN, "tier": "gold", "city": "Bonn", "identityMap": linked},
        {"id": "other-1", "tier": "silver", "city": "Rome"},
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"id": "other-2", "tier": ["' + ANN + '"]}')
    async with gateway.database.session() as session:
        people = (await datasets.by_name(session, SCOPE, "people")) or pytest.fail("no dataset")
    await upload_batch(gateway.database, gateway.lake, gateway.clock, SCOPE, people.id, InputFile(file, "NDJSON"))
    later(gateway)
    await gateway.stream()
    later(gateway)
    await gateway.job(audience)
    await export(gateway, audience, "out")
    await preview(gateway, 'tier = "gold"')
    await preview(gateway, f'city = "{ANN}"')
    await preview(gateway, "true", Limit(3, f'city = "{ANN}"'))
    await members(gateway)
    return audience


async def members(gateway: Gateway) -> str:
    new = datasets.NewDataset("list", DatasetKind.AUDIENCE, "id", "crm")
    dataset = (await datasets.create(gateway.database, gateway.clock, SCOPE, new)).id
    audience = external.NewExternal("uploaded", dataset_id=dataset)
    created = await external.create(gateway.database, gateway.lake, gateway.clock, SCOPE, audience)
    file = gateway.folder / "members.csv"
    file.write_text(f"id,score\n{ANN},5\nother-3,7\n")
    await upload_batch(gateway.database, gateway.lake, gateway.clock, SCOPE, dataset, InputFile(file, "CSV"))
    return created.id


async def sizes(gateway: Gateway) -> dict[str, int]:
    async with gateway.database.session() as session:
        rows = await session.execute(select(columns(DatasetRow).name, columns(DatasetRow).row_count))
        return {row.name: row.row_count for row in rows}


async def rejected(gateway: Gateway) -> dict[tuple[str, str], tuple[RejectedRow, ...]]:
    """The rejected rows that each batch keeps."""
    async with gateway.database.session() as session:
        keys = [tuple(row) for row in await session.execute(select(columns(BatchRow).dataset_id, columns(BatchRow).id))]
    return await datasets.rejected_many(gateway.lake, SCOPE, keys)


EVERYWHERE = {
    "Identities": 1,
    "Dataset list": 1,
    "Dataset out": 1,
    "Dataset people": 2,
    "Dataset visits": 1,
    "Memberships": 6,
    "Older versions of datasets": 5,
    "Older versions of identities": 1,
    "Merged profiles": 3,
    "Identity graph": 6,
    "Rejected rows": 1,
    "Previews": 2,
    "Messages": 0,
}
"""What `fill` leaves of the person."""


async def test_nothing_of_the_person_is_left_in_any_place(gateway: Gateway) -> None:
    audience = await fill(gateway)
    folder = gateway.lake.tenant(SCOPE.tenant).folder
    assert len(naming(folder, ANN, MAIL, DEVICE)) > 8
    assert [row for rows in (await rejected(gateway)).values() for row in rows] != []
    assert await sizes(gateway) == {"people": 43, "visits": 41, "out": 40, "list": 2}
    before = await gateway.numbers(audience)
    later(gateway)

    job = await erase(gateway, MAIL, "email")

    assert job.verified
    assert dict(job.places) == EVERYWHERE
    assert naming(folder, ANN, MAIL, DEVICE) == []
    assert await naming_tables(gateway, ANN, MAIL, DEVICE) == []
    assert [row for rows in (await rejected(gateway)).values() for row in rows] == []
    assert await sizes(gateway) == {"people": 41, "visits": 40, "out": 39, "list": 1}
    assert before == (40, {"crm": 40, "device": 1, "email": 1})
    assert await gateway.numbers(audience) == (39, {"crm": 39})
    assert sum(len(one.members) for one in (await gateway.memberships(audience)).values()) == 39
    assert [finding.problem for finding in await examine(gateway.database, gateway.lake, gateway.clock)] == []
    assert await gateway.reader().find_identity("crm", ANN) is None
    assert await gateway.reader().find_identity("crm", "other-1") is not None


def killed(url: str, lake: Path, phase: str, change: int) -> str:
    """What a worker said before it was killed."""
    work = f"killed_erasure.be_killed({url!r}, {str(lake)!r}, {phase!r}, {change})"
    first = f"import asyncio\nfrom tests.support import killed_erasure\nasyncio.run({work})"
    with tempfile.TemporaryFile() as output:
        command = processes.start([], lake, os.environ, stdout=output, stderr=output, first=first)
        code = command.wait(120)
        output.seek(0)
        said = output.read().decode()
    assert code == -signal.SIGKILL, (phase, change, said)
    return said


@pytest.mark.timeout(600)
async def test_killed_in_each_of_its_phases_it_ends_the_same(gateway: Gateway, database_url: str) -> None:
    """Real kills in each: on one database when what was found is noted, on the other when it has begun to go."""
    audience = await fill(gateway)
    later(gateway)
    new = erasures.NewErasure("crm", ANN)
    job = await erasures.create(gateway.database, gateway.lake, gateway.clock, SCOPE, new)
    change = 2 if gateway.database.dialect == "sqlite" else 1
    for attempt, phase in enumerate(killed_erasure.PHASES, 1):
        said = await asyncio.to_thread(killed, database_url, gateway.lake.root, phase, change)
        assert (await erasure(gateway, job.id)).attempts == attempt, (phase, said)
        findings = await examine(gateway.database, gateway.lake, gateway.clock)
        assert [finding.problem for finding in findings if finding.check != "jobs"] == [], phase
    gateway.clock.advance(timedelta(hours=1))
    run = await claimed(gateway, JobKind.ERASURE)
    await run_erasure_job(run, gateway.lake, 1)
    found = await erasure(gateway, job.id)
    assert (run.ended_as, found.verified, dict(found.places)) == ("SUCCEEDED", True, EVERYWHERE)
    assert naming(gateway.lake.tenant(SCOPE.tenant).folder, ANN, MAIL, DEVICE) == []
    assert await sizes(gateway) == {"people": 41, "visits": 40, "out": 39, "list": 1}
    assert await gateway.numbers(audience) == (39, {"crm": 39})
    assert [finding.problem for finding in await examine(gateway.database, gateway.lake, gateway.clock)] == []


async def small(gateway: Gateway, policy: str | None = None) -> str:
    """Two people, one of whom is linked to a device that has events of its own, in an audience."""
    linked = {"crm": [{"id": DEVICE}]}
    await gateway.people([{"id": ANN, "tier": "gold", "identityMap": linked}, {"id": "other-1", "tier": "gold"}])
    later(gateway)
    await gateway.people([{"id": DEVICE, "model": "x"}], "devices")
    later(gateway)
    audience = await gateway.define("gold", 'tier = "gold"', "BATCH", policy)
    await gateway.job(audience)
    later(gateway)
    return audience


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_whoever_is_linked_is_the_same_person(gateway: Gateway) -> None:
    policy = (await ensure_default(gateway.database, gateway.clock, SCOPE)).id
    await gateway.stitch(policy)
    audience = await small(gateway, policy)
    assert await gateway.numbers(audience) == (2, {"crm": 2})
    job = await erase(gateway, DEVICE)
    places = dict(job.places)
    assert (job.verified, places["Identities"], places["Dataset people"], places["Dataset devices"]) == (True, 2, 1, 1)
    assert await gateway.numbers(audience) == (1, {"crm": 1})
    assert naming(gateway.lake.tenant(SCOPE.tenant).folder, ANN, DEVICE) == []
    later(gateway)
    await gateway.job(audience)
    assert await gateway.statuses(audience) == ["EXISTING"]
    assert await gateway.numbers(audience) == (1, {"crm": 1})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_history_tells_of_the_others_only(gateway: Gateway) -> None:
    audience = await small(gateway)
    await gateway.people([{"id": ANN, "tier": "none"}, {"id": "other-1", "tier": "none"}])
    later(gateway)
    await gateway.job(audience)

    async def history() -> list[tuple[int, int, int]]:
        of = columns(MembershipChangeRow)
        async with gateway.database.session() as session:
            rows = await session.execute(select(of.total_profiles, of.entered, of.exited).order_by(of.sequence))
            return [tuple(row) for row in rows]

    async def changes() -> list[tuple[str, str]]:
        page = await membership_changes.page(gateway.database, SCOPE, gateway.reader(), [audience], PageRequest(50))
        return [(change.status, change.person.profile_id) for change in page.items]

    assert await history() == [(2, 2, 0), (0, 0, 2)]
    assert len(await changes()) == 4
    assert (await erase(gateway)).verified
    assert await history() == [(1, 1, 0), (0, 0, 1)]
    assert await changes() == [("REALIZED", "crm:other-1"), ("EXITED", "crm:other-1")]


async def send(gateway: Gateway, *rows: dict[str, Any]) -> Any:
    later(gateway)
    async with gateway.database.session() as session:
        people = (await datasets.by_name(session, SCOPE, "people")) or pytest.fail("no dataset")
    async with rows_as_file(rows, gateway.folder) as file:
        return await upload_batch(gateway.database, gateway.lake, gateway.clock, SCOPE, people.id, file)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_rows_that_come_later_are_refused(gateway: Gateway) -> None:
    await small(gateway)
    await erase(gateway)
    linked = {"crm": [{"id": ANN}]}
    sent = await send(
        gateway, {"id": ANN, "tier": 1}, {"id": "new", "tier": "gold"}, {"id": "x", "identityMap": linked}
    )
    assert (sent.batch.row_count, sent.batch.rejected_rows) == (1, 2)
    told = "the person was erased, and rows of people who were erased are refused (SEGMENTATION_ERASED_PEOPLE)"
    assert [(row.row, row.message) for row in sent.rejected] == [(1, told), (3, told)]
    assert naming(gateway.lake.tenant(SCOPE.tenant).folder, ANN) == []
    with pytest.raises(Refusal, match="none of the 1 rows can be used; row 1: the person was erased"):
        await send(gateway, {"id": DEVICE})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_rows_that_come_later_are_accepted_by_a_setting_as_somebody_new(gateway: Gateway) -> None:
    audience = await small(gateway)
    await erase(gateway)
    gateway.lake = replace(gateway.lake, refuse_erased=False)
    sent = await send(gateway, {"id": ANN, "tier": "gold"}, {"id": "new", "tier": "none"})
    assert sent.warnings == ("1 of the people were erased before: they are accepted as new profiles",)
    assert (sent.batch.row_count, sent.batch.rejected_rows) == (2, 0)
    later(gateway)
    await gateway.job(audience)
    assert await gateway.statuses(audience) == ["EXISTING", "REALIZED"]
    assert (await erase(gateway)).verified
    assert await gateway.statuses(audience) == ["EXISTING"]


async def test_a_job_that_had_begun_is_waited_for_and_leaves_nothing(gateway: Gateway, changes: Changes) -> None:
    audience = await small(gateway)
    begun = await gateway.start_job(audience)
    await begun.update(phase="EVALUATING")
    new = erasures.NewErasure("crm", ANN)
    job = await erasures.create(gateway.database, gateway.lake, gateway.clock, SCOPE, new)
    run = await claimed(gateway, JobKind.ERASURE)
    work = asyncio.create_task(run_erasure_job(run, gateway.lake, 1))
    async for state in watching.watch(gateway.database, changes, SCOPE, JobKind.ERASURE, job.id):
        if state.phase == "WAITING":
            break
    assert not work.done()
    await run_segment_job(begun, gateway.lake, 1)
    await work
    assert (await erasure(gateway, job.id)).verified
    assert await gateway.statuses(audience) == ["EXISTING"]
    assert (await gateway.numbers(audience))[0] == 1


async def test_a_trace_that_must_stay_is_told(gateway: Gateway) -> None:
    """What people wrote, of others or in expressions, is not changed; the second look says where it is."""
    await gateway.people([{"id": ANN, "friend": "x"}, {"id": "other-1", "friend": ANN}])
    later(gateway)
    await gateway.define("friends", f'friend = "{ANN}"', "BATCH")
    job = await erase(gateway)
    left = {place: count for place, count in job.places if place.startswith("Left")}
    assert not job.verified
    assert left == {
        "Left in: Datasets": 1,
        "Left in: Database: definition": 1,
        "Left in: Database: definition version": 1,
    }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_same_id_elsewhere_stays(gateway: Gateway) -> None:
    """In another sandbox, and in another namespace of the same one."""
    await gateway.people([{"id": ANN}])
    other = NewDataset("people", DatasetKind.PROFILE, "id", "crm")
    file = gateway.folder / "batch.ndjson"
    file.write_text(json.dumps({"id": ANN}))
    test = Scope("acme", "test", "ann")
    await ingest_file(gateway.database, gateway.lake, gateway.clock, test, other, InputFile(file, "NDJSON"))
    before = dict(texts(gateway.lake.tenant(test.tenant).folder))
    assert (await erase(gateway)).verified
    assert dict(texts(gateway.lake.tenant(test.tenant).folder)) == before
    later(gateway)
    await ingest_file(gateway.database, gateway.lake, gateway.clock, test, other, InputFile(file, "NDJSON"))


async def test_somebody_unknown_is_erased_as_well(gateway: Gateway) -> None:
    job = await erase(gateway, "nobody at all", "email", reason="article 17", idempotency_key="ticket 5")
    assert (job.verified, job.reason, sum(count for _, count in job.places)) == (True, "article 17", 0)
    again = erasures.NewErasure("email", "nobody at all", idempotency_key="ticket 5")
    assert (await erasures.create(gateway.database, gateway.lake, gateway.clock, SCOPE, again)).id == job.id
    assert list((gateway.lake.tenant(SCOPE.tenant).folder / "erasures").iterdir()) == []


async def test_keys_that_programs_make_of_ids_go_as_well(gateway: Gateway) -> None:
    """Of batches and jobs; keys of others, whose ids only begin alike, are kept."""
    await gateway.people([{"id": "begun"}])
    async with gateway.database.session() as session:
        people = (await datasets.by_name(session, SCOPE, "people")) or pytest.fail("no dataset")
    batches = {}
    for id in (ANN, f"{ANN}2"):
        later(gateway)
        options = UploadOptions(idempotency_key=f"load_{id}-2026")
        async with rows_as_file([{"id": id}], gateway.folder) as file:
            sent = await upload_batch(
                gateway.database, gateway.lake, gateway.clock, SCOPE, people.id, file, options=options
            )
        batches[id] = sent.batch.id
    audience = await gateway.define("all", "id.isNotNull()", "BATCH")
    await segment_jobs.create(gateway.database, gateway.clock, SCOPE, [audience], idempotency_key=f"for-{ANN}")
    await run_segment_job(await claimed(gateway, JobKind.SEGMENT), gateway.lake, 1)
    job = await erase(gateway)
    assert (job.verified, dict(job.places)["Messages"]) == (True, 2)
    assert await naming_tables(gateway, f"{ANN}-") == []
    assert await naming_tables(gateway, f"for-{ANN}") == []
    async with gateway.database.session() as session:
        rows = await session.execute(select(columns(BatchRow).id, columns(BatchRow).idempotency_key))
        keys = {row.id: row.idempotency_key for row in rows}
    assert [keys[batches[id]] for id in (ANN, f"{ANN}2")] == [None, f"load_{ANN}2-2026"]


@pytest.mark.parametrize(
    ("new", "path", "message"),
    [
        (erasures.NewErasure("crm", " "), ("identity", "id"), "' ' names nobody"),
        (erasures.NewErasure("", "1"), ("identity", "namespace"), "'' names nobody"),
        (erasures.NewErasure("crm", "a\0b"), ("identity", "id"), "names nobody"),
        (erasures.NewErasure("crm", "1" * 10_001), ("identity", "id"), "10,001 characters"),
        (erasures.NewErasure("crm", ANN, f"asked by {ANN}"), ("reason",), "it names the person"),
        (erasures.NewErasure("crm", ANN, None, f"erase {ANN}"), ("idempotency_key",), "it names the person"),
        (erasures.NewErasure("crm", ANN, ""), ("reason",), "1 to 1,000 characters"),
    ],
)
async def test_what_cannot_be_asked(
    gateway: Gateway, new: erasures.NewErasure, path: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Refusals) as caught:
        await erasures.create(gateway.database, gateway.lake, gateway.clock, SCOPE, new)
    (refusal,) = caught.value.refusals
    assert refusal.path == path
    assert message in refusal.message
    assert await gateway.count(ErasureJobRow) == 0


async def test_whom_a_failed_job_was_about_is_forgotten(gateway: Gateway) -> None:
    await gateway.people([{"id": ANN}])
    new = erasures.NewErasure("crm", ANN)
    await erasures.create(gateway.database, gateway.lake, gateway.clock, SCOPE, new)
    folder = gateway.lake.tenant(SCOPE.tenant).folder / "erasures"
    keep = Keep(*[timedelta(days=1)] * 4)
    gateway.clock.advance(timedelta(hours=2))
    await clean_up(gateway.database, gateway.lake, gateway.clock, keep)
    assert len(list(folder.iterdir())) == 1
    run = await claimed(gateway, JobKind.ERASURE)
    await run.finish(JobStatus.FAILED, errors=[{"code": "TEST", "message": "failed"}])
    await clean_up(gateway.database, gateway.lake, gateway.clock, keep)
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("real_buckets")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_compacted_events_go_as_well(gateway: Gateway) -> None:
    """Small batches were copied into one file for each bucket: that of the person's goes, the other one stays."""
    for day in range(1, 10):
        await gateway.events([{"id": id, "timestamp": f"2026-01-0{day}"} for id in (ANN, "somebody-else")])
    lake = gateway.lake.tenant(SCOPE.tenant)
    audience = await gateway.define("visitors", "xEvent.count() = 9", "BATCH")
    await gateway.job()
    assert len(await gateway.members(audience)) == 2
    copies = sorted((lake.folder / "compacted").rglob("*.parquet"))
    assert len(copies) == 2
    row = await erase(gateway)
    assert naming(lake.folder, ANN) == []
    assert row.verified
    assert dict(row.places)["Compacted files of events"] == 9
    await gateway.job()
    assert len(await gateway.members(audience)) == 1
    (copy,) = (lake.folder / "compacted").rglob("*.parquet")
    assert copy in copies
