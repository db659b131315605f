"""Audiences over data sets that others publish have the people that DuckDB counts on the same files."""

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import duckdb
import pytest

from app.engine.run.adhoc import Trial, evaluate_trial, load_trial

DATA = Path(__file__).parent.parent / "data" / "public"
CASES = [line.split("\t") for line in (DATA / "audiences.tsv").read_text("utf-8").splitlines()[1:]]
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@lru_cache
def trial(name: str) -> Trial:
    events = DATA / f"{name}_events.ndjson"
    return load_trial(DATA / f"{name}.ndjson", events if events.exists() else None)


@lru_cache
def database(name: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for table, path in (("p", DATA / f"{name}.ndjson"), ("e", DATA / f"{name}_events.ndjson")):
        if path.exists():
            read = f"read_json('{path}', format='newline_delimited')"
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM {read}")
    return connection


def test_there_are_ten_data_sets_and_a_hundred_audiences() -> None:
    assert len({case[0] for case in CASES}) == 10
    assert len(CASES) >= 100
    tried = [int(case[3]) for case in CASES]
    assert sum(people > 0 for people in tried) >= 95


@pytest.mark.parametrize(("name", "expression", "sql", "people"), CASES, ids=[f"{c[0]}: {c[1]}" for c in CASES])
def test_duckdb_counts_the_same_people(name: str, expression: str, sql: str, people: str) -> None:
    rows = database(name).execute(f"SELECT _id FROM p WHERE {sql} ORDER BY _id").fetchall()
    assert len(rows) == int(people)
    assert evaluate_trial(trial(name), expression, NOW) == sorted(str(row[0]) for row in rows)
