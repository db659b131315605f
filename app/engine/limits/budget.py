"""The memory and time that one definition may use in one bucket."""

import time
from collections.abc import Callable
from dataclasses import dataclass

BYTES_A_ROW = 128
"""Measured peak memory per pair when pairing elements of arrays."""


@dataclass(frozen=True, slots=True)
class Budget:
    """`memory` in bytes and `seconds` of processor time; `clock` returns the processor time of the current thread."""

    memory: int = 1 << 30
    seconds: float = 60.0
    clock: Callable[[], float] = time.thread_time

    @property
    def rows(self) -> int:
        """The maximum number of rows that may be expanded for one person."""
        return max(1, self.memory // BYTES_A_ROW)


DEFAULT_BUDGET = Budget()
_UNITS = {"K": 1, "M": 2, "G": 3, "T": 4}


def bytes_of(text: str) -> int:
    """
    >>> bytes_of("1GB"), bytes_of("1.5 KiB")
    (1000000000, 1536)
    """
    number, unit = text.rstrip("B").rstrip("i")[:-1], text.rstrip("B").rstrip("i")[-1]
    return int(float(number) * (1024 if "i" in text else 1000) ** _UNITS[unit])
