"""A batch of rows: what lands, what is rejected and what is refused."""

import io
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.ingest.batch import dataset_fields, delete_dataset, ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.formats.csv_rows import NOT_UTF8
from app.engine.ingest.identities import find, primary_identities
from app.engine.ingest.notes import committed_batch
from app.engine.ingest.rows import DatasetShape, NoGoodRows, RejectedRow
from app.engine.people.profiles import Dataset, MergeRule, Snapshot, open_snapshot
from app.engine.store.bucket import Needs
from app.engine.store.delta import open_table
from app.errors import ErrorCode, Refusal
from app.pql.schema import IDENTITY_MAP, ArrayType, MapType, ObjectType, Scalar
from app.pql.syntax.paths import leaf_paths
from tests.support.sandbox import CDNOW, EVENTS, PEOPLE, PURCHASES, Sandbox

RULE = MergeRule("default", "TIMESTAMP_ORDERED")


def snapshot(sandbox: Sandbox, *datasets: tuple[str, Any]) -> Snapshot:
    return open_snapshot(sandbox.lake, RULE, [Dataset(name, kind) for name, kind in datasets])


def stored_events(sandbox: Sandbox, person: str, dataset: str = "e") -> list[tuple[str, str, dict[str, Any]]]:
    key = find(sandbox.lake, "CRM", person)
    assert key is not None
    (page,) = snapshot(sandbox, (dataset, "EVENT")).events([key], limit=100, place=None)
    return [(event.event_id, event.timestamp.isoformat(), event.attributes) for event in page.items]


def record(sandbox: Sandbox, person: str, dataset: str = "p") -> dict[str, Any]:
    key = find(sandbox.lake, "CRM", person)
    assert key is not None
    found = snapshot(sandbox, (dataset, "PROFILE")).attributes([key], None)[0]
    return {name: value for name, value in found.items() if name != "identityMap"}


def types(sandbox: Sandbox, dataset: str) -> dict[str, str]:
    return {path: str(type_) for path, type_ in leaf_paths(dataset_fields(sandbox.lake, dataset))}


@pytest.mark.usefixtures("real_buckets")
def test_cdnow(sandbox: Sandbox) -> None:
    done = ingest(sandbox.lake, "purchases", PURCHASES, InputFile(CDNOW, "CSV"), "b1")
    assert (done.row_count, done.rejected_rows, done.new_profiles) == (69_659, 0, 23_570)
    assert types(sandbox, "purchases") == {
        "timestamp": "timestamp",
        "customer_id": "string",
        "quantity": "integer",
        "dollars": "number",
    }
    found = snapshot(sandbox, ("purchases", "EVENT"))
    assert found.total_profiles == 23_570
    assert len(found.buckets) == 16
    first = stored_events(sandbox, "00001", "purchases")
    assert [(at, attributes["customer_id"], attributes["dollars"]) for _, at, attributes in first] == [
        ("1997-01-01T00:00:00+00:00", "00001", 11.77)
    ]
    assert find(sandbox.lake, "CRM", "1") is None
    again = ingest(sandbox.lake, "purchases", PURCHASES, InputFile(CDNOW, "CSV"), "b1")
    assert again == done
    assert committed_batch(sandbox.lake, "purchases", "b1") == done
    assert committed_batch(sandbox.lake, "purchases", "b2") is None


@pytest.mark.usefixtures("real_buckets")
def test_every_table_is_a_plain_delta_table_with_a_file_for_each_touched_bucket(sandbox: Sandbox) -> None:
    ingest(sandbox.lake, "purchases", PURCHASES, InputFile(CDNOW, "CSV"), "b1")
    sandbox.csv("purchases", PURCHASES, "customer_id,date,quantity,dollars\n00001,1998-01-01,1,5\n")
    table = open_table(sandbox.lake.dataset("purchases"))
    assert table is not None
    assert len(table.files) == 17
    assert sum(file.rows for file in table.files) == 69_660
    for path in table.paths():
        rows = pq.ParquetFile(path).read(columns=["__ordinal", "timestamp", "__row"])
        assert rows.equals(rows.sort_by([(name, "ascending") for name in rows.column_names]))


def test_good_rows_land_and_bad_ones_are_told(sandbox: Sandbox) -> None:
    sandbox.csv("e", EVENTS, "id,timestamp,n\n1,2026-01-01,1\n")
    done = sandbox.csv(
        "e",
        EVENTS,
        "id,timestamp,n\n"
        '2,2026-01-01T10:00:00Z,"2"\n'
        "3,yesterday,2\n"
        "4,2026-01-01\n"
        " ,2026-01-01,2\n"
        "5,2026-01-01,two\n"
        "6,2026-01-01,2,3\n"
        "7,,2\n"
        "8,2026-01-01 10:00+02:00,2.5\n",
    )
    assert (done.row_count, done.rejected_rows) == (2, 6)
    time = "a time (ISO 8601, such as 2026-06-15 or 2026-06-15T12:00:00Z)"
    assert done.rejected == (
        RejectedRow(2, f'timestamp: "yesterday" is not {time}'),
        RejectedRow(3, "the row has fewer values than the header"),
        RejectedRow(4, "id: the identity is missing"),
        RejectedRow(5, 'n: "two" is not a number'),
        RejectedRow(6, "the row has more values than the header"),
        RejectedRow(7, "timestamp: the time is missing"),
    )
    assert stored_events(sandbox, "8")[0][1:] == (
        "2026-01-01T08:00:00+00:00",
        {"timestamp": "2026-01-01T08:00:00Z", "id": "8", "n": 2.5},
    )
    assert find(sandbox.lake, "CRM", "3") is None


def test_only_the_first_twenty_rejected_rows_are_reported(sandbox: Sandbox) -> None:
    done = sandbox.csv("e", EVENTS, "id,timestamp\n1,2026-01-01\n" + "2,never\n" * 30)
    assert (done.row_count, done.rejected_rows, len(done.rejected)) == (1, 30, 20)
    assert [row.row for row in done.rejected] == list(range(2, 22))


def test_an_open_quotation_mark_costs_its_own_row_only(sandbox: Sandbox) -> None:
    lines = ["id,timestamp,n", *(f"{n},2026-01-01,x{n}" for n in range(1, 200))]
    lines[50] = '50,2026-01-01,"open'
    done = sandbox.csv("e", EVENTS, "\n".join(lines) + "\n")
    assert (done.row_count, done.rejected_rows) == (198, 1)
    assert done.rejected == (RejectedRow(50, "a quotation mark is not closed"),)


def test_broken_text_costs_its_own_row_only(sandbox: Sandbox) -> None:
    done = sandbox.csv("e", EVENTS, b"id,timestamp,n\n1,2026-01-01,\xff\xfe\n2,2026-01-01,ok\n")
    assert done.rejected == (RejectedRow(1, NOT_UTF8),)
    assert done.row_count == 1


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        'id,timestamp,note\n00001,2026-01-01,"two\nlines, ""quoted"""\n',
        'id;timestamp;note\n00001;2026-01-01;"two\nlines, ""quoted"""\n',
        '\ufeffid\ttimestamp\tnote\r\n00001\t2026-01-01\t"two\nlines, ""quoted"""\r\n',
    ],
)
def test_dialects_of_csv(sandbox: Sandbox, text: str, packed: bool) -> None:
    done = sandbox.csv("e", EVENTS, text, packed=packed)
    assert (done.row_count, done.rejected_rows) == (1, 0)
    assert stored_events(sandbox, "00001")[0][2]["note"] == 'two\nlines, "quoted"'


def test_types_come_from_the_whole_file(sandbox: Sandbox) -> None:
    rows = "".join(f"{n},1,2026-01-01,true,2026-01-01T00:00:00Z,01234,5,,12345678901234567890\n" for n in range(5_000))
    last = "last,1.5,2026-01-02,FALSE,2026-01-02,01234,five,,1\n"
    sandbox.csv("p", PEOPLE, "id,number,day,flag,at,zip,mixed,nothing,long\n" + rows + last)
    assert types(sandbox, "p") == {
        "id": "string",
        "number": "number",
        "day": "date",
        "flag": "boolean",
        "at": "timestamp",
        "zip": "string",
        "mixed": "string",
        "long": "string",
    }
    assert record(sandbox, "last") == {
        "id": "last",
        "number": 1.5,
        "day": "2026-01-02",
        "flag": False,
        "at": "2026-01-02T00:00:00Z",
        "zip": "01234",
        "mixed": "five",
        "long": "1",
    }


def test_new_columns_widen_a_dataset_at_every_depth(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": "1", "a": {"b": 1}, "l": [{"x": "1"}]}])
    sandbox.rows("p", PEOPLE, [{"id": "2", "a": {"c": {"d": True}}, "l": [{"y": 2}], "new": "2026-01-01"}])
    assert types(sandbox, "p") == {
        "id": "string",
        "a.b": "integer",
        "a.c.d": "boolean",
        "l.x": "string",
        "l.y": "integer",
        "new": "date",
    }
    assert record(sandbox, "1") == {"id": "1", "a": {"b": 1}, "l": [{"x": "1"}]}
    assert record(sandbox, "2") == {"id": "2", "a": {"c": {"d": True}}, "l": [{"y": 2}], "new": "2026-01-01"}


def test_rows_that_contradict_the_dataset_are_rejected(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": "1", "n": 1, "o": {"x": 1}, "l": [{"d": "2026-01-01"}], "t": "x", "b": True}])
    done = sandbox.rows(
        "p",
        PEOPLE,
        [
            {"id": "2", "n": "7"},
            {"id": "3", "o": 5},
            {"id": "4", "l": [{"d": "2026-01-01"}, {"d": "soon"}]},
            {"id": "5", "l": {"d": 1}},
            {"id": "6", "t": 7, "n": 2},
            {"id": "7", "b": "yes"},
            {"id": "8", "o": {"x": "y"}},
            {"id": "9", "t": {"x": 1}},
            {"id": "10", "n": None, "o": None, "l": None},
        ],
    )
    assert [(row.row, row.message) for row in done.rejected] == [
        (1, 'n: "7" is not a whole number of 64 bits'),
        (2, 'o: "5" is not an object'),
        (3, 'l.d: "soon" is not a date (YYYY-MM-DD)'),
        (4, 'l: "{"d":1}" is not a list'),
        (6, 'b: "yes" is not true or false'),
        (7, 'o.x: "y" is not a whole number of 64 bits'),
        (8, 't: "{"x":1}" is not text'),
    ]
    assert done.row_count == 2
    assert record(sandbox, "6") == {"id": "6", "t": "7", "n": 2}


def test_ndjson_lines_that_are_no_objects_are_rejected(sandbox: Sandbox) -> None:
    text = b'{"id": 7, "v": 1}\nnot json\n[1]\n{"id": 10, "v": 2}\n{"id": 11'
    done = sandbox.take("p", PEOPLE, text, "NDJSON")
    assert done.row_count == 2
    assert [(row.row, row.message) for row in done.rejected] == [
        (2, "the line is not a JSON object"),
        (3, "the line is not a JSON object"),
        (5, "the line is not JSON: it ends too early"),
    ]
    assert record(sandbox, "7") == {"id": "7", "v": 1}


def test_a_line_that_is_not_json_is_rejected_with_the_place(sandbox: Sandbox) -> None:
    lines = (
        b'{"id": 1}',
        b'{"id": "caf\xe9"}',
        b"",
        b'{"id": 3},',
        b"{'id': 4}",
        b'{"id": ' + b"5" * 5_000 + b";}",
        b'{"id": 6}',
    )
    done = sandbox.take("p", PEOPLE, b"\n".join(lines), "NDJSON")
    assert done.row_count == 2
    assert [(row.row, row.message) for row in done.rejected] == [
        (2, "the line is not UTF-8: its byte 12 is 0xE9"),
        (3, "the line is not JSON: it goes wrong at character 10, `,`"),
        (4, "the line is not JSON: it goes wrong at character 2, `'id': 4}`"),
        (5, "the line is not JSON: it goes wrong at character 5008, `;}`"),
    ]


def test_an_object_with_a_name_twice_is_rejected_wherever_it_is(sandbox: Sandbox) -> None:
    text = r"""{"id": 1, "v": 1, "v": 1}
        {"id": 2, "o": {"x": 1, "y": {"z": 1, "\u007a": 2}}}
        {"id": 3, "l": [{"a": 1}, {"a": 2, "a": 3}]}
        {"id": 4, "v": 1, "o": {"v": 1, "x": 2, "y": {"x": 3}}, "l": [{"a": 1, "v": 1}, {"a": 2}]}
        {"id": 5, "id": 6}"""
    done = sandbox.take("p", PEOPLE, text.encode(), "NDJSON")
    assert [(row.row, row.message) for row in done.rejected] == [
        (1, 'the name "v" stands twice in one object'),
        (2, 'the name "z" stands twice in one object'),
        (3, 'the name "a" stands twice in one object'),
        (5, 'the name "id" stands twice in one object'),
    ]
    assert record(sandbox, "4")["o"] == {"v": 1, "x": 2, "y": {"x": 3}}


def test_what_most_lines_say_decides_between_kinds(sandbox: Sandbox) -> None:
    rows: list[dict[str, Any]] = [{"id": n, "v": {"x": n}, "s": n} for n in range(5)]
    done = sandbox.rows("p", PEOPLE, [*rows, {"id": "odd", "v": 3}, {"id": "text", "s": "five"}])
    assert [(row.row, row.message) for row in done.rejected] == [(6, 'v: "3" is not an object')]
    assert types(sandbox, "p") == {"id": "string", "v.x": "integer", "s": "string"}


def test_known_maps_are_maps_in_every_format(sandbox: Sandbox) -> None:
    row = {
        "id": "1",
        "identityMap": {"Email": [{"id": "a@b", "primary": False}]},
        "consents": {"marketing": {"email": {"subscriptions": {"s1": {"val": "y"}, "s2": {"val": "n", "why": "w"}}}}},
        "segmentMembership": {"ups": {"seg": {"status": "realized", "lastQualificationTime": "2026-01-01T00:00:00Z"}}},
    }
    sandbox.rows("ndjson", PEOPLE, [row])
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row]), content)
    sandbox.take("parquet", PEOPLE, content.getvalue(), "PARQUET")
    for dataset in ("ndjson", "parquet"):
        fields = dataset_fields(sandbox.lake, dataset)
        assert fields.fields["identityMap"] == IDENTITY_MAP
        assert dict(leaf_paths(fields))["consents.marketing.email.subscriptions"] == MapType(
            ObjectType({"val": Scalar.STRING, "why": Scalar.STRING})
        )
        found = record(sandbox, "1", dataset)
        assert found["consents"] == row["consents"]
        assert found["segmentMembership"] == row["segmentMembership"]


def parquet(rows: Sequence[dict[str, Any]], schema: pa.Schema | None = None) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), content)
    return content.getvalue()


def test_parquet_keeps_its_types_and_nesting(sandbox: Sandbox) -> None:
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("at", pa.timestamp("ns")),
            ("day", pa.date32()),
            ("price", pa.decimal128(9, 2)),
            ("tags", pa.list_(pa.dictionary(pa.int32(), pa.string()))),
            ("m", pa.map_(pa.string(), pa.int32())),
            ("o", pa.struct([("x", pa.struct([("y", pa.bool_())]))])),
        ]
    )
    at = datetime(2026, 1, 1, 12, tzinfo=UTC).replace(tzinfo=None)
    row = {
        "id": 7,
        "at": at,
        "day": date(2026, 1, 1),
        "price": 3,
        "tags": ["a"],
        "m": [("k", 5)],
        "o": {"x": {"y": True}},
    }
    shape = DatasetShape("EVENT", "id", "CRM", "at")
    assert sandbox.take("e", shape, parquet([row], schema), "PARQUET").row_count == 1
    fields = dataset_fields(sandbox.lake, "e").fields
    assert fields["m"] == MapType(Scalar.INTEGER)
    assert fields["tags"] == ArrayType(Scalar.STRING)
    assert stored_events(sandbox, "7")[0][1:] == (
        "2026-01-01T12:00:00+00:00",
        {
            "timestamp": "2026-01-01T12:00:00Z",
            "id": "7",
            "day": "2026-01-01",
            "price": 3,
            "tags": ["a"],
            "m": {"k": 5},
            "o": {"x": {"y": True}},
        },
    )


def test_parquet_that_contradicts_the_dataset_is_rejected_row_by_row(sandbox: Sandbox) -> None:
    sandbox.take("p", PEOPLE, parquet([{"id": "1", "n": 1, "o": {"x": 1}}]), "PARQUET")
    done = sandbox.take(
        "p", PEOPLE, parquet([{"id": "2", "n": "2"}, {"id": "3", "n": "x"}, {"id": "4", "n": None}]), "PARQUET"
    )
    assert [(row.row, row.message) for row in done.rejected] == [(2, 'n: "x" is not a whole number of 64 bits')]
    done = sandbox.take("p", PEOPLE, parquet([{"id": "5", "o": {"x": "z"}}, {"id": "6", "o": None}]), "PARQUET")
    assert (done.row_count, done.rejected_rows) == (1, 1)


def test_events_with_an_id_are_stored_once(sandbox: Sandbox) -> None:
    row = {"id": "a", "timestamp": "2026-01-01T00:00:00Z", "_id": "e1", "n": 1}
    other = {**row, "_id": "e2"}
    assert sandbox.rows("e", EVENTS, [row, {**row, "n": 2}, other]).row_count == 2
    assert sandbox.rows("e", EVENTS, [other, {**row, "_id": "e3"}]).row_count == 1
    assert sandbox.rows("e", EVENTS, [row, other]).row_count == 0
    assert [(event, attributes["n"]) for event, _, attributes in stored_events(sandbox, "a")] == [
        ("e3", 1),
        ("e2", 1),
        ("e1", 1),
    ]


def test_an_identity_column_named_like_an_event_id_is_none(sandbox: Sandbox) -> None:
    shape = DatasetShape("EVENT", "_id", "CRM", "at")
    for _ in range(2):
        done = sandbox.csv("e", shape, "_id,at,n\na,2026-01-01,1\na,2026-01-02,2\nb,2026-01-01,3\n")
        assert (done.row_count, done.rejected_rows) == (3, 0)
    assert sorted(attributes["n"] for _, _, attributes in stored_events(sandbox, "a")) == [1, 1, 2, 2]


def test_events_without_an_id_get_one_that_follows_the_file_and_stays_hidden(sandbox: Sandbox) -> None:
    sandbox.csv("e", EVENTS, "id,timestamp,n\na,2026-01-01,3\na,2026-01-01,1\na,2026-01-01,2\n")
    assert "_id" not in types(sandbox, "e")
    found = stored_events(sandbox, "a")
    assert [attributes["n"] for _, _, attributes in found] == [2, 1, 3]
    assert len({event for event, _, _ in found}) == 3


def test_a_record_replaces_what_the_dataset_knew(sandbox: Sandbox) -> None:
    done = sandbox.csv("p", PEOPLE, "id,a,b\n1,x,1\n1,y,\n2,z,3\n")
    assert done.row_count == 2
    assert record(sandbox, "1") == {"id": "1", "a": "y"}
    sandbox.csv("p", PEOPLE, "id,b\n1,5\n")
    assert record(sandbox, "1") == {"id": "1", "b": 5}
    assert record(sandbox, "2") == {"id": "2", "a": "z", "b": 3}


@pytest.mark.parametrize(
    ("content", "format", "message"),
    [
        (b"", "CSV", "the file is empty"),
        (b"\x1f\x8b\x08rest", "CSV", "begins like a gzip file"),
        (b"id,timestamp\n", "CSV", "the file has no rows"),
        (b"PAR1....", "CSV", "is Parquet, not CSV"),
        (b'{"id": 1}\n', "CSV", "as NDJSON does"),
        ("名前,id,timestamp\nx,1,2026-01-01\n".encode("utf-16-le"), "CSV", "name its encoding utf-16-le"),
        (b"id,timestamp\n1,2\n", "PARQUET", "does not begin with PAR1"),
        (b"PAR1 and then nothing", "PARQUET", "damaged or cut off"),
        (b"id,timestamp\n1,2026-01-01\n", "NDJSON", "none of its lines is a JSON object"),
        (b"[1]\n[2]\n", "NDJSON", "none of its lines is a JSON object"),
        (b"PAR1....", "NDJSON", "is Parquet, not NDJSON"),
        (
            b"name,timestamp\n1,2026-01-01\n",
            "CSV",
            'no identity column "id"; the columns of the file are: name, timestamp',
        ),
        (
            b'{"id": 1, "at": "2026-01-01"}\n',
            "NDJSON",
            'no time column "timestamp"; the columns of the file are: id, at',
        ),
        (b"id,,timestamp\n1,,2026-01-01\n", "CSV", "column 2 of the header has no name"),
        (b"id,timestamp,a,a\n1,2026-01-01,1,1\n", "CSV", 'names the column "a" twice'),
        (b"id,timestamp,\n1,2026-01-01,1\n", "CSV", "column 3 of the header has no name"),
        (b"id,timestamp,__row\n1,2026-01-01,1\n", "CSV", 'the column "__row" begins with two underscores'),
        (parquet([], pa.schema([("id", pa.string())])), "PARQUET", "has no rows"),
        (parquet([{"id": "1", "timestamp": "2026-01-01", "b": b"x"}]), "PARQUET", 'the column "b" is of type binary'),
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing(
    sandbox: Sandbox, content: bytes, format: str, message: str
) -> None:
    sandbox.csv("e", EVENTS, "id,timestamp\nold,2026-01-01\n")
    before = sorted(str(path) for path in sandbox.lake.folder.rglob("*") if "locks" not in path.parts)
    with pytest.raises(Refusal) as caught:
        sandbox.take("e", EVENTS, content, format)
    assert message in caught.value.message
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert sorted(str(path) for path in sandbox.lake.folder.rglob("*") if "locks" not in path.parts) == before


def test_a_file_without_a_good_row_is_refused_with_its_rows(sandbox: Sandbox) -> None:
    with pytest.raises(NoGoodRows) as caught:
        sandbox.csv("e", EVENTS, "id,timestamp\n1,never\n2,\n")
    assert caught.value.rejected_rows == 2
    assert [row.row for row in caught.value.rejected] == [1, 2]
    assert "none of the 2 rows can be used; row 1: timestamp:" in caught.value.message
    assert open_table(sandbox.lake.dataset("e")) is None


def test_a_time_column_must_not_hide_another_timestamp(sandbox: Sandbox) -> None:
    with pytest.raises(Refusal, match='the time column "at" becomes "timestamp"'):
        sandbox.csv("e", DatasetShape("EVENT", "id", "CRM", "at"), "id,at,timestamp\n1,2026-01-01,x\n")


def test_a_deleted_dataset_is_gone_and_its_people_with_it(sandbox: Sandbox) -> None:
    sandbox.csv("a", EVENTS, "id,timestamp,v\n1,2026-01-01,1\n2,2026-01-01,2\n")
    sandbox.csv("b", EVENTS, "id,timestamp,v\n2,2026-01-01,x\n")
    assert snapshot(sandbox, ("a", "EVENT"), ("b", "EVENT")).total_profiles == 2
    delete_dataset(sandbox.lake, "a")
    left = snapshot(sandbox, ("a", "EVENT"), ("b", "EVENT"))
    assert left.total_profiles == 1
    assert str(dict(leaf_paths(left.schema))["xEvent.v"]) == "string"
    assert dataset_fields(sandbox.lake, "a") == ObjectType()


def test_the_same_person_in_two_namespaces_is_two_people(sandbox: Sandbox) -> None:
    sandbox.csv("a", EVENTS, "id,timestamp\n1,2026-01-01\n")
    sandbox.csv("b", DatasetShape("EVENT", "id", "Email", "timestamp"), "id,timestamp\n1,2026-01-01\n")
    assert snapshot(sandbox, ("a", "EVENT"), ("b", "EVENT")).total_profiles == 2
    assert find(sandbox.lake, "CRM", "1") != find(sandbox.lake, "Email", "1")


def test_ordinals_are_dense_and_never_change(sandbox: Sandbox) -> None:
    places: dict[str, tuple[int, int] | None] = {}
    for batch in range(20):
        ids = [f"p{n}" for n in range(batch * 7 + 10)]
        sandbox.csv("e", EVENTS, "id,timestamp\n" + "".join(f"{name},2026-01-01\n" for name in ids))
        now = {name: find(sandbox.lake, "CRM", name) for name in ids}
        assert {name: now[name] for name in places} == places
        places = now
    found = snapshot(sandbox, ("e", "EVENT"))
    for bucket in found.buckets:
        ordinals = found.read(bucket, Needs()).ordinals.tolist()
        assert ordinals == list(range(len(ordinals)))
    table = open_table(sandbox.lake.identities)
    assert table is not None
    assert len(table.files) <= 16 * 16


def test_uploads_may_lie_anywhere(sandbox: Sandbox, tmp_path: Path) -> None:
    odd = tmp_path / 'it\'s a "file".csv'
    odd.write_text("id,timestamp\n1,2026-01-01\n")
    assert ingest(sandbox.lake, "e", EVENTS, InputFile(odd, "CSV"), "it's").row_count == 1


def test_an_event_id_is_one_event_of_each_person_and_not_of_all(sandbox: Sandbox) -> None:
    """Batches of 50 other persons each, whose events all have the same id: every one of them is its person's first."""
    rows = [
        [{"id": str(person), "_id": "e1", "timestamp": "2026-06-01T00:00:00Z"} for person in range(first, first + 50)]
        for first in (0, 50)
    ]
    assert [sandbox.rows("e", EVENTS, batch).row_count for batch in rows] == [50, 50]
    assert len(stored_events(sandbox, "99")) == 1


def test_ids_may_come_when_there_are_events_without(sandbox: Sandbox) -> None:
    """The dataset knows `_id` from one bucket, and the files of another have no such column."""
    ids = [str(number) for number in range(100)]
    sandbox.rows("e", EVENTS, [{"id": id, "timestamp": "2026-01-01"} for id in ids])
    sandbox.rows("e", EVENTS, [{"id": "0", "timestamp": "2026-01-02", "_id": "a"}])
    buckets = {id: key[0] for id in ids if (key := find(sandbox.lake, "CRM", id)) is not None}
    others = [id for id in ids if buckets[id] != buckets["0"]]
    twice = [{"id": id, "timestamp": "2026-01-03", "_id": "a"} for id in (*others, others[0])]
    taken = sandbox.rows("e", EVENTS, twice)
    assert (taken.row_count, taken.duplicate_rows) == (len(others), 1)


def test_many_batches_leave_few_files_of_identities(sandbox: Sandbox) -> None:
    for batch in range(12):
        sandbox.rows("p", PEOPLE, [{"id": f"{batch}-{row}"} for row in range(32)])
    current = open_table(sandbox.lake.identities)
    assert current is not None
    buckets = {file.bucket: len(current.paths(file.bucket)) for file in current.files}
    assert max(buckets.values()) <= 4
    people = [primary_identities(current, bucket) for bucket in buckets]
    assert all(table["ordinal"].to_pylist() == list(range(table.num_rows)) for table in people)
    ids = [id_ for table in people for id_ in table["id"].to_pylist()]
    assert sorted(ids) == sorted(f"{batch}-{row}" for batch in range(12) for row in range(32))
