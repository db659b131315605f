"""Brings a database's tables to the newest form; knows nothing of what is in them."""

import time
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from app.storage.columns import Row

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x5E6D_E17A_7101
"""Number of the advisory lock that migrating processes take turns on."""


class MigrationRefused(Exception):
    """The database cannot be brought to the form that this program knows; the message says why and what to do."""


def migrate(connection: Connection) -> None:
    """Runs the migrations that are missing, within the transaction of `connection`, which writes.

    Any number of processes may do so at once: the first does the work, the others wait and find nothing to do. On
    SQLite the transaction is the lock, since it began IMMEDIATE. Raises `MigrationRefused`.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = configuration(connection)
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        head = ScriptDirectory.from_config(config).get_current_head()
        raise MigrationRefused(
            f"this version does not know the schema of the database (its own is {head}): {error}. "
            "It was probably used by a newer version: run that one, or another database"
        ) from error


def misfit(connection: Connection) -> str | None:
    """Why this program cannot work with the tables of the database as they are; None when it can."""
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision == _head():
        return None
    if revision is None:
        return "the database has no tables of this program: run `segmentation migrate`"
    if revision in _revisions():
        return f"the tables of the database are of an older version ({revision}): run `segmentation migrate`"
    return f"the tables of the database are of a newer version ({revision}) than this process: restart it with that one"


@cache
def _revisions() -> frozenset[str]:
    return frozenset(script.revision for script in _scripts().walk_revisions())


@cache
def _head() -> str | None:
    return _scripts().get_current_head()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(_MIGRATIONS))


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for migrations on this connection."""
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
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def differences(connection: Connection) -> list[str]:
    """How the database's tables and indexes differ from those of this program; empty when they are the same."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    if context.get_current_revision() is None:
        return ["it has no tables of this program"]
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
