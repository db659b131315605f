"""Segment definitions: an audience's expression, all its versions, and the audiences it references."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import ForeignKeyConstraint, Index
from sqlmodel import Field

from app.storage.columns import StoredValues, TableArguments, TenantRow, json_column, time_column


class DefinitionRow(TenantRow, table=True):
    """The current expression of the audience with the same id; name, labels and other attributes are in `AudienceRow`.

    `kept` is {first, by, descending} if only the first profiles by the value of an expression are members.
    """

    __tablename__ = "definition"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "id"],
            ["audience.organisation", "audience.sandbox", "audience.id"],
            ondelete="CASCADE",
        ),
    )

    id: str = Field(primary_key=True)
    version: int = 1
    expression: str
    canonical: str
    kept: StoredValues | None = json_column(default=None)
    schema_name: str = "_xdm.context.profile"


class DefinitionVersionRow(TenantRow, table=True):
    """A version of an expression; immutable."""

    __tablename__ = "definition_version"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "definition_id"],
            ["definition.organisation", "definition.sandbox", "definition.id"],
            ondelete="CASCADE",
        ),
    )

    definition_id: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    expression: str
    canonical: str
    kept: StoredValues | None = json_column(default=None)
    merge_policy_id: str
    created_by: str
    created_at: datetime = time_column()


class DefinitionDependencyRow(TenantRow, table=True):
    """`definition_id` references the audience `depends_on_id` with inSegment, in its current version."""

    __tablename__ = "definition_dependency"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "definition_id"],
            ["definition.organisation", "definition.sandbox", "definition.id"],
            ondelete="CASCADE",
        ),
        # No cascade: the database itself rejects deleting an audience that others depend on.
        ForeignKeyConstraint(
            ["organisation", "sandbox", "depends_on_id"],
            ["audience.organisation", "audience.sandbox", "audience.id"],
        ),
        Index("ix_definition_dependency_dependents", "organisation", "sandbox", "depends_on_id", "definition_id"),
    )

    definition_id: str = Field(primary_key=True)
    depends_on_id: str = Field(primary_key=True)
