"""Changes to the members of audiences, in commit order."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index
from sqlmodel import Field

from app.storage.columns import TenantRow, time_column


class MembershipChangeRow(TenantRow, table=True):
    """The state of an audience after a run, upload or streaming turn that changed its members.

    The members are those of the run `run_id` ("" for none) plus its patches up to `turn`. Entries and exits are the
    difference from the audience's previous row and are not stored. `sequence` increases in commit order. A `baseline`
    is the oldest row kept; what it changed is no longer known.
    """

    __tablename__ = "membership_change"
    __table_args__: ClassVar[Any] = (
        ForeignKeyConstraint(
            ["organisation", "sandbox", "audience_id"],
            ["audience.organisation", "audience.sandbox", "audience.id"],
            ondelete="CASCADE",
        ),
        Index("ix_membership_change_audience", "organisation", "sandbox", "audience_id", "sequence"),
        Index("ix_membership_change_at", "organisation", "sandbox", "at"),
    )

    sequence: int = Field(primary_key=True, sa_type=BigInteger)
    audience_id: str
    at: datetime = time_column()
    job_id: str | None = None
    version: int = 0
    run_id: str
    turn: int = 0
    graph: int | None = None
    total_profiles: int = Field(sa_type=BigInteger)
    entered: int = Field(sa_type=BigInteger)
    exited: int = Field(sa_type=BigInteger)
    baseline: bool = False
