"""Checks before a thread changes the lake: it must still hold all of its locks."""

import threading
from collections.abc import Callable

_held = threading.local()


def fences() -> list[Callable[[], None]]:
    """The checks of this thread; each raises an error if it fails."""
    if not hasattr(_held, "checks"):
        _held.checks = []
    checks: list[Callable[[], None]] = _held.checks
    return checks


def require_leases() -> None:
    """Runs the checks of this thread, which raise `LeaseLost` if it may have lost a lock."""
    for check in fences():
        check()
