"""A request to stop loading that reaches from one thread into another, into the middle of a query; knows no files."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import duckdb

Item = TypeVar("Item")


class Stopped(Exception):
    """The work was stopped on request, and nothing of it was committed."""


class Stop:
    """What a loading thread looks at between its chunks.

    `confirm` is called there too; it may block, and raise `Stopped` for a loader that is not to go on.
    """

    def __init__(self, confirm: Callable[[], None] = lambda: None) -> None:
        self._confirm = confirm
        self._requested = threading.Event()
        self._lock = threading.Lock()
        self._databases: set[duckdb.DuckDBPyConnection] = set()

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    def request(self) -> None:
        """Stops the work at its next look, and a query that runs. A query that begins a moment later is not: ask again
        until the work has ended."""
        self._requested.set()
        with self._lock:
            for database in self._databases:
                database.interrupt()

    def check(self) -> None:
        """Raises `Stopped`."""
        if self.requested:
            raise Stopped
        self._confirm()

    def checked(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, with a look before each."""
        for item in items:
            self.check()
            yield item

    @contextmanager
    def interrupts(self, database: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Queries of the block are interrupted by a request, and whatever error comes of that is `Stopped`."""
        with self._lock:
            self._databases.add(database)
        try:
            yield
        except Exception as error:
            if self.requested:
                raise Stopped from error
            raise
        finally:
            with self._lock:
                self._databases.discard(database)
