"""What an export is asked for, and what came of each bucket."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.engine.members.membership import STATUSES
from app.engine.store.bucket import Path


@dataclass(frozen=True, slots=True)
class Interval:
    """From `start` to `end`, both included; None is no bound."""

    start: datetime | None = None
    end: datetime | None = None

    def __contains__(self, at: datetime) -> bool:
        return (self.start is None or self.start <= at) and (self.end is None or at <= self.end)

    @property
    def bounded(self) -> bool:
        return self.start is not None or self.end is not None


@dataclass(frozen=True, slots=True)
class Audience:
    """An audience of an export: its id here, its name for readers, and the statuses that count."""

    id: str
    namespace: str
    audience_id: str
    statuses: frozenset[str] = frozenset(STATUSES)


@dataclass(frozen=True, slots=True)
class Who:
    """Whose rows are written. With `members_only` those who are in one of the audiences, as their statuses and the
    time of qualification say; else everybody."""

    audiences: tuple[Audience, ...]
    members_only: bool = False
    qualified: Interval = Interval()
    ingested_since: datetime | None = None
    with_record: bool = False


@dataclass(frozen=True, slots=True)
class Events:
    """Which events, by the time when they were ingested, and what of them: the paths, or everything."""

    paths: frozenset[Path] | None = None
    ingested: Interval = Interval()


@dataclass(frozen=True, slots=True)
class What:
    """What is written of a person: these attributes or all, and events when asked for."""

    paths: frozenset[Path] | None = None
    events: Events | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that land together: the people of these audiences (ids here), or all that are exported."""

    id: str
    audiences: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class BatchFile:
    """`name` is relative to the folder of what is not to be seen yet, and later to that of the dataset."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of a bucket: people looked at, people written, and the file of each batch that has rows."""

    bucket: int
    looked_at: int
    people: int
    by_namespace: Mapping[str, int]
    files: Mapping[str, BatchFile]
