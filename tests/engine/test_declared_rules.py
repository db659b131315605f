"""What a declared JSON Schema demands of values is held row by row, in every format, at every depth."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.ingest.declared import dataset_schema, declare
from app.engine.ingest.rows import Ingested, NoGoodRows
from app.engine.store.json_schema import declared
from app.engine.store.schema_writer import json_schema
from app.errors import Refusals
from app.json_values import JsonObject
from app.pql.schema import IDENTITY_MAP, SEGMENT_MEMBERSHIP, ArrayType, MapType, ObjectType, Scalar
from tests.engine.test_ingest import types
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox

FORMATS = ("CSV", "NDJSON", "PARQUET")


def take(sandbox: Sandbox, format: str, values: list[Any], dataset: str = "p") -> Ingested:
    """A record for each value, of the people 0, 1, …; one of the column `a`."""
    if format == "CSV":
        text = "id,a\n" + "".join(f"{at},{'' if value is None else value}\n" for at, value in enumerate(values))
        return sandbox.csv(dataset, PEOPLE, text)
    rows = [{"id": str(at), "a": value} for at, value in enumerate(values)]
    if format == "NDJSON":
        return sandbox.rows(dataset, PEOPLE, rows)
    path = sandbox.folder / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return sandbox.take(dataset, PEOPLE, path.read_bytes(), "PARQUET")


RULES: list[tuple[dict[str, Any], list[Any], list[Any], str]] = [
    ({"type": "string", "enum": ["new", "old", None]}, ["new", "old"], ["New", "x"], "is not one of new, old, None"),
    ({"type": "integer", "enum": [1, 2]}, [1, 2], [3, 10], "is not one of 1, 2"),
    ({"type": "string", "const": "a"}, ["a"], ["b", "A"], "is not a"),
    ({"type": "number", "minimum": 0.5}, [0.5, 1.5], [0.25, -1.5], "is below 0.5"),
    ({"type": "integer", "minimum": 0.5}, [1, 2], [0, -5], "is below 0.5"),
    ({"type": "integer", "maximum": 2**53}, [2**53, 5], [2**53 + 1, 2**60], f"is above {2**53}"),
    ({"type": "number", "exclusiveMinimum": 0}, [0.1, 0.2], [0.0, -0.1], "is not above 0"),
    ({"type": "integer", "exclusiveMaximum": 5}, [4, 3], [5, 6], "is not below 5"),
    ({"type": "number", "multipleOf": 0.01}, [19.99, 0.07], [0.125, 1.001], "is no multiple of 0.01"),
    ({"type": "integer", "multipleOf": 5}, [5, 10], [4, 1], "is no multiple of 5"),
    ({"type": "string", "pattern": "^[A-Z]{2}$"}, ["DE", "US"], ["de", "USA"], "does not match the pattern ^[A-Z]{2}$"),
    ({"type": "string", "pattern": "b"}, ["abc", "b"], ["ac", "B"], "does not match the pattern b"),
    ({"type": "string", "minLength": 2}, ["ab", "éé"], ["a", "é"], "is shorter than 2 characters"),
    ({"type": "string", "maxLength": 2}, ["ab", "éé"], ["abc", "ééé"], "is longer than 2 characters"),
    ({"type": "string", "format": "email"}, ["a@b.c", "x+y@z"], ["a b@c", "ab"], "is not an email address"),
    (
        {"type": "string", "format": "uuid"},
        ["123e4567-e89b-12d3-a456-426614174000"],
        ["123e4567", "g23e4567-e89b-12d3-a456-426614174000"],
        "is not a UUID",
    ),
    (
        {"type": "string", "format": "ipv4"},
        ["10.0.0.255", "1.2.3.4"],
        ["10.0.0.256", "1.2.3"],
        "is not an IPv4 address",
    ),
    ({"type": "string", "format": "uri"}, ["https://a.b/c", "urn:x"], ["a b", "/x"], "is not a URI"),
    ({"allOf": [{"type": "number"}, {"maximum": 5}, {"minimum": 1}]}, [1.5, 5.0], [0.5, 5.5], ""),
    ({"$ref": "#/$defs/small"}, [1, 2], [8, 9], "is above 7"),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("rule", RULES, ids=[json.dumps(rule[0])[:60] for rule in RULES])
def test_a_rule_rejects_those_rows_that_break_it(sandbox: Sandbox, format: str, rule: Any) -> None:
    schema, good, bad, message = rule
    whole = {"properties": {"a": schema}, "$defs": {"small": {"type": "integer", "maximum": 7}}}
    declare(sandbox.lake, "p", PEOPLE, whole)
    done = take(sandbox, format, [good[0], *bad, *good, None])
    assert (done.row_count, done.rejected_rows) == (len(good) + 2, len(bad)), done.rejected
    assert [row.row for row in done.rejected] == [2 + at for at in range(len(bad))]
    assert all(f'a: "{value}" {message}' in row.message for row, value in zip(done.rejected, bad, strict=True))


def test_required_values(sandbox: Sandbox) -> None:
    part: JsonObject = {
        "type": "object",
        "required": ["x"],
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    }
    free: JsonObject = {"type": ["string", "null"]}
    properties: JsonObject = {
        "a": {"type": "string"},
        "free": free,
        "part": part,
        "list": {"type": "array", "items": part},
    }
    declare(sandbox.lake, "p", PEOPLE, {"required": ["a", "free", "id"], "properties": properties})
    rows: list[dict[str, Any]] = [
        {"id": "0", "a": "v"},
        {"id": "1"},
        {"id": "2", "a": None},
        {"id": "3", "a": "v", "part": {"y": 1}},
        {"id": "4", "a": "v", "part": {"x": 1}, "list": [{"x": 1}, None]},
        {"id": "5", "a": "v", "list": [{"x": 1}, {"y": 2}]},
    ]
    done = sandbox.rows("p", PEOPLE, rows)
    assert [(row.row, row.message) for row in done.rejected] == [
        (2, "a: a value is required"),
        (3, "a: a value is required"),
        (4, "part.x: a value is required"),
        (6, "list.x: a value is required"),
    ]
    with pytest.raises(NoGoodRows, match="none of the 1 rows can be used; row 1: a: a value is required"):
        sandbox.csv("p", PEOPLE, "id,other\n1,2\n")


def test_events_need_their_time_and_id_by_other_names(sandbox: Sandbox) -> None:
    schema: JsonObject = {
        "required": ["_id", "timestamp"],
        "properties": {"_id": {"type": "string"}, "n": {"type": "integer"}},
    }
    declare(sandbox.lake, "e", EVENTS, schema)
    text = "id,timestamp,_id,n\n1,2026-01-01,a,1\n2,2026-01-01,,1\n3,,c,1\n"
    done = sandbox.csv("e", EVENTS, text)
    assert [(row.row, row.message) for row in done.rejected] == [
        (2, "_id: a value is required"),
        (3, "timestamp: the time is missing"),
    ]


def test_rules_hold_inside_of_lists_and_maps(sandbox: Sandbox) -> None:
    size: JsonObject = {"type": "integer", "minimum": 1}
    tag: JsonObject = {"type": "string", "enum": ["a", "b"]}
    schema: JsonObject = {
        "properties": {
            "tags": {"type": "array", "items": tag, "maxItems": 3, "uniqueItems": True},
            "limits": {"type": "object", "additionalProperties": size},
            "orders": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "object", "properties": {"lines": {"type": "array", "items": size}}},
            },
        }
    }
    declare(sandbox.lake, "p", PEOPLE, schema)
    rows: list[dict[str, Any]] = [
        {"id": "0", "tags": ["a", "b", None], "limits": {"x": 1, "y": None}, "orders": [{"lines": [1, 2]}]},
        {"id": "1", "tags": ["a", "c"]},
        {"id": "2", "limits": {"x": 1, "y": 0}},
        {"id": "3", "orders": [{"lines": [1]}, {"lines": None}, {"lines": [5, -1]}]},
        {"id": "4", "orders": []},
        {"id": "5", "tags": ["a", "a"]},
        {"id": "6", "tags": ["a", "b", "a", "b"]},
        {"id": "7", "tags": [], "limits": {}, "orders": None},
    ]
    done = sandbox.rows("p", PEOPLE, rows)
    assert [(row.row, row.message) for row in done.rejected] == [
        (2, 'tags: "c" is not one of a, b'),
        (3, 'limits: "0" is below 1'),
        (4, 'orders.lines: "-1" is below 1'),
        (5, 'orders: "[]" has fewer than 1 elements'),
        (6, 'tags: "[a, a]" has an element twice'),
        (7, 'tags: "[a, b, a, b]" has more than 3 elements'),
    ]


@pytest.mark.parametrize("format", ["NDJSON", "PARQUET"])
def test_a_misfit_inside_of_a_declared_object_or_list_rejects_the_row_alone(sandbox: Sandbox, format: str) -> None:
    inner: JsonObject = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "l": {"type": "array", "items": {"type": "integer"}}},
    }
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"o": inner}})
    rows = [
        {"id": "0", "o": {"n": 1.5, "l": [1.0]}},
        {"id": "1", "o": {"n": 2.0, "l": [2.0]}},
        {"id": "2", "o": {"n": 3.0, "l": [1.0, 0.5]}},
    ]
    if format == "NDJSON":
        done = sandbox.rows("p", PEOPLE, rows)
    else:
        path = sandbox.folder / "o.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        done = sandbox.take("p", PEOPLE, path.read_bytes(), "PARQUET")
    assert (done.row_count, [row.row for row in done.rejected]) == (1, [1, 3])
    assert types(sandbox, "p") == {"o.n": "integer", "o.l": "array<integer>", "id": "string"}


def test_references_and_parts_are_one_schema() -> None:
    schema: JsonObject = {
        "$id": "https://ns.example.com/profile",
        "title": "Profile",
        "description": "A person.",
        "version": "1.2",
        "type": "object",
        "meta:extends": ["https://ns.example.com/base"],
        "meta:xdmType": "object",
        "definitions": {
            "address": {"type": "object", "properties": {"zip": {"type": "string", "maxLength": 5}}},
            "custom": {"properties": {"home": {"$ref": "#/definitions/address"}, "tags": {"$ref": "#/$defs/a~1b"}}},
        },
        "$defs": {"a/b": {"type": "array", "items": {"type": "string"}, "maxItems": 3}},
        "allOf": [
            {"$ref": "#/definitions/custom", "meta:xdmType": "object"},
            {
                "properties": {"home": {"type": "object", "properties": {"city": {"type": "string"}}}},
                "required": ["tags"],
            },
            {"properties": {"prefs": {"additionalProperties": {"type": "boolean", "default": True}}}},
        ],
    }
    found = declared(schema)
    assert found.fields == ObjectType(
        {
            "home": ObjectType({"zip": Scalar.STRING, "city": Scalar.STRING}),
            "tags": ArrayType(Scalar.STRING),
            "prefs": MapType(Scalar.BOOLEAN),
        }
    )
    assert {(".".join(rule.path), rule.keyword, rule.value) for rule in found.rules} == {
        ("home.zip", "maxLength", 5),
        ("tags", "maxItems", 3),
        ("", "required", "tags"),
    }
    written = json_schema(found.fields, found.rules)
    home = {"type": "object", "properties": {"zip": {"type": "string", "maxLength": 5}, "city": {"type": "string"}}}
    assert written["properties"] == {
        "home": home,
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        "prefs": {"type": "object", "additionalProperties": {"type": "boolean"}},
    }
    assert written["required"] == ["tags"]
    again = declared(written)
    assert (again.fields, set(again.rules)) == (found.fields, set(found.rules)), "what is shown can be declared again"


LOOP = {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}}}}
BOMB: dict[str, Any] = {
    "properties": {"a": {"$ref": "#/$defs/d0"}},
    "$defs": {
        **{f"d{n}": {"properties": {k: {"$ref": f"#/$defs/d{n + 1}"} for k in "ab"}} for n in range(25)},
        "d25": {"type": "string"},
    },
}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (LOOP, "'#/$defs/n' contains itself"),
        (BOMB, "the schema has more than 30,000 places"),
        (
            {"properties": {"a": {"$ref": "#/$defs/x"}}},
            "schema/properties/a/$ref: there is no '#/$defs/x' in the schema",
        ),
        ({"properties": {"a": {"$ref": "https://x.y/z"}}}, "'https://x.y/z' is another document, and none is fetched"),
        ({"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": 5, "type": "array"}]}, "schema/allOf/1"),
        (
            {"allOf": [{"type": "string"}, {"type": "integer"}]},
            "schema: its parts declare different types: string, integer",
        ),
        ({"properties": {"a": {"type": "string", "minimum": 1}}}, "`minimum` does not apply to the type string"),
        (
            {"properties": {"a": {"type": "string", "pattern": "(?=x)"}}},
            "a/pattern: `pattern` must be a regular expression",
        ),
        ({"properties": {"a": {"type": "string", "minLength": -1}}}, "`minLength` must be a whole number"),
        ({"properties": {"a": {"type": "number", "maximum": "5"}}}, "`maximum` must be a number"),
        ({"properties": {"a": {"type": "string", "enum": []}}}, "`enum` must be a list of values"),
        ({"required": "a", "properties": {"a": {"type": "string"}}}, "`required` must be a list of names"),
        ({"properties": {"a": {"minimum": 5}}}, "schema/properties/a/type: `type` must be one of"),
        ({"properties": {"a": {"not": {"type": "string"}}}}, "the keyword 'not' is not supported"),
        (
            {"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}}},
            "a/anyOf: one column cannot hold alternatives of different types: string, array<string>",
        ),
        (
            {"properties": {"a": {"oneOf": [{"type": "string"}, {"minLength": 2}]}}},
            "a/oneOf: one column cannot hold alternatives of different types: string, none",
        ),
        (
            {"properties": {"a": {"oneOf": [{"type": "integer", "minimum": 9}, {"type": "integer", "maximum": 1}]}}},
            "a/oneOf: rules cannot differ between alternatives (maximum, minimum)",
        ),
        (
            {"properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            "schema/anyOf: rules cannot differ between alternatives (required)",
        ),
        ({"properties": {"a": {"oneOf": []}}}, "a/oneOf: `oneOf` must be a list of schemas"),
        ({"properties": {"a": {"oneOf": {"type": "string"}}}}, "a/oneOf: `oneOf` must be a list of schemas"),
        ({"properties": {"a": {"oneOf": [{"type": "null"}]}}}, "a/oneOf: at least one alternative must be another"),
        ({"properties": {"a": {"anyOf": [{"type": "string", "nonsense": 1}]}}}, "a/anyOf/0/nonsense: the keyword"),
        ({"properties": {"a": {"type": "string", "nullable": "yes"}}}, "`nullable` must be true or false"),
        (
            {"properties": {"a": {"$ref": "#/$defs/t", "nullable": True}}, "$defs": {"t": {"type": "string"}}},
            '`nullable` needs `type` beside it: use `anyOf` with {"type": "null"}',
        ),
    ],
)
def test_what_cannot_be_followed_is_named(schema: Any, message: str) -> None:
    with pytest.raises(Refusals) as caught:
        declared(schema)
    assert any(message in refusal.message for refusal in caught.value.refusals)


def test_a_declaration_is_taken_back_with_what_came_with_it(sandbox: Sandbox) -> None:
    folder = sandbox.lake.dataset("p")
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"a": {"type": "integer"}}})()
    assert not folder.exists()
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"a": {"type": "integer", "minimum": 3}}})
    before = dataset_schema(sandbox.lake, "p")
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"b": {"type": "string"}}})()
    assert dataset_schema(sandbox.lake, "p") == before
    assert before["properties"] == {"a": {"type": "integer", "minimum": 3}}
    assert take(sandbox, "CSV", [5, 2]).rejected_rows == 1


def test_the_maps_of_an_xdm_profile_keep_their_types() -> None:
    entry: JsonObject = {"type": "object", "properties": {"id": {"type": "string"}, "xdm:label": {"type": "string"}}}
    identities: JsonObject = {"type": "object", "additionalProperties": {"type": "array", "items": entry}}
    schema: JsonObject = {
        "properties": {"identityMap": identities, "segmentMembership": {"additionalProperties": entry}}
    }
    assert dict(declared(schema).fields.fields) == {
        "identityMap": IDENTITY_MAP, "segmentMembership": SEGMENT_MEMBERSHIP,
    }  # fmt: skip


TEXT: JsonObject = {"type": "string"}
NULL: JsonObject = {"type": "null"}


@pytest.mark.parametrize("keyword", ["oneOf", "anyOf"])
@pytest.mark.parametrize(
    ("alternatives", "type_"),
    [
        ([NULL, TEXT], Scalar.STRING),
        ([TEXT], Scalar.STRING),
        ([{"type": "integer"}, {"type": "number"}], Scalar.NUMBER),
        ([{"type": "number"}, {"type": "integer"}, NULL], Scalar.NUMBER),
        ([{**TEXT, "format": "date"}, {**TEXT, "format": "date-time"}], Scalar.TIMESTAMP),
        ([{"$ref": "#/$defs/named"}, {"const": None}], ObjectType({"n": Scalar.STRING})),
        (
            [{"$ref": "#/$defs/named"}, {"properties": {"m": {"type": "integer"}, "n": TEXT}}],
            ObjectType({"n": Scalar.STRING, "m": Scalar.INTEGER}),
        ),
        (
            [{"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": {"type": "number"}}],
            ArrayType(Scalar.NUMBER),
        ),
        ([{"anyOf": [NULL, {"type": "object", "additionalProperties": TEXT}]}, NULL], MapType(Scalar.STRING)),
    ],
)
def test_alternatives_that_one_column_holds(keyword: str, alternatives: list[Any], type_: Any) -> None:
    named: JsonObject = {"type": "object", "properties": {"n": TEXT}, "x-order": 1, "discriminator": {}}
    schema: JsonObject = {"properties": {"a": {keyword: alternatives}}, "$defs": {"named": named}}
    assert declared(schema).fields == ObjectType({"a": type_})


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "schema",
    [
        {**TEXT, "oneOf": [{"const": "a", "title": "A"}, {"const": "b", "title": "B"}]},
        {"anyOf": [{**TEXT, "enum": ["a"]}, {**TEXT, "const": "b"}, NULL]},
    ],
)
def test_listed_values_of_alternatives_are_one_list(sandbox: Sandbox, format: str, schema: Any) -> None:
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"a": schema}})
    assert [(row.row, row.message) for row in take(sandbox, format, ["a", "b", "c", None]).rejected] == [
        (3, 'a: "c" is not one of a, b')
    ]


@pytest.mark.parametrize(
    "nullable", [{"anyOf": [TEXT, NULL]}, {**TEXT, "nullable": True}, {"type": ["null", "string"]}]
)
def test_what_may_be_null_is_not_required(sandbox: Sandbox, nullable: Any) -> None:
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"a": nullable, "b": TEXT}, "required": ["a", "b"]})
    rows: list[dict[str, Any]] = [{"id": "1", "a": None, "b": "x"}, {"id": "2", "a": "x"}]
    assert [(row.row, row.message) for row in sandbox.rows("p", PEOPLE, rows).rejected] == [
        (2, "b: a value is required")
    ]


def test_rules_that_all_alternatives_share_are_held(sandbox: Sandbox) -> None:
    shared = {"minimum": 1}
    schema: JsonObject = {"anyOf": [{"type": "integer", **shared}, {"type": "number", **shared}]}
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"a": schema}})
    done = take(sandbox, "NDJSON", [1, 1.5, 0.5])
    assert [(row.row, row.message) for row in done.rejected] == [(3, 'a: "0.5" is below 1')]


FIELD: Any = {"type": "integer"}
COUNTED: Any = {**FIELD, "format": "epoch"}
IDLE: list[tuple[Any, str]] = [
    (
        {**FIELD, "format": "date-time"},
        "a/format: the format date-time applies to the type string, not integer: use epoch",
    ),
    ({"type": "number", "format": "date"}, "a/format: the format date applies to the type string, not number: use"),
    (
        {"type": "boolean", "format": "epoch"},
        "the format epoch applies to the type integer or number or string, not boo",
    ),
    (
        {"type": "array", "items": FIELD, "format": "epoch_ms"},
        "the format epoch_ms applies to the type integer or numb",
    ),
    ({"type": "object", "additionalProperties": FIELD, "format": "uuid"}, "the format uuid applies to the type string"),
    ({"allOf": [FIELD, {"format": "epoch"}]}, "a/allOf/1/format: `format` needs `type` beside it"),
    ({"$ref": "#/$defs/text", "format": "date"}, "a/format: `format` needs `type` beside it"),
    (
        {"allOf": [{"type": "array", "items": FIELD}, {"items": FIELD}]},
        "a/allOf/1/items: `items` needs `type` beside it",
    ),
    ({"allOf": [COUNTED, {**FIELD, "format": "epoch_ms"}]}, "a: its parts count from 1970 in different ways"),
]


@pytest.mark.parametrize(("field", "message"), IDLE)
def test_formats_without_effect_are_refused_but_in_stored_schemas(field: Any, message: str) -> None:
    schema: Any = {"properties": {"a": field}, "$defs": {"text": {"type": "string"}}}
    with pytest.raises(Refusals) as refused:
        declared(schema)
    assert message in refused.value.refusals[0].message
    assert declared(schema, is_stored=True).fields.fields.keys() == {"a"}


@pytest.mark.parametrize("parts", [[{**FIELD, "format": "int64"}, {"format": "hostname"}], [COUNTED, COUNTED]])
def test_formats_that_are_annotations_or_agree_are_accepted(parts: list[Any]) -> None:
    assert declared({"properties": {"a": {"allOf": parts}}}).fields.fields.keys() == {"a"}


def test_an_anchor_is_not_followed() -> None:
    with pytest.raises(Refusals, match="'#text' is an anchor, and none is followed: refer to a place"):
        declared({"properties": {"a": {"$ref": "#text"}}, "$defs": {"text": {"type": "string", "$anchor": "text"}}})
