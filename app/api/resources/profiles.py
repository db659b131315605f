"""Profiles: merged attributes, identities, events and memberships."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Self

import strawberry
from strawberry.scalars import JSON

from app.api.context import Info, Operation
from app.api.described import enum_value, resolver
from app.api.global_ids import Node, find_id, global_id, node_type
from app.api.lists.connections import LongConnection, connect_long, connection
from app.api.lists.filters import names
from app.api.scalars import given
from app.engine.people.profiles import Event, Person
from app.errors import ErrorCode, Refusal
from app.services.lists.paging import PageRequest
from app.services.people.attributes import project
from app.services.people.members import Member
from app.storage.columns import StoredValues

if TYPE_CHECKING:
    from app.api.resources.audiences import Audience


@strawberry.enum(description="Status of a membership after the last evaluation.")
class MembershipStatus(Enum):
    REALIZED = enum_value("REALIZED", description="Entered in the last evaluation.")
    EXISTING = enum_value("EXISTING", description="Member before and after the last evaluation.")
    EXITED = enum_value("EXITED", description="Left; was a member before.")


Paths = Annotated[
    list[str] | None, strawberry.argument(description="Paths to return, for example `person.name`; default all.")
]
Statuses = Annotated[
    list[MembershipStatus] | None,
    strawberry.argument(description="Membership statuses to include; default REALIZED and EXISTING."),
]


def asked_paths(paths: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if given(paths) is None else tuple(paths or ())


@strawberry.type(description="An identity of a profile.")
class Identity:
    namespace: str = strawberry.field(description="Namespace of the id, for example `email`.")
    id: str = strawberry.field(description="The id, exactly as written in the data.")
    primary: bool = strawberry.field(description="Whether it is the profile's primary identity.")


@strawberry.type(description="An event of a profile.")
class ExperienceEvent:
    event_id: str = strawberry.field(description="Its id.")
    timestamp: datetime = strawberry.field(description="Time of the event.")
    everything: strawberry.Private[StoredValues]

    @resolver(description="Attributes of the event.")
    def attributes(self, paths: Paths = strawberry.UNSET) -> JSON:
        selected = asked_paths(paths)
        return JSON(self.everything if selected is None else project(self.everything, selected))

    @classmethod
    def of(cls, event: Event) -> Self:
        return cls(event_id=event.event_id, timestamp=event.timestamp, everything=event.attributes)


@strawberry.type(description="Membership of a profile in an audience.")
class Membership:
    status: MembershipStatus = strawberry.field(description="Membership status.")
    last_qualification_time: datetime = strawberry.field(description="Time when the profile last entered.")
    member: strawberry.Private[Member]

    @resolver(description="Unique id of the profile's membership in the audience, for caches of clients.")
    async def id(self, info: Info) -> strawberry.ID:
        person = await info.context.loaders.person.load((self.member.key,))
        return global_id("Membership", f"{self.member.definition_id}:{person.profile_id}")

    @resolver(description="The profile.")
    async def profile(self, info: Info) -> "Profile":
        return Profile.of(self.member.key, await info.context.loaders.person.load((self.member.key,)))

    @resolver(description="The audience.")
    async def audience(self, info: Info) -> Annotated["Audience", strawberry.lazy("app.api.resources.audiences")]:
        audience: Audience = await node_type("Audience").fetch(info.context, self.member.definition_id)
        return audience

    @resolver(description="External audiences: the other columns of the profile's newest row.")
    async def payload(self, info: Info) -> JSON | None:
        pair = (self.member.definition_id, self.member.key)
        payload = await info.context.loaders.payload_of_membership.load((pair,))
        return None if payload is None else JSON(payload)

    @classmethod
    def of(cls, member: Member) -> Self:
        return cls(
            status=MembershipStatus(member.status),
            last_qualification_time=member.last_qualification_time,
            member=member,
        )


@strawberry.type(
    description="A person, merged by the default merge policy, or by that of the audience it was reached from."
)
class Profile(Node):
    profile_id: str = strawberry.field(description="Raw id: namespace and id of the primary identity, `namespace:id`.")
    identities: list[Identity] = strawberry.field(description="Identities.")
    key: strawberry.Private[Any]
    loaders: strawberry.Private[Any] = None
    """Loaders for the merge policy of the profile, unless it is the default policy."""

    @resolver(description="The merged attributes.")
    async def attributes(self, info: Info, paths: Paths = strawberry.UNSET) -> JSON:
        return JSON(await self._loaders(info).attributes_of_profile.load((self.key, asked_paths(paths))))

    @connection(description="Events, newest first.")
    async def events(self, info: Info, page: PageRequest) -> LongConnection[ExperienceEvent]:
        loaders = self._loaders(info)
        return await connect_long(
            info,
            lambda: loaders.events_of_profile.load((self.key, page)),
            ExperienceEvent.of,
            lambda: loaders.event_count_of_profile.load((self.key,)),
        )

    @connection(description="Memberships; EDGE audiences are evaluated at the moment of reading.")
    async def memberships(
        self,
        info: Info,
        page: PageRequest,
        status: Statuses = strawberry.UNSET,
    ) -> LongConnection[Membership]:
        statuses, loaders = names(status), self._loaders(info)
        return await connect_long(
            info,
            lambda: loaders.memberships_of_profile.load((self.key, page, statuses)),
            Membership.of,
            lambda: loaders.membership_count_of_profile.load((self.key, statuses)),
        )

    def _loaders(self, info: Info) -> Any:
        return self.loaders or info.context.loaders

    @classmethod
    def of(cls, key: object, person: Person, loaders: object = None) -> Self:
        return cls(
            id=global_id("Profile", person.profile_id),
            profile_id=person.profile_id,
            identities=[
                Identity(namespace=identity.namespace, id=identity.id, primary=identity.primary)
                for identity in person.identities
            ],
            key=key,
            loaders=loaders,
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        key = await operation.profiles.find(raw)
        return None if key is None else cls.of(key, await operation.loaders.person.load((key,)))


@strawberry.input(description="An identity to look a profile up by.")
class IdentityInput:
    namespace: str = strawberry.field(description="Namespace of the id, for example `email`.")
    id: str = strawberry.field(description="The id, exactly as written in the data.")


ProfileId = Annotated[
    strawberry.ID | None, strawberry.argument(description="Global id or raw `profileId`, `namespace:id`.")
]
IdentityArgument = Annotated[IdentityInput | None, strawberry.argument(description="Any identity of the profile.")]


@strawberry.type
class ProfileQueries:
    @resolver(description="A profile by its id or by any of its identities: send exactly one.")
    async def profile(
        self, info: Info, id: ProfileId = strawberry.UNSET, identity: IdentityArgument = strawberry.UNSET
    ) -> Profile | None:
        by_id, by_name = given(id), given(identity)
        if (by_id is None) == (by_name is None):
            raise Refusal(
                ErrorCode.INVALID_INPUT, "a profile is found by `id` or by `identity`: give one of them", ("id",)
            )
        if by_name is None:
            raw = find_id("Profile", by_id)
            return None if raw is None else await Profile.fetch(info.context, raw)
        key = await info.context.profiles.find_identity(by_name.namespace, by_name.id)
        return None if key is None else Profile.of(key, await info.context.loaders.person.load((key,)))
