"""Settings of an organisation's sandboxes; a sandbox without settings of its own has no row."""

from datetime import datetime

from app.storage.columns import TenantRow, time_column


class SandboxRow(TenantRow, table=True):
    """`time_zone` is an IANA name."""

    __tablename__ = "sandbox"

    time_zone: str
    last_modified_by: str
    updated_at: datetime = time_column()
