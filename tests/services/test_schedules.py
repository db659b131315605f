"""Schedules: what is taken and refused, whom they are for, and that each due time starts exactly one job."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import FixedClock
from app.engine.store.lake import Lake
from app.errors import ErrorCode, HasDependents, Refusal, Refusals, StaleEtag
from app.scope import Scope
from app.services.access import audit
from app.services.audiences import computed as definitions
from app.services.audiences import external as external_audiences
from app.services.audiences.external import NewExternal
from app.services.datasets import datasets
from app.services.datasets.uploads import Uploaded
from app.services.jobs import shared as jobs
from app.services.jobs.export.input import ExportFilter, ExportSegment, NewExport
from app.services.jobs.schedules import reads as schedule_reads
from app.services.jobs.schedules import requests as schedules
from app.services.jobs.schedules import run as schedule_runs
from app.services.jobs.schedules.reads import ScheduleFilter
from app.services.jobs.schedules.requests import NewSchedule, ScheduleChanges
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.filters import OrderBy, StringFilter
from app.services.lists.paging import PageRequest
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.job_log import JobState
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind
from app.storage.tables.schedules import ScheduleRow, ScheduleRunRow, ScheduleState, ScheduleType
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow
from app.storage.tenancy import within
from tests.services.conftest import SCOPE, Define
from tests.support.databases import count_statements

DAILY = "0 0 2 * * ?"
Plan = Callable[..., Awaitable[ScheduleRow]]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def plan(database: Database, lake: Lake, clock: FixedClock) -> Plan:
    """Makes a schedule; an ACTIVE daily one at 02:00 unless said otherwise."""

    async def make(*audience_ids: str, **options: Any) -> ScheduleRow:
        values = {"name": "Nightly", "cron_expression": DAILY, "state": "ACTIVE", **options}
        if not values.get("all_audiences"):
            values.setdefault("audience_ids", audience_ids)
        return await schedules.create(database, lake, clock, SCOPE, NewSchedule(**values))

    return make


async def run_all(database: Database, clock: FixedClock) -> None:
    """What a scheduler does when it looks."""
    for tenant, id_ in await schedule_runs.due(database, clock()):
        await schedule_runs.run_due(database, clock, tenant, id_)


async def runs(database: Database, id: str) -> list[tuple[str | None, str, str | None]]:
    """Due time, outcome and message of every run, the oldest first."""
    table = columns(ScheduleRunRow)
    statement = within(select(table.due_at, table.outcome, table.message), ScheduleRunRow, SCOPE.tenant)
    async with database.session() as session:
        rows = list(await session.execute(statement.where(table.schedule_id == id).order_by(table.at, table.due_at)))
    return [(None if row.due_at is None else row.due_at.strftime("%d %H:%M"), row.outcome, row.message) for row in rows]


async def jobs_of(database: Database, id: str) -> list[JobState]:
    """The newest first."""
    async with database.session() as session:
        return (await jobs.page_by_schedule(session, SCOPE, [id], PageRequest(50)))[id].items


async def refused(work: Awaitable[Any]) -> list[tuple[ErrorCode, tuple[str, ...], str]]:
    with pytest.raises((Refusal, Refusals)) as caught:
        await work
    error: Any = caught.value
    found: Sequence[Refusal] = error.refusals if isinstance(error, Refusals) else [error]
    return [(refusal.code, refusal.path, refusal.message) for refusal in found]


# ---------------------------------------------------------------- made and changed


async def test_a_schedule_is_inactive_and_daily_unless_said_otherwise(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    view = await define("A")
    made = [
        await schedules.create(database, lake, clock, SCOPE, NewSchedule(f"S{number}", audience_ids=[view.id]))
        for number in range(5)
    ]
    assert {(one.state, one.next_due_at, one.all_audiences, one.created_by) for one in made} == {
        ("INACTIVE", None, False, "ann")
    }
    times = [one.cron_expression.split() for one in made]
    assert {tuple(time[3:]) for time in times} == {("*", "*", "?")}
    assert len({tuple(time[:3]) for time in times}) > 1


async def test_everything_wrong_is_refused_at_once(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    view = await define("A")
    new = NewSchedule(" ", cron_expression="0 0/5 * * * ?", audience_ids=[view.id, "nobody", view.id, "none"])
    assert [refusal[:2] for refusal in await refused(schedules.create(database, lake, clock, SCOPE, new))] == [
        (ErrorCode.INVALID_INPUT, ("name",)),
        (ErrorCode.INVALID_EXPRESSION, ("cron_expression",)),
        (ErrorCode.NOT_FOUND, ("audience_ids", "1")),
        (ErrorCode.NOT_FOUND, ("audience_ids", "3")),
    ]
    either = "a schedule is for either `audienceIds` or `allAudiences: true`: give one of the two"
    for ids, every in ((None, False), ([view.id], True)):
        new = NewSchedule("S", cron_expression=DAILY, audience_ids=ids, all_audiences=every)
        assert await refused(schedules.create(database, lake, clock, SCOPE, new)) == [
            (ErrorCode.INVALID_INPUT, ("audience_ids",), either)
        ]
    new = NewSchedule("S", cron_expression="0 0 2 * * ? 2025", audience_ids=[])
    assert [refusal[:2] for refusal in await refused(schedules.create(database, lake, clock, SCOPE, new))] == [
        (ErrorCode.INVALID_EXPRESSION, ("cron_expression",)),
        (ErrorCode.INVALID_INPUT, ("audience_ids",)),
    ]
    new = NewSchedule("S", audience_ids=[f"a{number}" for number in range(1_501)])
    assert (await refused(schedules.create(database, lake, clock, SCOPE, new)))[0][:2] == (
        ErrorCode.LIMIT_EXCEEDED,
        ("audience_ids",),
    )
    async with database.session() as session:
        assert await schedule_reads.count(session, SCOPE) == 0


async def test_a_change_keeps_what_is_not_given_and_moves_the_time_only_with_cron_or_state(
    database: Database, lake: Lake, clock: FixedClock, define: Define, plan: Plan
) -> None:
    one, two = await define("A"), await define("B")
    made = await plan(one.id, description="At night")
    assert made.next_due_at == at("2026-06-16T02:00")
    clock.advance(timedelta(hours=15))  # 03:00, and nobody has run what was due at 02:00

    async def change(etag: str | None = None, **changes: Any) -> ScheduleRow:
        return await schedules.update(database, lake, clock, SCOPE, made.id, etag, ScheduleChanges(**changes))  # type: ignore[typeddict-item]

    renamed = await change("1", name="Night", cron_expression=DAILY)
    assert (renamed.name, renamed.description, renamed.revision) == ("Night", "At night", 2)
    assert renamed.next_due_at == at("2026-06-16T02:00")
    retimed = await change(cron_expression="0 0 4 ? * MON")
    assert (retimed.revision, retimed.next_due_at) == (3, at("2026-06-22T04:00"))
    paused = await change(state="INACTIVE", description=None)
    assert (paused.next_due_at, paused.description) == (None, None)
    assert (await change(state="ACTIVE")).next_due_at == at("2026-06-22T04:00")
    with pytest.raises(StaleEtag) as stale:
        await change("4", name="Late")
    assert stale.value.current == "5"

    async def named() -> tuple[bool, list[str]]:
        async with database.session() as session:
            row = await schedule_reads.required(session, SCOPE, made.id)
            return row.all_audiences, await schedule_reads.audience_ids(session, SCOPE, made.id)

    await change(audience_ids=[two.id])
    assert await named() == (False, [two.id])
    await change(all_audiences=True)
    assert await named() == (True, [])
    await change(audience_ids=[one.id, two.id])
    assert await named() == (False, sorted([one.id, two.id]))
    before = await named()
    wrong: list[dict[str, Any]] = [
        {"audience_ids": [one.id], "all_audiences": True},
        {"audience_ids": None},
        {"audience_ids": []},
    ]
    for changes in wrong:
        assert [refusal[:2] for refusal in await refused(change(**changes))] == [
            (ErrorCode.INVALID_INPUT, ("audience_ids",))
        ]
    assert await named() == before


async def test_a_schedule_whose_years_are_over_is_not_activated(
    database: Database, lake: Lake, clock: FixedClock, define: Define, plan: Plan
) -> None:
    made = await plan((await define("A")).id, cron_expression="0 0 2 1 7 ? 2026", state="INACTIVE")
    clock.advance(timedelta(days=60))
    renamed = await schedules.update(database, lake, clock, SCOPE, made.id, None, {"name": "Old"})
    assert renamed.name == "Old"
    activate = schedules.update(database, lake, clock, SCOPE, made.id, None, {"state": ScheduleState.ACTIVE})
    assert [refusal[:2] for refusal in await refused(activate)] == [
        (ErrorCode.INVALID_EXPRESSION, ("cron_expression",))
    ]


async def test_audiences_are_added_and_removed(
    database: Database, clock: FixedClock, define: Define, plan: Plan
) -> None:
    one, two, three = [(await define(name)).id for name in ("A", "B", "C")]
    made = await plan(one)
    assert (await schedules.add_audiences(database, clock, SCOPE, made.id, [two, one, two])).revision == 2
    assert (await schedules.add_audiences(database, clock, SCOPE, made.id, [two])).revision == 2
    add = schedules.add_audiences(database, clock, SCOPE, made.id, [three, "nobody"])
    assert [refusal[:2] for refusal in await refused(add)] == [(ErrorCode.NOT_FOUND, ("audience_ids", "1"))]
    remove = schedules.remove_audiences(database, clock, SCOPE, made.id, [one, three])
    assert await refused(remove) == [
        (ErrorCode.NOT_FOUND, ("audience_ids", "1"), f"the audience {three!r} is not in the schedule")
    ]
    remove = schedules.remove_audiences(database, clock, SCOPE, made.id, [one, two])
    assert [refusal[:2] for refusal in await refused(remove)] == [(ErrorCode.INVALID_INPUT, ("audience_ids",))]
    async with database.session() as session:
        assert await schedule_reads.audience_ids(session, SCOPE, made.id) == sorted([one, two])
    assert (await schedules.remove_audiences(database, clock, SCOPE, made.id, [one])).revision == 3
    every = await plan(all_audiences=True)
    for change in (schedules.add_audiences, schedules.remove_audiences):
        assert [refusal[:2] for refusal in await refused(change(database, clock, SCOPE, every.id, [one]))] == [
            (ErrorCode.INVALID_STATE, ("id",))
        ]


# ---------------------------------------------------------------- lists


async def test_schedules_are_listed_by_filter_and_order_and_by_audience(
    database: Database, clock: FixedClock, define: Define, plan: Plan
) -> None:
    one, two = (await define("A")).id, (await define("B")).id
    for name, ids, options in (
        ("Beta", [one], {}),
        ("alpha", [one, two], {"state": "INACTIVE"}),
        ("Every", [], {"all_audiences": True}),
    ):
        await plan(*ids, name=name, **options)
        clock.advance(timedelta(seconds=1))
    async with database.session() as session:

        async def names(filter: ScheduleFilter | None = None, order: OrderBy | None = None) -> list[str]:
            found = await schedule_reads.page(session, SCOPE, PageRequest(10), filter, order)
            assert await schedule_reads.count(session, SCOPE, filter) == len(found.items)
            return [row.name for row in found.items]

        assert await names() == ["Every", "alpha", "Beta"]
        assert await names(order=OrderBy("NAME")) == ["Beta", "Every", "alpha"]
        assert await names(order=OrderBy("UPDATED_AT")) == ["Beta", "alpha", "Every"]
        assert await names(ScheduleFilter(name=StringFilter(contains="ET"))) == ["Beta"]
        assert await names(ScheduleFilter(state=ScheduleState.INACTIVE)) == ["alpha"]
        assert await names(ScheduleFilter(type=ScheduleType.EXPORT)) == []
        assert await names(ScheduleFilter(audience_id=two)) == ["Every", "alpha"]
        with count_statements(database) as statements:
            found = await schedule_reads.page_by_audience(session, SCOPE, [one, two, "nobody"], PageRequest(2))
            counts = await schedule_reads.counts_by_audience(session, SCOPE, [one, two, "nobody"])
        assert {id_: [row.name for row in page.items] for id_, page in found.items()} == {
            one: ["Beta", "Every"],
            two: ["Every", "alpha"],
            "nobody": [],
        }
        assert found[one].has_next
        assert counts == {one: 3, two: 2, "nobody": 0}
        assert len(statements) == 2
        by_name = {row.name: row.id for row in (await schedule_reads.page(session, SCOPE, PageRequest(10))).items}
        with count_statements(database) as statements:
            people = await schedule_reads.audiences_by_schedule(session, SCOPE, list(by_name.values()), PageRequest(5))
            numbers = await schedule_reads.audience_counts(session, SCOPE, list(by_name.values()))
        assert {name: [row.name for row in people[id_].items] for name, id_ in by_name.items()} == {
            "Beta": ["A"],
            "alpha": ["A", "B"],
            "Every": ["A", "B"],
        }
        assert {name: numbers[id_] for name, id_ in by_name.items()} == {"Beta": 1, "alpha": 2, "Every": 2}
        assert len(statements) == 2


# ---------------------------------------------------------------- runs


async def test_a_due_time_starts_one_job_with_the_dependencies_of_its_audiences(
    database: Database, clock: FixedClock, define: Define, plan: Plan
) -> None:
    bottom = await define("Bottom")
    middle = await define("Middle", f'inSegment("{bottom.id}")')
    top = await define("Top", f'inSegment("{middle.id}")')
    await define("Other")
    made = await plan(top.id)
    await run_all(database, clock)
    assert await jobs_of(database, made.id) == []
    clock.instant = at("2026-06-16T02:00")
    await run_all(database, clock)
    await run_all(database, clock)
    (state,) = await jobs_of(database, made.id)
    job = state.row
    assert (state.kind, job.source, job.status, job.created_by) == ("SEGMENT", "SCHEDULER", "QUEUED", "ann")
    parts = columns(SegmentJobDefinitionRow)
    async with database.session() as session:
        statement = within(select(parts.definition_id), SegmentJobDefinitionRow, SCOPE.tenant)
        assert set(await session.scalars(statement.where(parts.job_id == job.id))) == {bottom.id, middle.id, top.id}
        run = (await schedule_reads.last_runs(session, SCOPE, [made.id]))[made.id]
        assert (await schedule_reads.required(session, SCOPE, made.id)).next_due_at == at("2026-06-17T02:00")
    assert (run.id, run.job_id, run.outcome, run.due_at) == (job.run_id, job.id, "STARTED", at("2026-06-16T02:00"))


async def test_a_schedule_for_all_runs_all(database: Database, clock: FixedClock, define: Define, plan: Plan) -> None:
    await define("A")
    made = await plan(all_audiences=True)
    await define("B")
    clock.instant = at("2026-06-16T02:00")
    await run_all(database, clock)
    (state,) = await jobs_of(database, made.id)
    assert state.row.all_definitions
    async with database.session() as session:
        assert await segment_jobs.segment_counts(session, SCOPE, [state.row.id]) == {state.row.id: 2}


async def test_a_schedule_for_all_is_for_no_external_audience(
    database: Database, lake: Lake, clock: FixedClock, define: Define, plan: Plan
) -> None:
    """External audiences are loaded, not evaluated: lists and counts of both sides leave them out."""
    computed = (await define("A")).id
    external = (await external_audiences.create(database, lake, clock, SCOPE, NewExternal("Partners"))).id
    made = await plan(all_audiences=True)
    async with database.session() as session:
        page = (await schedule_reads.audiences_by_schedule(session, SCOPE, [made.id], PageRequest(5)))[made.id]
        assert [row.id for row in page.items] == [computed]
        assert await schedule_reads.audience_counts(session, SCOPE, [made.id]) == {made.id: 1}
        assert await schedule_reads.counts_by_audience(session, SCOPE, [computed, external]) == {
            computed: 1,
            external: 0,
        }
        of_audience = await schedule_reads.page_by_audience(session, SCOPE, [external], PageRequest(5))
        assert [row.id for row in of_audience[external].items] == []
        assert await schedule_reads.count(session, SCOPE, ScheduleFilter(audience_id=external)) == 0


MISSED: list[tuple[str, list[tuple[str, str]], str]] = [
    ("2026-06-16T01:59:59", [], "2026-06-16T02:00"),
    ("2026-06-17T01:59:59", [("16 02:00", "STARTED")], "2026-06-17T02:00"),
    ("2026-06-17T02:00", [("16 02:00", "SKIPPED"), ("17 02:00", "STARTED")], "2026-06-18T02:00"),
    (
        "2026-06-19T12:00",
        [("16 02:00", "SKIPPED"), ("17 02:00", "SKIPPED"), ("18 02:00", "SKIPPED"), ("19 02:00", "STARTED")],
        "2026-06-20T02:00",
    ),
]
"""When a scheduler is back, what then becomes of the times since 15 June, and when the next one is due."""


async def test_a_missed_time_runs_once_when_it_is_less_than_a_period_old(
    database: Database, clock: FixedClock, define: Define, plan: Plan
) -> None:
    view = await define("A")
    for back, expected, next_due in MISSED:
        clock.instant = at("2026-06-15T12:00")
        made = await plan(view.id)
        clock.instant = at(back)
        await run_all(database, clock)
        assert [run[:2] for run in await runs(database, made.id)] == expected
        started = [time for time, outcome in expected if outcome == "STARTED"]
        assert len(await jobs_of(database, made.id)) == len(started)
        async with database.session() as session:
            assert (await schedule_reads.required(session, SCOPE, made.id)).next_due_at == at(next_due)
            last = await schedule_reads.last_runs(session, SCOPE, [made.id])
        assert [run.due_at.strftime("%d %H:%M") for run in last.values() if run.due_at] == started
        await schedules.delete(database, SCOPE, made.id)


async def test_the_last_time_of_all_runs_however_late_and_then_none_is_due(
    database: Database, clock: FixedClock, define: Define, plan: Plan
) -> None:
    made = await plan((await define("A")).id, cron_expression="0 0 2 30 6 ? 2026")
    clock.instant = at("2027-01-01T00:00")
    await run_all(database, clock)
    assert await runs(database, made.id) == [("30 02:00", "STARTED", None)]
    assert await schedule_runs.next_due(database) is None


async def test_many_schedulers_at_once_start_one_job_for_each_due_time(
    database: Database, database_url: str, clock: FixedClock, define: Define, plan: Plan
) -> None:
    view = await define("A")
    made = [await plan(view.id, name=f"S{number}") for number in range(5)]
    clock.instant = at("2026-06-16T02:00:01")
    found = await schedule_runs.due(database, clock())
    assert {id_ for _, id_ in found} == {one.id for one in made}
    other = Database(database_url)
    try:
        await asyncio.gather(
            *(schedule_runs.run_due(one, clock, *each) for each in found for one in (database, other, database, other))
        )
    finally:
        await other.dispose()
    assert [await runs(database, one.id) for one in made] == [[("16 02:00", "STARTED", None)]] * 5
    assert [len(await jobs_of(database, one.id)) for one in made] == [1] * 5
    async with database.session() as session:
        events = await audit.page(session, SCOPE, PageRequest(), audit.AuditFilter(action="runSchedule"))
    recorded = sorted((event.resource_id, event.subject, event.outcome) for event in events.items)
    assert recorded == sorted((one.id, SCOPE.user, "OK") for one in made)


async def test_a_run_that_cannot_start_is_noted_and_does_not_stop_the_schedule(
    database: Database, clock: FixedClock, define: Define, plan: Plan
) -> None:
    made = await plan(all_audiences=True)
    clock.instant = at("2026-06-16T02:00")
    await run_all(database, clock)
    reason = "the sandbox has no published definitions, so the job has nothing to run: publish one first"
    assert await runs(database, made.id) == [("16 02:00", "REFUSED", reason)]
    assert await jobs_of(database, made.id) == []
    await define("A")
    clock.advance(timedelta(days=1))
    await run_all(database, clock)
    assert await runs(database, made.id) == [("16 02:00", "REFUSED", reason), ("17 02:00", "STARTED", None)]


async def test_a_schedule_whose_audiences_are_gone_can_be_renamed_but_not_started(
    database: Database, lake: Lake, clock: FixedClock, define: Define, plan: Plan
) -> None:
    view = await define("A")
    made = await plan(view.id, state="INACTIVE")
    await definitions.delete(database, clock, SCOPE, view.id)
    assert (await schedules.update(database, lake, clock, SCOPE, made.id, None, {"name": "Emptied"})).name == "Emptied"
    activate = schedules.update(database, lake, clock, SCOPE, made.id, None, {"state": ScheduleState.ACTIVE})
    assert [refusal[:2] for refusal in await refused(activate)] == [(ErrorCode.INVALID_INPUT, ("audience_ids",))]
    assert await refused(schedule_runs.trigger(database, clock, SCOPE, made.id)) == [
        (
            ErrorCode.INVALID_STATE,
            ("id",),
            "the audiences of the schedule have been deleted: give it others, or delete it",
        )
    ]


async def test_a_run_can_be_started_besides(database: Database, clock: FixedClock, define: Define, plan: Plan) -> None:
    made = await plan((await define("A")).id, state="INACTIVE")
    caller = Scope("acme", "prod", "bob")
    first, second = [await schedule_runs.trigger(database, clock, caller, made.id) for _ in range(2)]
    assert (first.row.source, first.row.schedule_id, first.row.created_by) == ("SCHEDULER", made.id, "bob")
    assert await runs(database, made.id) == [(None, "STARTED", None)] * 2
    assert {state.row.id for state in await jobs_of(database, made.id)} == {first.row.id, second.row.id}
    assert first.row.run_id != second.row.run_id
    unknown = schedule_runs.trigger(database, clock, Scope("acme", "dev", "bob"), made.id)
    assert [refusal[:2] for refusal in await refused(unknown)] == [(ErrorCode.NOT_FOUND, ("id",))]


async def test_jobs_outlive_their_schedule(database: Database, clock: FixedClock, define: Define, plan: Plan) -> None:
    made = await plan((await define("A")).id)
    await schedule_runs.trigger(database, clock, SCOPE, made.id)
    with pytest.raises(StaleEtag):
        await schedules.delete(database, SCOPE, made.id, "7")
    await schedules.delete(database, SCOPE, made.id, "1")
    assert await runs(database, made.id) == []
    (state,) = await jobs_of(database, made.id)
    assert state.row.schedule_id == made.id
    assert await refused(schedules.delete(database, SCOPE, made.id)) == [
        (ErrorCode.NOT_FOUND, ("id",), f"there is no schedule {made.id!r} in this sandbox")
    ]


# ---------------------------------------------------------------- exports


@pytest.fixture
async def target(database: Database, clock: FixedClock) -> str:
    new = datasets.NewDataset(name="target", kind=DatasetKind.EXPORT)
    return (await datasets.create(database, clock, SCOPE, new)).id


def export_of(target: str, *segments: str, **options: Any) -> NewExport:
    chosen = tuple(ExportSegment(one) for one in segments)
    return NewExport(target, "_xdm.context.profile", filter=ExportFilter(chosen), **options)


async def test_an_export_schedule_starts_exports_after_an_evaluation_with_dependencies(
    database: Database, lake: Lake, clock: FixedClock, define: Define, plan: Plan, target: str
) -> None:
    bottom = await define("Bottom")
    top = await define("Top", f'inSegment("{bottom.id}")')
    export = export_of(target, top.id, evaluate_first=True)
    made = await plan(type="EXPORT", audience_ids=None, export=export)
    assert made.export is not None
    assert made.export["filter"]["segments"] == [
        {"segmentId": top.id, "namespace": "AEPSegments", "status": ["REALIZED", "EXISTING"]}
    ]
    async with database.session() as session:
        assert await schedule_reads.audience_ids(session, SCOPE, made.id) == [top.id]
    with pytest.raises(HasDependents):
        await definitions.delete(database, clock, SCOPE, top.id)
    clock.instant = at("2026-06-16T02:00")
    await run_all(database, clock)
    found = {state.kind: state.row for state in await jobs_of(database, made.id)}
    assert (await runs(database, made.id)) == [("16 02:00", "STARTED", None)]
    assert found.keys() == {"EXPORT", "SEGMENT"}
    assert (found[JobKind.EXPORT].source, found[JobKind.EXPORT].waits_for) == ("SCHEDULER", found[JobKind.SEGMENT].id)
    assert found[JobKind.EXPORT].run_id == found[JobKind.SEGMENT].run_id
    async with database.session() as session:
        assert await segment_jobs.segment_counts(session, SCOPE, [found[JobKind.SEGMENT].id]) == {
            found[JobKind.SEGMENT].id: 2
        }
        assert (await schedule_reads.last_runs(session, SCOPE, [made.id]))[made.id].job_id == found[JobKind.EXPORT].id
    changed = await schedules.update(
        database,
        lake,
        clock,
        SCOPE,
        made.id,
        None,
        {"export": export_of(target, bottom.id), "state": ScheduleState.INACTIVE},
    )
    assert changed.export is not None
    assert changed.export["evaluateFirst"] is False
    async with database.session() as session:
        assert await schedule_reads.audience_ids(session, SCOPE, made.id) == [bottom.id]


async def test_an_export_schedule_names_the_audience_of_its_namespace_alone(
    database: Database, lake: Lake, clock: FixedClock, plan: Plan, target: str, purchases: Uploaded
) -> None:
    """Two namespaces know an audience by one id: the schedule is for the one that its export names."""
    ids = {
        namespace: (await external_audiences.create(database, lake, clock, SCOPE, new)).id
        for namespace in ("CustomerAudienceUpload", "FederatedAudience")
        for new in [NewExternal(namespace, audience_id="vip", namespace=namespace)]
    }
    chosen = ids["FederatedAudience"]
    segments = (ExportSegment("vip", namespace="FederatedAudience"),)
    export = NewExport(target, "_xdm.context.profile", filter=ExportFilter(segments))
    made = await plan(type="EXPORT", audience_ids=None, export=export)
    async with database.session() as session:
        assert await schedule_reads.audience_ids(session, SCOPE, made.id) == [chosen]
        assert await schedule_reads.counts_by_audience(session, SCOPE, list(ids.values())) == {
            id_: int(id_ == chosen) for id_ in ids.values()
        }


async def test_an_export_schedule_is_checked_as_an_export(
    database: Database, lake: Lake, clock: FixedClock, define: Define, plan: Plan, target: str, purchases: Uploaded
) -> None:
    view = await define("A")

    async def errors(**options: Any) -> list[tuple[str, ...]]:
        new = NewSchedule("S", cron_expression=DAILY, **options)
        return [path for _, path, _ in await refused(schedules.create(database, lake, clock, SCOPE, new))]

    assert await errors(type="EXPORT") == [("export",)]
    assert await errors(type="EXPORT", export=export_of(target), all_audiences=True) == [("audience_ids",)]
    assert await errors(export=export_of(target), audience_ids=[view.id]) == [("export",)]
    assert await errors(type="EXPORT", export=export_of(purchases.batch.dataset_id, "nobody")) == [
        ("export", "destination", "dataset_id"),
        ("export", "filter", "segments", "0", "segment_id"),
    ]
    made = await plan(type="EXPORT", audience_ids=None, export=export_of(target, view.id))
    assert [path for _, path, _ in await refused(schedules.add_audiences(database, clock, SCOPE, made.id, []))] == [
        ("id",)
    ]
    clear = schedules.update(database, lake, clock, SCOPE, made.id, None, {"export": None})
    assert [path for _, path, _ in await refused(clear)] == [("export",)]
