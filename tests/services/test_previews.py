"""Previews as their users see them: figures equal to a job's, samples that last, pages that hold while they grow."""

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.clock import FixedClock, utc_now
from app.engine.ingest.formats import InputFile
from app.engine.people.profiles import MergeRule, Person
from app.engine.run import sampling as estimate
from app.engine.run.sampling import shuffled_slots
from app.engine.store.lake import Lake
from app.errors import ErrorCode, ExpressionRefused, Refusal
from app.scope import Scope
from app.services import merge_policies
from app.services.audiences import computed as definitions
from app.services.audiences import reads as audiences
from app.services.audiences.definition_rules import Limit
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import Uploaded, ingest_file
from app.services.evaluation.expressions import ExpressionFormat, convert_expression
from app.services.jobs.preview import requests as previews
from app.services.jobs.preview import run as preview_run
from app.services.jobs.preview.requests import NewPreview
from app.services.jobs.preview.run import run_preview, sample_seed
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.services.lists.paging import PageRequest, Slice
from app.services.people.profiles import ProfileReader
from app.storage.database import Database
from app.storage.job_log import changed_jobs
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.queue.leases import LeaseLost
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobBucketRow, JobKind, JobStatus, JobUpdateRow
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod
from app.storage.tables.previews import PreviewRow, PreviewSampleRow
from app.storage.wakeups import Changes
from tests.services.conftest import SCOPE, Define
from tests.support.both_ways import both_ways

LEASE = timedelta(seconds=60)
RULE = MergeRule("default", "TIMESTAMP_ORDERED")


async def claim(database: Database, lake: Lake, clock: FixedClock, kind: JobKind = JobKind.PREVIEW) -> Attempt:
    found = await claim_next(database, clock, owner="test", lease=LEASE, kind=kind)
    assert found is not None
    return Attempt(database, clock, found)


async def read(database: Database, lake: Lake, clock: FixedClock) -> None:
    await run_preview(await claim(database, lake, clock), lake, 1)


async def state_of(database: Database, id: str) -> PreviewRow:
    async with database.session() as session:
        return (await previews.get_many(session, SCOPE, [id]))[id]


async def people_of(
    database: Database, lake: Lake, id: str, limit: int = 50, after: str | None = None, backward: bool = False
) -> Slice[tuple[Any, Person]]:
    row = await state_of(database, id)
    async with database.session() as session:
        read = (await previews.read_buckets(session, SCOPE, [row]))[id]
    reader = ProfileReader(database, lake, utc_now, SCOPE, previews.rule_of(row))
    return await previews.people_page(lake, SCOPE, reader, read, PageRequest(limit, backward, after))


@pytest.fixture
async def many(database: Database, lake: Lake, clock: FixedClock, tmp_path: Path) -> Uploaded:
    """400 people, every fifth of them in Rome."""
    rows = [f"{n:04d},{'Rome' if n % 5 == 0 else 'Oslo'}" for n in range(400)]
    file = tmp_path / "people.csv"
    file.write_text("\n".join(["id,city", *rows]))
    return await ingest_file(
        database,
        lake,
        clock,
        SCOPE,
        NewDataset("people", DatasetKind.PROFILE, "id", "crm", None),
        InputFile(file, "CSV"),
    )


async def test_a_preview_of_everybody_is_exact_and_equal_to_a_job(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    expression = "xEvent.sum(dollars) > 650"
    definition = await define("A", expression)
    await segment_jobs.create(database, clock, SCOPE, [definition.id])
    await run_segment_job(await claim(database, lake, clock, JobKind.SEGMENT), lake, 1)
    async with database.session() as session:
        counted = (await audiences.get_many(session, SCOPE, [definition.id]))[definition.id]

    made = await previews.create(database, lake, clock, SCOPE, NewPreview(expression))
    assert (made.status, made.rows_to_read, previews.figures(made)) == ("QUEUED", 0, None)
    await read(database, lake, clock)
    done = await state_of(database, made.id)
    assert previews.STATES[done.status] == "RESULT_READY"
    assert (done.total_profiles, done.rows_to_read, done.profiles_read, done.profiles_matched) == (2, 2, 2, 1)
    assert done.by_namespace == {"crm": 1}
    assert previews.figures(done) == estimate.Estimate(1, 0.0, 1, 1)
    assert counted.total_profiles == 1
    page = await people_of(database, lake, made.id)
    assert [person.profile_id for _, person in page.items] == ["crm:00002"]


@pytest.mark.usefixtures("real_buckets")
async def test_figures_refine_after_each_bucket_and_the_log_has_them_in_order(
    database: Database, lake: Lake, clock: FixedClock, changes: Changes, many: Uploaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.queue.attempts.PROGRESS_SECONDS", 0.0)
    made = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    await read(database, lake, clock)
    states = [row async for row in previews.watch(database, changes, SCOPE, made.id, after=0)]
    assert [row.sequence for row in states] == list(range(1, len(states) + 1))
    assert [previews.STATES[row.status] for row in states[:3]] == ["NEW", "RUNNING", "RUNNING"]
    running = states[3:-1]
    assert len(running) == 16, "one state for each bucket"
    for row in running[:-1]:
        found = previews.figures(row)
        assert found is not None
        assert found.low <= found.size <= found.high
        assert row.profiles_matched <= found.low
    assert [row.profiles_read for row in states] == sorted(row.profiles_read for row in states)
    assert previews.figures(states[-1]) == estimate.Estimate(80, 0.0, 80, 80)
    resumed = [row.sequence async for row in previews.watch(database, changes, SCOPE, made.id, after=7)]
    assert resumed == list(range(8, len(states) + 1))
    again = [row.sequence async for row in previews.watch(database, changes, SCOPE, made.id)]
    assert again == [len(states)]


async def test_matches_are_read_from_both_ends(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded
) -> None:
    row = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    await read(database, lake, clock)

    async def matches(request: PageRequest) -> Slice[tuple[Any, Person]]:
        return await people_of(database, lake, row.id, request.limit, request.cursor, request.backward)

    for size in (1, 7, 80):
        assert len(await both_ways(matches, size)) == 80


async def test_previews_are_no_jobs(database: Database, lake: Lake, clock: FixedClock, many: Uploaded) -> None:
    await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    async with database.session() as session:
        assert await changed_jobs(session, SCOPE.tenant, clock() - timedelta(days=1)) == {}
        assert await segment_jobs.count(session, SCOPE) == 0


async def test_people_who_opted_out_count_only_when_asked_for(
    database: Database, lake: Lake, clock: FixedClock, tmp_path: Path
) -> None:
    file = tmp_path / "people.ndjson"
    file.write_text('{"id": "1", "optInOut": {"globalOptout": true}}\n{"id": "2"}\n')
    await ingest_file(
        database,
        lake,
        clock,
        SCOPE,
        NewDataset("people", DatasetKind.PROFILE, "id", "crm", None),
        InputFile(file, "NDJSON"),
    )
    found = {}
    for exclude in (True, False):
        made = await previews.create(database, lake, clock, SCOPE, NewPreview("true", exclude_opt_out=exclude))
        await read(database, lake, clock)
        found[exclude] = (await state_of(database, made.id)).profiles_matched
    assert found == {True: 1, False: 2}


async def test_a_stored_membership_is_looked_up_and_a_missing_one_is_refused(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    definition = await define("Big spenders", "xEvent.sum(dollars) > 650")
    new = NewPreview(f'not inSegment("{definition.id}")')
    with pytest.raises(Refusal) as caught:
        await previews.create(database, lake, clock, SCOPE, new)
    assert (caught.value.code, caught.value.path) == (ErrorCode.INVALID_STATE, ("expression",))
    assert caught.value.message == (
        f"'Big spenders' ({definition.id}) has never been evaluated, so its members are unknown: "
        "run a segment job of it first"
    )
    await segment_jobs.create(database, clock, SCOPE, [definition.id])
    await run_segment_job(await claim(database, lake, clock, JobKind.SEGMENT), lake, 1)
    made = await previews.create(database, lake, clock, SCOPE, new)
    await read(database, lake, clock)
    page = await people_of(database, lake, made.id)
    assert [person.profile_id for _, person in page.items] == ["crm:00001"]


async def test_a_bad_expression_is_refused_with_all_findings(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded
) -> None:
    with pytest.raises(ExpressionRefused) as caught:
        await previews.create(database, lake, clock, SCOPE, NewPreview("xEvent.sum(dolars) > 1 and nme = 2"))
    assert [(found.line, found.column, found.length) for found in caught.value.diagnostics] == [(1, 12, 6), (1, 28, 3)]
    assert caught.value.path == ("expression",)
    with pytest.raises(ExpressionRefused) as caught:
        await previews.create(database, lake, clock, SCOPE, NewPreview("{", ExpressionFormat.PQL_JSON))
    assert caught.value.path == ("expression",)
    with pytest.raises(Refusal, match="there is no merge policy 'x' in this sandbox"):
        await previews.create(database, lake, clock, SCOPE, NewPreview("true", merge_policy_id="x"))
    async with database.session() as session:
        assert (await session.execute(select(func.count()).select_from(PreviewRow))).scalar_one() == 0


async def test_pql_json_is_shown_as_text(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded
) -> None:
    text = "xEvent.sum(dollars) > 650"
    packed = convert_expression(text, ExpressionFormat.PQL_TEXT, ExpressionFormat.PQL_JSON)
    made = await previews.create(database, lake, clock, SCOPE, NewPreview(packed, ExpressionFormat.PQL_JSON))
    assert made.expression == text


async def test_linked_fragments_are_one_person_with_pdg(
    database: Database, lake: Lake, clock: FixedClock, tmp_path: Path
) -> None:
    linked = '{"id": "a", "city": "Rome", "identityMap": {"email": [{"id": "x@y"}]}}\n'
    linked += '{"id": "b", "points": 7, "identityMap": {"email": [{"id": "x@y"}]}}\n{"id": "c", "points": 9}\n'
    file = tmp_path / "people.ndjson"
    file.write_text(linked)
    await ingest_file(
        database,
        lake,
        clock,
        SCOPE,
        NewDataset("people", DatasetKind.PROFILE, "id", "crm", None),
        InputFile(file, "NDJSON"),
    )
    found = {}
    for graph in ("NONE", "PDG"):
        new = NewPreview('city = "Rome" and points = 7', graph_type=IdentityGraph(graph))
        made = await previews.create(database, lake, clock, SCOPE, new)
        assert made.graph_type == graph
        await read(database, lake, clock)
        row = await state_of(database, made.id)
        page = await people_of(database, lake, made.id)
        found[graph] = (row.total_profiles, row.profiles_matched, [len(person.identities) for _, person in page.items])
    assert found == {"NONE": (3, 0, []), "PDG": (2, 1, [3])}


# ---------------------------------------------------------------- the sample


async def test_a_sample_is_kept_until_the_people_have_moved_by_more_than_5_percent(
    database: Database, clock: FixedClock
) -> None:
    async def seed(total: int, rule: MergeRule = RULE) -> str:
        async with database.write() as session:
            found = await sample_seed(session, SCOPE, rule, total, clock())
        clock.advance(timedelta(seconds=1))
        return found

    first = await seed(1_000)
    assert [await seed(n) for n in (1_000, 1_050, 950)] == [first] * 3
    second = await seed(1_051)
    assert second != first
    assert await seed(1_000) == second, "from 1,051 on it takes 53 to move"
    assert await seed(998) != second
    assert await seed(998, replace(RULE, id="default+pdg", identity_graph="PDG")) != await seed(998)
    async with database.session() as session:
        rows = (await session.execute(select(PreviewSampleRow.total_profiles))).scalars()  # type: ignore[call-overload]
        assert sorted(rows) == [998, 998]


@pytest.mark.usefixtures("real_buckets")
async def test_a_large_sandbox_is_sampled_by_buckets_in_the_order_of_the_sample(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "READ_IN_FULL", 100)
    made = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    await read(database, lake, clock)
    done = await state_of(database, made.id)
    async with database.session() as session:
        seed = (await session.execute(select(PreviewSampleRow.seed))).scalar_one()  # type: ignore[call-overload]
    order = done.snapshot["order"]  # type: ignore[index]
    assert [[bucket] for bucket in order] == shuffled_slots(seed, range(16))[: len(order)]
    assert 100 <= done.rows_to_read == done.profiles_read < 160
    found = previews.figures(done)
    assert found is not None
    assert found.size == round(400 * done.profiles_matched / done.profiles_read)
    assert found.low < found.size < found.high
    page = await people_of(database, lake, made.id)
    places = [(order.index(bucket), ordinal) for (_, bucket, ordinal), _ in page.items]
    assert places == sorted(places)
    assert len(places) == done.profiles_matched

    # The next preview reads the same people, so that what two expressions catch can be compared.
    other = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Oslo"'))
    await read(database, lake, clock)
    after = await state_of(database, other.id)
    assert after.snapshot["order"] == order  # type: ignore[index]
    assert after.profiles_matched == done.profiles_read - done.profiles_matched


# ---------------------------------------------------------------- interrupted


class _Died(Exception):
    pass


@pytest.mark.usefixtures("real_buckets")
async def test_another_worker_goes_on_where_one_died(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    first = await claim(database, lake, clock)
    record = Attempt.record_bucket
    recorded: list[Any] = []

    async def record_three(run: Attempt, bucket: int, *rest: Any, **named: Any) -> None:
        if len(recorded) == 3:
            raise _Died
        await record(run, bucket, *rest, **named)
        recorded.append(bucket)

    monkeypatch.setattr(Attempt, "record_bucket", record_three)
    with pytest.raises(_Died):
        await run_preview(first, lake, 1)
    monkeypatch.undo()
    pages = await people_of(database, lake, made.id)
    kept = await state_of(database, made.id)
    assert (kept.status, kept.snapshot["order"][:3]) == ("PROCESSING", recorded)  # type: ignore[index]

    clock.advance(LEASE + timedelta(seconds=1))
    second = await claim(database, lake, clock)
    assert second.token == 2
    await run_preview(second, lake, 1)
    with pytest.raises(LeaseLost):
        await first.finish(JobStatus.FAILED)
    done = await state_of(database, made.id)
    assert (done.status, done.attempts, done.profiles_read, done.profiles_matched) == ("SUCCEEDED", 2, 400, 80)
    async with database.session() as session:
        buckets = (await session.execute(select(JobBucketRow.bucket, JobBucketRow.attempt))).all()  # type: ignore[call-overload]
    assert {bucket for bucket, attempt in buckets if attempt == 1} == set(recorded)
    assert len(buckets) == 16
    whole = await people_of(database, lake, made.id, limit=500)
    assert [key for key, _ in whole.items][: len(pages.items)] == [key for key, _ in pages.items]
    assert len(whole.items) == 80


async def test_pages_hold_while_the_list_grows(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    seen: list[Any] = []
    cursor: str | None = None
    record = Attempt.record_bucket

    async def page_on(limit: int) -> bool:
        nonlocal cursor
        page = await people_of(database, lake, made.id, limit, cursor)
        seen.extend(key for key, _ in page.items)
        cursor = page.cursors[-1] if page.cursors else cursor
        return page.has_next

    async def record_and_page(run: Attempt, *rest: Any, **named: Any) -> None:
        await record(run, *rest, **named)
        await page_on(3)

    monkeypatch.setattr(Attempt, "record_bucket", record_and_page)
    await read(database, lake, clock)
    while await page_on(7):
        pass
    whole = await people_of(database, lake, made.id, limit=500)
    assert seen == [key for key, _ in whole.items]
    assert len(seen) == 80
    row = await state_of(database, made.id)
    async with database.session() as session:
        read_all = (await previews.read_buckets(session, SCOPE, [row]))[made.id]
    assert previews.people_count(read_all) == 80


async def test_a_cursor_of_another_list_is_refused(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded
) -> None:
    made = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    for cursor in ("nonsense", "WyJTQU1QTEUiLDEsImEiXQ", "WyJTQU1QTEUiLC0xLDBd"):
        with pytest.raises(Refusal, match="is not a cursor"):
            await people_of(database, lake, made.id, after=cursor)


async def test_cancelling_takes_effect_at_once_and_what_comes_later_is_fenced_off(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded
) -> None:
    waiting = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    assert (await previews.cancel(database, clock, SCOPE, waiting.id)).status == "CANCELLED"
    running = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    run = await claim(database, lake, clock)
    assert run.claim.job_id == running.id, "a cancelled one is not taken up"
    assert (await previews.cancel(database, clock, SCOPE, running.id)).status == "CANCELLED"
    with pytest.raises(LeaseLost):
        await run_preview(run, lake, 1)
    before = await state_of(database, running.id)
    again = await previews.cancel(database, clock, SCOPE, running.id)
    assert (again.status, again.sequence, again.updated_at) == (before.status, before.sequence, before.updated_at)
    assert (before.status, before.profiles_read) == ("CANCELLED", 0)

    ready = await previews.create(database, lake, clock, SCOPE, NewPreview('city = "Rome"'))
    await read(database, lake, clock)
    with pytest.raises(Refusal) as caught:
        await previews.cancel(database, clock, SCOPE, ready.id)
    assert (caught.value.code, caught.value.message) == (
        ErrorCode.INVALID_STATE,
        "the preview has its result and can no longer be cancelled",
    )
    with pytest.raises(Refusal, match="there is no preview 'x' in this sandbox"):
        await previews.cancel(database, clock, SCOPE, "x")
    with pytest.raises(Refusal, match="there is no preview"):
        await previews.cancel(database, clock, Scope("acme", "dev", "ann"), ready.id)


async def test_what_cannot_be_evaluated_fails_with_the_reason(
    database: Database, lake: Lake, clock: FixedClock, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = await define("A")
    await segment_jobs.create(database, clock, SCOPE, [definition.id])
    await run_segment_job(await claim(database, lake, clock, JobKind.SEGMENT), lake, 1)
    made = await previews.create(database, lake, clock, SCOPE, NewPreview(f'inSegment("{definition.id}")'))
    await definitions.delete(database, clock, SCOPE, definition.id)
    with pytest.raises(Refusal) as caught:
        await read(database, lake, clock)
    assert caught.value.code == ErrorCode.INVALID_EXPRESSION
    assert caught.value.message == (
        f'line 1, column 11: there is no segment with the id "{definition.id}"; the data has changed since the '
        "preview was created: edit the expression and run a new preview"
    )
    await previews.cancel(database, clock, SCOPE, made.id)

    monkeypatch.setattr("app.engine.evaluate.memo.ROWS_AT_MOST", 3)
    pairs = "exists A from xEvent where exists B from xEvent where A.dollars != B.dollars"
    made = await previews.create(database, lake, clock, SCOPE, NewPreview(pairs))
    await read(database, lake, clock)
    failed = await state_of(database, made.id)
    assert previews.STATES[failed.status] == "FAILED"
    assert [error["code"] for error in failed.errors] == ["LIMIT_EXCEEDED"]


# ---------------------------------------------------------------- neighbours


async def test_one_tenant_has_only_so_many_at_work(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded
) -> None:
    mine = []
    for _ in range(3):
        mine.append(await previews.create(database, lake, clock, SCOPE, NewPreview("true")))
        clock.advance(timedelta(milliseconds=1))
    other = Scope("globex", "prod", "bob")
    await previews.create(database, lake, clock, other, NewPreview("true"))
    taken = []
    while True:
        found = await claim_next(database, clock, owner="test", lease=LEASE, kind=JobKind.PREVIEW, most_of_tenant=2)
        if found is None:
            break
        taken.append(found.row.organisation)
    assert sorted(taken) == ["acme", "acme", "globex"]
    await previews.cancel(database, clock, SCOPE, mine[0].id)
    found = await claim_next(database, clock, owner="test", lease=LEASE, kind=JobKind.PREVIEW, most_of_tenant=2)
    assert found is not None
    assert found.job_id == mine[2].id


async def test_too_many_under_way_are_refused(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "MOST_UNDER_WAY", 2)
    made = [await previews.create(database, lake, clock, SCOPE, NewPreview("true")) for _ in range(2)]
    with pytest.raises(Refusal) as caught:
        await previews.create(database, lake, clock, SCOPE, NewPreview("true"))
    assert caught.value.code == ErrorCode.LIMIT_EXCEEDED
    await previews.create(database, lake, clock, Scope("acme", "dev", "ann"), NewPreview("true"))
    await previews.cancel(database, clock, SCOPE, made[0].id)
    await previews.create(database, lake, clock, SCOPE, NewPreview("true"))


async def test_a_policy_that_is_gone_is_shown_as_it_was(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded
) -> None:
    policy = await merge_policies.create(
        database, clock, SCOPE, merge_policies.NewPolicy("Mine", MergeMethod.TIMESTAMP_ORDERED)
    )
    made = await previews.create(database, lake, clock, SCOPE, NewPreview("true", merge_policy_id=policy.id))
    await merge_policies.delete(database, SCOPE, policy.id)
    await read(database, lake, clock)
    done = await state_of(database, made.id)
    kept = previews.policy_of(done)
    assert (kept.id, kept.name, kept.created_at) == (policy.id, "Mine", policy.created_at)
    assert (done.status, done.profiles_matched) == ("SUCCEEDED", 400)


async def test_old_previews_are_cleared_away_with_all_that_they_wrote(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded
) -> None:
    old = await previews.create(database, lake, clock, SCOPE, NewPreview("true"))
    await read(database, lake, clock)
    clock.advance(timedelta(days=3))
    recent = await previews.create(database, lake, clock, SCOPE, NewPreview("true"))
    await read(database, lake, clock)
    waiting = await previews.create(database, lake, clock, SCOPE, NewPreview("true"))
    clock.advance(timedelta(days=5))
    await previews.clean(database, lake, clock, timedelta(days=7))
    tenant = lake.tenant(SCOPE.tenant)
    assert [tenant.membership(id).exists() for id in (old.id, recent.id)] == [False, True]
    async with database.session() as session:
        assert set(await previews.get_many(session, SCOPE, [old.id, recent.id, waiting.id])) == {recent.id, waiting.id}
        for table in (JobBucketRow, JobUpdateRow):
            ids = set(await session.scalars(select(table.job_id)))  # type: ignore[call-overload]
            assert old.id not in ids
            assert recent.id in ids


def first_ids(count: int, wanted: set[str]) -> list[str]:
    """Of these people the last cities first, ties by id."""
    return sorted(wanted, key=lambda one: (int(one) % 5 == 0, one))[:count]


@pytest.mark.usefixtures("real_buckets")
async def test_a_preview_keeps_the_first_of_its_limit(
    database: Database, lake: Lake, clock: FixedClock, many: Uploaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly where everybody is read, as a job would; of a sample its part. An attempt that died is gone on with."""
    new = NewPreview("true", limit=Limit(300, 'city = "Oslo"'))
    made = await previews.create(database, lake, clock, SCOPE, new)
    dying = await claim(database, lake, clock)

    async def write(_work: Any) -> None:
        raise LeaseLost("it died")

    first_written = preview_run._first_written
    with monkeypatch.context() as patched:

        def dies_after_its_buckets(*arguments: Any) -> Any:
            patched.setattr(dying, "write", write)
            return first_written(*arguments)

        patched.setattr(preview_run, "_first_written", dies_after_its_buckets)
        with pytest.raises(LeaseLost):
            await run_preview(dying, lake, 1)
    clock.advance(LEASE + timedelta(seconds=1))
    await read(database, lake, clock)
    done, everybody = await state_of(database, made.id), {f"{n:04}" for n in range(400)}
    assert (done.status, done.profiles_matched, done.by_namespace) == ("SUCCEEDED", 400, {"crm": 300})
    assert previews.figures(done) == estimate.Estimate(300, 0.0, 300, 300)
    page = await people_of(database, lake, made.id, 500)
    kept = sorted(person.profile_id.removeprefix("crm:") for _, person in page.items)
    assert kept == sorted(first_ids(300, everybody))

    monkeypatch.setattr(estimate, "READ_IN_FULL", 100)
    made = await previews.create(database, lake, clock, SCOPE, new)
    await read(database, lake, clock)
    done = await state_of(database, made.id)
    assert 100 <= done.profiles_read < 200
    async with database.session() as session:
        buckets = (await previews.read_buckets(session, SCOPE, [done]))[made.id]
    part = math.ceil(300 * done.profiles_read / 400)
    assert previews.people_count(buckets) == part < done.profiles_matched == done.profiles_read
    assert (figures := previews.figures(done)) is not None
    assert (figures.size, figures.low, figures.high, figures.standard_error) == (300, 300, 300, 0.0)


async def test_a_limit_that_no_preview_can_have_is_refused(database: Database, lake: Lake, clock: FixedClock) -> None:
    for limit, path in (
        (Limit(0, "1"), ("limit", "first")),
        (Limit(10_000_001, "1"), ("limit", "first")),
        (Limit(1, "nothing"), ("limit", "by")),
        (Limit(1, "xEvent"), ("limit", "by")),
    ):
        with pytest.raises(Refusal) as refused:
            await previews.create(database, lake, clock, SCOPE, NewPreview("true", limit=limit))
        assert refused.value.path == path
