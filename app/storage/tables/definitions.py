"""Segment definitions: an audience's expression, every version that it had, and whom it refers to."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import ForeignKeyConstraint, Index
from sqlmodel import Field

from app.storage.columns import StoredValues, TableArguments, TenantRow, json_column, time_column


class DefinitionRow(TenantRow, table=True):
    """The expression in force of the audience with the same id; name, labels and the rest are that audience's.

    `kept` is {first, by, descending} where only the first profiles by the value of an expression are members.
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
    """An expression as it once was in force; never changed."""

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
    """`definition_id` refers to the audience `depends_on_id` by inSegment, in the version in force."""

    __tablename__ = "definition_dependency"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "definition_id"],
            ["definition.organisation", "definition.sandbox", "definition.id"],
            ondelete="CASCADE",
        ),
        # No cascade: the database too refuses to delete an audience that others are made of.
        ForeignKeyConstraint(
            ["organisation", "sandbox", "depends_on_id"],
            ["audience.organisation", "audience.sandbox", "audience.id"],
        ),
        Index("ix_definition_dependency_dependents", "organisation", "sandbox", "depends_on_id", "definition_id"),
    )

    definition_id: str = Field(primary_key=True)
    depends_on_id: str = Field(primary_key=True)
