"""How far a job is that goes through people, and how long it may take; knows no kind of job."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.storage.job_runs import JobRun
from app.storage.tables.jobs import JobPhase


@dataclass(slots=True)
class Progress:
    """Of `total` people `read` are done. The pace is that of this attempt, which did not do what it found done."""

    job_run: JobRun
    total: int
    read: int
    started: datetime | None = None
    read_at_start: int = 0

    def add(self, people: int) -> None:
        """Notes people that are done."""
        self.read += people
        self.tell()

    def tell(self) -> None:
        now = self.job_run.clock()
        if self.started is None:
            self.started, self.read_at_start = now, self.read
        passed, newly = (now - self.started).total_seconds(), self.read - self.read_at_start
        left = passed / newly * (self.total - self.read) if newly else None
        fraction = self.read / self.total if self.total else 1.0
        self.job_run.progress(JobPhase.EVALUATING, fraction, self.read, self.total, left)


def span(start: datetime, end: datetime) -> dict[str, Any]:
    """A stretch of time as metrics hold it."""
    milliseconds = round((end - start).total_seconds() * 1000)
    return {"start": start.isoformat(), "end": end.isoformat(), "total_ms": milliseconds}
