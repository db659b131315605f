"""How many SQL statements a query costs: one for each level, however many rows there are."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from app.clock import FixedClock
from tests.api.conftest import Api, worker_of
from tests.support.databases import count_statements

NESTED = """{ segmentDefinitions(first: 50) { totalCount nodes { name
  mergePolicy { name }
  audience { name mergePolicy { name } definition { name } dependents(first: 2) { totalCount nodes { name } } }
  jobs(first: 2) { totalCount nodes { status
    segments(first: 5) { totalCount nodes { profileCount definition { name audience { name } } } } } } } } }"""


def of_queries(statements: list[str]) -> list[str]:
    """Without those of the task that looks out for changes of jobs from time to time."""
    return [statement for statement in statements if "FROM job_update" not in statement]


async def cost(api: Api) -> tuple[int, int]:
    """Definitions seen, and statements needed."""
    with count_statements(api.services.database) as statements:
        found = await api.query(NESTED)
    return len(found["segmentDefinitions"]["nodes"]), len(of_queries(statements))


async def test_a_nested_query_costs_the_same_for_3_rows_and_for_30(api: Api) -> None:
    await api.loaded()
    ids = [await api.define(f"D{number}") for number in range(3)]
    for id_ in ids:
        await api.start(id_)
        await api.start(*ids)
    few = await cost(api)
    more = [await api.define(f"E{number}") for number in range(27)]
    for id_ in more:
        await api.start(id_)
        await api.start(*ids, id_)
    many = await cost(api)
    assert (few[0], many[0]) == (3, 30)
    assert few[1] == many[1] == 11


async def test_each_level_costs_one_statement(api: Api) -> None:
    await api.loaded()
    await api.define("A")
    await api.start()
    costs = {}
    for name, document in {
        "definitions": "{ segmentDefinitions { nodes { name } } }",
        "and audience": "{ segmentDefinitions { nodes { audience { name } } } }",
        "and jobs": "{ segmentDefinitions { nodes { audience { name jobs(first: 5) { nodes { status } } } } } }",
        "and segments": """{ segmentDefinitions { nodes { audience { name jobs(first: 5) { nodes { status
            segments { nodes { profileCount } } } } } } } }""",
        "count alone": "{ segmentDefinitions { totalCount } }",
        "viewer": "{ viewer { sandbox } }",
    }.items():
        with count_statements(api.services.database) as statements:
            await api.query(document)
        costs[name] = len(of_queries(statements))
    assert costs == {
        "definitions": 1,
        "and audience": 2,
        "and jobs": 3,
        "and segments": 4,
        "count alone": 1,
        "viewer": 0,
    }


INSIGHT = {
    "changes": "changes(first: 1) { totalCount nodes { audience { name } job { status } profile { profileId } } }",
    "changes back": "changes(last: 2) { pageInfo { hasPreviousPage } nodes { cursor } }",
    "history": "history(first: 2) { totalCount nodes { totalProfiles job { status } } }",
    "versions": "versions(first: 2) { totalCount nodes { expression mergePolicy { name } } }",
    "as of": 'members(asOf: "$MOMENT", first: 3) { totalCount nodes { status profile { identities { id } } } }',
    "difference": 'difference(from: "$MOMENT") { enter entering(first: 3) { nodes { profileId } } error { message } }',
    "waterfall": "waterfall { name count }",
    "statistics": 'statistics(expressions: ["xEvent.count()"]) { sum error { message } }',
    "by value": 'members(first: 3, orderBy: { expression: "xEvent.count()" }) { nodes { profile { profileId } } }',
    "where": 'members(first: 3, where: "xEvent.count() > 1") { totalCount nodes { status } }',
}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_insight_below_a_list_costs_the_same_for_2_audiences_and_for_8(api: Api, clock: FixedClock) -> None:
    await api.loaded()

    async def evaluated(names: str) -> str:
        """A moment after a run with these audiences too; the worker, which polls, has ended."""
        for name in names:
            await api.define(name)
        async with worker_of(api.services):
            await api.ended(await api.start())
        clock.advance(timedelta(hours=1))
        return clock().isoformat()

    moment = await evaluated("AB")

    async def costs() -> dict[str, int]:
        numbers = {}
        for name, field in INSIGHT.items():
            with count_statements(api.services.database) as statements:
                await api.query("{ audiences(first: 8) { nodes { " + field.replace("$MOMENT", moment) + " } } }")
            numbers[name] = len(of_queries(statements))
        return numbers

    few = await costs()
    await evaluated("CDEFGH")
    assert await costs() == few


async def test_mutations_cost_few_statements(api: Api) -> None:
    """Beside the statements that begin and end their transactions."""
    await api.loaded()
    ids = [await api.define(f"D{number}", f"xEvent.sum(dollars) > {number}") for number in range(10)]
    exports = await api.export_dataset()
    for _ in range(2):  # the first execution of each statement prepares it
        await api.start(*ids)
        await api.preview("xEvent.sum(dollars) > 1")
    costs = {}
    works: dict[str, Callable[[], Awaitable[str]]] = {
        "definition": lambda: api.define("New", "xEvent.sum(dollars) > 77"),
        "definition that names another": lambda: api.define("Named", f'inSegment("{ids[0]}")'),
        "job of 10 definitions": lambda: api.start(*ids),
        "job of all definitions": api.start,
        "preview": lambda: api.preview("xEvent.sum(dollars) > 78"),
        "dataset": lambda: api.dataset("more", "PROFILE"),
        "export": lambda: api.export(exports),
    }
    for name, work in works.items():
        with count_statements(api.services.database) as statements:
            await work()
        costs[name] = len(of_queries(statements))
    assert costs == {
        "definition": 7,
        "definition that names another": 11,
        "job of 10 definitions": 4,
        "job of all definitions": 4,
        "preview": 6,
        "dataset": 3,
        "export": 8,
    }
