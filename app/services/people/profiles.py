"""People: their identities, attributes, events and memberships, read from the lake page by page."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from app.clock import Clock
from app.engine.members.membership import Membership, MembershipFiles, Ordinals
from app.engine.members.regraph import MembershipSource, Relatives, joined
from app.engine.members.uploaded import payloads
from app.engine.people.profiles import (
    Dataset,
    Event,
    Key,
    MergeRule,
    Person,
    Snapshot,
    find_person,
    open_snapshot,
    people_graph,
)
from app.engine.plan.plan import Plan
from app.engine.run.buckets import Standing
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.audiences.external_members import payload_sources
from app.services.evaluation.expressions import Segments, data_sources, read_segments
from app.services.evaluation.heads import Heads, read_heads
from app.services.evaluation.sandboxes import read_time_zone
from app.services.lists.paging import PageRequest, Slice, decode_cursor, encode_cursor, slice_of
from app.services.merge_policies import DEFAULT_POLICY_ID, all_policies, rule_of
from app.services.people.edge import Edge, open_edge
from app.services.streaming.definitions import live_definitions
from app.storage.columns import JsonObject
from app.storage.database import Database

T = TypeVar("T")

MEMBERS_NOW = ("REALIZED", "EXISTING")
_MEMBER_ORDER, _MEMBERSHIP_ORDER, _EVENT_ORDER = "MEMBER", "MEMBERSHIP", "EVENT"


class Who(NamedTuple):
    """A person as one merge policy has it: whoever is a person, and what is known of it, is the policy's to say."""

    policy: str
    bucket: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Member:
    """One person in one segment; `status` is that of the segment's newest run."""

    key: Who
    definition_id: str
    status: str
    last_qualification_time: datetime


@dataclass(slots=True)
class _MemberPage:
    """A page of a segment's members, while the buckets come by."""

    id: str
    request: PageRequest
    after: Key | None
    items: dict[str, Member] = field(default_factory=dict)
    more: bool = False

    def take(self, policy: str, bucket: int, membership: Membership, people: Ordinals) -> bool:
        """False when that is enough."""
        if self.after is not None and bucket == self.after[0]:
            people.remove_range(0, self.after[1] + 1)
        room = self.request.limit - len(self.items)
        self.more = len(people) > room
        for ordinal in people[:room]:
            member = Member(Who(policy, bucket, ordinal), self.id, *_standing(membership, ordinal))
            self.items[encode_cursor(_MEMBER_ORDER, (bucket, ordinal))] = member
        return not self.more

    def slice(self) -> Slice[Member]:
        return slice_of(self.items, self.request, has_next=self.more, behind=self.after is not None)


@dataclass(slots=True)
class _MemberCount:
    """The number of a segment's members, while the buckets come by."""

    people: int = 0

    def take(self, policy: str, bucket: int, membership: Membership, people: Ordinals) -> bool:
        self.people += len(people)
        return True


def project(attributes: Mapping[str, Any], paths: Sequence[str]) -> JsonObject:
    """Only what the dotted paths name, in its place; arrays are followed. Raises `Refusal` for a malformed path.

    >>> project({"commerce": {"order": {"total": 3, "id": "a"}}, "device": "phone"}, ["commerce.order.total"])
    {'commerce': {'order': {'total': 3}}}
    """
    tree: JsonObject = {}
    for path in split_paths(paths):
        branch = tree
        for name in path:
            branch = branch.setdefault(name, {})
    return _pruned(attributes, tree) if tree else {}


def split_paths(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Raises `Refusal` for a path with an empty name."""
    for at, path in enumerate(paths):
        if not all(path.split(".")):
            message = f"{path!r} is not a path: write names with dots between them, like homeAddress.country"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("paths", str(at)))
    return [tuple(path.split(".")) for path in paths]


def _pruned(value: Any, tree: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_pruned(item, tree) for item in value]
    if not tree or not isinstance(value, Mapping):
        return value
    # A branch without an end of its own (a path that ends here) keeps everything below it.
    return {name: _pruned(value[name], branch) for name, branch in tree.items() if name in value}


class ProfileReader:
    """Reads of one request: all of them see one snapshot of the data under each merge policy, and one newest run of
    each segment.

    People are found under the default policy. The members of a segment are those of its own policy: whom a late link
    has joined since its run is one member, and whose data is gone is none. With a `rule` people are found under that
    instead of the default policy.
    """

    def __init__(
        self, database: Database, lake: Lake, clock: Clock, scope: Scope, rule: MergeRule | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._lake = lake.tenant(scope.tenant)
        self._scope = scope
        self._rule = rule
        self._files = MembershipFiles(self._lake)
        self._once: dict[str, asyncio.Task[Any]] = {}
        self._founds: dict[tuple[int | None, tuple[str, ...]], MembershipSource] = {}
        self._present: dict[tuple[str, int], Ordinals] = {}
        self._known: dict[Who, list[Member]] = {}
        self._reading = asyncio.Lock()

    def with_rule(self, rule: MergeRule) -> "ProfileReader":
        """A reader of the same tenant whose people are put together by this rule."""
        return ProfileReader(self._database, self._lake.lake, self._clock, self._scope, rule)

    # ------------------------------------------------------------ people

    async def find(self, profile_id: str) -> Who | None:
        """By "namespace:id" of an identity; the primary one is what the profile's own id says."""
        namespace, colon, id_ = profile_id.partition(":")
        return await self.find_identity(namespace, id_) if colon else None

    async def find_identity(self, namespace: str, id: str, policy: str | None = None) -> Who | None:
        """By any identity, the primary one first, under the default policy unless another is given; somebody without
        any record or event is nobody."""
        data = await self._data()
        policy_id = policy or data.default.id
        snapshot = await self._snapshot(policy_id)
        key = await asyncio.to_thread(find_person, self._lake, snapshot, data.datasets, namespace, id)
        return None if key is None else Who(policy_id, *key)

    async def people_at(self, keys: Sequence[Key]) -> list[Who]:
        """Who they are that have these places under the policy by which people are found."""
        policy = (await self._data()).default.id
        return [Who(policy, *key) for key in keys]

    async def people(self, keys: Sequence[Who]) -> dict[Who, Person]:
        people_of = await self._of_each(keys, lambda snapshot, these: snapshot.people(these))
        return {key: person for key, person in people_of.items() if person is not None}

    async def attributes(self, keys: Sequence[Who], paths: Sequence[str] | None = None) -> dict[Who, JsonObject]:
        """Merged, or only the given paths. Raises `Refusal` for a malformed path."""
        selected = None if paths is None else split_paths(paths)
        return await self._of_each(keys, lambda snapshot, these: snapshot.attributes(these, selected))

    async def events(self, keys: Sequence[Who], request: PageRequest) -> dict[Who, Slice[Event]]:
        """Newest first; forward only."""
        place = None
        if request.cursor is not None:
            place = decode_cursor(_EVENT_ORDER, request.cursor, "after")
            if [type(value) for value in place] != [datetime, str]:
                raise _not_a_cursor(request.cursor)
        pages = await self._of_each(
            keys, lambda snapshot, these: snapshot.events(these, first=request.limit, after=place)
        )
        return {
            key: slice_of(
                {encode_cursor(_EVENT_ORDER, (event.timestamp, event.event_id)): event for event in page.items},
                request,
                has_next=page.has_next,
                behind=place is not None,
            )
            for key, page in pages.items()
        }

    async def event_counts(self, keys: Sequence[Who]) -> dict[Who, int]:
        return await self._of_each(keys, lambda snapshot, these: snapshot.event_counts(these))

    # ------------------------------------------------------------ members

    async def members_many(
        self, definition_ids: Sequence[str], request: PageRequest, status: Collection[str] | None = None
    ) -> dict[str, Slice[Member]]:
        """Members of each segment by bucket and ordinal, an order that new people do not disturb; forward only."""
        after = _member_place(request)
        pages = {id_: _MemberPage(id_, request, after) for id_ in definition_ids}
        await self._read_segments(pages, _statuses(status), after)
        return {id_: page.slice() for id_, page in pages.items()}

    async def member_counts(
        self, definition_ids: Sequence[str], status: Collection[str] | None = None
    ) -> dict[str, int]:
        counts = {id_: _MemberCount() for id_ in definition_ids}
        await self._read_segments(counts, _statuses(status))
        return {id_: count.people for id_, count in counts.items()}

    async def memberships(
        self, keys: Sequence[Who], request: PageRequest, status: Collection[str] | None = None
    ) -> dict[Who, Slice[Member]]:
        """The segments of each person, by the segment's id, EDGE ones evaluated just now; forward only.

        A person is in a segment of another kind of people as `app.engine.members.regraph` says.
        """
        after = None
        if request.cursor is not None:
            place = decode_cursor(_MEMBERSHIP_ORDER, request.cursor, "after")
            if [type(value) for value in place] != [str]:
                raise _not_a_cursor(request.cursor)
            after = place[0]
        everything = await self._all_memberships(keys, status)
        slices = {}
        for key, members in everything.items():
            ahead = [member for member in members if after is None or member.definition_id > after]
            cursors = {
                encode_cursor(_MEMBERSHIP_ORDER, (member.definition_id,)): member for member in ahead[: request.limit]
            }
            has_next = len(ahead) > request.limit
            slices[key] = slice_of(cursors, request, has_next=has_next, behind=len(ahead) < len(members))
        return slices

    async def membership_counts(self, keys: Sequence[Who], status: Collection[str] | None = None) -> dict[Who, int]:
        return {key: len(members) for key, members in (await self._all_memberships(keys, status)).items()}

    async def payloads(self, pairs: Sequence[tuple[str, Who]]) -> dict[tuple[str, Who], JsonObject | None]:
        """What the rows of external members say of them, by (audience, person); None for computed audiences."""
        async with self._database.session() as session:
            sources = await payload_sources(session, self._scope, {audience for audience, _ in pairs})

        def read() -> dict[tuple[str, Who], JsonObject | None]:
            payload_of: dict[tuple[str, Who], JsonObject | None] = dict.fromkeys(pairs)
            for audience, (dataset, batches) in sources.items():
                people = [who for audience_id, who in pairs if audience_id == audience]
                keys = [(who.bucket, who.ordinal) for who in people]
                said = payloads(self._lake, dataset.id, keys, set(batches), dataset.identity_column or "")
                payload_of |= {(audience, who): said.get(key, {}) for who, key in zip(people, keys, strict=True)}
            return payload_of

        return await asyncio.to_thread(read)

    async def view(self, policy: str | None = None) -> "View":
        """What these reads see under a merge policy, the default one unless given. Raises `Refusal`."""
        data = await self._data()
        policy_id = data.default.id if policy is None else policy
        if policy_id not in data.rules:
            message = f"there is no merge policy {policy!r} in this sandbox"
            raise Refusal(ErrorCode.NOT_FOUND, message, ("merge_policy_id",))

        async def read() -> tuple[Segments, ZoneInfo]:
            async with self._database.session() as session:
                zone = await read_time_zone(session, self._scope, self._lake.lake)
                return await read_segments(session, self._scope), zone

        segments, zone = await self._only_once("segments", read)
        snapshot, heads = await self._snapshot(policy_id), await self._heads()
        return View(policy_id, snapshot, heads, segments, self._files, self._clock().astimezone(zone))

    # ------------------------------------------------------------ what is read once

    async def _only_once(self, name: str, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if name not in self._once:
            self._once[name] = asyncio.create_task(read())
        result: T = await asyncio.shield(self._once[name])
        return result

    async def _data(self) -> "_Data":
        async def read() -> _Data:
            async with self._database.session() as session:
                policies = await all_policies(session, self._scope)
                datasets = await data_sources(session, self._scope)
            rules = {policy.id: rule_of(policy) for policy in policies}
            unmade = MergeRule(DEFAULT_POLICY_ID, "TIMESTAMP_ORDERED", ())
            default_rule = next((rules[policy.id] for policy in policies if policy.is_default), unmade)
            default = self._rule or default_rule
            return _Data(datasets, default, {**rules, default.id: default})

        return await self._only_once("data", read)

    async def _snapshot(self, policy: str) -> Snapshot:
        async def read() -> Snapshot:
            data = await self._data()
            return await asyncio.to_thread(open_snapshot, self._lake, data.rules[policy], data.datasets)

        return await self._only_once(f"snapshot {policy}", read)

    async def _heads(self) -> Heads:
        async def read() -> Heads:
            async with self._database.session() as session:
                return await read_heads(session, self._scope, now=self._clock())

        return await self._only_once("heads", read)

    async def _edge(self, policy: str) -> Edge | None:
        """The EDGE definitions over the people of a policy; None when there are none. Persons of an identity graph keep
        what is stored of them."""

        async def read() -> Edge | None:
            async with self._database.session() as session:
                definitions = await live_definitions(session, self._scope, edge=True)
                if not definitions:
                    return None
                segments = await read_segments(session, self._scope)
                zone = await read_time_zone(session, self._scope, self._lake.lake)
            data, heads, shown = await self._data(), await self._heads(), await self._snapshot(policy)
            if shown.graph_version is not None:
                return None
            rules = {id_: data.rules[id_] for id_ in sorted({definition.merge_policy_id for definition in definitions})}
            evaluated, now = heads.audiences | segments.external, self._clock().astimezone(zone)
            return await asyncio.to_thread(
                open_edge, self._lake, definitions, rules, data.datasets, shown, evaluated, segments, now
            )

        return await self._only_once(f"edge {policy}", read)

    # ------------------------------------------------------------ how

    async def _of_each(self, keys: Sequence[Who], read: Callable[[Snapshot, list[Key]], Sequence[T]]) -> dict[Who, T]:
        """What `read` says of the people, asked once for each policy."""
        results: dict[Who, T] = {}
        for policy, group in _by_policy(keys).items():
            snapshot, places = await self._snapshot(policy), [(key.bucket, key.ordinal) for key in group]
            results.update(zip(group, await asyncio.to_thread(read, snapshot, places), strict=True))
        return results

    async def _read_segments(
        self, takers: Mapping[str, "_MemberPage | _MemberCount"], wanted: frozenset[str], after: Key | None = None
    ) -> None:
        """Shows each segment's taker, bucket by bucket, who has one of the statuses and is still there, until it has
        enough. The policy of an external segment is the default. A file that several segments share is read once."""
        data, heads = await self._data(), await self._heads()
        policies = {id_: heads.policies.get(id_, data.default.id) for id_ in takers}
        snapshots = {policy: await self._snapshot(policy) for policy in sorted(set(policies.values()))}
        by_graph: dict[int | None, list[str]] = defaultdict(list)
        for id_ in sorted(takers):
            by_graph[snapshots[policies[id_]].graph_version].append(id_)

        def read() -> None:
            for graph, ids in by_graph.items():
                key = graph, tuple(ids)
                if key not in self._founds:
                    self._founds[key] = heads.people(self._files, ids, graph)
                open_ids = dict.fromkeys(ids)
                for bucket in sorted(self._founds[key].buckets):
                    if not open_ids:
                        break
                    if after is not None and bucket < after[0]:
                        continue
                    memberships = self._founds[key].read(bucket)
                    for id_ in [id_ for id_ in open_ids if id_ in memberships]:
                        policy, membership = policies[id_], memberships[id_]
                        if (policy, bucket) not in self._present:
                            self._present[policy, bucket] = snapshots[policy].present(bucket)
                        people = membership.with_status(wanted) & self._present[policy, bucket]
                        if not takers[id_].take(policy, bucket, membership, people):
                            del open_ids[id_]

        await asyncio.to_thread(read)

    async def _all_memberships(self, keys: Sequence[Who], status: Collection[str] | None) -> dict[Who, list[Member]]:
        """Each person is evaluated once, so that a page and its count agree and cost no more than one of them."""
        async with self._reading:
            new = [key for key in keys if key not in self._known]
            for policy, group in _by_policy(new).items():
                self._known |= await self._read_memberships(policy, group)
        statuses = _statuses(status)
        return {key: [member for member in self._known[key] if member.status in statuses] for key in keys}

    async def _read_memberships(self, policy: str, keys: Sequence[Who]) -> dict[Who, list[Member]]:
        heads, data, edge = await self._heads(), await self._data(), await self._edge(policy)
        snapshot = await self._snapshot(policy)
        return await asyncio.to_thread(self._memberships_of, keys, snapshot, heads, data.datasets, edge)

    def _memberships_of(
        self, keys: Sequence[Who], snapshot: Snapshot, heads: Heads, datasets: Sequence[Dataset], edge: Edge | None
    ) -> dict[Who, list[Member]]:
        """Each file is read once for all of them."""
        kinds = {None, *heads.graphs.values()}
        frame, graph = snapshot.graph_version, snapshot.sources.graph
        if graph is None and kinds != {None}:
            graph = people_graph(self._lake, datasets)
        relatives = None if graph is None else Relatives(self._lake, graph)
        stored_in: dict[int, Mapping[str, Membership]] = {}
        standing_of: dict[Who, dict[str, tuple[str, datetime]]] = {}
        for who in keys:
            standings: dict[str, list[tuple[str, datetime]]] = defaultdict(list)
            key = who.bucket, who.ordinal
            for kind in kinds:
                for bucket, ordinal in [key] if relatives is None else relatives.of(key, frame, kind):
                    if bucket not in stored_in:
                        stored_in[bucket] = heads.many(self._files, bucket)
                    for id_, membership in stored_in[bucket].items():
                        if heads.graphs.get(id_) == kind and _concerns(membership, ordinal):
                            standings[id_].append(_standing(membership, ordinal))
            standing_of[who] = {id_: joined(by_audience) for id_, by_audience in standings.items()}
        if edge is not None:
            self._evaluate_now(standing_of, heads, edge)
        return {
            who: [Member(who, id_, *standing) for id_, standing in sorted(by_audience.items())]
            for who, by_audience in standing_of.items()
        }

    def _evaluate_now(self, found: Mapping[Who, dict[str, tuple[str, datetime]]], heads: Heads, edge: Edge) -> None:
        """Replaces what the EDGE definitions, which are over fragments, say otherwise by now."""
        asked = {id_ for stage in edge.stages for id_ in (*stage.plan.conditions, *stage.plan.references)}
        stored = heads.people(self._files, asked, None)
        by_bucket: dict[int, list[Who]] = defaultdict(list)

        def standing(plan: Plan) -> Standing:
            return heads.standing(self._files, plan, edge.entries, None)

        for who in found:
            by_bucket[who.bucket].append(who)
        for bucket, ordinals in by_bucket.items():
            before = stored.read(bucket)
            people = [who.ordinal for who in ordinals]
            for id_, membership in edge.memberships(bucket, people, before.get, standing).items():
                for who in ordinals:
                    found[who].pop(id_, None)
                    if _concerns(membership, who.ordinal):
                        found[who][id_] = _standing(membership, who.ordinal)


@dataclass(frozen=True, slots=True)
class View:
    """The profiles of a merge policy with the audiences they may be in, as one reader sees them."""

    policy: str
    snapshot: Snapshot
    heads: Heads
    segments: Segments
    files: MembershipFiles
    now: datetime


def _concerns(membership: Membership, ordinal: int) -> bool:
    return ordinal in membership.members or ordinal in membership.exited


@dataclass(frozen=True, slots=True)
class _Data:
    """The datasets, and how the merge policies put them together."""

    datasets: Sequence[Dataset]
    default: MergeRule
    rules: Mapping[str, MergeRule]


def _by_policy(keys: Sequence[Who]) -> dict[str, list[Who]]:
    groups: dict[str, list[Who]] = defaultdict(list)
    for key in keys:
        groups[key.policy].append(key)
    return groups


def _statuses(status: Collection[str] | None) -> frozenset[str]:
    return frozenset(MEMBERS_NOW if status is None else status)


def _standing(membership: Membership, ordinal: int) -> tuple[str, datetime]:
    at = membership.last_qualified(ordinal)
    if at is None:
        raise RuntimeError(f"no time of qualification for {ordinal} in {membership.definition}")
    return membership.status(ordinal), at


def _member_place(request: PageRequest) -> Key | None:
    if request.cursor is None:
        return None
    place = decode_cursor(_MEMBER_ORDER, request.cursor, "after")
    if [type(value) for value in place] != [int, int]:
        raise _not_a_cursor(request.cursor)
    return int(place[0]), int(place[1])


def _not_a_cursor(cursor: str) -> Refusal:
    message = f"{cursor!r} is not a cursor: send back one that a page of this list gave"
    return Refusal(ErrorCode.INVALID_INPUT, message, ("after",))
