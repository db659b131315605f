"""Migrates a database to the newest schema version; knows nothing about the data.

Alembic is imported only when needed: the import takes half a second, and at most starts the schema is already current.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

from app.errors import MigrationRefused
from app.storage.columns import Row

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"
REVISIONS = frozenset(
    path.stem.rpartition("_")[2] for path in (_MIGRATIONS / "versions").glob("*_[0-9][0-9][0-9][0-9].py")
)
"""The schema versions that this program knows: the numbers in the migrations' file names."""
NEWEST = max(REVISIONS)
_LOCK = 0x5E6D_E17A_7101
"""Key of the advisory lock that serialises migrating processes."""


def migrate(connection: Connection, target: str = NEWEST) -> None:
    """Runs the missing migrations up to `target` within the write transaction of `connection`.

    Any number of processes may call it at once: the first does the work, the others wait and find nothing to do. On
    SQLite the transaction itself is the lock, since it began as IMMEDIATE. Raises `MigrationRefused`.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    if revision(connection) == target:
        return
    from alembic import command
    from alembic.util import CommandError

    try:
        command.upgrade(configuration(connection), target)
    except CommandError as error:
        raise MigrationRefused(
            f"the database has an unknown schema version (this program has {NEWEST}): {error}. A newer version has "
            "probably migrated it, and migrations cannot be undone: run that version, or restore an earlier backup "
            "into another database"
        ) from error


def misfit(connection: Connection) -> str | None:
    """Why this program cannot use the database's schema version; None if it can."""
    present = revision(connection)
    if present == NEWEST:
        return None
    if present is None:
        return "the database has no tables of this program: run `segmentation migrate`"
    if present in REVISIONS:
        return f"the tables of the database are of an older version ({present}): run `segmentation migrate`"
    return f"the tables of the database are of a newer version ({present}) than this process: restart it with that one"


def revision(connection: Connection) -> str | None:
    """The database's schema version; None if it has no tables of this program."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def configuration(connection: Connection) -> "Config":
    """An Alembic configuration that uses this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def use_wal(connection: Connection, patience: float = 30.0) -> None:
    """Switches a SQLite file permanently to write-ahead logging. Must be called outside a transaction.

    SQLite does not wait while another process makes the same switch, so this retries for `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def differences(connection: Connection) -> list[str]:
    """Differences between the database's tables and indexes and those of this program; empty if there are none."""
    if revision(connection) is None:
        return ["it has no tables of this program"]
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return [_told(difference) for difference in compare_metadata(context, Row.metadata)]


def _told(difference: Any) -> str:
    """Describes one of Alembic's differences: ("add_index", index) means that the database lacks the index."""
    action, *rest = difference if isinstance(difference, tuple) else difference[0]
    named = [str(getattr(part, "name", part)) for part in rest if isinstance(part, str) or hasattr(part, "name")]
    verb, _, noun = action.partition("_")
    words = {"add": "is missing", "remove": "is not one of this program's"}.get(
        verb, "differs from what this program creates"
    )
    return f"{noun or action} {'.'.join(named)} {words}"
