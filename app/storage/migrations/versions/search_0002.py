"""Folders, and the log of what search has to look at again, which triggers write.

A later migration that rebuilds `audience` or `folder` on SQLite (Alembic's "batch") has to make their triggers again:
`tests/storage/test_search_triggers.py` fails when it does not.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.String()
SORTABLE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
INSTANT = sa.DateTime(timezone=True)

SEARCHED = {
    "audience": ("Audience", ("audience_id", "name", "description", "namespace", "folder_id")),
    "folder": ("Folder", ("name", "namespace", "parent_id", "path")),
}
"""Table → type in the API, and the columns that are searched."""

KEPT = 10_000

_NOTE = """
    INSERT INTO search_version (organisation, sandbox, version) VALUES ({row}.organisation, {row}.sandbox, 1)
        ON CONFLICT (organisation, sandbox) DO UPDATE SET version = search_version.version + 1;
    INSERT INTO search_change (organisation, sandbox, kind, object_id, version)
        SELECT {row}.organisation, {row}.sandbox, '{kind}', {row}.id, v.version FROM search_version AS v
        WHERE v.organisation = {row}.organisation AND v.sandbox = {row}.sandbox
        ON CONFLICT (organisation, sandbox, kind, object_id) DO UPDATE SET version = excluded.version;
    DELETE FROM search_change
        WHERE organisation = {row}.organisation AND sandbox = {row}.sandbox AND version <= (
            SELECT v.version - {kept} FROM search_version AS v
            WHERE v.organisation = {row}.organisation AND v.sandbox = {row}.sandbox);
"""


def upgrade() -> None:
    op.create_table(
        "folder",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("namespace", TEXT, nullable=False),
        sa.Column("parent_id", TEXT, nullable=True),
        sa.Column("path", SORTABLE, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("last_modified_by", TEXT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "id", name="pk_folder"),
        sa.ForeignKeyConstraint(
            ["organisation", "sandbox", "parent_id"],
            ["folder.organisation", "folder.sandbox", "folder.id"],
            name="fk_folder_organisation_sandbox_parent_id",
        ),
    )
    op.create_index("ix_folder_organisation_sandbox_parent_id", "folder", ["organisation", "sandbox", "parent_id"])
    op.create_table(
        "search_version",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", name="pk_search_version"),
    )
    op.create_table(
        "search_change",
        sa.Column("organisation", TEXT, nullable=False),
        sa.Column("sandbox", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("object_id", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organisation", "sandbox", "kind", "object_id", name="pk_search_change"),
    )
    op.create_index(
        "ix_search_change_organisation_sandbox_version", "search_change", ["organisation", "sandbox", "version"]
    )
    postgresql = op.get_bind().dialect.name == "postgresql"
    make = _on_postgresql if postgresql else _on_sqlite
    for table, (kind, columns) in SEARCHED.items():
        make(table, kind, columns)


def _on_sqlite(table: str, kind: str, columns: tuple[str, ...]) -> None:
    changed = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in columns)
    for event, row, when in (("INSERT", "NEW", ""), ("UPDATE", "NEW", f"WHEN {changed}"), ("DELETE", "OLD", "")):
        note = _NOTE.format(row=row, kind=kind, kept=KEPT)
        op.execute(f"CREATE TRIGGER search_{table}_{event.lower()} AFTER {event} ON {table} {when} BEGIN {note} END")


def _on_postgresql(table: str, kind: str, columns: tuple[str, ...]) -> None:
    changed = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in columns)
    for event, row, when in (("INSERT", "NEW", ""), ("UPDATE", "NEW", f"WHEN ({changed})"), ("DELETE", "OLD", "")):
        name = f"search_{table}_{event.lower()}"
        note = _NOTE.format(row=row, kind=kind, kept=KEPT)
        op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {note} RETURN NULL; END $$")
        op.execute(f"CREATE TRIGGER {name} AFTER {event} ON {table} FOR EACH ROW {when} EXECUTE FUNCTION {name}()")
