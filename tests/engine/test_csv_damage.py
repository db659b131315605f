"""Broken rows of CSV cost themselves alone: every row of a file is either read as it was written or rejected."""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.engine.ingest.formats import csv_file, plain_file
from app.engine.ingest.formats.csv_dialect import find_dialect
from app.engine.ingest.formats.csv_rows import OPEN_QUOTE, STRAY_QUOTE, TOO_FEW, TOO_LONG, TOO_MANY, count_rows
from app.engine.ingest.neighbours import Neighbours
from app.engine.ingest.rows import NoGoodRows
from app.engine.ingest.widening import StoredTypes
from app.pql.schema import ObjectType
from tests.support.sandbox import PEOPLE, Sandbox

Row = list[str]


def read(content: bytes, folder: Path) -> tuple[dict[int, Row], dict[int, str]]:
    """The good rows and the rejected ones, by their numbers in the file."""
    file = folder / "file"
    file.write_bytes(content)
    nothing = StoredTypes(ObjectType(), ObjectType(), None, Neighbours(Sandbox(folder).lake, folder, PEOPLE))
    with duckdb.connect() as database:
        source = csv_file.read(database, plain_file(file, folder), folder, nothing, frozenset())
        columns = ", ".join(source.texts.values())
        rows = database.execute(f"SELECT __row, {columns} FROM {source.rows(source.names)} ORDER BY __row").fetchall()
    true_row = source.unreadable.true_row
    rejected = dict(source.unreadable.first)
    assert set(rejected) <= set(source.unreadable.rows.tolist())
    return {true_row(number): [value or "" for value in values] for number, *values in rows}, rejected


@dataclass(frozen=True)
class Written:
    delimiter: str
    line_end: str
    all_quoted: bool
    preamble: str
    packed: bool
    last_line_ends: bool

    def cell(self, text: str) -> str:
        needs = self.all_quoted or any(mark in text for mark in (self.delimiter, '"', "\n"))
        return '"' + text.replace('"', '""') + '"' if needs else text

    def row(self, row: Row) -> str:
        return self.delimiter.join(map(self.cell, row))

    def file(self, lines: list[str]) -> bytes:
        text = self.preamble + self.line_end.join(lines) + (self.line_end if self.last_line_ends else "")
        return gzip.compress(text.encode()) if self.packed else text.encode()


dialects = st.builds(
    Written,
    delimiter=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    all_quoted=st.booleans(),
    preamble=st.sampled_from(["", "\ufeff", "\n"]),
    packed=st.booleans(),
    last_line_ends=st.booleans(),
)
words = st.text("abcé😀7 ", min_size=1, max_size=4).map(lambda text: f"w{text}w")
# What follows a line end holds no delimiter: it could be taken for a row of its own otherwise.
cells = st.one_of(
    words,
    st.just(""),
    st.lists(words, min_size=2, max_size=3).flatmap(
        lambda parts: st.sampled_from(['"', "\n", ",", ";", "\t", '","']).map(lambda mark: mark.join(parts))
    ),
)
WIDTH = 4


def row_of(number: int, rest: list[str]) -> Row:
    return [f"id{number}", *rest]


def stray_quote(written: Written, row: Row, backslash: bool) -> str:
    return written.delimiter.join([written.cell(row[0]), '"inch\\" mark"' if backslash else '"inch" mark"', "x", "y"])


def open_quote(written: Written, row: Row, _: bool) -> str:
    return written.delimiter.join([written.cell(row[0]), "x", '"open', "y"])


def closed_too_early(written: Written, row: Row, _: bool) -> str:
    return written.delimiter.join([written.cell(row[0]), '"a"b', "x", "y"])


def too_many(written: Written, row: Row, _: bool) -> str:
    return written.row([*row, "more"])


def too_few(written: Written, row: Row, _: bool) -> str:
    return written.row(row[:-1])


def two_lines_and_stray(written: Written, row: Row, _: bool) -> str:
    return written.delimiter.join([written.cell(row[0]), '"two\nlines" bad"', '"x"', '"y"'])


DAMAGE = {
    stray_quote: {STRAY_QUOTE},
    open_quote: {OPEN_QUOTE},
    closed_too_early: {STRAY_QUOTE, OPEN_QUOTE},
    too_many: {TOO_MANY},
    too_few: {TOO_FEW},
    two_lines_and_stray: {STRAY_QUOTE, OPEN_QUOTE},
}
files = st.lists(
    st.tuples(st.lists(cells, min_size=WIDTH - 1, max_size=WIDTH - 1), st.sampled_from([None, None, None, *DAMAGE])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=dialects, file=files, backslash=st.booleans())
def test_every_row_is_read_or_rejected(tmp_path: Path, written: Written, file: list, backslash: bool) -> None:  # type: ignore[type-arg]
    header = written.row(["id", "b", "c", "d"])
    lines = [header]
    good: dict[int, Row] = {}
    bad: dict[int, set[str]] = {}
    for number, (rest, damage) in enumerate(file, 1):
        row = row_of(number, rest)
        if damage is None:
            lines.append(written.row(row))
            good[number] = row
        else:
            # One row with `\\"` is damage; several that read well with it would make it the file's way to escape.
            lines.append(damage(written, row, backslash and not bad))
            bad[number] = DAMAGE[damage]
    rows, rejected = read(written.file(lines), tmp_path)
    assert rows == good
    assert rejected.keys() == bad.keys()
    assert all(rejected[number] in sentences for number, sentences in bad.items())


@pytest.mark.parametrize("place", [1, 4, 1_000])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("damage", ['"inch" mark"', '"inch\\" mark"', '"a"b', '"open', '"x""', '"""'])
def test_one_bad_row_of_a_thousand(tmp_path: Path, damage: str, delimiter: str, line_end: str, place: int) -> None:
    rows = [[f'"u{n}"', f'"text {n}"', f'"{n}"'] for n in range(1_000)]
    rows[place - 1][1] = damage
    lines = ["id" + delimiter + "x" + delimiter + "y", *(delimiter.join(row) for row in rows)]
    good, rejected = read((line_end.join(lines) + line_end).encode(), tmp_path)
    assert len(good) == 999
    assert all(good[n + 1] == [f"u{n}", f"text {n}", str(n)] for n in range(1_000) if n + 1 != place)
    assert list(rejected) == [place]


def test_the_number_of_rows_is_that_of_the_file(sandbox: Sandbox) -> None:
    rows = [f'"u{n}","text {n}","{n}"' for n in range(1_000)]
    rows[3] = '"u3","inch" mark","3"'
    done = sandbox.csv("p", PEOPLE, "id,x,y\n" + "\n".join(rows))
    assert (done.row_count, done.rejected_rows) == (999, 1)
    assert [(row.row, row.message) for row in done.rejected] == [(4, STRAY_QUOTE)]


def test_a_row_that_is_too_long_is_counted(sandbox: Sandbox) -> None:
    for size in (3 << 20, 17 << 20, 40 << 20):
        done = sandbox.csv("p", PEOPLE, f"id,x\n1,a\n2,{'x' * size}\n3,c\n")
        assert (done.row_count, [(row.row, row.message) for row in done.rejected]) == (2, [(2, TOO_LONG)])


def test_a_long_quoted_row_is_counted(sandbox: Sandbox) -> None:
    done = sandbox.csv("p", PEOPLE, 'id,x\n1,a\n2,"' + "line\n" * (4 << 20) + '"\n3,c\n')
    assert done.row_count == 2
    assert done.rejected_rows >= 1


def test_blank_lines_are_no_rows(sandbox: Sandbox) -> None:
    assert sandbox.csv("p", PEOPLE, "\n\nid,x\n\n1,a\n\r\n\n2,b\n\n").row_count == 2
    assert sandbox.csv("q", PEOPLE, "id\n\na\n\nb").row_count == 2


def test_rows_are_counted_without_reading_them(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text('id,x\n1,"a\n\nb"\n\n2,c\r\n\r\n3\r\n4')
    assert count_rows(file, find_dialect(file)) == 4
    file.write_text('id,x\n1,"a\n2,b\n')
    assert count_rows(file, find_dialect(file)) is None


def test_a_file_of_bad_rows_only_names_them(sandbox: Sandbox) -> None:
    with pytest.raises(NoGoodRows, match=re.escape(STRAY_QUOTE)):
        sandbox.csv("p", PEOPLE, 'id,x\n1,"a"b\n')


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_are_no_rows_however_many(tmp_path: Path, end: str) -> None:
    blank = end * 300_000
    content = f'a,b{end}1,2{blank}{end}"x"y,3{end}{blank}3,"4{end}{end}5"{blank}'.encode()
    rows, rejected = read(content, tmp_path)
    assert rows == {1: ["1", "2"], 3: ["3", f"4{end}{end}5"]}
    assert rejected == {2: STRAY_QUOTE}
