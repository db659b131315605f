"""The unit of evaluation: the people of one bucket with their events, as columns; knows no expressions."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Path = tuple[str, ...]
"""Names from the root to a field, through objects and arrays alike. A map is read as a whole, so it ends a path."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an evaluation reads: paths from the profile, and paths from an element of `xEvent`.

    A path to an object means all of its leaves. `events` is true if events are read at all, even without a field
    (`xEvent.count()`).
    """

    profile: frozenset[Path] = frozenset()
    event: frozenset[Path] = frozenset()
    events: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(self.profile | other.profile, self.event | other.event, self.events or other.events)


@dataclass(frozen=True, slots=True)
class Bucket:
    """People and their events with the requested columns (nested columns contain only the requested leaves).

    Row i of `profiles` is the person with ordinal `ordinals[i]`; a person with events but no record has nulls. Event j
    belongs to row `event_rows[j]`; events are sorted by (row, timestamp, _id). `events` may have no columns: its number
    of rows is that of `event_rows`. A requested column that no file of the bucket has is absent.
    """

    number: int
    ordinals: NDArray[np.uint32]
    profiles: pa.Table
    events: pa.Table
    event_rows: NDArray[np.int32]
