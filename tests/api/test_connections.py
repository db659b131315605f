"""Every connection of the schema, read page by page from both ends: the same items, cursors, flags and numbers."""

from typing import Any

import pytest
from graphql import GraphQLObjectType, GraphQLSchema, build_schema, get_named_type

from app.api.schema import print_schema
from tests.api.conftest import Api
from tests.api.test_queries import world

__all__ = ["world"]

LARGEST = 100
WAYS = {
    "Query": "",
    "Audience": 'audience(id: "{id}")',
    "SegmentDefinition": 'segmentDefinition(id: "{id}")',
    "SegmentJob": 'segmentJob(id: "{job}")',
    "ExportJob": 'exportJob(id: "{export}")',
    "Schedule": 'schedule(id: "{schedule}")',
    "Preview": 'preview(id: "{preview}")',
    "Dataset": 'dataset(id: "{dataset}")',
    "Profile": 'profile(identity: {{ namespace: "crm", id: "00001" }})',
    "Comparison": 'compare(audienceId: "{id}", expression: "person.country = \\"DE\\"")',
}
"""How to come from a query to one object of each type that has connections."""
NEEDS = {"Query.search": 'term: "over OR summer"'}
"""Arguments that a connection cannot do without."""
REFUSED = {
    'first: 1, after: "!!"': "'!!' is not a cursor: send back one that a page of this list gave",
    'last: 1, before: ""': "'' is not a cursor: send back one that a page of this list gave",
    'first: 1, after: "WyJYIiwgMV0="': "the cursor",
    "first: 1, last: 1": "`first` and `after` go forward, `last` and `before` go backward",
    "first: -1": "`first` is -1",
    "last: -1": "`last` is -1",
}


def connections(schema: GraphQLSchema) -> list[tuple[str, str]]:
    """Types and their fields."""
    return [
        (type_.name, name)
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType)
        for name, field in type_.fields.items()
        if get_named_type(field.type).name.endswith("Connection")
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_every_connection_is_the_same_from_both_ends(world: tuple[Api, dict[str, str]]) -> None:
    api, ids = world
    read = dict[str, int]()
    for type_, name in connections(build_schema(print_schema())):
        way, needs = WAYS[type_].format(**ids), NEEDS.get(f"{type_}.{name}", "")

        async def page(arguments: str, name: str = name, way: str = way, needs: str = needs) -> Any:
            fields = (
                "pageInfo { hasNextPage hasPreviousPage startCursor endCursor } edges { cursor node { __typename } }"
            )
            asked = ", ".join(part for part in (needs, arguments) if part)
            inner = f"{name}({asked}) {{ totalCount {fields} }}"
            answer = await api.answer(f"{{ {way} {{ {inner} }} }}" if way else f"{{ {inner} }}")
            if "errors" in answer:
                return answer["errors"][0]["message"]
            (data,) = answer["data"].values()
            return data[name] if way else data

        read[f"{type_}.{name}"] = await _compared(page, f"{type_}.{name}")
    # Lists with several items are what shows something.
    assert {name for name, number in read.items() if number > 1} >= {
        "Query.audiences", "Query.jobs", "Query.profiles", "Query.folders", "Query.search", "Audience.members",
        "Audience.changes", "Audience.schedules", "SegmentDefinition.jobs", "Profile.events", "Comparison.leaving",
    }  # fmt: skip


async def _compared(page: Any, where: str) -> int:
    """Compares the pages of a list with the whole; gives its length."""
    whole = await page(f"first: {LARGEST}")
    assert not isinstance(whole, str), (where, whole)
    cursors = [edge["cursor"] for edge in whole["edges"]]
    number = len(cursors)
    assert (len(set(cursors)), whole["totalCount"]) == (number, number), where
    spans = [(f"first: {size}", 0, size) for size in (0, 1, 2)] + [
        (f"last: {size}", number - size, number) for size in (0, 1, 2, LARGEST)
    ]
    for at, cursor in enumerate(cursors[:4]):
        for size in (1, 2):
            spans.append((f'first: {size}, after: "{cursor}"', at + 1, at + 1 + size))
            spans.append((f'last: {size}, before: "{cursor}"', at - size, at))
    for arguments, start, end in spans:
        start, end = max(0, start), min(number, end)
        found = await page(arguments)
        expected = cursors[start:end]
        assert [edge["cursor"] for edge in found["edges"]] == expected, (where, arguments)
        assert found["pageInfo"] == {
            "hasNextPage": end < number,
            "hasPreviousPage": start > 0,
            "startCursor": expected[0] if expected else None,
            "endCursor": expected[-1] if expected else None,
        }, (where, arguments)
        assert found["totalCount"] == number, (where, arguments)
    for arguments, message in REFUSED.items():
        answer = await page(arguments)
        assert isinstance(answer, str), (where, arguments, answer)
        assert message in answer, (where, arguments, answer)
    return number
