"""Fields of a dataset in numbers, through the API."""

import json
from typing import Any

import pytest

from app.services.insight.fields import MOST_FIELDS
from tests.api.conftest import Api

QUERY = """query ($id: ID!, $paths: [String!], $values: Int) { dataset(id: $id) {
  fieldStatistics(paths: $paths, values: $values) {
    path type rows filled fillRate distinct values { value count } approximate } } }"""
ROWS = b"""{"customer": "1", "when": "2026-01-01", "kind": "view", "basket": [{"sku": "a"}, {"sku": "b"}, {"sku": "b"}]}
{"customer": "2", "when": "2026-01-02", "kind": "buy", "dollars": 12.5}
{"customer": "2", "when": "2026-01-03", "kind": "view", "paid": true}
{"customer": "3", "when": "2026-01-03"}
"""


@pytest.fixture
async def dataset(api: Api) -> str:
    id_ = await api.dataset()
    response = await api.upload(id_, ROWS, "NDJSON")
    assert response.json()["data"]["uploadBatch"]["errors"] == []
    return id_


def field(path: str, type_: str, filled: int, values: dict[Any, int]) -> dict[str, Any]:
    return {
        "path": f"xEvent.{path}",
        "type": type_,
        "rows": 4,
        "filled": filled,
        "fillRate": filled / 4,
        "distinct": len(values),
        "values": [{"value": value, "count": count} for value, count in values.items()],
        "approximate": False,
    }


async def test_every_field_in_numbers(api: Api, dataset: str) -> None:
    answer = await api.query(QUERY, id=dataset)
    times = {"2026-01-03T00:00:00Z": 2, "2026-01-01T00:00:00Z": 1, "2026-01-02T00:00:00Z": 1}
    assert {each["path"]: each for each in answer["dataset"]["fieldStatistics"]} == {
        each["path"]: each
        for each in [
            field("timestamp", "timestamp", 4, times),
            field("customer", "string", 4, {"2": 2, "1": 1, "3": 1}),
            field("kind", "string", 3, {"view": 2, "buy": 1}),
            field("basket.sku", "string", 1, {"b": 2, "a": 1}),
            field("dollars", "number", 1, {12.5: 1}),
            field("paid", "boolean", 1, {True: 1}),
        ]
    }
    assert (await api.within("other").query(QUERY, id=dataset))["dataset"] is None


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_chosen_fields_come_in_their_order_with_so_many_values(api: Api, dataset: str) -> None:
    paths = ["xEvent.paid", "xEvent.kind", "xEvent.paid"]
    answer = await api.query(QUERY, id=dataset, paths=paths, values=1)
    assert [(each["path"], each["distinct"], each["values"]) for each in answer["dataset"]["fieldStatistics"]] == [
        ("xEvent.paid", 1, [{"value": True, "count": 1}]),
        ("xEvent.kind", 2, [{"value": "view", "count": 2}]),
        ("xEvent.paid", 1, [{"value": True, "count": 1}]),
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "code", "path", "words"),
    [
        ({"paths": ["xEvent.kid"]}, "INVALID_INPUT", ["paths", "0"], "'xEvent.kid'; did you mean `xEvent.kind`"),
        ({"paths": ["kind"]}, "INVALID_INPUT", ["paths", "0"], "no field 'kind'"),
        ({"paths": ["xEvent.basket"]}, "INVALID_INPUT", ["paths", "0"], "no field 'xEvent.basket'"),
        ({"paths": ["xEvent.kind"] * (MOST_FIELDS + 1)}, "LIMIT_EXCEEDED", ["paths"], "at most 100 are allowed"),
        ({"values": 101}, "INVALID_INPUT", ["values"], "from 0 to 100, not 101"),
        ({"values": -1}, "INVALID_INPUT", ["values"], "from 0 to 100, not -1"),
    ],
)  # fmt: skip
async def test_what_cannot_be_answered_says_why(
    api: Api, dataset: str, arguments: dict[str, Any], code: str, path: list[str], words: str
) -> None:
    (error,) = (await api.answer(QUERY, id=dataset, **arguments))["errors"]
    assert (error["extensions"]["code"], error["extensions"]["path"]) == (code, path)
    assert words in error["message"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_dataset_without_rows_has_no_fields(api: Api) -> None:
    assert (await api.query(QUERY, id=await api.dataset()))["dataset"] == {"fieldStatistics": []}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_declared_field_without_rows_has_no_rate(api: Api) -> None:
    id_ = await api.dataset()
    update = "mutation ($input: UpdateDatasetInput!) { updateDataset(input: $input) { errors { message } } }"
    schema = {"type": "object", "properties": {"kind": {"type": "string"}}}
    await api.query(update, input={"id": id_, "schema": schema})
    (answer,) = (await api.query(QUERY, id=id_, paths=["xEvent.kind"]))["dataset"]["fieldStatistics"]
    assert answer == {**field("kind", "string", 0, {}), "rows": 0, "fillRate": None}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_all_datasets_at_once_cost_too_much(api: Api) -> None:
    document = "{ datasets(first: 50) { nodes { fieldStatistics { filled } } } }"
    (error,) = (await api.answer(document))["errors"]
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"


ODD = ["Order Date", "a.b", "utm-source", "$1", "in", "select", "Today", "back`quote", "naïve", "日付", "1st", "x y.z"]
"""Names that stand in backquotes, but for two."""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", ["PROFILE", "EVENT"])
async def test_paths_stand_in_expressions_as_they_are(api: Api, kind: str) -> None:
    """A path can be an expression, a selected attribute and an argument here, whatever the names."""
    id_ = await api.dataset(kind=kind)
    row = {"customer": "1", "when": "2026-01-01", **dict.fromkeys(ODD, 7), "home": dict.fromkeys(ODD, 7)}
    response = await api.upload(id_, json.dumps(row).encode(), "NDJSON")
    assert response.json()["data"]["uploadBatch"]["errors"] == []
    fields = (await api.query("query ($id: ID!) { dataset(id: $id) { fields { path } } }", id=id_))["dataset"]["fields"]
    root = "xEvent." if kind == "EVENT" else ""
    plain = {"naïve", "日付"}
    names = [name if name in plain else "`" + name.replace("`", "``") + "`" for name in ODD]
    expected = [root + above + name for above in ("", "home.") for name in names]
    paths = [each["path"] for each in fields if each["path"] in expected]
    assert sorted(paths) == sorted(expected)
    expression = " and ".join(f"{path.removeprefix(root)} = 7" for path in paths)
    if kind == "EVENT":
        expression = f"xEvent.exists({expression}) and {' and '.join(f'{path} = 7' for path in paths)}"
    document = """query ($where: String!, $paths: [String!]) {
      profiles(where: $where) { nodes { attributes(paths: $paths) } } }"""
    (profile,) = (await api.query(document, where=expression, paths=paths))["profiles"]["nodes"]
    everything = dict.fromkeys(ODD, 7) | {"home": dict.fromkeys(ODD, 7)}
    assert profile["attributes"] == ({} if kind == "EVENT" else everything)
    answer = (await api.query(QUERY, id=id_, paths=paths))["dataset"]["fieldStatistics"]
    assert [(each["path"], each["values"]) for each in answer] == [(path, [{"value": 7, "count": 1}]) for path in paths]
