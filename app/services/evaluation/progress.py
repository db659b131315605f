"""Progress and remaining time of a job that reads profiles; knows no kind of job."""

from dataclasses import dataclass, field
from datetime import datetime

from app.engine.limits.pool import Cancelled
from app.storage.columns import StoredValues
from app.storage.queue.attempts import Attempt
from app.storage.tables.jobs import JobPhase

_MOMENT = 1.0
"""In seconds."""


@dataclass(slots=True)
class Progress:
    """Progress in two steps: the merged views are updated bucket by bucket; then `read` of `total` people are
    processed.

    Building a bucket of a view counts as much as processing a bucket of people. The remaining time follows from this
    attempt's pace: whenever a thread ends a bucket, the other threads are on average halfway through theirs.
    """

    attempt: Attempt
    threads: int
    total: int = 0
    read: int = 0
    _to_build: int = 0
    _built: int = 0
    _buckets: int = 0
    _pace: "_Pace" = field(init=False)

    def __post_init__(self) -> None:
        self._pace = _Pace(self.attempt.clock(), self.threads)
        self.attempt.progress(JobPhase.READING, 0.0, 0, 0)

    def view(self, built: int, to_build: int, buckets: int) -> None:
        """Records the progress of one view, as a callback for `app.engine.people.merged_view.Told`. Raises `Cancelled`
        if this attempt should end, unless the views are about to be complete."""
        now = self.attempt.clock()
        if built == 0:
            self._to_build, self._buckets = self._to_build + to_build, self._buckets + buckets
        else:
            self._built += 1
            self._pace.add(1)
        whole = self._to_build + self._buckets
        if self.attempt.interrupted() and (self._pace.left(now, self._to_build - self._built) or 0.0) > _MOMENT:
            raise Cancelled
        seconds_left = self._pace.left(now, whole - self._built)
        self.attempt.progress(JobPhase.READING, self._built / whole if whole else 0.0, 0, 0, seconds_left)

    def begin(self, total: int, read: int) -> None:
        """The views are complete; starts the processing of people."""
        self.total, self.read = total, read
        self._pace = _Pace(self.attempt.clock(), self.threads)
        self.tell()

    def add(self, people: int) -> None:
        """Adds the people of a finished bucket."""
        self.read += people
        self._pace.add(people)
        self.tell()

    def tell(self) -> None:
        seconds_left = self._pace.left(self.attempt.clock(), self.total - self.read)
        fraction = self.reached(self.read / self.total if self.total else 1.0)
        self.attempt.progress(JobPhase.EVALUATING, fraction, self.read, self.total, seconds_left)

    def reached(self, part: float) -> float:
        """The job's total progress when this fraction of the work after the views is done."""
        return (self._built + part * self._buckets) / (self._built + self._buckets) if self._buckets else part

    def end(self) -> None:
        """All people are processed; the results are being written."""
        self.attempt.progress(JobPhase.WRITING, 1.0, self.total, self.total)


@dataclass(slots=True)
class _Pace:
    """The pace of pieces of work of similar size, several of them at a time."""

    started: datetime
    threads: int
    done: int = 0
    pieces: int = 0

    def add(self, work: int) -> None:
        self.done += work
        self.pieces += 1

    def left(self, now: datetime, waiting: int) -> float | None:
        """Remaining seconds; None before the first piece is done."""
        if not self.done:
            return None
        under_way = min((self.threads - 1) / 2 * self.done / self.pieces, waiting)
        return (now - self.started).total_seconds() / (self.done + under_way) * (waiting - under_way)


def span(start: datetime, end: datetime) -> StoredValues:
    """A time span in the form used in metrics."""
    milliseconds = round((end - start).total_seconds() * 1000)
    return {"start": start.isoformat(), "end": end.isoformat(), "total_ms": milliseconds}
