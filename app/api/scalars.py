"""The scalars of the API and their JSON form; knows no resource."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NewType

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig

BigInt = NewType("BigInt", int)
Upload = NewType("Upload", Path)
"""A file of a multipart request: its path on disk, valid until the request ends."""

LARGEST = 2**53 - 1
"""Above this, most clients cannot represent a JSON number exactly."""


def write_time(instant: datetime) -> str:
    """ISO 8601 in UTC.

    >>> write_time(datetime(2026, 6, 15, 12, tzinfo=UTC))
    '2026-06-15T12:00:00Z'
    """
    text = (instant if instant.tzinfo is UTC else instant.astimezone(UTC)).isoformat()
    return f"{text.removesuffix('+00:00')}Z"


def read_time(value: object) -> datetime:
    """A timezone-aware instant; a time without a zone is UTC, like all times of the API.

    >>> read_time("2026-06-15T14:00:00+02:00").isoformat()
    '2026-06-15T12:00:00+00:00'
    """
    if not isinstance(value, str):
        raise GraphQLError(f"DateTime cannot be {value!r}: write an ISO 8601 text such as 2026-06-15T12:00:00Z")
    try:
        instant = datetime.fromisoformat(value)
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except ValueError:
        message = f"{value!r} is not a time: write it in ISO 8601, such as 2026-06-15T12:00:00Z"
    except OverflowError:
        message = f"{value!r} lies outside the years 1 to 9999 in UTC"
    raise GraphQLError(message) from None


def read_big_int(value: object) -> int:
    """
    >>> read_big_int(9007199254740991)
    9007199254740991
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST:
        raise GraphQLError(f"BigInt cannot be {value!r}: write a whole number between -(2^53 - 1) and 2^53 - 1")
    return value


def read_upload(value: object) -> Path:
    if not isinstance(value, Path):
        message = "Upload must be a file: send it by the multipart request specification, as multipart/form-data"
        raise GraphQLError(message)
    return value


def _refuse_writing(_value: object) -> object:
    raise GraphQLError("Upload is for input only")


SCALARS: dict[Any, Any] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="An instant in ISO 8601, always in UTC in responses: `2026-06-15T12:00:00Z`.",
        specified_by_url="https://datatracker.ietf.org/doc/html/rfc3339",
        serialize=write_time,
        parse_value=read_time,
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="A whole number that may be larger than 32 bits, as a JSON number; up to 2^53 - 1 either way.",
        serialize=int,
        parse_value=read_big_int,
    ),
    Upload: strawberry.scalar(
        name="Upload",
        description="A file, sent according to the GraphQL multipart request specification.",
        specified_by_url="https://github.com/jaydenseric/graphql-multipart-request-spec",
        serialize=_refuse_writing,
        parse_value=read_upload,
    ),
}

CONFIG = StrawberryConfig(scalar_map=SCALARS)


def given(value: object, default: object = None) -> Any:
    """An optional input as services take it: `default` if the caller omitted it."""
    return default if value is strawberry.UNSET else value
