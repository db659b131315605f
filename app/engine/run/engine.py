"""Engines process the buckets of a job: the boundary between a job and the threads or machines that do its work."""

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, Self

from app.engine.limits.pool import Stopped, in_threads
from app.engine.store.lake import TenantLake
from app.json_values import JsonObject
from app.metrics import BUCKET_SECONDS
from app.traces import span


@dataclass(frozen=True, slots=True)
class Done:
    """The summary of a bucket whose result is in the lake as `file`: the number of people processed, counts as JSON
    values, and the time it took in seconds."""

    bucket: int
    file: str
    profiles: int
    counts: dict[str, Any]
    seconds: float = 0.0


class Work(Protocol):
    """An operation on each bucket. It reads and writes the lake and knows no database, so that any process with access
    to the lake can run it, given only its JSON form."""

    @property
    def lake(self) -> TenantLake: ...

    def bucket(self, number: int, stopped: Stopped) -> Done:
        """Processes a bucket; idempotent. Raises `Cancelled` soon after `stopped` returns true, and `Refusal`."""
        ...

    def as_json(self) -> JsonObject: ...

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The same work, in a process that has the lake under the same path."""
        ...


class Engine(Protocol):
    """Runs work. `parallel` is the number of buckets it processes concurrently, as far as that is known. A `lazy`
    engine takes a bucket only when it has room for it, so that other workers may take the rest meanwhile."""

    @property
    def parallel(self) -> int: ...

    @property
    def lazy(self) -> bool: ...

    def run(self, work: Work, buckets: Iterable[int], finished: Callable[[Done], None], cancelled: Stopped) -> None:
        """Runs the work on each bucket.

        `finished` receives each result on the calling thread, soon and in any order. Raises `Cancelled` soon after
        `cancelled` returns true. An error in `finished` or in a bucket ends all work.
        """
        ...

    def problem(self) -> str | None:
        """Why no job can run at the moment, as far as a check of a few seconds shows; None if nothing is wrong."""
        ...

    def start(self) -> None:
        """Prepares for the first job. Raises `InvalidSettings` if no job could run."""
        ...

    def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Runs work in `parallel` threads of this process, with as many buckets in memory."""

    parallel: int

    @property
    def lazy(self) -> bool:
        return True

    def run(self, work: Work, buckets: Iterable[int], finished: Callable[[Done], None], cancelled: Stopped) -> None:
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
    """Processes the bucket and measures the time."""
    began = time.monotonic()
    result = work.bucket(bucket, stopped)
    return Done(result.bucket, result.file, result.profiles, result.counts, time.monotonic() - began)


def program() -> str:
    """The release and Python version that run here: machines that share work must have the same ones."""
    python = ".".join(platform.python_version_tuple()[:2])
    return f"segmentation-gateway {importlib.metadata.version('segmentation-gateway')} on Python {python}"
