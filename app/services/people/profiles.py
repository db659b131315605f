"""Profiles: their identities, attributes, events and memberships, read from the lake page by page."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from app.clock import Clock
from app.engine.members.membership import MembershipFiles, Ordinals
from app.engine.members.uploaded import payloads
from app.engine.people.profiles import (
    Event,
    Key,
    MergeRule,
    People,
    Person,
    Snapshot,
    find_person,
)
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.audiences.external_members import payload_sources
from app.services.evaluation.expressions import Segments
from app.services.evaluation.heads import Heads
from app.services.lists.paging import PageRequest, Slice, decode_cursor, encode_cursor, not_a_cursor, slice_of
from app.services.people.attributes import split_paths
from app.services.people.members import Member, MemberReader, Who, by_policy
from app.services.people.pinned import PinnedReads
from app.storage.columns import StoredValues
from app.storage.database import Database

T = TypeVar("T")

_EVENT_ORDER = "EVENT"


@dataclass(frozen=True, slots=True)
class View:
    """The profiles of a merge policy with their possible audiences, as one reader sees them."""

    policy: str
    snapshot: Snapshot
    heads: Heads
    segments: Segments
    files: MembershipFiles
    now: datetime


class ProfileReader:
    """The reads of one request. All of them see one snapshot of the data per merge policy, and one newest run per
    segment.

    Profiles are looked up under the default policy, or under `rule` if given. Each segment's members are persons under
    its own policy: people linked since its run count as one member, and people without remaining data are left out.
    """

    def __init__(
        self, database: Database, lake: Lake, clock: Clock, scope: Scope, rule: MergeRule | None = None
    ) -> None:
        self._pinned = PinnedReads(database, lake, clock, scope, rule)
        self._members = MemberReader(self._pinned)

    def with_rule(self, rule: MergeRule) -> "ProfileReader":
        """A reader of the same tenant that merges people by this rule."""
        pinned = self._pinned
        return ProfileReader(pinned.database, pinned.lake.lake, pinned.clock, pinned.scope, rule)

    # ------------------------------------------------------------ people

    async def find(self, profile_id: str) -> Who | None:
        """Looks up a profile by "namespace:id" of any identity; the primary identity is part of the profile's own
        id."""
        namespace, colon, id_ = profile_id.partition(":")
        return await self.find_identity(namespace, id_) if colon else None

    async def find_identity(self, namespace: str, id: str, policy: str | None = None) -> Who | None:
        """Looks up a person by any identity, preferring the primary one, under the default policy unless another is
        given. None for a person without records and events."""
        data = await self._pinned.data()
        policy_id = policy or data.default.id
        snapshot = await self._pinned.snapshot(policy_id)
        key = await asyncio.to_thread(find_person, self._pinned.lake, snapshot, data.datasets, namespace, id)
        return None if key is None else Who(policy_id, *key)

    async def people_at(self, keys: Sequence[Key]) -> list[Who]:
        """The people at these keys (bucket, ordinal) under the lookup policy."""
        policy = (await self._pinned.data()).default.id
        return [Who(policy, *key) for key in keys]

    async def people(self, keys: Sequence[Who]) -> dict[Who, Person]:
        people_of = await self._of_each(keys, lambda snapshot, places: snapshot.people(places))
        return {key: person for key, person in people_of.items() if person is not None}

    async def people_in(self, policy: str, ordinals: Mapping[int, Ordinals]) -> People:
        """The people with these ordinals, by bucket, under a policy."""
        snapshot, threads = await self._pinned.snapshot(policy), self._pinned.lake.lake.threads
        return await asyncio.to_thread(snapshot.people_in, ordinals, threads)

    async def attributes(self, keys: Sequence[Who], paths: Sequence[str] | None = None) -> dict[Who, StoredValues]:
        """The merged attributes, or only the given paths. Raises `Refusal` for a malformed path."""
        selected = None if paths is None else split_paths(paths)
        return await self._of_each(keys, lambda snapshot, places: snapshot.attributes(places, selected))

    async def events(self, keys: Sequence[Who], request: PageRequest) -> dict[Who, Slice[Event]]:
        """A page of events per person, newest first."""
        place = None
        if request.cursor is not None:
            place = decode_cursor(_EVENT_ORDER, request.cursor, request.argument)
            if [type(value) for value in place] != [datetime, str]:
                raise not_a_cursor(request)
        pages = await self._of_each(
            keys,
            lambda snapshot, places: snapshot.events(
                places, limit=request.limit, place=place, backward=request.backward
            ),
        )
        return {
            key: slice_of(
                {encode_cursor(_EVENT_ORDER, (event.timestamp, event.event_id)): event for event in page.items},
                request,
                has_next=page.more,
                behind=place is not None,
            )
            for key, page in pages.items()
        }

    async def event_counts(self, keys: Sequence[Who]) -> dict[Who, int]:
        return await self._of_each(keys, lambda snapshot, places: snapshot.event_counts(places))

    # ------------------------------------------------------------ members

    async def members_many(
        self, definition_ids: Sequence[str], request: PageRequest, status: Collection[str] | None = None
    ) -> dict[str, Slice[Member]]:
        return await self._members.pages(definition_ids, request, status)

    async def member_counts(
        self, definition_ids: Sequence[str], status: Collection[str] | None = None
    ) -> dict[str, int]:
        return await self._members.counts(definition_ids, status)

    async def memberships(
        self, keys: Sequence[Who], request: PageRequest, status: Collection[str] | None = None
    ) -> dict[Who, Slice[Member]]:
        return await self._members.membership_pages(keys, request, status)

    async def membership_counts(self, keys: Sequence[Who], status: Collection[str] | None = None) -> dict[Who, int]:
        return {key: len(members) for key, members in (await self._members.of_people(keys, status)).items()}

    async def payloads(self, pairs: Sequence[tuple[str, Who]]) -> dict[tuple[str, Who], StoredValues | None]:
        """The payload columns of external members, by (audience, person); None for computed audiences."""
        async with self._pinned.database.session() as session:
            sources = await payload_sources(session, self._pinned.scope, {audience for audience, _ in pairs})

        def read() -> dict[tuple[str, Who], StoredValues | None]:
            payload_of: dict[tuple[str, Who], StoredValues | None] = dict.fromkeys(pairs)
            for audience, (dataset, batches) in sources.items():
                people = [who for audience_id, who in pairs if audience_id == audience]
                keys = [(who.bucket, who.ordinal) for who in people]
                said = payloads(self._pinned.lake, dataset.id, keys, set(batches), dataset.identity_column or "")
                payload_of |= {(audience, who): said.get(key, {}) for who, key in zip(people, keys, strict=True)}
            return payload_of

        return await asyncio.to_thread(read)

    async def view(self, policy: str | None = None) -> View:
        """The view of these reads under a merge policy, by default the default one. Raises `Refusal`."""
        data = await self._pinned.data()
        policy_id = data.default.id if policy is None else policy
        if policy_id not in data.rules:
            message = f"there is no merge policy {policy!r} in this sandbox"
            raise Refusal(ErrorCode.NOT_FOUND, message, ("merge_policy_id",))
        segments, zone = await self._pinned.segments()
        snapshot, heads = await self._pinned.snapshot(policy_id), await self._pinned.heads()
        return View(policy_id, snapshot, heads, segments, self._pinned.files, self._pinned.clock().astimezone(zone))

    async def joining(self, policies: Sequence[str]) -> str:
        """The first of the default policy and these that links fragments to persons; the default one if none does."""
        data = await self._pinned.data()
        joining = (id for id in (data.default.id, *policies) if data.rules[id].identity_graph != "NONE")
        return next(joining, data.default.id)

    async def _of_each(self, keys: Sequence[Who], read: Callable[[Snapshot, list[Key]], Sequence[T]]) -> dict[Who, T]:
        """Calls `read` once per policy with its people, and combines the results."""
        results: dict[Who, T] = {}
        for policy, group in by_policy(keys).items():
            snapshot, places = await self._pinned.snapshot(policy), [(key.bucket, key.ordinal) for key in group]
            results.update(zip(group, await asyncio.to_thread(read, snapshot, places), strict=True))
        return results
