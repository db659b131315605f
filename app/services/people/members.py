"""Members of segments, and segments of people, from stored memberships and EDGE definitions."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from app.engine.members.membership import MEMBERS_NOW, Membership, MembershipStatus, Ordinals
from app.engine.members.regraph import MembershipSource, Relatives, joined
from app.engine.people.profiles import (
    Dataset,
    Key,
    Snapshot,
    people_graph,
)
from app.engine.plan.plan import Plan
from app.engine.run.buckets import Standing
from app.services.evaluation.heads import Heads
from app.services.lists.paging import (
    PageRequest,
    Slice,
    decode_cursor,
    decode_person,
    encode_cursor,
    not_a_cursor,
    slice_of,
)
from app.services.people.edge import Edge
from app.services.people.pinned import PinnedReads

_MEMBER_ORDER, _MEMBERSHIP_ORDER = "MEMBER", "MEMBERSHIP"


class Who(NamedTuple):
    """A person under one merge policy. The policy determines who is a person and which data it has."""

    policy: str
    bucket: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Member:
    """One person in one segment; `status` is that of the segment's newest run."""

    key: Who
    definition_id: str
    status: MembershipStatus
    last_qualification_time: datetime


@dataclass(slots=True)
class _MemberPage:
    """A page of a segment's members, filled bucket by bucket."""

    id: str
    request: PageRequest
    place: Key | None
    items: dict[str, Member] = field(default_factory=dict)
    more: bool = False

    def take(self, policy: str, bucket: int, membership: Membership, people: Ordinals) -> bool:
        """Adds members of a bucket; returns false when the page is full."""
        if self.place is not None and bucket == self.place[0]:
            people = beyond(people, self.place[1], self.request.backward)
        room = self.request.limit - len(self.items)
        self.more = len(people) > room
        for ordinal in nearest(people, room, self.request.backward):
            member = Member(Who(policy, bucket, ordinal), self.id, *membership_standing(membership, ordinal))
            self.items[encode_cursor(_MEMBER_ORDER, (bucket, ordinal))] = member
        return not self.more

    def slice(self) -> Slice[Member]:
        return slice_of(self.items, self.request, has_next=self.more, behind=self.place is not None)


@dataclass(slots=True)
class _MemberCount:
    """The number of a segment's members, counted bucket by bucket."""

    people: int = 0

    def take(self, policy: str, bucket: int, membership: Membership, people: Ordinals) -> bool:
        self.people += len(people)
        return True


class MemberReader:
    """The memberships of one request; reads every file and every person once."""

    def __init__(self, pinned: PinnedReads) -> None:
        self._pinned = pinned
        self._sources: dict[tuple[int | None, tuple[str, ...]], MembershipSource] = {}
        self._present: dict[tuple[str, int], Ordinals] = {}
        self._by_person: dict[Who, list[Member]] = {}
        self._reading = asyncio.Lock()

    async def pages(
        self, definition_ids: Sequence[str], request: PageRequest, status: Collection[str] | None = None
    ) -> dict[str, Slice[Member]]:
        """A page of members per segment, ordered by bucket and ordinal; new people do not disturb this order."""
        place = decode_person(_MEMBER_ORDER, request)
        pages = {id_: _MemberPage(id_, request, place) for id_ in definition_ids}
        await self._read_segments(pages, statuses_of(status), place, request.backward)
        return {id_: page.slice() for id_, page in pages.items()}

    async def counts(self, definition_ids: Sequence[str], status: Collection[str] | None = None) -> dict[str, int]:
        counts = {id_: _MemberCount() for id_ in definition_ids}
        await self._read_segments(counts, statuses_of(status))
        return {id_: count.people for id_, count in counts.items()}

    async def _read_segments(
        self,
        takers: Mapping[str, "_MemberPage | _MemberCount"],
        statuses: frozenset[str],
        place: Key | None = None,
        backward: bool = False,
    ) -> None:
        """Passes the members with one of the statuses to each segment's taker, bucket by bucket from the cursor's,
        until the taker is full. Profiles that no longer exist are left out. External segments use the default policy. A
        file shared by several segments is read once."""
        data, heads = await self._pinned.data(), await self._pinned.heads()
        policies = {id_: heads.policies.get(id_, data.default.id) for id_ in takers}
        snapshots = {policy: await self._pinned.snapshot(policy) for policy in sorted(set(policies.values()))}
        by_graph: dict[int | None, list[str]] = defaultdict(list)
        for id_ in sorted(takers):
            by_graph[snapshots[policies[id_]].graph_version].append(id_)

        def read() -> None:
            for graph, ids in by_graph.items():
                key = graph, tuple(ids)
                if key not in self._sources:
                    self._sources[key] = heads.people(self._pinned.files, ids, graph)
                open_ids = dict.fromkeys(ids)
                for bucket in sorted(self._sources[key].buckets, reverse=backward):
                    if not open_ids:
                        break
                    if place is not None and (bucket > place[0] if backward else bucket < place[0]):
                        continue
                    memberships = self._sources[key].read(bucket)
                    for id_ in [id_ for id_ in open_ids if id_ in memberships]:
                        policy, membership = policies[id_], memberships[id_]
                        if (policy, bucket) not in self._present:
                            self._present[policy, bucket] = snapshots[policy].present(bucket)
                        people = membership.with_status(statuses) & self._present[policy, bucket]
                        if not takers[id_].take(policy, bucket, membership, people):
                            del open_ids[id_]

        await asyncio.to_thread(read)

    async def membership_pages(
        self, keys: Sequence[Who], request: PageRequest, status: Collection[str] | None = None
    ) -> dict[Who, Slice[Member]]:
        """A page of segments per person, ordered by segment id; EDGE definitions are evaluated now.

        `app.engine.members.regraph` defines membership in a segment whose members have another identity graph.
        """
        place = _membership_place(request)
        everything = await self.of_people(keys, status)
        slices = {}
        for key, members in everything.items():
            ahead = members[::-1] if request.backward else members
            if place is not None:
                ahead = [member for member in ahead if _is_beyond(member.definition_id, place, request.backward)]
            cursors = {
                encode_cursor(_MEMBERSHIP_ORDER, (member.definition_id,)): member for member in ahead[: request.limit]
            }
            more = len(ahead) > request.limit
            slices[key] = slice_of(cursors, request, has_next=more, behind=len(ahead) < len(members))
        return slices

    async def of_people(self, keys: Sequence[Who], status: Collection[str] | None) -> dict[Who, list[Member]]:
        """The segments of each person. Each person is evaluated once, so that a page and its count agree at the cost of
        one."""
        async with self._reading:
            new = [key for key in keys if key not in self._by_person]
            for policy, group in by_policy(new).items():
                self._by_person |= await self._read_memberships(policy, group)
        statuses = statuses_of(status)
        return {key: [member for member in self._by_person[key] if member.status in statuses] for key in keys}

    async def _read_memberships(self, policy: str, keys: Sequence[Who]) -> dict[Who, list[Member]]:
        heads, data, edge = await self._pinned.heads(), await self._pinned.data(), await self._pinned.edge(policy)
        snapshot = await self._pinned.snapshot(policy)
        return await asyncio.to_thread(self._memberships_of, keys, snapshot, heads, data.datasets, edge)

    def _memberships_of(
        self, keys: Sequence[Who], snapshot: Snapshot, heads: Heads, datasets: Sequence[Dataset], edge: Edge | None
    ) -> dict[Who, list[Member]]:
        """Reads each file once for all people."""
        kinds = {None, *heads.graphs.values()}
        frame, graph = snapshot.graph_version, snapshot.sources.graph
        if graph is None and edge is not None:
            graph = edge.graph
        if graph is None and kinds != {None}:
            graph = people_graph(self._pinned.lake, datasets)
        relatives = None if graph is None else Relatives(self._pinned.lake, graph)
        stored_in: dict[int, Mapping[str, Membership]] = {}
        standing_of: dict[Who, dict[str, tuple[MembershipStatus, datetime]]] = {}
        for who in keys:
            standings: dict[str, list[tuple[MembershipStatus, datetime]]] = defaultdict(list)
            key = who.bucket, who.ordinal
            for kind in kinds:
                for bucket, ordinal in [key] if relatives is None else relatives.of(key, frame, kind):
                    if bucket not in stored_in:
                        stored_in[bucket] = heads.many(self._pinned.files, bucket)
                    for id_, membership in stored_in[bucket].items():
                        if heads.graphs.get(id_) == kind and _concerns(membership, ordinal):
                            standings[id_].append(membership_standing(membership, ordinal))
            standing_of[who] = {id_: joined(by_audience) for id_, by_audience in standings.items()}
        if edge is not None:
            for kind in edge.kinds:
                places = {
                    who: [key] if relatives is None else relatives.as_kind(key, frame, kind)
                    for who in keys
                    for key in [(who.bucket, who.ordinal)]
                }
                self._evaluate_now(standing_of, places, kind, heads, edge)
        return {
            who: [Member(who, id_, *standing) for id_, standing in sorted(by_audience.items())]
            for who, by_audience in standing_of.items()
        }

    def _evaluate_now(
        self,
        standings: Mapping[Who, dict[str, tuple[MembershipStatus, datetime]]],
        places: Mapping[Who, Sequence[Key]],
        kind: int | None,
        heads: Heads,
        edge: Edge,
    ) -> None:
        """Replaces stored memberships of the EDGE definitions about one kind of people by their current evaluation.
        `places` are the keys of each person in that kind. References to other kinds read stored memberships."""
        stages = [stage for stage in edge.stages if stage.graph == kind]
        asked = {id_ for stage in stages for id_ in (*stage.plan.conditions, *stage.plan.references)}
        stored = heads.people(self._pinned.files, asked, kind)
        by_bucket: dict[int, set[int]] = defaultdict(set)
        for bucket, ordinal in {key for keys in places.values() for key in keys}:
            by_bucket[bucket].add(ordinal)

        def standing(plan: Plan) -> Standing:
            return heads.standing(self._pinned.files, plan, edge.entries, kind)

        now: dict[Key, dict[str, tuple[MembershipStatus, datetime] | None]] = defaultdict(dict)
        for bucket, ordinals in by_bucket.items():
            before = stored.read(bucket)
            for id_, membership in edge.memberships(kind, bucket, sorted(ordinals), before.get, standing).items():
                for ordinal in ordinals:
                    concerned = _concerns(membership, ordinal)
                    now[bucket, ordinal][id_] = membership_standing(membership, ordinal) if concerned else None
        for who, keys in places.items():
            for id_ in {id_ for key in keys for id_ in now[key]}:
                standings[who].pop(id_, None)
                if present := [at_key for key in keys if (at_key := now[key].get(id_)) is not None]:
                    standings[who][id_] = joined(present)


def _concerns(membership: Membership, ordinal: int) -> bool:
    return ordinal in membership.members or ordinal in membership.exited


def by_policy(keys: Sequence[Who]) -> dict[str, list[Who]]:
    groups: dict[str, list[Who]] = defaultdict(list)
    for key in keys:
        groups[key.policy].append(key)
    return groups


def statuses_of(status: Collection[str] | None) -> frozenset[str]:
    return frozenset(MEMBERS_NOW if status is None else status)


def membership_standing(membership: Membership, ordinal: int) -> tuple[MembershipStatus, datetime]:
    """The status of a current or former member, and the time of its last qualification."""
    at = membership.last_qualified(ordinal)
    if at is None:
        raise RuntimeError(f"no time of qualification for {ordinal} in {membership.definition}")
    return membership.status(ordinal), at


def _membership_place(request: PageRequest) -> str | None:
    if request.cursor is None:
        return None
    place = decode_cursor(_MEMBERSHIP_ORDER, request.cursor, request.argument)
    if [type(value) for value in place] != [str]:
        raise not_a_cursor(request)
    return str(place[0])


def _is_beyond(id: str, place: str, backward: bool) -> bool:
    return id < place if backward else id > place


def beyond(people: Ordinals, ordinal: int, backward: bool) -> Ordinals:
    """The ordinals after a given one, or before it."""
    people = people.copy()
    if backward:
        people.remove_range(ordinal, 1 << 32)
    else:
        people.remove_range(0, ordinal + 1)
    return people


def nearest(people: Ordinals, room: int, backward: bool) -> Ordinals | list[int]:
    """The first ordinals in ascending order, or the last ones in descending order."""
    return list(people[max(0, len(people) - room) :])[::-1] if backward else people[:room]
