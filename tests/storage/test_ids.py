"""Ids: unique, and sorted by the time of their making."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.storage.ids import new_id

NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


def test_it_is_a_uuid_of_version_7_for_its_instant() -> None:
    made = UUID(new_id(NOON + timedelta(microseconds=123_456)))
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(NOON.timestamp() * 1000) + 123


def test_later_ones_sort_later_to_the_microsecond() -> None:
    instants = [NOON + timedelta(microseconds=step) for step in (0, 1, 2, 999, 1000, 1001, 999_999, 1_000_000)]
    ids = [new_id(instant) for instant in instants]
    assert ids == sorted(ids)


def test_no_two_are_equal() -> None:
    assert len({new_id(NOON) for _ in range(1000)}) == 1000
