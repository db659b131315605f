"""The calendar in time zones: days, units and distances around both clock changes of a year."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from app.engine.evaluate.zones import zone_of
from app.engine.run.adhoc import evaluate_trial, load_trial

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
"""Lord Howe changes its clock by half an hour."""

CASES = [
    # Berlin, 29 March 2026: 02:00 becomes 03:00 at 01:00 UTC; the day has 23 hours.
    (BERLIN, "2026-03-29T10:00Z", "t occurs today", "2026-03-28T23:00Z", True),
    (BERLIN, "2026-03-29T10:00Z", "t occurs today", "2026-03-28T22:59Z", False),
    (BERLIN, "2026-03-29T10:00Z", "t occurs today", "2026-03-29T21:59Z", True),
    (BERLIN, "2026-03-29T10:00Z", "t occurs today", "2026-03-29T22:00Z", False),
    (BERLIN, "2026-03-29T10:00Z", "t occurs <= 1 day before now", "2026-03-28T11:00Z", True),
    (BERLIN, "2026-03-29T10:00Z", "t occurs <= 1 day before now", "2026-03-28T10:59Z", False),
    (BERLIN, "2026-03-29T10:00Z", "t occurs <= 24 hours before now", "2026-03-28T10:00Z", True),
    (BERLIN, "2026-03-29T10:00Z", "t occurs <= 24 hours before now", "2026-03-28T09:59Z", False),
    (BERLIN, "2026-03-29T10:00Z", "t occurs <= 1 month before now", "2026-02-28T11:00Z", True),
    (BERLIN, "2026-03-29T10:00Z", "t occurs <= 1 month before now", "2026-02-28T10:59Z", False),
    (BERLIN, "2026-03-29T22:30Z", "t.getDayOfMonth() = 30", "2026-03-29T22:00Z", True),
    (BERLIN, "2026-03-29T22:30Z", "currentDayOfMonth() = 30", None, True),
    (BERLIN, "2026-03-30T10:00Z", "t occurs this week", "2026-03-29T22:00Z", True),
    (BERLIN, "2026-03-30T10:00Z", "t occurs this week", "2026-03-29T21:59Z", False),
    (BERLIN, "2026-04-01T10:00Z", "t occurs last month", "2026-02-28T23:00Z", True),
    (BERLIN, "2026-04-01T10:00Z", "t occurs last month", "2026-03-31T22:00Z", False),
    # Berlin, 25 October 2026: 03:00 becomes 02:00 at 01:00 UTC; the day has 25 hours.
    (BERLIN, "2026-10-25T10:00Z", "t occurs today", "2026-10-24T22:00Z", True),
    (BERLIN, "2026-10-25T10:00Z", "t occurs today", "2026-10-25T22:59Z", True),
    (BERLIN, "2026-10-25T10:00Z", "t occurs today", "2026-10-25T23:00Z", False),
    (BERLIN, "2026-10-25T10:00Z", "t occurs < 1 day before now", "2026-10-24T09:01Z", True),
    (BERLIN, "2026-10-25T10:00Z", "t occurs < 1 day before now", "2026-10-24T09:00Z", False),
    (BERLIN, "2026-10-25T10:00Z", "t occurs = 1 day before now", "2026-10-23T22:00Z", True),
    (BERLIN, "2026-10-25T10:00Z", "t occurs this hour", "2026-10-25T10:59Z", True),
    (BERLIN, "2026-10-25T10:00Z", "t < d", "2026-10-24T21:59Z", True),
    (BERLIN, "2026-10-25T10:00Z", "t < d", "2026-10-24T22:00Z", False),
    (BERLIN, "2026-10-25T10:00Z", "t occurs d", "2026-10-25T22:59Z", True),
    (BERLIN, "2026-10-25T10:00Z", "d occurs on t", "2026-10-24T22:00Z", True),
    (BERLIN, "2026-10-25T10:00Z", "t in [d]", "2026-10-24T22:00Z", True),
    # New York, 8 March 2026: 02:00 becomes 03:00 at 07:00 UTC.
    (NEW_YORK, "2026-03-08T16:00Z", "t occurs today", "2026-03-08T05:00Z", True),
    (NEW_YORK, "2026-03-08T16:00Z", "t occurs today", "2026-03-09T03:59Z", True),
    (NEW_YORK, "2026-03-08T16:00Z", "t occurs today", "2026-03-09T04:00Z", False),
    (NEW_YORK, "2026-03-08T16:00Z", "t occurs yesterday", "2026-03-07T05:00Z", True),
    (NEW_YORK, "2026-03-09T16:00Z", "t occurs <= 7 days before today", "2026-03-02T05:00Z", True),
    (NEW_YORK, "2026-03-09T16:00Z", "t occurs <= 7 days before today", "2026-03-02T04:59Z", False),
    (NEW_YORK, "2026-01-01T03:00Z", "t.getYear() = currentYear()", "2025-06-01T00:00Z", True),
    (NEW_YORK, "2026-01-01T03:00Z", "t occurs this year", "2026-01-01T04:59Z", True),
    # New York, 1 November 2026: 02:00 becomes 01:00 at 06:00 UTC.
    (NEW_YORK, "2026-11-01T16:00Z", "t occurs today", "2026-11-01T04:00Z", True),
    (NEW_YORK, "2026-11-01T16:00Z", "t occurs today", "2026-11-02T04:59Z", True),
    (NEW_YORK, "2026-11-01T16:00Z", "t occurs today", "2026-11-02T05:00Z", False),
    (NEW_YORK, "2026-11-01T16:00Z", "t occurs tomorrow", "2026-11-02T05:00Z", True),
    (NEW_YORK, "2026-11-01T16:00Z", "t occurs this month", "2026-11-01T03:59Z", False),
    (NEW_YORK, "2026-11-01T16:00Z", "t occurs between yesterday and today", "2026-11-02T04:59Z", True),
    # Lord Howe, 5 April 2026: 02:00 becomes 01:30 at 15:00 UTC of the 4th; 4 October: 02:00 becomes 02:30.
    (LORD_HOWE, "2026-04-05T01:00Z", "t occurs today", "2026-04-04T13:00Z", True),
    (LORD_HOWE, "2026-04-05T01:00Z", "t occurs today", "2026-04-05T13:29Z", True),
    (LORD_HOWE, "2026-04-05T01:00Z", "t occurs today", "2026-04-05T13:30Z", False),
    (LORD_HOWE, "2026-04-05T01:00Z", "t occurs <= 1 day before now", "2026-04-04T00:30Z", True),
    (LORD_HOWE, "2026-04-05T01:00Z", "t occurs <= 1 day before now", "2026-04-04T00:29Z", False),
    (LORD_HOWE, "2026-10-04T01:00Z", "t occurs today", "2026-10-03T13:30Z", True),
    (LORD_HOWE, "2026-10-04T01:00Z", "t occurs today", "2026-10-04T12:59Z", True),
    (LORD_HOWE, "2026-10-04T01:00Z", "t occurs today", "2026-10-04T13:00Z", False),
    # The hour from 1 to 2 has 90 minutes there in April, that from 2 to 3 has 30 in October.
    (LORD_HOWE, "2026-04-04T15:10Z", "t occurs this hour", "2026-04-04T14:00Z", True),
    (LORD_HOWE, "2026-04-04T15:10Z", "t occurs this hour", "2026-04-04T13:59Z", False),
    (LORD_HOWE, "2026-04-04T15:10Z", "t occurs this hour", "2026-04-04T15:29Z", True),
    (LORD_HOWE, "2026-04-04T15:10Z", "t occurs this hour", "2026-04-04T15:30Z", False),
    (LORD_HOWE, "2026-10-03T15:40Z", "t occurs this hour", "2026-10-03T15:29Z", False),
    (LORD_HOWE, "2026-10-03T15:40Z", "t occurs this hour", "2026-10-03T15:30Z", True),
    (LORD_HOWE, "2026-10-03T15:40Z", "t occurs this hour", "2026-10-03T16:00Z", False),
    (LORD_HOWE, "2026-10-04T01:00Z", "t occurs <= 1 month before now", "2026-09-04T01:30Z", True),
    (LORD_HOWE, "2026-10-04T01:00Z", "t occurs <= 1 month before now", "2026-09-04T01:29Z", False),
    (LORD_HOWE, "2026-10-25T01:00Z", "t occurs d", "2026-10-24T13:00Z", True),
    (LORD_HOWE, "2026-10-25T01:00Z", "t occurs d", "2026-10-24T12:59Z", False),
    # In its winter the hours of Lord Howe begin on the half hour, in its summer on the full one.
    (LORD_HOWE, "2026-06-15T12:10Z", "t occurs this hour", "2026-06-15T11:30Z", True),
    (LORD_HOWE, "2026-06-15T12:10Z", "t occurs this hour", "2026-06-15T11:29Z", False),
    (LORD_HOWE, "2026-06-15T12:10Z", "t occurs this hour", "2026-06-15T12:30Z", False),
    (LORD_HOWE, "2026-06-15T12:10Z", "t occurs last hour", "2026-06-15T10:30Z", True),
    (LORD_HOWE, "2026-12-15T12:10Z", "t occurs this hour", "2026-12-15T12:00Z", True),
    (LORD_HOWE, "2026-12-15T12:10Z", "t occurs this hour", "2026-12-15T11:59Z", False),
    # So did those of Venezuela, from 2007 to 2016.
    ("America/Caracas", "2015-06-15T12:10Z", "t occurs this hour", "2015-06-15T11:30Z", True),
    ("America/Caracas", "2026-06-15T12:10Z", "t occurs this hour", "2026-06-15T11:59Z", False),
    # Without a zone nothing of this holds.
    ("UTC", "2026-03-29T10:00Z", "t occurs today", "2026-03-28T23:00Z", False),
    ("UTC", "2026-03-29T10:00Z", "t occurs <= 1 day before now", "2026-03-28T10:00Z", True),
    # Hours begin on the half hour in India.
    ("Asia/Kolkata", "2026-06-15T12:00Z", "t occurs this hour", "2026-06-15T11:30Z", True),
    ("Asia/Kolkata", "2026-06-15T12:00Z", "t occurs this hour", "2026-06-15T12:30Z", False),
    ("Asia/Kolkata", "2026-06-15T12:00Z", "t occurs today", "2026-06-14T18:30Z", True),
    ("Asia/Kolkata", "2026-06-15T12:00Z", "t occurs today", "2026-06-14T18:29Z", False),
    ("Asia/Kolkata", "2026-06-15T12:00Z", "t occurs today", "2026-06-15T18:30Z", False),
    ("Asia/Kolkata", "2026-06-30T18:30Z", "t occurs this month", "2026-06-30T18:30Z", True),
    ("Asia/Kolkata", "2026-06-30T18:30Z", "t occurs last month", "2026-06-30T18:29Z", True),
    ("Asia/Kolkata", "2026-06-30T18:30Z", "currentDayOfMonth() = 1", None, True),
    ("Asia/Kolkata", "2026-06-30T18:30Z", "t.getDayOfMonth() = 30", "2026-06-30T18:29Z", True),
    ("Asia/Kolkata", "2026-12-31T18:30Z", "currentYear() = 2027", None, True),
    ("Asia/Kolkata", "2026-10-25T12:00Z", "t < d", "2026-10-24T18:29Z", True),
    ("Asia/Kolkata", "2026-10-25T12:00Z", "t < d", "2026-10-24T18:30Z", False),
    # A quarter of an hour beside the half hour, and half an hour west of it.
    ("Asia/Kathmandu", "2026-06-15T12:00Z", "t occurs today", "2026-06-14T18:15Z", True),
    ("Asia/Kathmandu", "2026-06-15T12:00Z", "t occurs today", "2026-06-14T18:14Z", False),
    ("America/St_Johns", "2026-03-08T12:00Z", "t occurs today", "2026-03-08T03:30Z", True),
    ("America/St_Johns", "2026-03-08T12:00Z", "t occurs today", "2026-03-09T02:29Z", True),
    ("America/St_Johns", "2026-03-08T12:00Z", "t occurs today", "2026-03-09T02:30Z", False),
]


@pytest.mark.parametrize(("zone", "now", "expression", "t", "holds"), CASES)
def test_the_calendar_follows_the_zone(
    tmp_path: Path, zone: str, now: str, expression: str, t: str | None, holds: bool
) -> None:
    rows = [{"_id": "a", "t": t and t.replace("Z", ":00Z"), "d": "2026-10-25"}]
    rows.append({"_id": "other", "t": "1999-05-05T12:00:00Z", "d": "1999-01-01"})
    path = tmp_path / "people.ndjson"
    path.write_text("\n".join(map(json.dumps, rows)))
    instant = datetime.fromisoformat(now).astimezone(ZoneInfo(zone))
    assert ("a" in evaluate_trial(load_trial(path), expression, instant)) is holds


@pytest.mark.parametrize("name", [BERLIN, NEW_YORK, LORD_HOWE, "America/Sao_Paulo", "Pacific/Apia", "Asia/Kolkata"])
def test_days_begin_when_python_says(name: str) -> None:
    """Every day of a century; where the clock skips midnight the day begins when it is skipped."""
    zone, known = ZoneInfo(name), zone_of(ZoneInfo(name))
    assert known is not None
    first, epoch = date(1950, 1, 1), datetime(1970, 1, 1, tzinfo=UTC)
    days = [first + timedelta(days=n) for n in range(36_500)]
    numbers = np.array([(day - date(1970, 1, 1)).days for day in days], np.int64)
    begins = known.instants(numbers * 86_400_000_000)
    assert (np.diff(begins) >= 0).all()
    for day, begin in zip(days, begins.tolist(), strict=True):
        instant = epoch + timedelta(microseconds=begin)
        assert instant.astimezone(zone).date() >= day
        assert (instant - timedelta(microseconds=1)).astimezone(zone).date() < day


@pytest.mark.parametrize(
    "name", [BERLIN, NEW_YORK, LORD_HOWE, "America/Caracas", "America/St_Johns", "Asia/Kathmandu", "Asia/Pyongyang"]
)
def test_hours_follow_the_clock(name: str) -> None:
    """Numbers without gaps; each begins with a full hour of the clock, or in the moment of a change."""
    zone, known = ZoneInfo(name), zone_of(ZoneInfo(name))
    assert known is not None
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    first = (datetime(1960, 1, 1, tzinfo=UTC) - epoch) // timedelta(minutes=1)
    minutes = np.arange(first, first + 70 * 365 * 1440, 15, dtype=np.int64) * 60_000_000
    numbers = known.hours(minutes)
    assert set(np.diff(numbers).tolist()) == {0, 1}
    starts = known.hour_starts(numbers)
    assert (starts <= minutes).all()
    assert (known.hours(starts) == numbers).all()
    assert (known.hours(starts - 1) == numbers - 1).all()
    begins = np.unique(starts)[1:]
    for start in begins[known.local(begins) % 3_600_000_000 != 0].tolist():
        at = epoch + timedelta(microseconds=start)
        before = at - timedelta(microseconds=1)
        assert before.astimezone(zone).utcoffset() != at.astimezone(zone).utcoffset()
