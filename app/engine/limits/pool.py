"""Runs work on buckets in threads, with a limited number of buckets in memory; knows no particular work."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")
Stopped = Callable[[], bool]


class Cancelled(Exception):
    """The caller asked to stop; discard everything computed so far."""


def in_threads(
    work: Callable[[int, Stopped], Result],
    buckets: Iterable[int],
    *,
    finished: Callable[[Result], None],
    cancelled: Stopped,
    threads: int,
) -> None:
    """Runs `work(bucket, stopped)` for each bucket, at most `threads` at a time.

    As many again are queued, so that no thread is idle while a result is delivered. `finished` receives each result on
    the calling thread, in any order. Raises `Cancelled` soon after `cancelled` returns true; results delivered until
    then are complete. An error in `finished` or in a bucket ends all work.
    """
    given_up = threading.Event()

    def stopped() -> bool:
        return given_up.is_set() or cancelled()

    def one(bucket: int) -> Result:
        if stopped():
            raise Cancelled
        return work(bucket, stopped)

    waiting = iter(buckets)
    under_way: set[Future[Result]] = set()
    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="buckets") as pool:
        try:
            while True:
                if cancelled():
                    raise Cancelled
                while len(under_way) < 2 * max(threads, 1) and (bucket := next(waiting, None)) is not None:
                    # Logs and traces of a bucket belong to the job.
                    under_way.add(pool.submit(copy_context().run, one, bucket))
                if not under_way:
                    return
                settled, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in settled:
                    finished(future.result())
        finally:
            given_up.set()
