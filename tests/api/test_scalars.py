"""How values are written and read."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from graphql import GraphQLError

from app.api.scalars import read_big_int, read_time, write_time


def test_times_are_written_in_utc() -> None:
    assert write_time(datetime(2026, 6, 15, 14, tzinfo=timezone(timedelta(hours=2)))) == "2026-06-15T12:00:00Z"
    assert write_time(datetime(2026, 6, 15, 12, 0, 0, 120, tzinfo=UTC)) == "2026-06-15T12:00:00.000120Z"


@pytest.mark.parametrize(
    "text", ["2026-06-15T12:00:00Z", "2026-06-15T14:00:00+02:00", "2026-06-15T12:00:00", "2026-06-15 12:00"]
)
def test_times_are_read_as_utc(text: str) -> None:
    assert read_time(text) == datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize("value", ["yesterday", "2026-13-01", "", 1, None, True])
def test_what_is_no_time_is_refused_with_the_value(value: object) -> None:
    with pytest.raises(GraphQLError, match="2026-06-15T12:00:00Z") as refused:
        read_time(value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize("value", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_times_outside_the_calendar(value: str) -> None:
    with pytest.raises(GraphQLError, match="lies outside the years 1 to 9999 in UTC"):
        read_time(value)


@pytest.mark.parametrize("value", [True, "1", 1.5, 2**53, -(2**53), None])
def test_what_is_no_big_int_is_refused_with_the_value(value: object) -> None:
    with pytest.raises(GraphQLError) as refused:
        read_big_int(value)
    assert repr(value) in str(refused.value)


def test_big_ints() -> None:
    assert read_big_int(2**53 - 1) == 2**53 - 1
    assert read_big_int(3.0) == 3
