"""CSV files as people have them: what is detected, what is said, and what is reported because it is not clear."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.ingest.batch import dataset_fields, ingest, try_out
from app.engine.ingest.declared import declare
from app.engine.ingest.formats import CsvOptions, InputFile
from app.engine.ingest.formats.csv_styles import SAMPLE
from app.engine.ingest.identities import find
from app.engine.ingest.rows import DatasetShape, Ingested
from app.engine.people.profiles import Dataset, MergeRule, open_snapshot
from app.errors import ErrorCode, Refusal
from app.pql.schema import Scalar
from app.pql.syntax.paths import leaf_paths
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox


def load(sandbox: Sandbox, content: bytes | str, csv: CsvOptions, shape: DatasetShape = PEOPLE) -> Ingested:
    sandbox.batches += 1
    file = sandbox.folder / f"file-{sandbox.batches}"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return ingest(sandbox.lake, "d", shape, InputFile(file, "CSV", csv), f"b{sandbox.batches}")


def types(sandbox: Sandbox) -> dict[str, str]:
    return {path: str(type_) for path, type_ in leaf_paths(dataset_fields(sandbox.lake, "d")) if path != "id"}


def values(sandbox: Sandbox, person: str) -> dict[str, Any]:
    key = find(sandbox.lake, "CRM", person)
    assert key is not None
    rule = MergeRule("default", "TIMESTAMP_ORDERED")
    found = open_snapshot(sandbox.lake, rule, [Dataset("d", "PROFILE")]).attributes([key], None)[0]
    return {name: value for name, value in found.items() if name not in ("identityMap", "id")}


def times(sandbox: Sandbox, person: str) -> list[str]:
    key = find(sandbox.lake, "CRM", person)
    assert key is not None
    snapshot = open_snapshot(sandbox.lake, MergeRule("default", "TIMESTAMP_ORDERED"), [Dataset("d", "EVENT")])
    (page,) = snapshot.events([key], limit=100, place=None)
    return sorted(event.timestamp.isoformat() for event in page.items)


@pytest.mark.parametrize(
    ("texts", "type_", "expected"),
    [
        (["1,5", "-2,25", "7"], "number", [1.5, -2.25, 7]),
        (["1.234,5", "12", "0,5"], "number", [1234.5, 12, 0.5]),
        (["13/01/2026", "01/02/2026"], "date", ["2026-01-13", "2026-02-01"]),
        (["01/13/2026", "02/01/2026"], "date", ["2026-01-13", "2026-02-01"]),
        (["3.4.2026", "05.06.2026"], "date", ["2026-04-03", "2026-06-05"]),
        (["2026/04/03", "2026/12/31"], "date", ["2026-04-03", "2026-12-31"]),
        (
            ["31.12.2026 23:59", "1.1.2026 0:00"],
            "timestamp",
            ["2026-12-31T23:59:00Z", "2026-01-01T00:00:00Z"],
        ),
        (["31-12-2026 23:59:58"], "timestamp", ["2026-12-31T23:59:58Z"]),
    ],
)
def test_other_ways_to_write_are_detected(
    sandbox: Sandbox, texts: list[str], type_: str, expected: list[object]
) -> None:
    rows = "".join(f"p{n};{text}\n" for n, text in enumerate(texts))
    done = load(sandbox, f"id;v\n{rows}p_;\n", CsvOptions())
    assert (done.rejected_rows, done.warnings) == (0, ())
    assert types(sandbox) == {"v": type_}
    assert [values(sandbox, f"p{n}")["v"] for n in range(len(texts))] == expected


@pytest.mark.parametrize(
    ("texts", "hint"),
    [
        (["01/02/2026", "03/04/2026"], "%d/%m/%Y or %m/%d/%Y"),
        (["1,234", "12,345"], "name the decimal separator"),
        (["1,234.5", "7"], "name the decimal separator"),
    ],
)
def test_what_could_be_two_things_stays_text_and_is_reported(sandbox: Sandbox, texts: list[str], hint: str) -> None:
    done = load(sandbox, "id;v\n" + "".join(f"p{n};{text}\n" for n, text in enumerate(texts)), CsvOptions())
    assert types(sandbox) == {"v": "string"}
    assert values(sandbox, "p0") == {"v": texts[0]}
    (warning,) = done.warnings
    assert warning.startswith('the column "v" has')
    assert hint in warning


@pytest.mark.parametrize(
    ("texts", "reported"),
    [(["13/13/2026", "01/02/2026"], 1), (["1,5", "x"], 0), (["01,5", "2,5"], 1), (["13/01/26"], 1)],
)
def test_what_is_neither_stays_text(sandbox: Sandbox, texts: list[str], reported: int) -> None:
    done = load(sandbox, "id;v\n" + "".join(f"p{n};{text}\n" for n, text in enumerate(texts)), CsvOptions())
    assert (types(sandbox), len(done.warnings)) == ({"v": "string"}, reported)


def test_a_known_column_is_read_in_the_style_of_the_file(sandbox: Sandbox) -> None:
    load(sandbox, "id,n,d\n1,1.5,2026-01-31\n", CsvOptions())
    done = load(sandbox, "id;n;d\n2;2,5;31.12.2026\n3;oops;1.1.2026\n4;3,5;2.1.2026\n", CsvOptions())
    assert [(row.row, row.message) for row in done.rejected] == [(2, 'n: "oops" is not a number')]
    assert values(sandbox, "2") == {"n": 2.5, "d": "2026-12-31"}


def test_the_time_of_events_is_found_though_a_row_is_bad(sandbox: Sandbox) -> None:
    done = load(sandbox, "id;timestamp\na;31.12.2026 10:00\na;soon\na;1.2.2026 9:30\n", CsvOptions(), EVENTS)
    assert [row.row for row in done.rejected] == [2]
    assert times(sandbox, "a") == ["2026-02-01T09:30:00+00:00", "2026-12-31T10:00:00+00:00"]


@pytest.mark.parametrize(
    ("content", "csv", "expected"),
    [
        ("id#v\n1#2,5\n", CsvOptions(delimiter="#", decimal_separator=","), {"v": 2.5}),
        ("id;v\n1;1,234\n", CsvOptions(decimal_separator=","), {"v": 1.234}),
        ("id;v\n1;1.234\n", CsvOptions(decimal_separator=","), {"v": 1234}),
        ("id,v\n1,'a,''b'\n", CsvOptions(quote="'"), {"v": "a,'b"}),
        ('id,v\n1,"a\\"b"\n', CsvOptions(escape="\\"), {"v": 'a"b'}),
        ('id\tv\n1\t"5 inch\n', CsvOptions(quote=""), {"v": '"5 inch'}),
        ("id,v\n1,02/01/2026\n", CsvOptions(date_format="%d/%m/%Y"), {"v": "2026-01-02"}),
        ("id,v\n1,20260131 1015\n", CsvOptions(timestamp_format="%Y%m%d %H%M"), {"v": "2026-01-31T10:15:00Z"}),
        ("id,v,w\n1,NA,\\N\n", CsvOptions(null_values=("NA", "\\N")), {}),
        ("id,v\n1,é€\n".encode("cp1252"), CsvOptions(encoding="windows-1252"), {"v": "é€"}),
        (b"id,v\r1,x\r", CsvOptions(), {"v": "x"}),
        ("id,v\n1,é\n".encode("utf-16"), CsvOptions(), {"v": "é"}),
        ("id,v\n1,名\n".encode("utf-16-le"), CsvOptions(), {"v": "名"}),
        ("id,v\r\n1,名\r\n".encode("utf-16-be"), CsvOptions(), {"v": "名"}),
        (gzip.compress('"id";v\n1;é\n'.encode("utf-16-le"), mtime=0), CsvOptions(), {"v": "é"}),
        ("sep=;\nid;v\n1;x\n", CsvOptions(), {"v": "x"}),
        ('"sep=;"\r\nid;v\r\n1;x\r\n', CsvOptions(), {"v": "x"}),
        ("\ufeffsep=|\r\nid|v\r\n1|x\r\n", CsvOptions(), {"v": "x"}),
        (gzip.compress(b"id\tv\n1\tx\n", mtime=0), CsvOptions(delimiter="\t"), {"v": "x"}),
        (",id,v\n0,1,x\n", CsvOptions(), {"v": "x"}),
    ],
)
def test_dialects(sandbox: Sandbox, content: bytes | str, csv: CsvOptions, expected: dict[str, Any]) -> None:
    done = load(sandbox, content, csv)
    assert (done.row_count, done.rejected) == (1, ())
    assert values(sandbox, "1") == expected


def test_a_backslash_before_quotation_marks_is_detected_from_several_rows(sandbox: Sandbox) -> None:
    rows = [f'"u{n}","inch\\" mark, {n}"' for n in range(5)]
    assert load(sandbox, 'id,v\n"x","y"\n' + "\n".join(rows) + "\n", CsvOptions()).row_count == 6
    assert values(sandbox, "u3") == {"v": 'inch" mark, 3'}


def test_values_that_are_not_of_the_format_said_are_reported(sandbox: Sandbox) -> None:
    done = load(sandbox, "id,v\n1,02/01/2026\n2,03/01/2026\n3,soon\n", CsvOptions(date_format="%d/%m/%Y"))
    assert types(sandbox) == {"v": "string"}
    assert done.warnings == ('1 of the 3 values of the column "v" are not written as %d/%m/%Y: all are loaded as text',)


def test_a_file_without_a_header(sandbox: Sandbox) -> None:
    shape = replace(PEOPLE, identity_column="column1")
    assert load(sandbox, "1,x\n2,y\n", CsvOptions(header=False), shape).row_count == 2
    assert types(sandbox) == {"column1": "string", "column2": "string"}


@pytest.mark.parametrize(
    ("format_", "written", "expected"),
    [
        ("epoch", "1767225600", "2026-01-01T00:00:00+00:00"),
        ("epoch", "1767225600.123456", "2026-01-01T00:00:00.123456+00:00"),
        ("epoch", "-1", "1969-12-31T23:59:59+00:00"),
        ("epoch_ms", "1767225600123", "2026-01-01T00:00:00.123000+00:00"),
        ("%d.%m.%Y %H:%M:%S %z", "01.01.2026 02:00:00 +0200", "2026-01-01T00:00:00+00:00"),
    ],
)
def test_formats_of_times(sandbox: Sandbox, format_: str, written: str, expected: str) -> None:
    csv = CsvOptions(timestamp_format=format_)
    done = load(sandbox, f"id,timestamp\na,{written}\na,never\n", csv, EVENTS)
    assert [row.row for row in done.rejected] == [2]
    assert times(sandbox, "a") == [expected]


def test_numbers_as_times_are_explained(sandbox: Sandbox) -> None:
    with pytest.raises(Refusal, match="name the timestamp format epoch or epoch_ms"):
        load(sandbox, "id,timestamp\na,1767225600\n", CsvOptions(), EVENTS)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-01-01t10:00:00z", "2026-01-01T10:00:00+00:00"),
        ("2026-01-01T23:59:59.999999999Z", "2026-01-01T23:59:59.999999+00:00"),
        ("2026-01-01 10:00:00 UTC", "2026-01-01T10:00:00+00:00"),
        ("2026-01-01T10:00:00-05:30", "2026-01-01T15:30:00+00:00"),
        ("2026-01-01T10:00:00+99:00", None),
        ("2026-01-01T10:00:00+24:00", None),
        ("2026-01-01T10:00:00+05:99", None),
        ("2026-01-01T24:00:00Z", None),
        ("2026-02-30", None),
        ("2026-01-01T10:00:00 Europe/Berlin", None),
    ],
)
def test_times_are_those_of_rfc_3339(sandbox: Sandbox, written: str, expected: str | None) -> None:
    done = load(sandbox, f"id,timestamp\na,{written}\na,2000-01-01\n", CsvOptions(), EVENTS)
    assert times(sandbox, "a")[1:] == ([expected] if expected else [])
    assert done.rejected_rows == (0 if expected else 1)


@pytest.mark.parametrize(
    ("csv", "path", "message"),
    [
        (CsvOptions(delimiter=",,"), "delimiter", "must be one ASCII character"),
        (CsvOptions(delimiter='"'), "delimiter", "must differ from the quotation mark"),
        (CsvOptions(quote="ab"), "quote", "must be one ASCII character"),
        (CsvOptions(decimal_separator="·"), "decimal_separator", "must be '.' or ','"),
        (CsvOptions(encoding="klingon"), "encoding", "there is no encoding 'klingon'"),
        (CsvOptions(date_format="DD.MM.YYYY"), "date_format", "write it as for strftime"),
        (CsvOptions(timestamp_format="%Q"), "timestamp_format", "write it as for strftime"),
    ],
)
def test_options_that_cannot_be_followed(sandbox: Sandbox, csv: CsvOptions, path: str, message: str) -> None:
    with pytest.raises(Refusal, match=message) as caught:
        load(sandbox, "id\n1\n", csv)
    assert (caught.value.code, caught.value.path) == (ErrorCode.INVALID_INPUT, ("csv", path))


def test_csv_options_are_for_csv(sandbox: Sandbox) -> None:
    file = sandbox.folder / "file"
    file.write_text('{"id": 1, "timestamp": 1767225600000}')
    with pytest.raises(Refusal, match="for CSV files only"):
        ingest(sandbox.lake, "d", EVENTS, InputFile(file, "NDJSON", CsvOptions(delimiter=";")), "b")
    ingest(sandbox.lake, "d", EVENTS, InputFile(file, "NDJSON", CsvOptions(timestamp_format="epoch_ms")), "b")
    assert times(sandbox, "1") == ["2026-01-01T00:00:00+00:00"]


def test_ids_that_became_decimals_are_reported(sandbox: Sandbox) -> None:
    (warning,) = load(sandbox, "id,v\n1.0,a\n22.0,b\n", CsvOptions()).warnings
    assert warning.startswith("the ids of the column \"id\", such as '1.0', look like whole numbers")
    assert load(sandbox, "id,v\n1.0,a\nx,b\n", CsvOptions()).warnings == ()


@pytest.mark.parametrize(
    "content",
    [b'[{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]', b' [\n {"id": 1, "v": "a"},\n {"id": 2,\n "v": "b"}\n]\n'],
)
def test_arrays_of_json(sandbox: Sandbox, content: bytes) -> None:
    assert sandbox.take("d", PEOPLE, content, "NDJSON").row_count == 2
    assert values(sandbox, "2") == {"v": "b"}
    assert sandbox.take("d", PEOPLE, gzip.compress(content), "NDJSON").row_count == 2


def test_a_bad_first_line_is_no_array(sandbox: Sandbox) -> None:
    done = sandbox.take("d", PEOPLE, b'[1]\n{"id": 2}\n', "NDJSON")
    assert (done.row_count, [row.row for row in done.rejected]) == (1, [1])


def test_the_index_of_pandas_is_no_data(sandbox: Sandbox) -> None:
    content = io.BytesIO()
    pq.write_table(pa.table({"id": ["1"], "v": ["x"], "__index_level_0__": [7]}), content)
    sandbox.take("d", PEOPLE, content.getvalue(), "PARQUET")
    assert values(sandbox, "1") == {"v": "x"}


@pytest.mark.parametrize(
    ("header", "rows", "fields", "left_out"),
    [
        ("Unnamed: 0,id,v", ["0,1,x", "2,2,y"], {"v": "string"}, ["Unnamed: 0"]),
        ("Unnamed: 0.1,Unnamed: 0,id", ["0,5,1", "1,4,2"], {}, ["Unnamed: 0", "Unnamed: 0.1"]),
        ("Unnamed: 0,id", ["red,1", "blue,2"], {"`Unnamed: 0`": "string"}, []),
        ("Unnamed: 0,id", ["7,1", "7,2"], {"`Unnamed: 0`": "integer"}, []),
        ("Unnamed: 0,id", ["0,1", ",2"], {"`Unnamed: 0`": "integer"}, []),
        ("id,Unnamed: 0", ["1,0", "2,1"], {"`Unnamed: 0`": "integer"}, []),
        ("Unnamed: 3,id", ["0,1", "1,2"], {"`Unnamed: 3`": "integer"}, []),
    ],
)
def test_an_index_that_pandas_read_again_is_left_out_and_reported(
    sandbox: Sandbox, header: str, rows: list[str], fields: dict[str, str], left_out: list[str]
) -> None:
    done = load(sandbox, "\n".join([header, *rows]), CsvOptions())
    assert types(sandbox) == fields
    assert [warning.split(" is left out")[0] for warning in done.warnings] == [f'the column "{n}"' for n in left_out]


def test_an_index_that_the_dataset_has_is_a_column(sandbox: Sandbox) -> None:
    load(sandbox, "Unnamed: 0,id\n7,1\n7,2\n", CsvOptions())
    assert load(sandbox, "Unnamed: 0,id\n8,1\n9,3\n", CsvOptions()).warnings == ()
    assert values(sandbox, "3") == {"Unnamed: 0": 9}


@pytest.mark.parametrize(
    ("texts", "note"),
    [
        (["5.00", "(5.00)"], "looks like numbers, but has values such as '(5.00)'"),
        (["5.00", "1.00-"], "looks like numbers, but has values such as '1.00-'"),
        (["5.00", "inf"], "looks like numbers, but has values such as 'inf'"),
        (["5", "NaN", "n/a"], "name the null value 'NaN'"),
        (["2026-01-01", "NULL", "NULL"], "name the null value 'NULL'"),
        (["yes", "No"], "looks like yes or no, but has values such as 'No': write true and false"),
        (["Y", "N", "NA"], "looks like yes or no, but has values such as 'N'"),
        (["true", "false", "-"], "name the null value '-'"),
        (["NA", "none"], None),
        (["yes", "maybe", "no"], None),
        (["a", "inf"], None),
    ],
)
def test_columns_that_become_text_for_their_spelling_are_reported(
    sandbox: Sandbox, texts: list[str], note: str | None
) -> None:
    rows = [f"{at},{text}" for at, text in enumerate(texts)]
    done = load(sandbox, "\n".join(["id,v", *rows]), CsvOptions())
    assert types(sandbox) == {"v": "string"}
    assert [note in warning for warning in done.warnings if note] == ([True] if note else [])
    assert len(done.warnings) == (note is not None)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files(sandbox: Sandbox, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(b"id,v\n" + b"".join(b"%d,x%d\n" % (n, n) for n in range(20_000)))
    assert load(sandbox, packed, CsvOptions()).row_count == 20_000
    for damaged in (packed[:-20], packed[:100] + b"\xff" * 50 + packed[150:]):
        with pytest.raises(Refusal, match="cannot be unpacked: it is damaged or cut off"):
            load(sandbox, damaged, CsvOptions())


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PK\x03\x04", "a ZIP archive or an Excel workbook: unpack it, or save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save the sheet as CSV"),
        (b"\x28\xb5\x2f\xfd", "compressed by zstd, which is not read: unpack it, or compress it by gzip"),
        (b"%PDF-1.7\n", "a PDF document: save its table as CSV"),
        (b"\xef\xbb\xbf \n<!DOCTYPE html><html>", "a web page, perhaps of a login or an error"),
        (b"<HTML><body>", "a web page, perhaps of a login or an error"),
        (b'<?xml version="1.0"?><rows/>', "an XML document: convert it to NDJSON or CSV"),
        (gzip.compress(b"<html>Sign in</html>", mtime=0), "a web page, perhaps of a login or an error"),
    ],
)
def test_files_of_other_programs_are_refused_by_what_they_are(sandbox: Sandbox, start: bytes, what: str) -> None:
    with pytest.raises(Refusal, match=what):
        load(sandbox, start + bytes(50), CsvOptions())


def test_a_dry_run_stores_nothing(sandbox: Sandbox) -> None:
    file = sandbox.folder / "file"
    file.write_text('id,n,v\n1,5,"two\nlines"\n2,x,b\n1,6,c\n3\n')
    run = try_out(sandbox.lake, None, PEOPLE, InputFile(file, "CSV"))
    assert (run.row_count, run.rejected_rows, run.duplicate_rows) == (2, 1, 1)
    assert [row.row for row in run.rejected] == [4]
    assert {path: str(type_) for path, type_ in leaf_paths(run.fields)} == {
        "id": "string",
        "n": "string",
        "v": "string",
    }
    assert run.new_fields == ("id", "n", "v")
    assert not sandbox.lake.folder.exists()

    sandbox.csv("d", PEOPLE, "id,n\n1,5\n")
    before = {path: path.stat().st_mtime_ns for path in sandbox.lake.folder.rglob("*")}
    run = try_out(sandbox.lake, "d", PEOPLE, InputFile(file, "CSV"))
    assert (run.rejected[0].row, run.rejected[0].message) == (2, 'n: "x" is not a whole number of 64 bits')
    assert (run.row_count, run.rejected_rows, run.duplicate_rows, run.new_fields) == (1, 2, 1, ("v",))
    assert {path: path.stat().st_mtime_ns for path in sandbox.lake.folder.rglob("*")} == before


NUMBERS = "write them as plain numbers, or leave them empty"
DATES = "name the date or timestamp format, or correct them"


@pytest.mark.parametrize(
    ("texts", "type_", "odd"),
    [
        (["2025-1-3", "2026-02-01"], "date", None),
        (["2026-01-01", "2025-1-3 10:30"], "timestamp", None),
        (["12/31/2025 10:00 AM", "01/02/2026 11:30 PM"], "timestamp", None),
        (["31.12.2025 1:05PM", "01.01.2026 11:30am"], "timestamp", None),
        (["31/12/25", "01/02/26"], "string", ("dates", "01/02/26")),
        (["31-Dec-2025", "01-Feb-2026"], "string", ("dates", "01-Feb-2026")),
        (["Dec 31, 2025", "Feb 1, 2026"], "string", ("dates", "Dec 31, 2025")),
        (["Wed, 31 Dec 2025 10:00:00 GMT"], "string", ("dates", "Wed, 31 Dec 2025 10:00:00 GMT")),
        ([*["2026-01-01"] * 30, "soon"], "string", ("dates", "soon")),
        ([*["2026-01-01"] * 30, "2026-02-30"], "string", ("dates", "2026-02-30")),
        (["$1.50", "$2.00"], "string", ("numbers", "$1.50")),
        (["15%", "20%"], "string", ("numbers", "15%")),
        (["1 234,50", "2 345,00"], "string", ("numbers", "1 234,50")),
        ([*["1.5"] * 30, "n/a"], "string", ("numbers", "n/a")),
        ([" 2", "3 "], "string", ("numbers", " 2")),
        (["01234", "90210"], "string", None),
        ([*["90210"] * 30, "01234"], "string", None),
        (["+14155550100", "14155550101"], "string", None),
        (["1E5", "100"], "string", None),
        (["red", "blue"], "string", None),
        (["1", "2", "x", "y"], "string", None),
    ],
)
def test_what_looks_like_a_time_or_number_is_read_or_reported(
    sandbox: Sandbox, texts: list[str], type_: str, odd: tuple[str, str] | None
) -> None:
    done = sandbox.csv("d", PEOPLE, "id|v\n" + "".join(f"{at}|{value}\n" for at, value in enumerate(texts)))
    assert (done.rejected_rows, types(sandbox)["v"]) == (0, type_)
    expected = []
    if odd is not None:
        kind, example = odd
        advice = DATES if kind == "dates" else NUMBERS
        advice += ", or name the null value 'n/a'" if example == "n/a" else ""
        expected = [
            f'the column "v" looks like {kind}, but has values such as {example!r}: {advice}; until then it is loaded '
            "as text"
        ]
    assert list(done.warnings) == expected


def test_a_format_reads_days_that_look_like_numbers(sandbox: Sandbox) -> None:
    file = sandbox.folder / "compact"
    file.write_text("id,day,n\n1,20251231,5\n2,20260201,6\n")
    ingest(sandbox.lake, "d", PEOPLE, InputFile(file, "CSV", CsvOptions(date_format="%Y%m%d")), "b")
    assert types(sandbox) == {"day": "date", "n": "integer"}


def test_a_delimiter_at_the_end_of_each_row_is_no_column(sandbox: Sandbox) -> None:
    assert sandbox.csv("d", PEOPLE, "id,n,\n1,2,\n2,3,\n").row_count == 2
    assert types(sandbox) == {"n": "integer"}
    with pytest.raises(Refusal, match="column 3 of the header has no name, but values"):
        sandbox.csv("d", PEOPLE, "id,n,\n1,2,\n2,3,4\n")


def test_an_ambiguous_time_of_an_event_says_what_to_name(sandbox: Sandbox) -> None:
    with pytest.raises(
        Refusal, match=r"01/02/2026.*say how it is written by a date or timestamp format, such as %d/%m/%Y"
    ):
        sandbox.csv("d", EVENTS, "id,timestamp\n1,01/02/2026\n")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"id": "1", "a": {"b": 1}}, indent=2).encode(),
        json.dumps({"id": "1", "a": {"b": 1}}).encode("utf-16"),
        json.dumps({"id": "1", "a": {"b": 1}}).encode("utf-16-be"),
        b"".join(json.dumps({"id": str(n), "a": {"b": 1}}, indent=1).encode() for n in (1, 2)),
    ],
    ids=["one object over several lines", "UTF-16", "UTF-16 without a mark", "two objects over several lines"],
)
def test_json_as_people_have_it(sandbox: Sandbox, content: bytes) -> None:
    done = sandbox.take("d", PEOPLE, content, "NDJSON")
    assert (done.row_count, done.rejected_rows) == (content.count(b"id") or 1, 0)
    assert types(sandbox) == {"a.b": "integer"}


@pytest.mark.parametrize(
    ("texts", "csv", "type_", "expected"),
    [
        (["2026-01-02T03:04:05Z", "2026-01-03"], CsvOptions(), "timestamp", ["2026-01-02T03:04:05Z", "2026-01-03T00"]),
        (["2026-1-2", "2026-01-03T10:00:00Z"], CsvOptions(), "timestamp", ["2026-01-02T00", "2026-01-03T10"]),
        (["31.12.2025 14:30", "30.12.2025 10:00"], CsvOptions(), "timestamp", ["2025-12-31T14:30", "2025-12-30T10"]),
        (
            ["12/31/2025 2:30 PM", "12/30/2025 1:00 AM"],
            CsvOptions(),
            "timestamp",
            ["2025-12-31T14:30", "2025-12-30T01"],
        ),
        (["31.12.2025 00:00", "30.12.2025 00:00"], CsvOptions(), "date", ["2025-12-31", "2025-12-30"]),
        (["31.12.2025", "30.12.2025"], CsvOptions(timestamp_format="%d.%m.%Y"), "date", ["2025-12-31", "2025-12-30"]),
        (
            ["3112251430", "3012250000"],
            CsvOptions(timestamp_format="%d%m%y%H%M"),
            "timestamp",
            ["2025-12-31T14:30", "2025-12-30T00"],
        ),
    ],
)
def test_days_widen_to_times_however_these_are_written(
    sandbox: Sandbox, texts: list[str], csv: CsvOptions, type_: str, expected: list[str]
) -> None:
    load(sandbox, "id,v\nfirst,2026-01-01\n", CsvOptions())
    done = load(sandbox, "id,v\n" + "".join(f"p{n},{text}\n" for n, text in enumerate(texts)), csv)
    assert (done.row_count, done.rejected) == (len(texts), ())
    assert types(sandbox) == {"v": type_}
    read = [values(sandbox, f"p{n}")["v"] for n in range(len(texts))]
    assert [time[: len(start)] for time, start in zip(read, expected, strict=True)] == expected
    assert values(sandbox, "first")["v"] == ("2026-01-01" if type_ == "date" else "2026-01-01T00:00:00Z")


@pytest.mark.parametrize("csv", [CsvOptions(), CsvOptions(timestamp_format="%d.%m.%Y %H:%M")])
def test_a_declared_day_is_no_time_of_day(sandbox: Sandbox, csv: CsvOptions) -> None:
    declare(sandbox.lake, "d", PEOPLE, {"properties": {"v": {"type": "string", "format": "date"}}})
    done = load(sandbox, "id,v\na,31.12.2025 14:30\nb,30.12.2025 00:00\n", csv)
    assert [(row.row, row.message) for row in done.rejected] == [
        (1, 'v: "31.12.2025 14:30" is not a date (YYYY-MM-DD)')
    ]
    assert values(sandbox, "b")["v"] == "2025-12-30"


@pytest.mark.parametrize(
    ("first", "later", "type_"),
    [
        ("true", "7", Scalar.STRING),
        ("7", "7.5", Scalar.NUMBER),
        ("7", "x", Scalar.STRING),
        ("7.5", "7", Scalar.NUMBER),
        ("x", "7", Scalar.STRING),
        ("", "7", Scalar.INTEGER),
        ("", "2026-01-02", Scalar.DATE),
        ("2026-01-02", "2026-01-02T03:04:05Z", Scalar.TIMESTAMP),
        ("2026-01-02", "31.12.2026", Scalar.STRING),
        ("31.12.2026", "30.11.2026", Scalar.DATE),
        ("31.12.2026", "x", Scalar.STRING),
        ("", "31.12.2026", Scalar.DATE),
        ("1,5", "2,75", Scalar.NUMBER),
        ("1,5", "x", Scalar.STRING),
        ("", "2,75", Scalar.NUMBER),
    ],
)
def test_rows_after_the_first_thousand_decide_as_well(sandbox: Sandbox, first: str, later: str, type_: Scalar) -> None:
    file = sandbox.folder / "rows.csv"
    file.write_text("\n".join(["id;v", *(f"{row};{first}" for row in range(SAMPLE)), f"last;{later}"]))
    tried = try_out(sandbox.lake, None, PEOPLE, InputFile(file, "CSV"))
    assert (tried.row_count, tried.rejected_rows, tried.fields.fields["v"]) == (SAMPLE + 1, 0, type_)


@pytest.mark.parametrize(("width", "said"), [(21, None), (22, "and 2 more warnings of this kind")])
def test_warnings_about_many_columns_are_counted(sandbox: Sandbox, width: int, said: str | None) -> None:
    names = [f"v{number}" for number in range(width)]
    rows = [
        ["id", *names],
        *([str(row), *[value] * width] for row, value in enumerate(("31/12/2026", "30/12/2026", "x"))),
    ]
    warnings = load(sandbox, "\n".join(map(";".join, rows)), CsvOptions(delimiter=";", date_format="%d/%m/%Y")).warnings
    assert len(warnings) == 21
    assert [name for name, warning in zip(names, warnings, strict=False) if f'"{name}"' in warning] == (
        names if said is None else names[:20]
    )
    assert said is None or warnings[-1] == said


def test_spaces_around_names_are_layout_in_csv_and_part_of_a_key_in_json(sandbox: Sandbox) -> None:
    load(sandbox, 'id ,"a ", b\n1,2,3\n', CsvOptions())
    assert types(sandbox) == {"a": "integer", "b": "integer"}
    with pytest.raises(Refusal, match='the header names the column "a" twice'):
        load(sandbox, "id,a, a\n1,2,3\n", CsvOptions())
    file = sandbox.folder / "keys.ndjson"
    file.write_text('{"id": "1", " a": 1, "a": 2}\n')
    assert list(try_out(sandbox.lake, None, PEOPLE, InputFile(file, "NDJSON")).fields.fields) == ["id", " a", "a"]
