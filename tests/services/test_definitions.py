"""Definitions: names, versions, etags and what refers to what, also when many write at once."""

import asyncio

import pytest
from sqlalchemy import select

from app.clock import FixedClock
from app.engine.store.lake import Lake
from app.errors import ErrorCode, ExpressionRefused, HasDependents, Refusal, Refusals, StaleEtag
from app.pql.syntax.json_writer import to_json
from app.pql.syntax.parser import parse
from app.scope import Scope
from app.services.audiences import computed as definitions
from app.services.audiences import definition_reads, definition_rules
from app.services.audiences.definition_reads import DefinitionView
from app.services.audiences.definition_rules import MOST_DEFINITIONS, DefinitionChanges, Limit, NewDefinition
from app.services.evaluation.expressions import ExpressionFormat
from app.services.lists.paging import PageRequest
from app.storage.database import Database
from app.storage.tables.audiences import LifecycleState
from app.storage.tables.definitions import DefinitionVersionRow
from app.storage.tenancy import within
from tests.services.conftest import SCOPE, Define, whole


async def stored(database: Database, id_: str) -> DefinitionView | None:
    async with database.session() as session:
        view = (await definition_reads.get_many(session, SCOPE, [id_])).get(id_)
    return None if view is None else whole(view)


async def versions(database: Database, id_: str) -> list[tuple[int, str]]:
    async with database.session() as session:
        rows = await session.execute(within(select(DefinitionVersionRow), DefinitionVersionRow, SCOPE.tenant))
        return sorted((row.version, row.expression) for (row,) in rows if row.definition_id == id_)


async def test_a_new_expression_is_a_new_version_and_a_new_name_is_not(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    first = await define("Over 500")
    assert (first.version, first.revision, first.canonical) == (1, 1, "xEvent.sum(dollars) > 500")
    named = await definitions.update(database, lake, clock, SCOPE, first.id, "1", {"name": "Spenders"})
    assert (named.name, named.version, named.revision) == ("Spenders", 1, 2)
    changed = await definitions.update(
        database, lake, clock, SCOPE, first.id, None, {"expression": "xEvent.sum(dollars)>600"}
    )
    assert (changed.name, changed.version, changed.revision) == ("Spenders", 2, 3)
    assert changed.canonical == "xEvent.sum(dollars) > 600"
    assert await versions(database, first.id) == [(1, "xEvent.sum(dollars) > 500"), (2, "xEvent.sum(dollars)>600")]


async def test_a_stale_etag_names_the_present_one_and_changes_nothing(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    first = await define("A")
    second = await definitions.update(database, lake, clock, SCOPE, first.id, "1", {"description": "new"})
    with pytest.raises(StaleEtag) as caught:
        await definitions.update(database, lake, clock, SCOPE, first.id, "1", {"description": "newer"})
    assert (caught.value.current, caught.value.path) == ("2", ("etag",))
    with pytest.raises(StaleEtag):
        await definitions.delete(database, clock, SCOPE, first.id, "1")
    assert await stored(database, first.id) == whole(second)


async def test_of_many_writers_with_one_etag_one_wins(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    first = await define("A")
    answers = await asyncio.gather(
        *(
            definitions.update(database, lake, clock, SCOPE, first.id, "1", {"description": f"by {n}"})
            for n in range(8)
        ),
        return_exceptions=True,
    )
    won = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(won) == 1
    assert [type(answer) for answer in answers if answer not in won] == [StaleEtag] * 7
    assert await stored(database, first.id) == whole(won[0])


async def test_of_many_creations_with_one_name_one_wins(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    answers = await asyncio.gather(*(define("Same") for _ in range(8)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    assert [(refusal.code, refusal.path) for refusal in refused] == [(ErrorCode.ALREADY_EXISTS, ("name",))] * 7
    assert refused[0].message == "a definition named 'Same' already exists: choose another name"
    async with database.session() as session:
        assert await definition_reads.count(session, SCOPE) == 1


async def test_a_circle_is_refused_with_its_path(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    a = await define("A")
    b = await define("B", f'inSegment("{a.id}")')
    c = await define("C", f'inSegment("{b.id}")')
    with pytest.raises(ExpressionRefused) as caught:
        await definitions.update(database, lake, clock, SCOPE, a.id, None, {"expression": f'not inSegment("{c.id}")'})
    found = caught.value.diagnostics[0]
    assert found.kind == "CYCLE"
    path = found.message.removeprefix("the definitions would form a cycle: ")
    assert path in {"'A' → 'C' → 'B' → 'A'", "'B' → 'A' → 'C' → 'B'", "'C' → 'B' → 'A' → 'C'"}
    assert await stored(database, a.id) == whole(a)


async def test_what_others_refer_to_is_not_deleted(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    a = await define("A")
    b = await define("B", f'inSegment("{a.id}")')
    with pytest.raises(HasDependents) as caught:
        await definitions.delete(database, clock, SCOPE, a.id)
    assert caught.value.message == "'B' refer to it by inSegment: change or delete them first"
    assert caught.value.dependents == (("SegmentDefinition", b.id),)
    async with database.session() as session:
        up = await definition_reads.dependencies_by_definition(session, SCOPE, [a.id, b.id], PageRequest(5))
        down = await definition_reads.dependents_by_definition(session, SCOPE, [a.id, b.id], PageRequest(5))
    assert [one.id for one in up[b.id].items] == [a.id]
    assert [one.id for one in down[a.id].items] == [b.id]
    assert (up[a.id].items, down[b.id].items) == ([], [])
    await definitions.delete(database, clock, SCOPE, b.id)
    await definitions.delete(database, clock, SCOPE, a.id)
    assert (await stored(database, a.id), await stored(database, b.id)) == (None, None)


async def test_several_mistakes_are_told_together(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    new = NewDefinition(name=" ", expression="xEvent.sum(dolars) > ", evaluation_methods=[], labels=["ok", 'a"b'])
    with pytest.raises(Refusals) as caught:
        await definitions.create(database, lake, clock, SCOPE, new)
    assert [(refusal.code, refusal.path) for refusal in caught.value.refusals] == [
        (ErrorCode.INVALID_INPUT, ("name",)),
        (ErrorCode.INVALID_INPUT, ("evaluation_methods",)),
        (ErrorCode.INVALID_INPUT, ("labels", "1")),
        (ErrorCode.INVALID_EXPRESSION, ("expression",)),
    ]


async def test_a_name_is_taken_in_its_own_sandbox_only(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    await define("A")
    other = Scope("acme", "dev", "ann")
    twin = await definitions.create(database, lake, clock, other, NewDefinition(name="A", expression="true"))
    async with database.session() as session:
        assert await definition_reads.get_many(session, SCOPE, [twin.id]) == {}
        assert await definition_reads.count(session, other) == 1


RECENT = "exists E from xEvent where E.dollars > 500 and E.timestamp occurs <= 24 hours before now"


async def test_streaming_and_edge_need_an_expression_that_allows_them(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    a = await define("A")
    for methods, words in ((["STREAMING"], "STREAMING"), (["BATCH", "EDGE", "STREAMING"], "STREAMING and EDGE")):
        new = NewDefinition(name="B", expression="xEvent.sum(dollars) > 500", evaluation_methods=methods)
        with pytest.raises(Refusals) as caught:
            await definitions.create(database, lake, clock, SCOPE, new)
        (refusal,) = caught.value.refusals
        assert (refusal.code, refusal.path) == (ErrorCode.NOT_ELIGIBLE, ("evaluation_methods",))
        assert refusal.message == (
            f"it cannot be evaluated by {words}: it looks at events older than 24 hours: "
            "add `timestamp occurs <= 24 hours before now`; "
            "it counts or combines several events, and only single ones or a sequence in time can be streamed"
        )
    new = NewDefinition(name="B", expression=RECENT, evaluation_methods=["EDGE", "STREAMING"])
    b = await definitions.create(database, lake, clock, SCOPE, new)
    assert (b.evaluates_batch, b.evaluates_streaming, b.evaluates_edge) == (False, True, True)
    assert (a.evaluates_batch, a.evaluates_streaming, a.evaluates_edge) == (True, False, False)
    with pytest.raises(Refusals) as caught:
        await definitions.update(database, lake, clock, SCOPE, b.id, None, {"expression": "xEvent.count() > 1"})
    assert [one.code for one in caught.value.refusals] == [ErrorCode.NOT_ELIGIBLE]
    assert await stored(database, b.id) == whole(b)
    named = await definitions.update(database, lake, clock, SCOPE, b.id, None, {"name": "C"})
    assert (named.evaluates_batch, named.evaluates_streaming, named.evaluates_edge) == (False, True, True)
    plain: DefinitionChanges = {"expression": "xEvent.count() > 1", "evaluation_methods": ["BATCH"]}
    batch = await definitions.update(database, lake, clock, SCOPE, b.id, None, plain)
    assert (batch.evaluates_batch, batch.evaluates_streaming, batch.evaluates_edge, batch.version) == (
        True,
        False,
        False,
        2,
    )


async def test_a_sandbox_holds_only_so_many(
    database: Database, define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_DEFINITIONS == 4_000
    monkeypatch.setattr(definition_rules, "MOST_DEFINITIONS", 2)
    await define("A")
    await define("B")
    with pytest.raises(Refusal) as caught:
        await define("C")
    assert (caught.value.code, caught.value.message) == (
        ErrorCode.LIMIT_EXCEEDED,
        "a sandbox has at most 2 definitions: delete some that are not needed",
    )
    async with database.session() as session:
        assert await definition_reads.count(session, SCOPE) == 2


async def test_what_create_returns_is_what_is_stored(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    await define("A")
    new = NewDefinition(
        "Best", "xEvent.sum(dollars)>500", "The best", labels=("core/C1",), limit=Limit(3, "xEvent.sum(dollars)"),
        lifecycle_state=LifecycleState.DRAFT, exclude_opt_out=False,
    )  # fmt: skip
    view = await definitions.create(database, lake, clock, SCOPE, new)
    assert await stored(database, view.id) == whole(view)
    assert (view.expression, view.canonical) == ("xEvent.sum(dollars)>500", "xEvent.sum(dollars) > 500")
    assert view.kept == {"first": 3, "by": "xEvent.sum(dollars)", "descending": True}


@pytest.mark.parametrize("letter", ["S", "\\u0053"])
async def test_a_segment_is_known_however_json_writes_the_function(
    database: Database, lake: Lake, clock: FixedClock, define: Define, letter: str
) -> None:
    first = await define("A")
    expression = to_json(parse(f'inSegment("{first.id}")')).replace("inSegment", f"in{letter}egment")
    new = NewDefinition("B", expression, format=ExpressionFormat.PQL_JSON)
    assert (await definitions.create(database, lake, clock, SCOPE, new)).canonical == f'inSegment("{first.id}")'
