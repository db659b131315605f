"""Brings a database's tables to the newest form; knows nothing of what is in them.

Alembic is imported by whoever needs it: that takes half a second, and nearly every start finds the newest form.
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
"""The forms that this program knows: the numbers in the names of the migrations' files."""
NEWEST = max(REVISIONS)
_LOCK = 0x5E6D_E17A_7101
"""Number of the advisory lock that migrating processes take turns on."""


def migrate(connection: Connection, target: str = NEWEST) -> None:
    """Runs the migrations that are missing up to `target`, within the transaction of `connection`, which writes.

    Any number of processes may do so at once: the first does the work, the others wait and find nothing to do. On
    SQLite the transaction is the lock, since it began IMMEDIATE. Raises `MigrationRefused`.
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
            f"the tables of the database are not known to this version, whose own are {NEWEST}: {error}. They were "
            "probably used by a newer version, and there is no way back: run that one, or restore a backup of the time "
            "before into another database"
        ) from error


def misfit(connection: Connection) -> str | None:
    """Why this program cannot work with the tables of the database as they are; None when it can."""
    present = revision(connection)
    if present == NEWEST:
        return None
    if present is None:
        return "the database has no tables of this program: run `segmentation migrate`"
    if present in REVISIONS:
        return f"the tables of the database are of an older version ({present}): run `segmentation migrate`"
    return f"the tables of the database are of a newer version ({present}) than this process: restart it with that one"


def revision(connection: Connection) -> str | None:
    """The form of a database's tables; None if this program never made any there."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def configuration(connection: Connection) -> "Config":
    """Alembic's configuration for migrations on this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def use_wal(connection: Connection, patience: float = 30.0) -> None:
    """Switches an SQLite file to write-ahead logging, for good. Must be outside a transaction.

    SQLite does not wait for another process that is switching just now, so this waits.
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
    """How the database's tables and indexes differ from those of this program; empty when they are the same."""
    if revision(connection) is None:
        return ["it has no tables of this program"]
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return [_told(difference) for difference in compare_metadata(context, Row.metadata)]


def _told(difference: Any) -> str:
    """One of Alembic's differences in words: ("add_index", index) means that the database lacks the index."""
    action, *rest = difference if isinstance(difference, tuple) else difference[0]
    named = [str(getattr(part, "name", part)) for part in rest if isinstance(part, str) or hasattr(part, "name")]
    verb, _, noun = action.partition("_")
    words = {"add": "is missing", "remove": "is not one of this program's"}.get(
        verb, "differs from what this program creates"
    )
    return f"{noun or action} {'.'.join(named)} {words}"
