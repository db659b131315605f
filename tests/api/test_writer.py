"""Plain fields are written by generated functions, and as graphql-core writes them also where a value is odd."""

from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import strawberry

from app.api.context.metrics import Metrics
from app.api.execution import CompiledExecution
from app.api.execution.from_row import Column, FromRow, RowFields
from app.api.execution.writer import writer_for
from app.api.scalars import CONFIG, BigInt
from tests.api.conftest import Api
from tests.api.test_execution import both, same
from tests.support.databases import count_statements

START = datetime(2026, 1, 1, tzinfo=UTC)


@strawberry.enum
class Colour(Enum):
    RED = "red"


@strawberry.type
class Part(FromRow):
    share: float


@strawberry.type
class Item(FromRow):
    name: str
    size: int
    count: BigInt
    at: datetime
    colour: Colour
    labels: list[str]
    known: bool | None
    part: Part

    FROM_ROW: ClassVar[RowFields] = {
        "name": Column("title"),
        "colour": Column("colour", Colour),
        "part": Part.of,
    }


USUAL: dict[str, Any] = {
    "title": "a", "size": 1, "count": 2**40, "at": START, "colour": "red", "labels": ["x"], "known": None, "share": 0.5,
}  # fmt: skip
ROWS: list[SimpleNamespace] = []


@strawberry.type
class Query:
    @strawberry.field
    def items(self) -> list[Item | None]:
        return [Item.of(row) for row in ROWS]

    @strawberry.field
    def sure(self) -> list[Item]:
        return [Item.of(row) for row in ROWS]


SCHEMA = strawberry.Schema(Query, config=CONFIG, execution_context_class=CompiledExecution)
SELECTED = """{ __typename title: name size count at colour labels known part { __typename share } }"""


async def execute(document: str) -> tuple[Any, list[tuple[str, Any]]]:
    result = await SCHEMA.execute(document, context_value=SimpleNamespace(services=SimpleNamespace(metrics=Metrics())))
    errors = [(error.message, error.path) for error in result.errors or ()]
    return getattr(result, "data", None), sorted(errors, key=str)


@pytest.mark.parametrize("list_", ["items", "sure"])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("title", "b"),
        ("title", None),
        ("title", 7),
        ("size", 2**31),
        ("size", -(2**31)),
        ("size", True),
        ("size", 1.0),
        ("size", 1.5),
        ("count", -(2**60)),
        ("count", "12"),
        ("at", None),
        ("at", START + timedelta(microseconds=1)),
        ("at", START.astimezone(timezone(timedelta(hours=2)))),
        ("colour", "blue"),
        ("colour", None),
        ("labels", []),
        ("labels", ["x", None]),
        ("labels", None),
        ("labels", 7),
        ("known", False),
        ("known", "no"),
        ("share", float("nan")),
        ("share", float("inf")),
        ("share", 1),
        ("share", None),
    ],
)
async def test_odd_values(monkeypatch: pytest.MonkeyPatch, column: str, value: object, list_: str) -> None:
    monkeypatch.setattr(
        "tests.api.test_writer.ROWS",
        [SimpleNamespace(**USUAL), SimpleNamespace(**{**USUAL, column: value}), SimpleNamespace(**USUAL)],
    )
    document = f"{{ {list_} {SELECTED} }}"
    compiled = await execute(document)
    plain = strawberry.Schema(Query, config=CONFIG)
    result = await plain.execute(document)
    errors = [(error.message, error.path) for error in result.errors or ()]
    assert compiled == (getattr(result, "data", None), sorted(errors, key=str))


async def test_a_row_without_a_column_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    row = SimpleNamespace(**USUAL)
    del row.size
    monkeypatch.setattr("tests.api.test_writer.ROWS", [row])
    data, errors = await execute("{ items { size name } }")
    assert data == {"items": [None]}
    assert [path for _, path in errors] == [["items", 0, "size"]]


def test_objects_of_several_classes_have_no_writer() -> None:
    objects = [Item.of(SimpleNamespace()), Part.of(SimpleNamespace())]
    assert writer_for(Any, objects, Any) is None  # type: ignore[arg-type]
    assert writer_for(Any, [Item.of(SimpleNamespace()), Item.of(7)], Any) is None  # type: ignore[arg-type]


LISTS = ("audiences", "segmentDefinitions", "schedules", "segmentJobs", "exportJobs")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_page_has_the_columns_of_each_field_alone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.loaded()
    await api.define("One")
    await api.start()
    await api.query(
        """mutation { createSchedule(input: { name: "S", cronExpression: "0 0 2 * * ?", allAudiences: true }) {
          errors { message } } }"""
    )
    for list_ in LISTS:
        kind = (await api.query(f"{{ {list_} {{ nodes {{ __typename }} }} }}"))[list_]["nodes"]
        names = await api.query(
            "query ($name: String!) { __type(name: $name) { fields { name type { kind ofType { kind } } } } }",
            name=kind[0]["__typename"] if kind else "ExportJob",
        )
        for field in names["__type"]["fields"]:
            kinds = {field["type"]["kind"], (field["type"]["ofType"] or {}).get("kind")}
            below = "" if kinds & {"SCALAR", "ENUM"} and "OBJECT" not in kinds else " { __typename }"
            for shape in ("nodes {{ {} }}", "edges {{ cursor node {{ {} }} }}", "totalCount nodes {{ {} }}"):
                document = f"{{ {list_} {{ {shape.format(field['name'] + below)} }} }}"
                compiled, plain = await both(api, monkeypatch, document)
                assert same(compiled, plain), document


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_page_reads_no_other_columns(api: Api) -> None:
    """The sort keys only if cursors are selected, or nothing else is."""
    await api.loaded()
    await api.define("One")
    keys = "audience.created_at AS page_key_0, audience.id AS page_key_1"
    for selected, columns in {
        "nodes { name etag }": "audience.name, audience.revision",
        "nodes { name } totalCount": "audience.name",
        "nodes { __typename }": keys,
        "nodes { name } edges { node { etag } }": f"audience.name, audience.revision, {keys}",
        "nodes { name } pageInfo { endCursor }": f"audience.name, {keys}",
    }.items():
        for _ in range(2):
            with count_statements(api.services.database) as statements:
                await api.query(f"{{ audiences {{ {selected} }} }}")
        assert next(each for each in statements if "count(" not in each).split(" \nFROM")[0] == f"SELECT {columns}"
