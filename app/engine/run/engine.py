"""Where the buckets of a job are done: the boundary between a job and the threads or machines that do its work."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol, Self

from app.engine.limits.pool import Stopped, in_threads
from app.engine.store.lake import TenantLake
from app.json_values import JsonObject
from app.metrics import BUCKET_SECONDS
from app.traces import span


@dataclass(frozen=True, slots=True)
class Done:
    """What is known of a bucket whose result lies in the lake as `file`: how many people were gone through, counts as
    JSON values, and how many seconds it took."""

    bucket: int
    file: str
    profiles: int
    counts: dict[str, Any]
    seconds: float = 0.0


class Work(Protocol):
    """Something to be done with each bucket. It reads and writes the lake and knows no database, so that any process
    that sees the lake can do it; what JSON says of it is all that this process needs."""

    @property
    def lake(self) -> TenantLake: ...

    def bucket(self, number: int, stopped: Stopped) -> Done:
        """Done twice it leaves the same. Raises `Cancelled` soon after `stopped` says so, and `Refusal`."""
        ...

    def as_json(self) -> JsonObject: ...

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The same work, in a process that sees the lake under the same path."""
        ...


class Engine(Protocol):
    """What does work. `parallel` is how many buckets it does side by side, as far as that is known."""

    @property
    def parallel(self) -> int: ...

    def run(self, work: Work, buckets: Collection[int], finished: Callable[[Done], None], cancelled: Stopped) -> None:
        """Does the work with each bucket.

        `finished` gets what was done on the calling thread, in any order and soon. Raises `Cancelled` soon after
        `cancelled` says so. An error of `finished` or of a bucket ends it all.
        """
        ...

    def problem(self) -> str | None:
        """Why no job can be done just now, as far as a look of a few seconds tells; None for nothing."""
        ...

    def start(self) -> None:
        """Before the first job. Raises `InvalidSettings` when none could be done."""
        ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Threads of this process; as many buckets are in memory."""

    parallel: int

    def run(self, work: Work, buckets: Collection[int], finished: Callable[[Done], None], cancelled: Stopped) -> None:
        def one(bucket: int, stopped: Stopped) -> Done:
            with span("bucket", bucket=bucket):
                return timed(work, bucket, stopped)

        def handed_over(done: Done) -> None:
            BUCKET_SECONDS.observe(done.seconds)
            finished(done)

        in_threads(one, buckets, finished=handed_over, cancelled=cancelled, threads=self.parallel)

    def problem(self) -> None:
        return None

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


def timed(work: Work, bucket: int, stopped: Stopped) -> Done:
    """The bucket, with how long it took."""
    began = time.monotonic()
    done = work.bucket(bucket, stopped)
    return Done(done.bucket, done.file, done.profiles, done.counts, time.monotonic() - began)
