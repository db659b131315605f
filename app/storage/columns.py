"""Column types that behave the same on SQLite and PostgreSQL, and the columns shared by all tenant tables."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sqlalchemy import JSON, Column, DateTime, Dialect, MetaData, String, Table
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware UTC instant with microseconds. SQLite stores it as fixed-width text, so it sorts correctly."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: instants are stored in UTC")
        instant = value.astimezone(UTC)
        return instant.replace(tzinfo=None) if dialect.name == "sqlite" else instant

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is UTC:
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


E = TypeVar("E", bound=StrEnum)


class EnumText(TypeDecorator[E]):
    """An enum member stored as its text: a new member needs no migration."""

    impl = String
    cache_ok = True

    def __init__(self, members: type[E]) -> None:
        super().__init__()
        self.members = members

    @property
    def python_type(self) -> type[E]:
        return self.members

    def process_bind_param(self, value: E | None, dialect: Dialect) -> str | None:
        return None if value is None else self.members(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:
        return None if value is None else self.members(value)


JsonValue = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON value; None is NULL."""


_SortableText = String().with_variant(String(collation="C"), "postgresql")


class Row(SQLModel):
    """Base class of all tables. They share one metadata object whose naming convention makes constraint names
    predictable."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )

    if TYPE_CHECKING:
        __table__: ClassVar[Table]


class TenantRow(Row):
    """A row of one sandbox of one organisation. Every key and every index starts with these two columns."""

    organisation: str = Field(primary_key=True)
    sandbox: str = Field(primary_key=True)


TableArguments = tuple[SchemaItem, ...]
"""Constraints and indexes of a table, in addition to its columns."""

StoredValues = dict[str, Any]
"""Values by name as a row stores them: its columns, or the contents of one of its JSON columns."""

Columns = ReadOnlyColumnCollection[str, Column[Any]]
"""The columns of a table by name, for use in statements: `audiences = columns(AudienceRow)`, `audiences.name`."""


def table(row: type[Row]) -> Table:
    """The table that stores rows of this class."""
    return row.__table__


def columns(row: type[Row]) -> Columns:
    return row.__table__.c


def json_column(**options: Any) -> Any:
    return Field(sa_type=JsonValue, **options)


def sortable_text(**options: Any) -> Any:
    """Text for sorting lists: ordered by code point, regardless of the database's locale."""
    return Field(sa_type=_SortableText, **options)


def enum_column(members: type[StrEnum], **options: Any) -> Any:
    return Field(sa_type=EnumText(members), **options)


def time_column(**options: Any) -> Any:
    return Field(sa_type=UtcDateTime, **options)
