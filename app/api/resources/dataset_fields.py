"""The fields of a dataset: types as PQL sees them, and statistics."""

from typing import Annotated, Self

import strawberry
from strawberry.scalars import JSON

from app.api.scalars import BigInt
from app.engine.insight.fields import LONGEST, MOST_DISTINCT, MOST_ROWS, MOST_VALUES, ValueCount
from app.services.insight.fields import MOST_FIELDS, FieldInNumbers

VALUES = 10
"""Default number of frequent values."""


@strawberry.type(description="A field of a dataset, as PQL sees it.")
class DatasetField:
    path: str = strawberry.field(
        description="Path as it stands in an expression, for example `xEvent.dollars`; names such as Order Date are in "
        "backquotes."
    )
    type: str = strawberry.field(description="PQL type.")


@strawberry.type(description="How often a value occurs.")
class FieldValue:
    value: JSON = strawberry.field(description="Text, number, boolean, or a date or time in ISO 8601.")
    count: BigInt = strawberry.field(description="Occurrences; each element of an array counts.")

    @classmethod
    def of(cls, each: ValueCount) -> Self:
        return cls(value=JSON(each.value), count=BigInt(each.count))


@strawberry.type(description="A field of a dataset in numbers, over its rows as `rowCount` counts them.")
class FieldStatistics:
    path: str = strawberry.field(description="Path in an expression.")
    type: str = strawberry.field(description="PQL type.")
    rows: BigInt = strawberry.field(description="Rows that were read.")
    filled: BigInt = strawberry.field(
        description="Of these, rows in which the field has a value; an array, at least one element."
    )
    fill_rate: float | None = strawberry.field(description="`filled` divided by `rows`; null without rows.")
    distinct: BigInt | None = strawberry.field(
        description=f"Different values; null for maps, and if there are more than {MOST_DISTINCT:,}, which are not "
        "counted."
    )
    values: list[FieldValue] = strawberry.field(
        description="The most frequent values, ties by value. Empty where `distinct` is null. Texts of more than "
        f"{LONGEST:,} characters are left out."
    )
    approximate: bool = strawberry.field(
        description=f"Whether only a part of the dataset was read: of one with more than {MOST_ROWS:,} rows the first "
        "buckets, which profiles are in by chance. Otherwise all numbers are exact."
    )

    @classmethod
    def of(cls, field: FieldInNumbers, values: int) -> Self:
        numbers = field.statistics
        return cls(
            path=field.path,
            type=field.type,
            rows=BigInt(numbers.rows),
            filled=BigInt(numbers.filled),
            fill_rate=numbers.filled / numbers.rows if numbers.rows else None,
            distinct=None if numbers.distinct is None else BigInt(numbers.distinct),
            values=[FieldValue.of(each) for each in numbers.values[:values]],
            approximate=not numbers.whole,
        )


PathsArgument = Annotated[
    list[str] | None,
    strawberry.argument(
        description=f"Paths of `fields`, at most {MOST_FIELDS}; omitted, the first {MOST_FIELDS} fields."
    ),
]
ValuesArgument = Annotated[
    int | None, strawberry.argument(description=f"Frequent values of each field at most, 0 to {MOST_VALUES}.")
]
