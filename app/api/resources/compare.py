"""What would change if an audience had a different expression."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Self

import strawberry

from app.api.context import Info
from app.api.described import resolver
from app.api.errors import UserError, user_error
from app.api.lists.connections import LongConnection, connect_long, connection
from app.api.resources.insight import PeopleInput, people_of, with_persons
from app.api.resources.profiles import Profile
from app.api.scalars import BigInt
from app.engine.insight.scan import Answers
from app.engine.members.membership import Ordinals
from app.engine.people.profiles import Person
from app.engine.run.sampling import LEVEL, Estimate
from app.errors import Refusal
from app.services.insight import comparison
from app.services.lists.paging import PageRequest, Slice
from app.services.people.members import Who


@strawberry.type(description="Confidence interval of a size.")
class ConfidenceInterval:
    level: float = strawberry.field(description="Confidence level: 0.95.")
    low: BigInt = strawberry.field(description="Lower bound.")
    high: BigInt = strawberry.field(description="Upper bound.")


@strawberry.type(description="Who enters and who leaves: by another expression, or between two moments.")
class Comparison:
    before: BigInt = strawberry.field(description="Members before: those of now, or of the earlier moment.")
    after: BigInt = strawberry.field(description="Members after: with the expression, or at the later moment.")
    stay: BigInt = strawberry.field(description="Members before and after.")
    enter: BigInt = strawberry.field(description="Profiles that enter.")
    leave: BigInt = strawberry.field(description="Members that leave.")
    exact: bool = strawberry.field(
        description="False when there was no time to evaluate every profile: all but `before` are then estimates."
    )
    after_interval: ConfidenceInterval | None = strawberry.field(
        description="95% interval of `after`; null without an answer."
    )
    enter_interval: ConfidenceInterval | None = strawberry.field(
        description="95% interval of `enter`; null without an answer."
    )
    leave_interval: ConfidenceInterval | None = strawberry.field(
        description="95% interval of `leave`; null without an answer."
    )
    error: UserError | None = strawberry.field(description="Why there is no answer; null when there is one.")
    compared: strawberry.Private[comparison.Comparison | None]

    @connection("The profiles that enter; evaluates until the page is full.")
    async def entering(self, info: Info, page: PageRequest) -> LongConnection[Profile]:
        result = self.compared
        if result is None:
            return await _nobody(info)
        return await _side(info, result, result.entering, result.enters, page)

    @connection("The members that leave; evaluates until the page is full.")
    async def leaving(self, info: Info, page: PageRequest) -> LongConnection[Profile]:
        result = self.compared
        if result is None:
            return await _nobody(info)
        return await _side(info, result, result.leaving, result.leaves, page)

    @classmethod
    def of(cls, compared: comparison.Comparison, counts: comparison.Counts) -> Self:
        return cls(
            before=BigInt(counts.before),
            after=BigInt(counts.after.size),
            stay=BigInt(counts.stay.size),
            enter=BigInt(counts.enter.size),
            leave=BigInt(counts.leave.size),
            exact=counts.exact,
            after_interval=_interval(counts.after),
            enter_interval=_interval(counts.enter),
            leave_interval=_interval(counts.leave),
            error=None,
            compared=compared,
        )

    @classmethod
    def refused(cls, error: UserError) -> Self:
        zero = BigInt(0)
        return cls(
            before=zero,
            after=zero,
            stay=zero,
            enter=zero,
            leave=zero,
            exact=True,
            after_interval=None,
            enter_interval=None,
            leave_interval=None,
            error=error,
            compared=None,
        )


def _interval(of: Estimate) -> ConfidenceInterval:
    return ConfidenceInterval(level=LEVEL, low=BigInt(of.low), high=BigInt(of.high))


async def _nobody(info: Info) -> LongConnection[Profile]:
    async def load() -> Slice[tuple[Who, Person]]:
        return Slice([], [], False, False)

    async def count() -> int:
        return 0

    return await connect_long(info, load, lambda member: Profile.of(*member), count)


async def _side(
    info: Info,
    compared: comparison.Comparison,
    read: Callable[[PageRequest], Awaitable[Slice[Who]]],
    chosen: Callable[[Answers], Ordinals],
    page: PageRequest,
) -> LongConnection[Profile]:
    operation = info.context

    async def load() -> Slice[tuple[Who, Person]]:
        return await with_persons(operation, await read(page))

    return await connect_long(info, load, lambda member: Profile.of(*member), lambda: compared.size(chosen))


AudienceArgument = Annotated[strawberry.ID, strawberry.argument(description="Global id, or the raw `audienceId`.")]
ExpressionArgument = Annotated[str, strawberry.argument(description="The expression that it would have, in PQL.")]


@strawberry.type
class CompareQueries:
    @resolver(description="Who would enter and who would leave if the audience had this expression; its limit stays.")
    async def compare(self, info: Info, audience_id: AudienceArgument, expression: ExpressionArgument) -> Comparison:
        operation = info.context
        try:
            people = await people_of(operation, PeopleInput(audience_id=audience_id))
            if people.audience is None:
                raise LookupError("an audience was asked for")
            definition = await operation.loaders.definition.load(people.audience.id)
            limit, threads = None if definition is None else definition.kept, operation.services.lake.threads
            result = await comparison.compare(operation.profiles, people.audience, limit, expression, threads)
            return Comparison.of(result, await result.counts(threads))
        except Refusal as refusal:
            return Comparison.refused(user_error(refusal))
