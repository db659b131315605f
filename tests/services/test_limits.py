"""Definitions that keep the first N of their profiles: exactly, ties by id, wherever members are looked at."""

import random
from datetime import timedelta
from typing import Any

import pytest

from app.clock import FixedClock, utc_now
from app.errors import Refusal, Refusals
from app.services.audiences import computed as definitions
from app.services.audiences import reads
from app.services.audiences.definition_reads import get_many
from app.services.audiences.definition_rules import Limit, NewDefinition
from app.services.insight import waterfall
from app.services.insight.comparison import compare
from app.services.insight.explanation import Identity, explain
from app.services.insight.overlap import People
from app.services.jobs.segment.passes import EarlierPass
from app.services.jobs.segment.run import run_segment_job
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind
from tests.services.conftest import SCOPE, Gateway
from tests.support.both_ways import both_ways


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(utc_now())


async def define(gateway: Gateway, name: str, limit: Limit | None, expression: str = "true", **more: Any) -> str:
    gateway.clock.advance(timedelta(seconds=1))
    new = NewDefinition(name=name, expression=expression, limit=limit, **more)
    return (await definitions.create(gateway.database, gateway.lake, gateway.clock, SCOPE, new)).id


async def ids(gateway: Gateway, audience: str, *statuses: str) -> list[str]:
    """Of the members, or of whoever has one of the statuses."""
    found = []
    for bucket, membership in (await gateway.memberships(audience)).items():
        people = membership.with_status(statuses) if statuses else membership.members
        whos = await gateway.reader().people_at([(bucket, ordinal) for ordinal in people])
        found += [person.profile_id.removeprefix("crm:") for person in (await gateway.reader().people(whos)).values()]
    return sorted(found)


def first(rows: list[dict[str, Any]], name: str, count: int, descending: bool) -> list[str]:
    """What a plain sort says."""
    having = [row for row in rows if row.get(name) is not None]
    having.sort(key=lambda row: row["id"])
    having.sort(key=lambda row: row[name], reverse=descending)
    lacking = sorted((row for row in rows if row.get(name) is None), key=lambda row: row["id"])
    return sorted(row["id"] for row in [*having, *lacking][:count])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_first_of_many_as_a_plain_sort_finds_them(gateway: Gateway) -> None:
    chance = random.Random(7)
    rows: list[dict[str, Any]] = [
        {
            "id": f"{number:04}",
            "score": chance.choice([None, *range(12)]),
            "price": chance.choice([None, 0.5, 1.25, 7.75, 1e9]),
            "name": chance.choice([None, "ann", "Bob", "zoë", "Ω"]),
            "large": 2**53 + chance.randrange(40),
            "vip": chance.random() < 0.3,
        }
        for number in range(300)
    ]
    await gateway.people(rows)
    wanted = {}
    for name in ("score", "price", "name", "large", "vip"):
        for count, descending in ((1, True), (37, True), (120, False), (299, False), (1_000, True)):
            limit = Limit(count, name, descending)
            wanted[await define(gateway, f"{name} {count}", limit)] = first(rows, name, count, descending)
    await gateway.job(*wanted)
    assert {id: await ids(gateway, id) for id in wanted} == wanted
    assert {(await gateway.numbers(id))[0] for id in wanted} == {1, 37, 120, 299, 300}


async def test_others_refer_to_those_that_are_kept(gateway: Gateway) -> None:
    await gateway.people([{"id": f"{number}", "score": number, "odd": number % 2 == 1} for number in range(9)])
    best = await define(gateway, "best", Limit(4, "score"))
    odd = await define(gateway, "odd best", None, f'inSegment("{best}") and odd = true')
    second = await define(gateway, "best two of the odd", Limit(1, "score", descending=False), f'inSegment("{odd}")')
    by = await define(gateway, "the best first", Limit(5, f'inSegment("{best}")'))
    rest = await define(gateway, "others", None, f'not inSegment("{best}")')
    await gateway.job(best, odd, second, by, rest)
    expected = {
        best: ["5", "6", "7", "8"],
        odd: ["5", "7"],
        second: ["5"],
        by: ["0", "5", "6", "7", "8"],
        rest: ["0", "1", "2", "3", "4"],
    }
    assert {id: await ids(gateway, id) for id in expected} == expected
    gateway.clock.advance(timedelta(seconds=1))
    await gateway.job(odd)
    assert await ids(gateway, odd) == ["5", "7"]


async def test_who_is_overtaken_leaves(gateway: Gateway) -> None:
    await gateway.people([{"id": "a", "score": 1}, {"id": "b", "score": 2}, {"id": "c", "score": 3}])
    best = await define(gateway, "best", Limit(2, "score"))
    await gateway.job(best)
    gateway.clock.advance(timedelta(seconds=1))
    await gateway.people([{"id": "a", "score": 9}])
    await gateway.job(best)
    assert await ids(gateway, best, "REALIZED") == ["a"]
    assert await ids(gateway, best, "EXISTING") == ["c"]
    assert await ids(gateway, best, "EXITED") == ["b"]
    assert await gateway.numbers(best) == (2, {"crm": 2})


@pytest.mark.usefixtures("real_buckets")
async def test_an_attempt_that_dies_while_it_keeps_the_first_is_gone_on_with(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": f"{number:03}", "score": number % 50} for number in range(200)]
    await gateway.people(rows)
    best = await define(gateway, "best", Limit(61, "score"))
    begun = await gateway.start_job(best)
    done: list[Any] = []
    limit = EarlierPass.limit

    def dies(earlier: EarlierPass, *arguments: Any) -> None:
        if len(done) == 5:
            raise RuntimeError("died")
        done.append(earlier)
        limit(earlier, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(EarlierPass, "limit", dies)
        with pytest.raises(RuntimeError, match="died"):
            await run_segment_job(begun, gateway.lake, 1)
    gateway.clock.advance(timedelta(hours=1))
    lease = timedelta(minutes=1)
    claim = await claim_next(gateway.database, gateway.clock, owner="next", lease=lease, kind=JobKind.SEGMENT)
    assert claim is not None
    run = Attempt(gateway.database, gateway.clock, claim)
    await run_segment_job(run, gateway.lake, 1)
    assert (run.token, run.ended_as) == (2, "SUCCEEDED")
    assert await ids(gateway, best) == first(rows, "score", 61, True)


async def test_a_limit_is_part_of_a_version(gateway: Gateway) -> None:
    await gateway.people([{"id": "a", "score": 1}, {"id": "b", "score": 2}])
    best = await define(gateway, "best", Limit(1, "score"))

    async def change(**changes: Any) -> tuple[int, Any]:
        gateway.clock.advance(timedelta(seconds=1))
        await definitions.update(
            gateway.database,
            gateway.lake,
            gateway.clock,
            SCOPE,
            best,
            None,
            changes,  # type: ignore[arg-type]
        )
        async with gateway.database.session() as session:
            row = (await get_many(session, SCOPE, [best]))[best]
        return row.version, row.kept

    kept = {"first": 1, "by": "score", "descending": True}
    assert await change(description="d") == (1, kept)
    assert await change(limit=Limit(1, "score")) == (1, kept)
    assert await change(limit=Limit(1, "score", descending=False)) == (2, {**kept, "descending": False})
    await gateway.job(best)
    assert await ids(gateway, best) == ["a"]
    assert await change(limit=None) == (3, None)
    await gateway.job(best)
    assert await ids(gateway, best) == ["a", "b"]


@pytest.mark.parametrize(
    ("limit", "methods", "path", "message"),
    [
        (Limit(0, "score"), ["BATCH"], ("limit", "first"), "a limit keeps 1 to 10,000,000 profiles, not 0"),
        (Limit(10_000_001, "score"), ["BATCH"], ("limit", "first"), "not 10,000,001"),
        (Limit(1, "scor"), ["BATCH"], ("limit", "by"), "scor"),
        (Limit(1, "xEvent"), ["BATCH"], ("limit", "by"), "single value"),
        (
            Limit(1, "score"),
            ["STREAMING"],
            ("evaluation_methods",),
            "it cannot be evaluated by STREAMING: a limit compares all profiles with one another",
        ),
    ],
)
async def test_what_a_limit_cannot_be(
    gateway: Gateway, limit: Limit, methods: list[str], path: tuple[str, ...], message: str
) -> None:
    await gateway.people([{"id": "a", "score": 1}])
    with pytest.raises(Refusals) as caught:
        await define(gateway, "best", limit, evaluation_methods=methods)
    (refusal,) = caught.value.refusals
    assert refusal.path == path
    assert message in str(getattr(refusal, "diagnostics", "")) + refusal.message


async def test_an_explanation_says_that_others_come_first(gateway: Gateway) -> None:
    await gateway.people([{"id": "a", "score": 1}, {"id": "b", "score": 2}, {"id": "c", "score": 3}])
    best = await define(gateway, "best", Limit(2, "score"), "score > 0")

    async def explained(id: str) -> tuple[bool, list[tuple[str, bool | None]]]:
        async with gateway.database.session() as session:
            audience = (await reads.get_many(session, SCOPE, [best]))[best]
        found = await explain(
            gateway.database, SCOPE, gateway.reader(), Identity("crm", id), People(audience=audience), None
        )
        return found.member, [(part.text, part.holds) for part in found.root.children]

    with pytest.raises(Refusal, match="has never been evaluated"):
        await explained("a")
    await gateway.job(best)
    assert await explained("a") == (False, [("score > 0", True), ("first 2 by score DESC", False)])
    assert await explained("c") == (True, [("score > 0", True), ("first 2 by score DESC", True)])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_questions_about_an_audience_see_whom_its_limit_keeps(gateway: Gateway) -> None:
    """Before and after the data change: each answer is what the next job makes of it."""
    rows: list[dict[str, Any]] = [{"id": f"{n:02}", "score": n % 7 if n % 5 else None, "odd": n % 2} for n in range(40)]
    await gateway.people(rows)
    best = await define(gateway, "best", Limit(9, "score"))
    rest = await define(gateway, "the last", Limit(50, "score", descending=False), "odd = 1")
    await gateway.job(best, rest)
    await gateway.people([{"id": "01", "score": 99, "odd": 1}])
    for audience, expression, count in ((best, "odd = 1", 9), (best, "false", 9), (rest, "odd = 0", 50)):
        async with gateway.database.session() as session:
            row = await reads.required(session, SCOPE, audience)
            definition = (await get_many(session, SCOPE, [audience]))[audience]
        result = await compare(gateway.reader(), row, definition.kept, expression, 1)
        before, now = await ids(gateway, audience), [row for row in rows if row["id"] != "01"]
        held = [row for row in [*now, {"id": "01", "score": 99, "odd": 1}] if expression == f"odd = {row['odd']}"]
        after = set(first(held, "score", count, audience == best))
        counts = await result.counts(1, enough=lambda: True)
        assert (counts.exact, counts.before, counts.after.size) == (True, len(before), len(after))
        for read, expected in ((result.entering, after - {*before}), (result.leaving, {*before} - after)):
            persons = await gateway.reader().people(await both_ways(read, 4))
            assert {person.profile_id.removeprefix("crm:") for person in persons.values()} == expected
    for audience, steps in ((best, (40, 40, 40, 9, 9)), (rest, (40, 20, 20, 20, 20))):
        async with gateway.database.session() as session:
            row = await reads.required(session, SCOPE, audience)
            definition = (await get_many(session, SCOPE, [audience]))[audience]
        names = ("evaluated", "matched", "consented", "limited", "crm")
        assert await waterfall.measure(gateway.reader(), row, definition, 1) == list(zip(names, steps, strict=True))
