"""Audiences: sets of profiles, computed from a definition or uploaded."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from app.storage.columns import (
    StoredValues,
    TableArguments,
    TenantRow,
    enum_column,
    json_column,
    sortable_text,
    time_column,
)

_COMPUTED = text("type = 'SEGMENT_DEFINITION'")


class AudienceType(StrEnum):
    """Where the members come from: computed from a definition, or uploaded."""

    SEGMENT_DEFINITION = "SEGMENT_DEFINITION"
    EXTERNAL_SEGMENT = "EXTERNAL_SEGMENT"


class LifecycleState(StrEnum):
    """DRAFT → PUBLISHED ⇄ INACTIVE."""

    DRAFT = "DRAFT"
    PUBLISHED = "PUBLISHED"
    INACTIVE = "INACTIVE"


class AudienceRow(TenantRow, table=True):
    """An audience. The attributes it shares with its definition, such as the name, are stored only here.

    Names are unique among computed audiences, which are the definitions. Every write increments `revision`, the etag.
    `by_namespace` is {namespace: count} of the last finished evaluation; `total_profiles` is None before the first.
    `membership_run_id` is the head: the run whose membership files hold the current members, None before the first.
    `membership_graph` is the version of the identity graph that the members refer to, None if the members are
    fragments.
    """

    __tablename__ = "audience"
    __table_args__: ClassVar[TableArguments] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "merge_policy_id"],
            ["merge_policy.organisation", "merge_policy.sandbox", "merge_policy.id"],
        ),
        UniqueConstraint("organisation", "sandbox", "namespace", "audience_id"),
        Index(
            "uq_audience_definition_name",
            "organisation",
            "sandbox",
            "name",
            unique=True,
            sqlite_where=_COMPUTED,
            postgresql_where=_COMPUTED,
        ),
        Index(None, "organisation", "sandbox", "created_at", "id"),
        Index(None, "organisation", "sandbox", "updated_at", "id"),
        Index(None, "organisation", "sandbox", "name", "id"),
        Index(None, "organisation", "sandbox", "total_profiles", "id"),
        Index(None, "organisation", "sandbox", "folder_id", "id"),
        Index(None, "organisation", "sandbox", "merge_policy_id"),
    )

    id: str = Field(primary_key=True)
    audience_id: str
    name: str = sortable_text()
    description: str | None = None
    type: AudienceType = enum_column(AudienceType, default=AudienceType.SEGMENT_DEFINITION)
    origin: str = "REAL_TIME_CUSTOMER_PROFILE"
    namespace: str = "AEPSegments"
    lifecycle_state: LifecycleState = enum_column(LifecycleState, default=LifecycleState.PUBLISHED)
    labels: list[str] = json_column(default_factory=list)
    evaluates_batch: bool = True
    evaluates_streaming: bool = False
    evaluates_edge: bool = False
    exclude_opt_out: bool = True
    merge_policy_id: str | None = None
    dataset_id: str | None = None
    ttl_in_days: int | None = None
    expires_at: datetime | None = time_column(default=None)
    folder_id: str | None = None
    audience_meta: Any = json_column(default=None, nullable=True)
    linked_audience_ref: StoredValues | None = json_column(default=None)
    is_system: bool = False
    save_segment_membership: bool = True
    override_performance_warnings: bool = False
    revision: int = 1
    created_by: str
    last_modified_by: str
    created_at: datetime = time_column()
    updated_at: datetime = time_column()
    total_profiles: int | None = Field(default=None, sa_type=BigInteger)
    by_namespace: dict[str, int] = json_column(default_factory=dict)
    metrics_updated_at: datetime | None = time_column(default=None)
    metrics_job_id: str | None = None
    membership_run_id: str | None = None
    membership_graph: int | None = None
