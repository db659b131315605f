"""People: their identities, attributes, events and memberships, read from the lake page by page."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from app.clock import Clock
from app.engine.lake import Lake
from app.engine.membership import Membership, MembershipFiles
from app.engine.profiles import Event, Key, MergeRule, Person, Snapshot, find_person, open_snapshot
from app.engine.uploaded import payloads
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.edge import Edge, open_edge
from app.services.expressions import data_sources, read_segments
from app.services.live_definitions import live_definitions
from app.services.memberships import Heads, read_heads
from app.services.merge_policies import DEFAULT_POLICY_ID, default_policy, rule_of
from app.services.merge_policies import get_many as get_policies
from app.services.paging import PageRequest, Slice, decode_cursor, encode_cursor, slice_of
from app.services.uploaded_members import payload_sources
from app.storage.database import Database

MEMBERS_NOW = ("REALIZED", "EXISTING")
_MEMBER_ORDER, _MEMBERSHIP_ORDER, _EVENT_ORDER = "MEMBER", "MEMBERSHIP", "EVENT"


@dataclass(frozen=True, slots=True)
class Member:
    """One person in one segment; `status` is that of the segment's newest run."""

    key: Key
    definition_id: str
    status: str
    last_qualification_time: datetime


def project(attributes: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Only what the dotted paths name, in its place; arrays are followed. Raises `Refusal` for a malformed path.

    >>> project({"commerce": {"order": {"total": 3, "id": "a"}}, "device": "phone"}, ["commerce.order.total"])
    {'commerce': {'order': {'total': 3}}}
    """
    tree: dict[str, Any] = {}
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
    """Reads of one request: all of them see one snapshot of the data and one newest run of each segment.

    People are put together by `rule`, by the default merge policy unless it is given.
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
        self._opened: asyncio.Task[Snapshot] | None = None
        self._known_heads: asyncio.Task[Heads] | None = None
        self._members: dict[Key, list[Member]] = {}
        self._reading = asyncio.Lock()
        self._opened_edge: asyncio.Task[Edge | None] | None = None

    def with_rule(self, rule: MergeRule) -> "ProfileReader":
        """A reader of the same tenant whose people are put together by this rule."""
        return ProfileReader(self._database, self._lake.lake, self._clock, self._scope, rule)

    # ------------------------------------------------------------ people

    async def find(self, profile_id: str) -> Key | None:
        """By "namespace:id" of an identity; the primary one is what the profile's own id says."""
        namespace, colon, id_ = profile_id.partition(":")
        return await self.find_identity(namespace, id_) if colon else None

    async def find_identity(self, namespace: str, id: str) -> Key | None:
        """By any identity, the primary one first; somebody without any record or event is nobody."""
        snapshot = await self._snapshot()
        async with self._database.session() as session:
            datasets = await data_sources(session, self._scope)
        return await asyncio.to_thread(find_person, self._lake, snapshot, datasets, namespace, id)

    async def people(self, keys: Sequence[Key]) -> dict[Key, Person]:
        snapshot = await self._snapshot()
        found = await asyncio.to_thread(snapshot.people, list(keys))
        return {key: person for key, person in zip(keys, found, strict=True) if person is not None}

    async def attributes(self, keys: Sequence[Key], paths: Sequence[str] | None = None) -> dict[Key, dict[str, Any]]:
        """Merged, or only the given paths. Raises `Refusal` for a malformed path."""
        wanted = None if paths is None else split_paths(paths)
        snapshot = await self._snapshot()
        return dict(zip(keys, await asyncio.to_thread(snapshot.attributes, list(keys), wanted), strict=True))

    async def events(self, keys: Sequence[Key], request: PageRequest) -> dict[Key, Slice[Event]]:
        """Newest first; forward only."""
        place = None
        if request.cursor is not None:
            place = decode_cursor(_EVENT_ORDER, request.cursor, "after")
            if [type(value) for value in place] != [datetime, str]:
                raise _not_a_cursor(request.cursor)
        snapshot = await self._snapshot()
        pages = await asyncio.to_thread(snapshot.events, list(keys), first=request.limit, after=place)
        return {
            key: slice_of(
                {encode_cursor(_EVENT_ORDER, (event.timestamp, event.event_id)): event for event in page.items},
                request,
                has_next=page.has_next,
                behind=place is not None,
            )
            for key, page in zip(keys, pages, strict=True)
        }

    async def event_counts(self, keys: Sequence[Key]) -> dict[Key, int]:
        snapshot = await self._snapshot()
        return dict(zip(keys, await asyncio.to_thread(snapshot.event_counts, list(keys)), strict=True))

    # ------------------------------------------------------------ members

    async def members_many(
        self, definition_ids: Sequence[str], request: PageRequest, status: Collection[str] | None = None
    ) -> dict[str, Slice[Member]]:
        """Members of each segment by bucket and ordinal, an order that new people do not disturb; forward only."""
        heads, after = await self._heads(), _member_place(request)
        present = self._present(await self._snapshot())

        def read() -> dict[str, Slice[Member]]:
            wanted = _statuses(status)
            return {id_: self._member_page(heads, present, id_, request, after, wanted) for id_ in definition_ids}

        return await asyncio.to_thread(read)

    async def member_counts(
        self, definition_ids: Sequence[str], status: Collection[str] | None = None
    ) -> dict[str, int]:
        heads, wanted = await self._heads(), _statuses(status)
        present = self._present(await self._snapshot())

        def read() -> dict[str, int]:
            return {
                id_: sum(
                    len(membership.with_status(wanted) & present(bucket))
                    for bucket, membership in heads.of(self._files, id_)
                )
                for id_ in definition_ids
            }

        return await asyncio.to_thread(read)

    async def memberships(
        self, keys: Sequence[Key], request: PageRequest, status: Collection[str] | None = None
    ) -> dict[Key, Slice[Member]]:
        """The segments of each person, by the segment's id, EDGE ones evaluated just now; forward only."""
        after = None
        if request.cursor is not None:
            place = decode_cursor(_MEMBERSHIP_ORDER, request.cursor, "after")
            if [type(value) for value in place] != [str]:
                raise _not_a_cursor(request.cursor)
            after = place[0]
        everything = await self._all_memberships(keys, status)
        found = {}
        for key, members in everything.items():
            ahead = [member for member in members if after is None or member.definition_id > after]
            cursors = {
                encode_cursor(_MEMBERSHIP_ORDER, (member.definition_id,)): member for member in ahead[: request.limit]
            }
            has_next = len(ahead) > request.limit
            found[key] = slice_of(cursors, request, has_next=has_next, behind=len(ahead) < len(members))
        return found

    async def membership_counts(self, keys: Sequence[Key], status: Collection[str] | None = None) -> dict[Key, int]:
        return {key: len(members) for key, members in (await self._all_memberships(keys, status)).items()}

    async def payloads(self, pairs: Sequence[tuple[str, Key]]) -> dict[tuple[str, Key], dict[str, Any] | None]:
        """What the rows of external members say of them, by (audience, person); None for computed audiences."""
        async with self._database.session() as session:
            sources = await payload_sources(session, self._scope, {audience for audience, _ in pairs})

        def read() -> dict[tuple[str, Key], dict[str, Any] | None]:
            found: dict[tuple[str, Key], dict[str, Any] | None] = dict.fromkeys(pairs)
            for audience, (dataset, batches) in sources.items():
                keys = [key for one, key in pairs if one == audience]
                said = payloads(self._lake, dataset.id, keys, set(batches), dataset.identity_column or "")
                found |= {(audience, key): said.get(key, {}) for key in keys}
            return found

        return await asyncio.to_thread(read)

    # ------------------------------------------------------------ how

    async def _snapshot(self) -> Snapshot:
        if self._opened is None:
            self._opened = asyncio.create_task(self._open())
        return await asyncio.shield(self._opened)

    async def _open(self) -> Snapshot:
        async with self._database.session() as session:
            policy = await default_policy(session, self._scope) if self._rule is None else None
            datasets = await data_sources(session, self._scope)
        default = MergeRule(DEFAULT_POLICY_ID, "TIMESTAMP_ORDERED", ()) if policy is None else rule_of(policy)
        rule = self._rule or default
        return await asyncio.to_thread(open_snapshot, self._lake, rule, datasets)

    async def _heads(self) -> Heads:
        if self._known_heads is None:
            self._known_heads = asyncio.create_task(self._read_heads())
        return await asyncio.shield(self._known_heads)

    async def _read_heads(self) -> Heads:
        async with self._database.session() as session:
            return await read_heads(session, self._scope, now=self._clock())

    async def _edge(self) -> Edge | None:
        """None when the sandbox has no EDGE definitions."""
        if self._opened_edge is None:
            self._opened_edge = asyncio.create_task(self._open_edge())
        return await asyncio.shield(self._opened_edge)

    async def _open_edge(self) -> Edge | None:
        async with self._database.session() as session:
            definitions = await live_definitions(session, self._scope, edge=True)
            if not definitions:
                return None
            policies = await get_policies(session, self._scope, {one.merge_policy_id for one in definitions})
            datasets = await data_sources(session, self._scope)
            segments = await read_segments(session, self._scope)
        rules = {id_: rule_of(policy) for id_, policy in policies.items()}
        heads, shown, now = await self._heads(), await self._snapshot(), self._clock()
        known, aliases = heads.audiences | segments.external, segments.aliases
        return await asyncio.to_thread(open_edge, self._lake, definitions, rules, datasets, shown, known, aliases, now)

    def _present(self, snapshot: Snapshot) -> Callable[[int], Any]:
        """The people of each bucket: who went with a dataset is a member until the next run, but nobody to be shown."""
        return cache(snapshot.present)

    def _member_page(
        self,
        heads: Heads,
        present: Callable[[int], Any],
        definition_id: str,
        request: PageRequest,
        after: Key | None,
        wanted: frozenset[str],
    ) -> Slice[Member]:
        items: dict[str, Member] = {}
        more = False
        for bucket, membership in heads.of(self._files, definition_id, after[0] if after else 0):
            chosen = membership.with_status(wanted) & present(bucket)
            if after is not None and bucket == after[0]:
                chosen.remove_range(0, after[1] + 1)
            room = request.limit - len(items)
            more = len(chosen) > room
            for ordinal in chosen[:room]:
                member = _member((bucket, ordinal), membership)
                items[encode_cursor(_MEMBER_ORDER, member.key)] = member
            if more:
                break
        return slice_of(items, request, has_next=more, behind=after is not None)

    async def _all_memberships(self, keys: Sequence[Key], status: Collection[str] | None) -> dict[Key, list[Member]]:
        """Each person is evaluated once, so that a page and its count agree and cost no more than one of them."""
        async with self._reading:
            if new := [key for key in keys if key not in self._members]:
                self._members |= await self._read_memberships(new)
        wanted = _statuses(status)
        return {key: [member for member in self._members[key] if member.status in wanted] for key in keys}

    async def _read_memberships(self, keys: Sequence[Key]) -> dict[Key, list[Member]]:
        heads, edge = await self._heads(), await self._edge()
        by_bucket: dict[int, list[Key]] = defaultdict(list)
        for key in keys:
            by_bucket[key[0]].append(key)

        def read() -> dict[Key, list[Member]]:
            found: dict[Key, list[Member]] = {key: [] for key in keys}
            for bucket, these in by_bucket.items():
                memberships = heads.many(self._files, bucket)
                if edge is not None:
                    memberships |= edge.memberships(bucket, [ordinal for _, ordinal in these], memberships.get)
                for _, membership in sorted(memberships.items()):
                    known = membership.members | membership.exited
                    for key in these:
                        if key[1] in known:
                            found[key].append(_member(key, membership))
            return found

        return await asyncio.to_thread(read)


def _statuses(status: Collection[str] | None) -> frozenset[str]:
    return frozenset(MEMBERS_NOW if status is None else status)


def _member(key: Key, membership: Membership) -> Member:
    ordinal = key[1]
    at = membership.last_qualified(ordinal)
    if at is None:
        raise RuntimeError(f"no time of qualification for {key} in {membership.definition}")
    return Member(key, membership.definition, membership.status(ordinal), at)


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
