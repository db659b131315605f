"""A request from another thread to stop loading, even during a query; knows no files."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import duckdb

Item = TypeVar("Item")


class Stopped(Exception):
    """The work was stopped on request; nothing was committed."""


class Stop:
    """Checked by a loading thread between its chunks.

    `confirm` is called there as well; it may block, and raises `Stopped` if the loader must not continue.
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
        """Requests a stop at the next check, and interrupts a running query. A query that starts a moment later is not
        interrupted: repeat the call until the work has ended."""
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
        """The items, with a check before each."""
        for item in items:
            self.check()
            yield item

    @contextmanager
    def interrupts(self, database: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """A request interrupts the queries of the block, and the resulting error becomes `Stopped`."""
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
