"""The time spent in a segment job, by bucket and by definition; of bounded size for any number of buckets.

A bucket's row stores its seconds beside its counts, so that they survive the attempt. Rows of earlier releases have no
seconds and are ignored.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from app.engine.run.buckets import BucketSeconds
from app.storage.columns import StoredValues
from app.storage.tables.jobs import JobBucketRow

SLOWEST = 10
"""Number of slowest buckets stored with the job."""

Stored = Mapping[str, Any]


def as_stored(seconds: BucketSeconds) -> StoredValues:
    """As JSON values, rounded to microseconds."""
    return {
        "total": round(seconds.total, 6),
        "reading": round(seconds.reading, 6),
        "definitions": {id_: round(spent, 6) for id_, spent in seconds.definitions.items()},
    }


def added(one: Stored, other: Stored) -> StoredValues:
    """The seconds of two passes over a bucket; each definition belongs to one of them.

    >>> added({"total": 3, "reading": 1, "definitions": {"a": 1}}, {"total": 2, "reading": 1, "definitions": {"b": 1}})
    {'total': 5, 'reading': 2, 'definitions': {'a': 1, 'b': 1}}
    """
    return {
        "total": one["total"] + other["total"],
        "reading": one["reading"] + other["reading"],
        "definitions": {**one["definitions"], **other["definitions"]},
    }


@dataclass(frozen=True, slots=True)
class Durations:
    """`buckets` has the milliseconds of all buckets in total and of the slowest ones (None if nothing was measured),
    `definitions` the seconds of each definition over all buckets."""

    buckets: StoredValues | None
    definitions: Mapping[str, float]

    @classmethod
    def of(cls, rows: Collection[JobBucketRow]) -> Self:
        return cls(_bucket_times(rows), _seconds_by_definition(rows))


def _seconds_by_definition(rows: Iterable[JobBucketRow]) -> dict[str, float]:
    spent: Counter[str] = Counter()
    for row in rows:
        spent.update(row.counts.get("seconds", {}).get("definitions", {}))
    return {id_: round(seconds, 6) for id_, seconds in spent.items()}


def _bucket_times(rows: Iterable[JobBucketRow]) -> StoredValues | None:
    times = [_times(row) for row in rows if "seconds" in row.counts]
    if not times:
        return None
    names = ("total_ms", "reading_ms", "evaluating_ms")
    slowest = sorted(times, key=lambda time: (-time["total_ms"], time["bucket"]))[:SLOWEST]
    return {
        "buckets": len(times),
        **{name: round(sum(time[name] for time in times), 3) for name in names},
        "slowest": slowest,
    }


def _times(row: JobBucketRow) -> StoredValues:
    seconds = row.counts["seconds"]
    return {
        "bucket": row.bucket,
        "profiles": row.profiles,
        "total_ms": round(1000 * seconds["total"], 3),
        "reading_ms": round(1000 * seconds["reading"], 3),
        "evaluating_ms": round(1000 * sum(seconds["definitions"].values()), 3),
    }
