"""What one definition may use of memory and time in one bucket."""

import time
from collections.abc import Callable
from dataclasses import dataclass

BYTES_A_ROW = 128
"""What pairing elements of arrays takes for each pair at its peak, measured."""


@dataclass(frozen=True, slots=True)
class Budget:
    """`memory` in bytes and `seconds` of processor time; `clock` tells the time used so far by this thread."""

    memory: int = 1 << 30
    seconds: float = 60.0
    clock: Callable[[], float] = time.thread_time

    @property
    def rows(self) -> int:
        """The most rows that are laid out for one person."""
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
