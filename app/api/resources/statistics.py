"""Statistics of an audience: a waterfall from all profiles to the reachable ones, and statistics of PQL values."""

from typing import Annotated, Self

import strawberry
from strawberry.scalars import JSON

from app.api.context import Info, Operation
from app.api.described import resolver
from app.api.errors import UserError, user_error
from app.api.scalars import BigInt
from app.engine.insight.statistics import Statistics
from app.errors import ErrorCode, Refusal
from app.services.insight import statistics, waterfall
from app.storage.tables.audiences import AudienceRow


@strawberry.type(description="How many profiles are left at a step.")
class WaterfallStep:
    name: str = strawberry.field(
        description="`evaluated`, `matched`, `consented`, `limited` where there is a limit, or an identity namespace."
    )
    count: BigInt = strawberry.field(description="Number of profiles.")


@strawberry.type(description="How many members have a value, or a value in a range.")
class HistogramBucket:
    low: JSON | None = strawberry.field(description="Smallest value, inclusive; of text and booleans the value itself.")
    high: JSON | None = strawberry.field(
        description="End of the range, exclusive except in the last bucket; null for text and booleans."
    )
    count: BigInt = strawberry.field(description="Number of members.")


@strawberry.type(description="Statistics of a PQL value over the members of an audience.")
class ValueStatistics:
    expression: str = strawberry.field(description="The expression.")
    count: BigInt = strawberry.field(description="Members that have a value.")
    distinct: BigInt = strawberry.field(description="Number of distinct values.")
    sum: float | None = strawberry.field(description="Sum of numbers; null for other values.")
    average: float | None = strawberry.field(description="Mean of numbers; null for other values.")
    minimum: JSON | None = strawberry.field(description="Least value, text by code point; null without values.")
    maximum: JSON | None = strawberry.field(description="Greatest value; null without values.")
    quartiles: list[float] = strawberry.field(
        description="First quartile, median and third quartile of numbers, interpolated linearly; else empty."
    )
    histogram: list[HistogramBucket] = strawberry.field(
        description="Numbers and times: buckets of equal width. Text and booleans: the most frequent values."
    )
    error: UserError | None = strawberry.field(description="Why there is no answer; null when there is one.")

    @classmethod
    def of(cls, expression: str, answer: Statistics | Refusal) -> Self:
        numbers = Statistics() if isinstance(answer, Refusal) else answer
        return cls(
            expression=expression,
            count=BigInt(numbers.count),
            distinct=BigInt(numbers.distinct),
            sum=numbers.total,
            average=numbers.average,
            minimum=JSON(numbers.minimum),
            maximum=JSON(numbers.maximum),
            quartiles=list(numbers.quartiles),
            histogram=[
                HistogramBucket(low=JSON(bucket.low), high=JSON(bucket.high), count=BigInt(bucket.count))
                for bucket in numbers.histogram
            ],
            error=user_error(answer) if isinstance(answer, Refusal) else None,
        )


ExpressionsArgument = Annotated[
    list[str],
    strawberry.argument(
        description=f"Up to {statistics.MOST_EXPRESSIONS} PQL expressions with a single value, such as `person.age`."
    ),
]
BucketsArgument = Annotated[
    int | None,
    strawberry.argument(description=f"Maximum number of buckets in a histogram, 1 to {statistics.MOST_BUCKETS}."),
]


@strawberry.type
class AudienceStatistics:
    """Statistics fields of every audience."""

    raw: strawberry.Private[str]

    @resolver(
        description="How many profiles remain after each step from all profiles to the reachable ones: profiles "
        "evaluated; those that match now; those of them that have not opted out; the first of these if there is a "
        "limit; and of the remaining ones, those with an identity in each namespace."
    )
    async def waterfall(self, info: Info) -> list[WaterfallStep]:
        operation = info.context
        row = await _row(operation, self.raw)
        definition = await operation.loaders.definition.load(self.raw)
        steps = await waterfall.measure(operation.profiles, row, definition, operation.services.lake.threads)
        return [WaterfallStep(name=name, count=BigInt(count)) for name, count in steps]

    @resolver(
        description="Count, distinct values, sum, average, minimum, maximum, quartiles and a histogram of PQL values "
        "over the members. An expression that cannot be answered has an `error`."
    )
    async def statistics(
        self, info: Info, expressions: ExpressionsArgument, buckets: BucketsArgument = 20
    ) -> list[ValueStatistics]:
        operation = info.context
        row = await _row(operation, self.raw)
        answers: list[Statistics | Refusal]
        try:
            threads = operation.services.lake.threads
            answers = await statistics.measure(
                operation.profiles, row, expressions, 20 if buckets is None else buckets, threads
            )
        except Refusal as refusal:
            answers = [refusal] * len(expressions)
        return [ValueStatistics.of(expression, answer) for expression, answer in zip(expressions, answers, strict=True)]


async def _row(operation: Operation, id: str) -> AudienceRow:
    row = await operation.loaders.audience.load(id)
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"the audience {id!r} has been deleted")
    return row
