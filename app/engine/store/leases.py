"""Locks between hosts that share object storage; knows no tables.

A lock is an object. A process takes it by writing its name conditionally, and keeps it by rewriting it. Waiting
processes take it over once it has not changed for long enough, by their own monotonic clock. A holder that was paused
for longer detects before its next change that it may have lost the lock.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from app.engine.store.fences import fences
from app.engine.store.objects import Conflict, ObjectPath, ObjectStore
from app.errors import LakeAway

HOLD_SECONDS = 20.0
"""How long a holder may go without rewriting its lock before it must stop changing anything."""
TAKE_OVER_SECONDS = 30.0
"""How long a lock must be unchanged before others take it over."""
_BEAT_SECONDS = 5.0
_LOOK_SECONDS = 0.2

_free: dict[tuple[str, str], str] = {}
"""The versions of locks as this process last left them, by storage and key: most are still current."""


class LeaseLost(LakeAway):
    """Another process may have the lock."""

    def __init__(self) -> None:
        super().__init__(
            "this process could not reach the object storage in time to keep its lock there, and another process may "
            "have it now: nothing more was changed, try again"
        )


class _Lease:
    def __init__(self, store: ObjectStore, key: str, owner: str, version: str | None, asked: float) -> None:
        self._store, self._key, self._owner, self._version = store, key, owner, version
        self._until = asked + HOLD_SECONDS
        self._end = threading.Event()
        self._beats = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._beats.start()

    def check(self) -> None:
        """Raises `LeaseLost` if the lock was not rewritten in time."""
        if time.monotonic() > self._until:
            raise LeaseLost

    def _keep(self) -> None:
        while not self._end.wait(_BEAT_SECONDS):
            asked = time.monotonic()
            with suppress(LakeAway):
                try:
                    self._version = self._store.put_if(self._key, _content(self._owner), self._version)
                except (Conflict, FileNotFoundError):
                    # Another process took it over, or the response to our own write was lost.
                    owner, self._version = _read(self._store, self._key)
                    if owner != self._owner:
                        return
                self._until = asked + HOLD_SECONDS

    def release(self) -> None:
        self._end.set()
        self._beats.join()
        with suppress(Conflict, FileNotFoundError, LakeAway):
            version = self._store.put_if(self._key, _content(None), self._version)
            _free[self._store.url, self._key] = version


@contextmanager
def held(path: ObjectPath, waiting: Callable[[], None]) -> Iterator[None]:
    """Excludes every other holder of the lock at this path, on all hosts. `waiting` is called while another process has
    it, and may raise to stop waiting."""
    lease = _acquired(*path.place, waiting)
    fences().append(lease.check)
    try:
        yield
    finally:
        fences().remove(lease.check)
        lease.release()


def _acquired(store: ObjectStore, key: str, waiting: Callable[[], None]) -> _Lease:
    owner, version = uuid.uuid4().hex, _free.pop((store.url, key), None)
    watched, since = version, time.monotonic()
    while True:
        asked = time.monotonic()
        with suppress(Conflict, FileNotFoundError):
            return _Lease(store, key, owner, store.put_if(key, _content(owner), version), asked)
        holder, version = _read(store, key)
        if holder == owner:  # The response to the write was lost.
            return _Lease(store, key, owner, version, asked)
        while holder is not None:
            if version != watched:
                watched, since = version, time.monotonic()
            if time.monotonic() - since > TAKE_OVER_SECONDS:
                break
            waiting()
            time.sleep(_LOOK_SECONDS)
            holder, version = _read(store, key)


def _read(store: ObjectStore, key: str) -> tuple[str | None, str | None]:
    """The holder of the lock, and its version."""
    try:
        content, version = store.get(key)
    except FileNotFoundError:
        return None, None
    return json.loads(content)["owner"], version


def _content(owner: str | None) -> bytes:
    return json.dumps({"owner": owner, "written": uuid.uuid4().hex}).encode()
