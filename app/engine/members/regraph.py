"""Converts memberships between versions of the identity graph; knows neither jobs nor policies.

The people of a membership are fragments (without a graph) or the persons of one version of the `identity_graph`. Two
rules convert between them, and thus between versions:

- a person is a member if any of its fragments is;
- every fragment is a member if its person is.

When a late link joins people, the resulting person is a member if any of them was: EXISTING if one of them was
EXISTING, with the earliest entry time of those who were members. If none was, the latest time counts. Between versions
that continue one graph only retired persons move. A graph that was rebuilt, because data was deleted, is reached
through the fragments.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.members.membership import Membership, MembershipStatus
from app.engine.people.identity_graph import Graph, open_graph
from app.engine.people.pages import Key
from app.engine.people.persons import ByBucket, united
from app.engine.store.lake import TenantLake

Read = Callable[[int], Mapping[str, Membership]]
"""The memberships of a bucket, by definition."""
_ORDINAL_BITS = 32


@dataclass(frozen=True, slots=True)
class MembershipSource:
    """Memberships that are read bucket by bucket; there are none outside `buckets`."""

    read: Read
    buckets: frozenset[int]


def followed(lake: TenantLake, source: MembershipSource, old: int | None, new: int | None) -> MembershipSource:
    """Converts the memberships of the people of version `old` to those of version `new`; None stands for fragments.

    Keeps the people that move between buckets in memory, a few bytes per person and definition. Raises
    `FileNotFoundError` if the version `new` no longer exists.
    """
    for moves in _moves_between(lake, old, new):
        source = _moved(source, moves)
    return source


def retired(lake: TenantLake, old: int, new: int) -> tuple[frozenset[int], ByBucket]:
    """Between two versions of which `new` continues `old`: the buckets that retired persons leave, and the persons that
    they joined. Elsewhere, memberships are the same for both versions."""
    left: frozenset[int] = frozenset()
    joined_by: ByBucket = {}
    for moves in _moves_between(lake, old, new):
        left |= frozenset(np.unique(moves.sources >> _ORDINAL_BITS).tolist())
        joined_by = united(joined_by, dict(_grouped(moves.targets)))
    return left, joined_by


@dataclass(frozen=True, slots=True)
class Relatives:
    """Finds the keys of people in memberships of other identity graph versions; reads each bucket once."""

    lake: TenantLake
    graph: Graph
    _tables: dict[tuple[int, str, int], list[tuple[Key, Key]]] = field(default_factory=dict)

    def of(self, key: Key, frame: int | None, written: int | None) -> list[Key]:
        """The keys of a person of version `frame` (the graph's, or None for a fragment) in a membership `written` for
        another version."""
        if written is None and frame is None:
            return [key]
        person = key if frame is not None else self._person(self.graph, key)
        fragments = [fragment for fragment, other in self._pairs(self.graph, "members", person[0]) if other == person]
        keys = dict.fromkeys([key, person, *fragments])
        if written is not None and not self.graph.born <= written <= self.graph.version:
            try:
                old = open_graph(self.lake, written)
            except FileNotFoundError:
                return list(keys)
            keys |= dict.fromkeys(self._person(old, fragment) for fragment in list(keys))
        return list(keys)

    def as_kind(self, key: Key, frame: int | None, kind: int | None) -> list[Key]:
        """The same people as `kind`: fragments, or persons of the graph's version. `frame` is what the key is."""
        if kind == frame:
            return [key]
        if kind is not None:
            return [self._person(self.graph, key)]
        return [fragment for fragment, person in self._pairs(self.graph, "members", key[0]) if person == key]

    def _person(self, graph: Graph, fragment: Key) -> Key:
        return next(
            (person for other, person in self._pairs(graph, "nodes", fragment[0]) if other == fragment), fragment
        )

    def _pairs(self, graph: Graph, table: str, bucket: int) -> list[tuple[Key, Key]]:
        """Fragments and their persons."""
        name = (graph.version, table, bucket)
        if name not in self._tables:
            rows = graph.nodes_of(bucket) if table == "nodes" else graph.members_of(bucket)
            columns = (rows[column].to_pylist() for column in ("place", "ordinal", "home", "person"))
            self._tables[name] = [
                ((place, ordinal), (home, person))
                for place, ordinal, home, person in zip(*columns, strict=True)
                if ordinal is not None
            ]
        return self._tables[name]


def joined(standings: Iterable[tuple[MembershipStatus, datetime]]) -> tuple[MembershipStatus, datetime]:
    """The status and time of a person with several keys (see the rules at the top)."""
    present = list(standings)
    inside = [standing for standing in present if standing[0] != MembershipStatus.EXITED]
    if not inside:
        return max(present, key=lambda standing: standing[1])
    status = (
        MembershipStatus.EXISTING
        if any(standing[0] == MembershipStatus.EXISTING for standing in inside)
        else MembershipStatus.REALIZED
    )
    return status, min(at for _, at in inside)


# ---------------------------------------------------------------- moves


@dataclass(frozen=True, slots=True)
class _Moves:
    """Pairs of people, each `bucket << 32 | ordinal`, ordered by source; `leaving` if the sources cease to exist."""

    sources: NDArray[np.int64]
    targets: NDArray[np.int64]
    leaving: bool

    def of(self, bucket: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The ordinals that move from a bucket, and their targets."""
        first, last = np.searchsorted(self.sources, [bucket << _ORDINAL_BITS, (bucket + 1) << _ORDINAL_BITS])
        return self.sources[first:last].astype(np.uint32), self.targets[first:last]


@lru_cache(8)
def _moves_between(lake: TenantLake, old: int | None, new: int | None) -> Sequence[_Moves]:
    """The moves that lead from one version to the other, in order; cached, since a version never changes."""
    if old == new:
        return []
    if new is None:
        return _spread(lake, old)
    graph = open_graph(lake, new)
    if old is not None and graph.born <= old < new:
        return [_gathered(_changed(lake, old, graph), since=old)]
    return [*_spread(lake, old), _gathered(graph.paths("members"))]


def _spread(lake: TenantLake, old: int | None) -> list[_Moves]:
    """From persons to their other fragments. If a version no longer exists, there are no moves: its persons are the
    fragments they were named after."""
    if old is None:
        return []
    try:
        paths = open_graph(lake, old).paths("members")
    except FileNotFoundError:
        return []
    fragments, persons = _pairs(paths)
    return [_sorted(persons, fragments, leaving=False)]


def _gathered(paths: Sequence[Path], since: int = -1) -> _Moves:
    """From fragments to their persons, or only from those that ceased to be persons after version `since`."""
    fragments, persons = _pairs(paths, since)
    return _sorted(fragments, persons, leaving=True)


def _changed(lake: TenantLake, old: int, graph: Graph) -> list[Path]:
    """The files that may contain persons retired since the older version."""
    try:
        before = set(open_graph(lake, old).paths("members"))
    except FileNotFoundError:
        before = set()
    return [path for path in graph.paths("members") if path not in before]


def _pairs(paths: Sequence[Path], since: int = -1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fragments, except those that give their person its key, and the persons they belong to."""
    fragments, persons = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for path in paths:
        table = pq.ParquetFile(path).read(columns=["place", "ordinal", "home", "person", "retired"])
        valid = table["ordinal"].is_valid().to_numpy()
        table = table.filter(valid)
        fragment, person = (
            table[place].to_numpy().astype(np.int64) << _ORDINAL_BITS | table[ordinal].to_numpy()
            for place, ordinal in (("place", "ordinal"), ("home", "person"))
        )
        moving = fragment != person
        if since >= 0:
            moving &= table["retired"].fill_null(-1).to_numpy() > since
        fragments.append(fragment[moving])
        persons.append(person[moving])
    return np.concatenate(fragments), np.concatenate(persons)


def _sorted(sources: NDArray[np.int64], targets: NDArray[np.int64], *, leaving: bool) -> _Moves:
    order = np.argsort(sources, kind="stable")
    return _Moves(sources[order], targets[order], leaving)


# ---------------------------------------------------------------- memberships

_Standing = dict[tuple[str, datetime | None], BitMap]
"""A membership split into parts that can be merged: the people of each status, and the entry times of members and of
former members."""


def _moved(source: MembershipSource, moves: _Moves) -> MembershipSource:
    arrived: dict[int, dict[str, tuple[int, _Standing]]] = defaultdict(dict)
    for bucket in sorted(source.buckets):
        ordinals, targets = moves.of(bucket)
        if not len(ordinals):
            continue
        for definition, membership in source.read(bucket).items():
            for part, people in _taken_apart(membership).items():
                for home, ordinal in _grouped(targets[np.isin(ordinals, _array(people))]):
                    version, standing = arrived[home].setdefault(definition, (membership.version, {}))
                    arrived[home][definition] = max(version, membership.version), standing
                    standing[part] = standing.get(part, BitMap()) | ordinal

    def read(bucket: int) -> dict[str, Membership]:
        gone = BitMap(moves.of(bucket)[0]) if moves.leaving else BitMap()
        staying, others = source.read(bucket), arrived.get(bucket, {})
        return {
            definition: _settled(definition, staying.get(definition), gone, others.get(definition))
            for definition in [*staying, *(other for other in others if other not in staying)]
        }

    return MembershipSource(read, source.buckets | arrived.keys())


def _grouped(keys: NDArray[np.int64]) -> list[tuple[int, BitMap]]:
    """The keys as bitmaps of ordinals, by bucket."""
    homes = keys >> _ORDINAL_BITS
    return [(int(home), BitMap(keys[homes == home].astype(np.uint32))) for home in np.unique(homes)]


def _array(people: BitMap) -> NDArray[np.uint32]:
    return np.frombuffer(people.to_array(), np.uint32) if people else np.empty(0, np.uint32)


def _taken_apart(membership: Membership) -> _Standing:
    members = membership.members
    parts: _Standing = {
        (MembershipStatus.EXISTING, None): members - membership.entered,
        (MembershipStatus.REALIZED, None): membership.entered,
        (MembershipStatus.EXITED, None): membership.exited,
    }
    for at, cohort in membership.qualified:
        parts["in", at] = cohort & members
        parts["out", at] = cohort - members
    return parts


def _settled(
    definition: str, here: Membership | None, gone: BitMap, others: tuple[int, _Standing] | None
) -> Membership:
    """Merges the people who stay with those who arrive."""
    version, parts = (0, {}) if others is None else (others[0], dict(others[1]))
    if here is not None:
        version = max(version, here.version)
        for part, people in _taken_apart(here).items():
            parts[part] = parts.get(part, BitMap()) | (people - gone)
    existing, realized, exited = (
        parts.get((status, None), BitMap())
        for status in (MembershipStatus.EXISTING, MembershipStatus.REALIZED, MembershipStatus.EXITED)
    )
    members = existing | realized
    assigned, cohorts = BitMap(), defaultdict[datetime, BitMap](BitMap)
    for side, latest_first in (("in", False), ("out", True)):
        times = sorted((at for name, at in parts if name == side and at is not None), reverse=latest_first)
        for at in times:
            people = parts[side, at]
            cohorts[at] |= people - assigned
            assigned = assigned | people
    qualified = tuple((at, people) for at, people in sorted(cohorts.items()) if people)
    return Membership(definition, version, members, realized - existing, exited - members, qualified)


def together(sources: Sequence[MembershipSource]) -> MembershipSource:
    """Combines memberships of different definitions."""
    if len(sources) == 1:
        return sources[0]

    def read(bucket: int) -> dict[str, Membership]:
        return {
            id_: membership
            for source in sources
            if bucket in source.buckets
            for id_, membership in source.read(bucket).items()
        }

    return MembershipSource(read, frozenset().union(*(source.buckets for source in sources)))
