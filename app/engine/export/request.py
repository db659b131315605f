"""The specification of an export, and the result of each bucket."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.engine.members.membership import STATUSES
from app.engine.store.bucket import Path


@dataclass(frozen=True, slots=True)
class Interval:
    """From `start` to `end`, both inclusive; None means unbounded."""

    start: datetime | None = None
    end: datetime | None = None

    def __contains__(self, at: datetime) -> bool:
        return (self.start is None or self.start <= at) and (self.end is None or at <= self.end)

    @property
    def bounded(self) -> bool:
        return self.start is not None or self.end is not None


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience of an export: its raw id, its display name, and the statuses to export."""

    id: str
    namespace: str
    audience_id: str
    statuses: frozenset[str] = frozenset(STATUSES)


@dataclass(frozen=True, slots=True)
class Who:
    """The people to export. With `members_only`, those in one of the audiences with the given statuses and
    qualification times; otherwise everyone."""

    audiences: tuple[Audience, ...]
    members_only: bool = False
    qualified: Interval = Interval()
    ingested_since: datetime | None = None
    with_record: bool = False


@dataclass(frozen=True, slots=True)
class Events:
    """The events to export, by ingestion time, and their paths, or everything."""

    paths: frozenset[Path] | None = None
    ingested: Interval = Interval()


@dataclass(frozen=True, slots=True)
class What:
    """The data to export: these attributes or all, and events if requested."""

    paths: frozenset[Path] | None = None
    events: Events | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are published together: the people of these audiences (raw ids), or everyone exported."""

    id: str
    audiences: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class BatchFile:
    """`name` is relative to the folder of invisible files, and later to that of the dataset."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of a bucket: people examined, people written, and the file of each batch with rows."""

    bucket: int
    looked_at: int
    people: int
    by_namespace: Mapping[str, int]
    files: Mapping[str, BatchFile]
