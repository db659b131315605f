"""Queries over the profiles of a sandbox: matching profiles, and overlaps of audiences."""

from typing import Annotated

import strawberry

from app.api.context import Info, Operation
from app.api.described import resolver
from app.api.errors import UserError, user_error
from app.api.global_ids import need_id
from app.api.lists.connections import LongConnection, connect_long, connection
from app.api.lists.filters import OrderDirection, one_id
from app.api.resources.merge_policies import MergePolicy
from app.api.resources.profiles import Profile
from app.api.scalars import BigInt, given
from app.engine.people.profiles import Person
from app.errors import ErrorCode, Refusal
from app.services.insight import overlap as overlaps
from app.services.insight import profiles
from app.services.insight.population import open_population
from app.services.lists.paging import PageRequest, Slice
from app.services.people.members import Who


@strawberry.input(description="An order of profiles: by the value of a PQL expression, profiles without one last.")
class ProfileOrder:
    expression: str = strawberry.field(
        description="PQL with a single value, for example `person.age` or `xEvent.sum(dollars)`."
    )
    direction: OrderDirection = strawberry.field(default=OrderDirection.ASC, description="Sort direction.")


@strawberry.input(description="An audience that is stored, or an expression that is not: give one of the two.")
class PeopleInput:
    audience_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Global id, or the raw `audienceId`: its stored members."
    )
    expression: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="PQL, evaluated now; profiles that opted out are excluded, as for a new definition.",
    )


@strawberry.type(description="The profiles of one combination.")
class OverlapCell:
    in_: list[bool] = strawberry.field(
        name="in", description="For each of the given people, in their order, whether the profiles are in it."
    )
    count: BigInt = strawberry.field(description="Number of profiles.")


@strawberry.type(description="How many profiles are in each combination of audiences and expressions.")
class Overlap:
    cells: list[OverlapCell] = strawberry.field(
        description="Every combination but that of the profiles that are in none of them; empty ones too."
    )
    sizes: list[BigInt] = strawberry.field(description="Size of each of the given people, in their order.")
    union: BigInt = strawberry.field(description="Number of profiles that are in at least one.")
    exact: bool = strawberry.field(description="False when computed from a sample.")
    error: UserError | None = strawberry.field(description="Why there is no answer; null when there is one.")
    policy: strawberry.Private[str | None] = None

    @resolver(
        description="The merge policy whose profiles are counted; null when there is no answer, or no policy yet."
    )
    async def merge_policy(self, info: Info) -> MergePolicy | None:
        row = None if self.policy is None else await info.context.loaders.merge_policy.load(self.policy)
        return None if row is None else MergePolicy.of(row)

    @classmethod
    def of(cls, found: overlaps.Overlap) -> "Overlap":
        return cls(
            cells=[OverlapCell(in_=list(inside), count=BigInt(count)) for inside, count in found.cells],
            sizes=[BigInt(size) for size in found.sizes],
            union=BigInt(found.union),
            exact=found.exact,
            error=None,
            policy=found.policy,
        )


WhereArgument = Annotated[
    str | None, strawberry.argument(description="PQL that holds for the profiles; every profile unless given.")
]
OrderArgument = Annotated[
    ProfileOrder | None, strawberry.argument(description="Unless given, an order that new profiles do not disturb.")
]
PeopleArgument = Annotated[list[PeopleInput], strawberry.argument(description="2 to 8 audiences or expressions.")]
PolicyArgument = Annotated[
    strawberry.ID | None,
    strawberry.argument(
        description="Merge policy of the profiles, by global or raw id; by default the one that the audiences share. "
        "If theirs differ, the first of the default policy and theirs that links fragments to persons, so that no "
        "person counts twice; the default policy if none does."
    ),
]


async def people_of(operation: Operation, value: PeopleInput, *path: str) -> overlaps.People:
    """Raises `Refusal` unless it names one audience of the sandbox, or contains an expression."""
    audience, expression = given(value.audience_id), given(value.expression)
    if (audience is None) == (expression is None):
        message = "give an `audienceId` or an `expression`, and not both"
        raise Refusal(ErrorCode.INVALID_INPUT, message, path)
    if audience is None:
        return overlaps.People(expression=expression)
    raw = need_id("Audience", audience, *path, "audience_id")
    row = await operation.loaders.audience.load(raw)
    if row is None:
        message = f"there is no audience {audience!r} in this sandbox"
        raise Refusal(ErrorCode.NOT_FOUND, message, (*path, "audience_id"))
    return overlaps.People(audience=row)


@strawberry.type
class InsightQueries:
    @connection("Profiles of the sandbox under the default merge policy: those for whom `where` holds.")
    async def profiles(
        self,
        info: Info,
        page: PageRequest,
        where: WhereArgument = strawberry.UNSET,
        order_by: OrderArgument = strawberry.UNSET,
    ) -> LongConnection[Profile]:
        operation, expression = info.context, given(where)
        order = profile_order(order_by)

        async def load() -> Slice[tuple[Who, Person]]:
            population = await open_population(operation.profiles)
            result = await profiles.page(population, page, expression, order, operation.services.lake.threads)
            return await with_persons(operation, result)

        async def count() -> int:
            return await profiles.count(await open_population(operation.profiles), expression)

        return await connect_long(info, load, lambda one: Profile.of(*one), count)

    @resolver(
        description="How many profiles are in each combination of 2 to 8 audiences or expressions: the cells of a Venn "
        "or UpSet diagram."
    )
    async def overlap(
        self, info: Info, people: PeopleArgument, merge_policy_id: PolicyArgument = strawberry.UNSET
    ) -> Overlap:
        operation = info.context
        try:
            policy = one_id("MergePolicy", merge_policy_id, "merge_policy_id")
            groups = [await people_of(operation, group, "people", str(at)) for at, group in enumerate(people)]
            result = await overlaps.measure(operation.profiles, groups, policy, operation.services.lake.threads)
        except Refusal as refusal:
            return Overlap(cells=[], sizes=[], union=BigInt(0), exact=True, error=user_error(refusal))
        return Overlap.of(result)


def profile_order(value: ProfileOrder | None) -> profiles.ProfileOrder | None:
    if value is None or not given(value):
        return None
    return profiles.ProfileOrder(value.expression, value.direction is OrderDirection.DESC)


async def with_persons(operation: Operation, page: Slice[Who]) -> Slice[tuple[Who, Person]]:
    """The profiles of a page, with their persons."""
    persons = await operation.profiles.people(page.items)
    return Slice([(who, persons[who]) for who in page.items], page.cursors, page.has_next, page.has_previous)
