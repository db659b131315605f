"""`segmentMembership`: people's status in audiences, as nested maps in one column; knows neither plans nor jobs.

The column is namespace → segment → {status, lastQualificationTime}, and missing for people who were never in any
audience.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.evaluate.columns import Values
from app.engine.members.membership import Membership
from app.engine.store.arrow_types import arrow_type
from app.engine.store.bitmaps import bitmap
from app.pql.schema import MEMBERSHIP, SEGMENT_MEMBERSHIP, Segment, namespace_of

NO_TIME = np.iinfo(np.int64).min

_TYPE = arrow_type(SEGMENT_MEMBERSHIP)
_STATUSES = ("realized", "existing", "exited")
_REALIZED, _EXISTING, _EXITED = range(3)


@dataclass(frozen=True, slots=True)
class Standings:
    """Entries: row `owners[i]` has had the status `statuses[i]` in the audience `segments[places[i]]` since `times[i]`
    (microseconds, or `NO_TIME`)."""

    segments: Sequence[Segment]
    owners: NDArray[np.int64]
    places: NDArray[np.int64]
    statuses: pa.Array
    times: NDArray[np.int64]


def with_memberships(
    profiles: pa.Table, ordinals: NDArray[np.uint32], stored: Mapping[Segment, Membership]
) -> pa.Table:
    """Adds the stored memberships of a bucket to the rows' column; loaded entries of other segments are kept."""
    return with_standings(profiles, len(ordinals), stored_standings(ordinals, stored))


def with_standings(profiles: pa.Table, rows: int, standings: Standings) -> pa.Table:
    """The table with this number of rows (it may have no columns) and the standings in `segmentMembership`."""
    parts = [standings]
    if MEMBERSHIP in profiles.column_names:
        parts.append(loaded_standings(_one_chunk(profiles[MEMBERSHIP])))
        profiles = profiles.drop_columns([MEMBERSHIP])
    column = nested(rows, _joined(parts))
    present = np.diff(column.offsets.to_numpy()) > 0
    column = pa.MapArray.from_arrays(
        pa.array(column.offsets.to_numpy(), pa.int32(), mask=np.append(~present, False)), column.keys, column.items
    ).cast(_TYPE)
    return profiles.append_column(MEMBERSHIP, column) if profiles.num_columns else pa.table({MEMBERSHIP: column})


def stored_standings(ordinals: NDArray[np.uint32], stored: Mapping[Segment, Membership]) -> Standings:
    """The standings of the people with these ordinals (ascending): members are realized or existing, former members
    exited."""
    people = bitmap(ordinals)
    owners, places, statuses, times = [], [], [], []
    segments = list(stored)
    for place, membership in enumerate(stored.values()):
        for at, cohort in membership.qualified:
            mine = cohort & people
            if not mine:
                continue
            some = _array(mine)
            status = np.full(len(some), _EXITED, np.int8)
            status[np.searchsorted(some, _array(membership.members & mine))] = _EXISTING
            status[np.searchsorted(some, _array(membership.entered & mine))] = _REALIZED
            owners.append(np.searchsorted(ordinals, some))
            places.append(np.full(len(some), place))
            statuses.append(status)
            times.append(np.full(len(some), np.datetime64(at.replace(tzinfo=None), "us").astype(np.int64)))
    codes = np.concatenate([*statuses, np.empty(0, np.int8)])
    return Standings(segments, _all(owners), _all(places), pa.array(_STATUSES).take(pa.array(codes)), _all(times))


def loaded_standings(column: pa.Array) -> Standings:
    """The standings in a loaded column; a column of another type has none."""
    try:
        column = column.cast(_TYPE)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        column = pa.nulls(0, _TYPE)
    outer, inner = _entry_counts(column), _entry_counts(column.items)
    entries = column.items.items
    names = np.repeat(np.arange(len(column.keys)), inner)
    pairs = list(zip(column.keys.take(pa.array(names)).to_pylist(), column.items.keys.to_pylist(), strict=True))
    segments = {pair: place for place, pair in enumerate(dict.fromkeys(pairs))}
    valid = entries.is_valid().to_numpy(zero_copy_only=False)
    owners = np.repeat(np.repeat(np.arange(len(column)), outer), inner)
    places = np.array([segments[pair] for pair in pairs], np.int64)
    times = entries.field("lastQualificationTime").cast(pa.int64())
    stamps = times.fill_null(NO_TIME).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(valid)
    statuses = entries.field("status").take(pa.array(rows))
    return Standings(list(segments), owners[rows], places[rows], statuses, stamps[rows])


def nested(rows: int, standings: Standings) -> pa.Array:
    """Nested maps from entries, at most one per row and segment; empty for a row without entries."""
    ranked = sorted(set(standings.segments))
    rank = np.array([ranked.index(segment) for segment in standings.segments] or [0], np.int64)
    order = np.lexsort((rank[standings.places], standings.owners))
    owners, places = standings.owners[order], rank[standings.places][order]
    namespaces, groups = np.unique([namespace for namespace, _ in ranked] or [""], return_inverse=True)
    group = groups[places] if len(places) else places
    begins = np.insert((np.diff(owners) != 0) | (np.diff(group) != 0), 0, True) if len(owners) else np.zeros(0, bool)
    starts = np.flatnonzero(begins)
    times = standings.times[order]
    values = pa.StructArray.from_arrays(
        [
            standings.statuses.take(pa.array(order)),
            pa.array(times, pa.int64(), mask=times == NO_TIME).cast(pa.timestamp("us", tz="UTC")),
        ],
        fields=list(_TYPE.item_type.item_type),
    )
    segments = pa.array([segment for _, segment in ranked], pa.string()).take(pa.array(places))
    inner_offsets = pa.array(np.append(starts, len(owners)).astype(np.int32))
    inner = pa.MapArray.from_arrays(inner_offsets, segments, values, type=_TYPE.item_type)
    outer = np.concatenate([[0], np.cumsum(np.bincount(owners[starts], minlength=rows))])
    keys = pa.array(namespaces.tolist(), pa.string()).take(pa.array(group[starts]))
    return pa.MapArray.from_arrays(pa.array(outer, pa.int32()), keys, inner, type=_TYPE)


def _joined(parts: Sequence[Standings]) -> Standings:
    """Concatenates entries; for the same segment and row, those of an earlier part win."""
    segments: dict[Segment, int] = {}
    places = []
    for part in parts:
        named = [(namespace_of(namespace), segment) for namespace, segment in part.segments]
        table = np.array([segments.setdefault(key, len(segments)) for key in named] or [0], np.int64)
        places.append(table[part.places])
    owners, where = _all([part.owners for part in parts]), _all(places)
    first = np.sort(np.unique(owners * max(len(segments), 1) + where, return_index=True)[1])
    statuses = pa.concat_arrays([part.statuses for part in parts]).take(pa.array(first))
    times = _all([part.times for part in parts])
    return Standings(list(segments), owners[first], where[first], statuses, times[first])


def _entry_counts(column: pa.Array) -> NDArray[np.int64]:
    """The number of entries in each map of a column that starts at its first entry."""
    counts = np.diff(column.offsets.to_numpy()).astype(np.int64)
    return np.where(column.is_valid().to_numpy(zero_copy_only=False), counts, 0)


def _all(parts: Sequence[Values]) -> NDArray[np.int64]:
    return np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int64)


def _array(people: BitMap) -> NDArray[np.uint32]:
    return np.frombuffer(people.to_array(), np.uint32) if people else np.empty(0, np.uint32)


def _one_chunk(column: object) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
