"""Work on buckets in a few threads of this process, of which at most so many are in memory; knows no work."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")
Stopped = Callable[[], bool]


class Cancelled(Exception):
    """The caller asked to stop; nothing that was computed so far is of use."""


def in_threads(
    work: Callable[[int, Stopped], Result],
    buckets: Iterable[int],
    *,
    finished: Callable[[Result], None],
    cancelled: Stopped,
    threads: int,
) -> None:
    """Does `work(bucket, stopped)` for each bucket, at most `threads` of them at once.

    As many again wait for a thread, so that none is idle while a result is handed over. `finished` gets each result on
    the calling thread, in any order. Raises `Cancelled` soon after `cancelled` says so; results handed over until then
    are whole. An error of `finished` or of a bucket ends it all.
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
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    finished(future.result())
        finally:
            given_up.set()
