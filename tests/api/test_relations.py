"""Relations are read once for all objects of a level, and answered as their resolvers answer."""

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import strawberry
from graphql import GraphQLObjectType, get_named_type

from app.api.context import Limits
from app.api.context.batching import Loader, PageLoader
from app.api.context.metrics import Metrics
from app.api.execution import CompiledExecution, related
from app.api.execution.direct import direct
from app.api.execution.from_row import Column, FromRow, RowFields
from app.api.execution.relation import Many, One
from app.api.lists.relations import to_many, to_one
from app.api.scalars import CONFIG
from app.api.schema import build_schema
from app.errors import ErrorCode, Refusal
from app.services.lists.paging import PageRequest, Slice

READS: list[tuple[str, list[Any], tuple[Any, ...]]] = []
CREATED: list[str] = []
STORED: dict[str, Any] = {
    "a": SimpleNamespace(id="a", name="A", next_id="b", sure_id="b"),
    "b": SimpleNamespace(id="b", name="B", next_id=None, sure_id="gone"),
    "c": SimpleNamespace(id="c", name=None, next_id="gone", sure_id="a"),
    "d": SimpleNamespace(id="d", name="D", next_id="broken", sure_id="a"),
}


async def rows(keys: list[str]) -> list[Any]:
    READS.append(("rows", keys, ()))
    return [RuntimeError("unreadable") if key == "broken" else STORED.get(key) for key in keys]


async def pages(parents: Sequence[str], page: PageRequest, step: int) -> Mapping[str, Any]:
    READS.append(("pages", list(parents), (page.limit, step)))
    if page.cursor is not None:
        raise Refusal(ErrorCode.INVALID_INPUT, "not a cursor")
    items = [STORED["a"], STORED["b"], STORED["c"]][: page.limit][::step]
    full = Slice(items, [row.id for row in items], has_next=True, has_previous=False)
    refusal = Refusal(ErrorCode.NOT_FOUND, "no page")
    return {parent: {"b": Slice([], [], False, False), "d": refusal}.get(parent, full) for parent in parents}


async def counts(parents: Sequence[str], step: int) -> Mapping[str, Any]:
    READS.append(("counts", list(parents), (step,)))
    return {parent: Refusal(ErrorCode.NOT_FOUND, "no count") if parent == "c" else 3 for parent in parents}


class Loaders:
    """Those of one operation."""

    def __init__(self) -> None:
        self.rows: Loader[str, Any] = Loader(rows)
        self.pages: PageLoader[Slice[Any]] = PageLoader(pages)
        self.counts: PageLoader[int] = PageLoader(counts)


@strawberry.type
class Item(FromRow):
    name: str
    raw: strawberry.Private[str]

    @to_one("The next.", of="next_id")
    @staticmethod
    def next(loaders: Loaders) -> One["Item"]:
        return One(loaders.rows, Item.of)

    @to_one("Never null.", of="sure_id", missing="the item")
    @staticmethod
    def sure(loaders: Loaders) -> One["Item"]:
        return One(loaders.rows, Item.of)

    @to_one("With a class method of its own.", of="next_id")
    @staticmethod
    def counted(loaders: Loaders) -> One["Counted"]:
        return One(loaders.rows, Counted.of)

    @to_many("Some.", of="raw")
    @staticmethod
    def others(loaders: Loaders, step: int = 1) -> Many["Item"]:
        if step < 1:
            raise Refusal(ErrorCode.INVALID_INPUT, "a step is 1 or more")
        return Many(loaders.pages, loaders.counts, Item.of, (step,))

    FROM_ROW: ClassVar[RowFields] = {"raw": Column("id")}


@strawberry.type
class Counted(FromRow):
    name: str

    @classmethod
    def of(cls, row: Any) -> "Counted":
        CREATED.append(row.id)
        return super().of(row)


@strawberry.type
class Query:
    @strawberry.field
    def items(self) -> list[Item | None]:
        return [Item.of(row) for row in STORED.values()]


SCHEMA = strawberry.Schema(Query, config=CONFIG, execution_context_class=CompiledExecution)
PLAIN = strawberry.Schema(Query, config=CONFIG)


async def execute(schema: strawberry.Schema, document: str) -> tuple[Any, list[tuple[str, Any]]]:
    READS.clear()
    context = SimpleNamespace(loaders=Loaders(), services=SimpleNamespace(metrics=Metrics()))
    result = await schema.execute(document, context_value=context)
    errors = [(error.message, error.path) for error in result.errors or ()]
    return getattr(result, "data", None), sorted(errors, key=str)


@pytest.mark.parametrize(
    "fields",
    [
        "next { name }",
        "raw: __typename next { n: __typename next { name } }",
        "sure { name }",
        "sure { sure { __typename } }",
        "counted { name }",
        "others { nodes { name } }",
        "others(first: 2) { __typename b: nodes { name } a: nodes { __typename } }",
        "others(first: 0) { nodes { name } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } }",
        "others(step: 2) { edges { cursor node { name next { name } } } totalCount pageInfo { endCursor } }",
        "others { totalCount __typename }",
        "others { ... on ItemConnection { nodes { ...F } } } ",
        'others(after: "x") { nodes { name } }',
        'others(after: "x") { totalCount }',
        'others(after: "x") { ... { totalCount } }',
        'others(after: "x") { __typename ... { totalCount @include(if: false) } }',
        'others(after: "x") { totalCount nodes @skip(if: true) { name } }',
        "others(step: 0) { nodes { name } }",
        "others(first: 501) { nodes { name } }",
        'others(first: 1, before: "x") { nodes { name } }',
        "others(first: 2) { pageInfo { endCursor } c: totalCount kind: __typename nodes { name } }",
        "a: others(first: 1) { nodes { name } } b: others(first: 1) { totalCount nodes { name } }",
    ],
)
async def test_answers_are_those_of_resolvers(fields: str) -> None:
    document = f"{{ items {{ {fields} }} }}" + (" fragment F on Item { name }" if "...F" in fields else "")
    data, errors = await execute(SCHEMA, document)
    expected, expected_errors = await execute(PLAIN, document)
    assert json.dumps(data) == json.dumps(expected)
    assert errors == expected_errors


async def test_answers_of_many_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other requests may run after each part of them."""
    document = "{ items { next { name } others(first: 2) { totalCount nodes { name } } } }"
    expected = await execute(PLAIN, document)
    monkeypatch.setattr(related, "PART", 3)
    assert await execute(SCHEMA, document) == expected


async def test_what_is_missing() -> None:
    """By exact values: resolvers and relations share this code."""
    data, errors = await execute(SCHEMA, "{ items { raw: __typename sure { name } } }")
    assert data == {
        "items": [{"raw": "Item", "sure": {"name": "B"}}, None, *[{"raw": "Item", "sure": {"name": "A"}}] * 2]
    }
    assert errors == [("the item (gone) is gone", ["items", 1, "sure"])]
    data, errors = await execute(SCHEMA, "{ items { next { name } } }")
    assert data == {"items": [{"next": {"name": "B"}}, {"next": None}, {"next": None}, {"next": None}]}
    assert errors == [("unreadable", ["items", 3, "next"])]
    data, _ = await execute(SCHEMA, "{ items { others(first: 2) { edges { node { name } } } } }")
    assert data["items"][0] == {"others": {"edges": [{"node": {"name": "A"}}, {"node": {"name": "B"}}]}}
    assert data["items"][1] == {"others": {"edges": []}}


async def test_one_read_for_all_objects_of_a_level() -> None:
    await execute(SCHEMA, "{ items { next { name } a: next { name } sure { name } } }")
    assert READS == [("rows", ["b", "gone", "broken", "a"], ())]
    await execute(
        SCHEMA,
        "{ items { others(first: 1) { nodes { name } } b: others(first: 1) { totalCount nodes { name } } } }",
    )
    assert READS == [("pages", ["a", "b", "c", "d"], (1, 1)), ("counts", ["a", "b", "c", "d"], (1,))]
    # What an earlier level has read is not read again.
    await execute(SCHEMA, "{ items { sure { sure { sure { name } } } } }")
    assert READS == [("rows", ["b", "gone", "a"], ())]
    await execute(SCHEMA, "{ items { others { totalCount nodes { others { totalCount } } } } }")
    assert [name for name, _, _ in READS] == ["pages", "counts"]
    await execute(SCHEMA, "{ items { others { totalCount } } }")
    assert READS == [("counts", ["a", "b", "c", "d"], (1,))]
    await execute(SCHEMA, "{ items { others { totalCount __typename } } }")
    assert READS == [("counts", ["a", "b", "c", "d"], (1,))]


async def test_rows_are_written_without_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """But where a class creates its objects in its own way."""
    CREATED.clear()
    await execute(SCHEMA, "{ items { counted { name } } }")
    assert CREATED == ["b"]

    def create(class_: type[Item]) -> Item:
        CREATED.append(class_.__name__)
        return object.__new__(class_)

    monkeypatch.setattr(Item, "__new__", create)
    data, _ = await execute(SCHEMA, "{ items { others(first: 2) { nodes { name } } next { raw: name } } }")
    assert data["items"][0] == {"others": {"nodes": [{"name": "A"}, {"name": "B"}]}, "next": {"raw": "B"}}
    assert ["b", *["Item"] * len(STORED)] == CREATED


def test_plain_connections_of_objects_are_relations() -> None:
    """A connection that is resolved for each object has a reason to be."""
    schema = build_schema(Limits())._schema
    resolved = {
        f"{type_.name}.{name}"
        for type_ in schema.type_map.values()
        if isinstance(type_, GraphQLObjectType) and type_.name not in {"Query", "Mutation", "Subscription"}
        for name, field in type_.fields.items()
        if get_named_type(field.type).name.endswith("Connection")
        if (way := direct(field)) is not None and way.relation is None
    }
    assert resolved == {
        "Audience.members",  # may be evaluated
        "Comparison.entering", "Comparison.leaving", "Preview.profiles",  # read no database
        "Profile.events", "Profile.memberships",  # by the loaders of their own merge rule
    }  # fmt: skip
