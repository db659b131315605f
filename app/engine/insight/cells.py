"""Overlap of sets of profiles: the size of every combination, counted bucket by bucket."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.evaluate.columns import Values
from app.engine.insight.scan import Answers, Buckets
from app.engine.limits.pool import Stopped, in_threads
from app.engine.run.sampling import shuffled_slots


@dataclass(slots=True)
class Cells:
    """`counts[code]` profiles are in exactly the sets whose bits are in the code; code 0 means none of them."""

    sets: int
    counts: NDArray[np.int64] = field(init=False)
    profiles: int = 0

    def __post_init__(self) -> None:
        self.counts = np.zeros(1 << self.sets, np.int64)

    def add(self, present: BitMap, sets: Sequence[BitMap]) -> None:
        """Adds the profiles of one bucket; each set contains some of those `present`."""
        size = int(present.max()) + 1 if present else 0
        # One byte per profile, if sufficient, fits into the processor's cache.
        codes: Values = np.zeros(size, np.uint8 if self.sets <= 8 else np.uint32)
        for bit, members in enumerate(sets):
            rows = _array(members)
            codes[rows] = codes[rows] | (1 << bit)
        counts = np.bincount(codes, minlength=len(self.counts))
        counts[0] -= size - len(present)
        self.counts += counts
        self.profiles += len(present)

    def size(self, bit: int) -> int:
        """The size of one set."""
        codes = np.arange(len(self.counts))
        return int(self.counts[(codes >> bit) & 1 == 1].sum())


def count_cells(
    scan: Buckets, sets: Sequence[str], *, threads: int, stopped: Stopped, enough: Callable[[], bool] = lambda: False
) -> Cells:
    """The cells of the sets, each given as the id of an audience or a condition of the scan.

    Stops reading once `enough` returns true; `profiles` then is the number read, in randomly drawn slots of buckets.
    """
    cells = Cells(len(sets))

    def finished(answers: Answers) -> None:
        cells.add(answers.present, [answers.members[id] for id in sets])

    def buckets() -> Any:
        for slot in shuffled_slots(",".join(sets), scan.buckets):
            if cells.profiles and enough():
                return
            yield from slot

    in_threads(scan.bucket, buckets(), finished=finished, cancelled=stopped, threads=threads)
    return cells


def scaled(cells: Cells, total: int) -> Mapping[int, int]:
    """The cells except code 0, scaled to `total` profiles: exact if all of them were read."""
    factor = total / cells.profiles if 0 < cells.profiles < total else 1
    return {code: round(int(count) * factor) for code, count in enumerate(cells.counts) if code}


def _array(members: BitMap) -> NDArray[np.uint32]:
    return np.frombuffer(members.to_array(), np.uint32) if members else np.empty(0, np.uint32)
