"""API keys and the audit log."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Index
from sqlmodel import Field

from app.storage.columns import TableArguments, TenantRow, json_column, time_column


class ApiKeyRow(TenantRow, table=True):
    """An API key of an organisation. It belongs to no sandbox: `sandbox` is empty, which is not a valid sandbox name.

    Only the digest of the secret is stored. `sandboxes` is null if the key is valid for all of them.
    """

    __tablename__ = "api_key"
    __table_args__: ClassVar[TableArguments] = (Index(None, "digest", unique=True),)

    id: str = Field(primary_key=True)
    name: str
    prefix: str
    digest: str
    permissions: list[str] = json_column(nullable=False)
    sandboxes: list[str] | None = json_column(default=None)
    created_by: str
    created_at: datetime = time_column()
    last_used_at: datetime | None = time_column(default=None)
    expires_at: datetime | None = time_column(default=None)
    revoked_at: datetime | None = time_column(default=None)


class AuditEventRow(TenantRow, table=True):
    """An entry of the audit log. Triggers reject updates and deletes."""

    __tablename__ = "audit_event"

    id: str = Field(primary_key=True)
    at: datetime = time_column()
    subject: str
    action: str
    resource_id: str | None = None
    outcome: str
    request_id: str
