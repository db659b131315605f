"""How many SQL statements a query costs: one for each level, however many rows there are."""

from tests.api.conftest import Api
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
