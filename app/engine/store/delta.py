"""Delta tables, partitioned by bucket or plain: versions, and commits of files already written; knows no people."""

import json
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from app.engine.store.case_names import file_schema, our_schema
from app.errors import ErrorCode, Refusal

BUCKET = "__bucket"
_COMMIT = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a table; `name` is relative to the table's folder. Those of a plain table have bucket 0."""

    name: str
    bucket: int
    rows: int


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One version of a table: the files that it consists of, and its columns (with the bucket's)."""

    folder: Path
    version: int
    schema: pa.Schema
    files: tuple[DataFile, ...]

    def paths(self, bucket: int | None = None) -> list[Path]:
        """The files of one bucket, or all, in no order to rely on."""
        return [self.folder / file.name for file in self.files if bucket is None or file.bucket == bucket]


def open_table(folder: Path, version: int | None = None) -> TableVersion | None:
    """The newest version, or the one asked for; None when there is no table. Raises `LogLost`."""
    newest = _newest_version(folder)
    if newest is None:
        return None
    version_to_open = newest if version is None else version
    try:
        written = (folder / "_delta_log" / _commit_name(version_to_open)).stat()
    except FileNotFoundError:  # Known from a checkpoint alone, or not at all.
        return _read_version(folder, version_to_open)
    return _remembered.get(folder, version_to_open, written.st_ino, written.st_mtime_ns)


def _newest_version(folder: Path) -> int | None:
    """A listing of the log: a commit's file appears at once and whole, under a number that nobody else gets."""
    try:
        names = os.listdir(folder / "_delta_log")
    except (FileNotFoundError, NotADirectoryError):
        return None
    commits = (_COMMIT.fullmatch(name) for name in names)
    return max((int(commit[1]) for commit in commits if commit), default=None)


def _commit_name(version: int) -> str:
    return f"{version:020}.json"


class _Versions:
    """The versions read last, of `most` files and columns together: thousands of small tables, or some large ones."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._lock = most, 0, threading.Lock()
        self._versions: OrderedDict[tuple[Path, int, int, int], TableVersion] = OrderedDict()

    def get(self, folder: Path, version: int, inode: int, written: int) -> TableVersion:
        """A version never changes, and a table that was made anew in the same place has another commit file."""
        key = folder, version, inode, written
        with self._lock:
            if (known := self._versions.get(key)) is not None:
                self._versions.move_to_end(key)
                return known
        read = _read_version(folder, version)
        with self._lock:
            if key not in self._versions:
                self._versions[key] = read
                self._held += _weight(read)
            while self._held > self._most and len(self._versions) > 1:
                self._held -= _weight(self._versions.popitem(last=False)[1])
        return read


def _weight(version: TableVersion) -> int:
    return len(version.files) + len(version.schema)


_remembered = _Versions(1 << 18)


class LogLost(Refusal):
    """The log of a table is damaged, so that nobody knows what is in it."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            ErrorCode.INVALID_STATE,
            f"the log of {'/'.join(folder.parts[-2:])} in the lake cannot be read ({reason}): restore the folder from "
            "a copy; `segmentation doctor` says what else can be done",
        )
        self.reason = reason


def _read_version(folder: Path, version: int) -> TableVersion:
    _refuse_empty_commits(folder)
    try:
        table = DeltaTable(folder, version=version)
    except TableNotFoundError:
        raise
    except (DeltaError, ValueError, OSError) as error:
        raise LogLost(folder, str(error).splitlines()[0][:200]) from error
    actions = pa.table(table.get_add_actions(flatten=True))
    if actions.num_rows:
        names, rows = actions["path"].to_pylist(), actions["num_records"].to_pylist()
        by_bucket = f"partition.{BUCKET}" in actions.schema.names
        buckets = actions[f"partition.{BUCKET}"].to_pylist() if by_bucket else [0] * len(names)
    else:
        names, rows, buckets = [], [], []
    files = tuple(
        DataFile(name, int(bucket), int(count)) for name, bucket, count in zip(names, buckets, rows, strict=True)
    )
    return TableVersion(folder, table.version(), our_schema(pa.schema(table.schema().to_arrow())), files)


def _refuse_empty_commits(folder: Path) -> None:
    """Delta passes over them, and with them over the rows that they added; nobody writes one."""
    with suppress(FileNotFoundError), os.scandir(folder / "_delta_log") as entries:  # It may be deleted just now.
        for entry in entries:
            if _COMMIT.fullmatch(entry.name) and not entry.stat().st_size:
                raise LogLost(folder, f"{entry.name} is empty")


class GivenUp(Exception):
    """It has been settled that this transaction never happens; nothing was committed."""


_BEGUN, _GIVEN_UP = -2, -1
"""Versions that a transaction has in the log while it has only widened the columns, and once it is given up."""


def committed_version(folder: Path, transaction: str) -> int | None:
    """The version that a commit with this transaction id made, None when it never happened."""
    if _newest_version(folder) is None:
        return None
    version = DeltaTable(folder).transaction_version(transaction)
    return version if version is not None and version >= 0 else None


def give_up(folder: Path, schema: pa.Schema, transaction: str) -> int | None:
    """Settles that a transaction never happens, unless it has: then the version that it made, else None.

    Whatever process was about to commit it, however late it wakes, gets `GivenUp`: of two commits with one transaction
    id that began on the same version Delta lets only the first through. `schema` is for a table that is not there yet.
    """
    while True:
        table = _partitioned_table(folder, schema)
        version = table.transaction_version(transaction)
        if version is not None and version != _BEGUN:
            return version if version >= 0 else None
        with suppress(CommitFailedError):
            stored_schema, properties = pa.schema(table.schema().to_arrow()), _note(transaction, _GIVEN_UP)
            table.create_write_transaction([], "append", stored_schema, [BUCKET], commit_properties=properties)


def next_version(current: TableVersion | None, schema: pa.Schema) -> int:
    """The version that `commit` will make (a new or wider schema is a version of its own before it)."""
    if current is None:
        return 1
    return current.version + (
        2 if _adds_columns(current.schema, schema) or _changes_types(current.schema, schema) else 1
    )


def withdraw(folder: Path, files: Sequence[DataFile], transaction: str) -> int:
    """Takes back what a transaction added, in one version, and gives that version; it then never happened."""
    table = DeltaTable(folder)
    version, now = table.version() + 1, int(time.time() * 1000)
    gone: list[AddAction | RemoveAction] = [
        RemoveAction(file.name, True, now, None, {BUCKET: str(file.bucket)}) for file in files
    ]
    schema, properties = pa.schema(table.schema().to_arrow()), _note(transaction, _GIVEN_UP)
    table.create_write_transaction(gone, "append", schema, [BUCKET], commit_properties=properties)
    return version


def commit(
    folder: Path,
    current: TableVersion | None,
    schema: pa.Schema,
    add: Sequence[DataFile],
    remove: Sequence[DataFile] = (),
    transaction: str | None = None,
) -> int:
    """Adds and removes files in one version, creating the table or widening its columns first, and gives that version.

    `schema` has the bucket's column and all that are there, some of them with wider types (files that were written
    before keep theirs). The files lie in the folder already. Raises `GivenUp` when the transaction was, and
    `CommitFailedError` when another writer was faster with the same files.
    """
    table = _partitioned_table(folder, schema) if current is None else DeltaTable(folder)
    _refuse_given_up(table, transaction)
    try:
        stored_schema = pa.schema(table.schema().to_arrow())
        schema = file_schema(schema, stored_schema)
        if _changes_types(stored_schema, schema) or _adds_columns(stored_schema, schema):
            _widen(table, stored_schema, schema, _note(transaction, _BEGUN))
            table = DeltaTable(folder)
            _refuse_given_up(table, transaction)
        version = table.version() + 1
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            _added(folder, file.name, file.rows, {BUCKET: str(file.bucket)}) for file in add
        ]
        actions += [RemoveAction(file.name, True, now, None, {BUCKET: str(file.bucket)}) for file in remove]
        table.create_write_transaction(
            actions, "append", schema, [BUCKET], commit_properties=_note(transaction, version)
        )
    except CommitFailedError:
        _refuse_given_up(DeltaTable(folder), transaction)
        raise
    return version


def _widen(table: DeltaTable, known: pa.Schema, schema: pa.Schema, properties: CommitProperties) -> None:
    if _changes_types(known, schema):
        # Replaces the files of a bucket that there is not, and with them the columns.
        nowhere = [(BUCKET, "=", "-1")]
        table.create_write_transaction(
            [], "overwrite", schema, [BUCKET], partition_filters=nowhere, commit_properties=properties
        )
    else:
        write_deltalake(table, schema.empty_table(), mode="append", schema_mode="merge", commit_properties=properties)


def _refuse_given_up(table: DeltaTable, transaction: str | None) -> None:
    if transaction is not None and table.transaction_version(transaction) == _GIVEN_UP:
        raise GivenUp(transaction)


def _note(transaction: str | None, version: int) -> CommitProperties:
    return CommitProperties(app_transactions=None if transaction is None else [Transaction(transaction, version)])


def append(folder: Path, schema: pa.Schema, files: Sequence[tuple[str, int]], transaction: str) -> None:
    """Adds files (name, rows) to a plain table in one version, creating the table or widening its columns first.

    A transaction is committed once, however many try it at the same time; other writers only make it try again.
    """
    while committed_version(folder, transaction) is None:
        table, stored = _plain_table(folder, schema)
        version = table.version() + 1
        actions: list[AddAction | RemoveAction] = [_added(folder, name, rows, {}) for name, rows in files]
        properties = CommitProperties(app_transactions=[Transaction(transaction, version)])
        # It fails when another one has committed the same transaction meanwhile: that is Delta's rule.
        with suppress(CommitFailedError):
            table.create_write_transaction(actions, "append", stored, [], commit_properties=properties)


def replace(folder: Path, gone: Sequence[DataFile], added: Sequence[DataFile]) -> None:
    """Puts files of a table in the place of others, in one version. Raises `CommitFailedError` when another writer was
    faster with the same files."""
    table = DeltaTable(folder)
    by_bucket = list(table.metadata().partition_columns)
    now = int(time.time() * 1000)

    def partition(file: DataFile) -> dict[str, str | None]:
        return {BUCKET: str(file.bucket)} if by_bucket else {}

    actions: list[AddAction | RemoveAction] = [_added(folder, file.name, file.rows, partition(file)) for file in added]
    actions += [RemoveAction(file.name, True, now, None, partition(file)) for file in gone]
    if actions:
        table.create_write_transaction(actions, "append", pa.schema(table.schema().to_arrow()), by_bucket)


def remove(folder: Path, prefix: str) -> None:
    """Takes the files whose names begin so out of a plain table, in one version."""
    table = DeltaTable(folder)
    names = [name for name in pa.table(table.get_add_actions())["path"].to_pylist() if name.startswith(prefix)]
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [RemoveAction(name, True, now, None, {}) for name in names]
    if actions:
        schema = pa.schema(table.schema().to_arrow())
        table.create_write_transaction(actions, "append", schema, [])


def _partitioned_table(folder: Path, schema: pa.Schema) -> DeltaTable:
    """The table, created with these columns if there is none; of several that create it one does."""
    while not DeltaTable.is_deltatable(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(DeltaError):
            DeltaTable.create(folder, file_schema(schema), partition_by=[BUCKET])
    return DeltaTable(folder)


def _plain_table(folder: Path, schema: pa.Schema) -> tuple[DeltaTable, pa.Schema]:
    """The table with all of the columns, and these as it calls them. Whoever of several creates it first, the others
    find it."""
    while not DeltaTable.is_deltatable(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(DeltaError):
            DeltaTable.create(folder, file_schema(schema))
    while True:
        table = DeltaTable(folder)
        stored_schema = pa.schema(table.schema().to_arrow())
        stored = file_schema(schema, stored_schema)
        if not _adds_columns(stored_schema, stored):
            return table, stored
        with suppress(CommitFailedError):
            write_deltalake(table, stored.empty_table(), mode="append", schema_mode="merge")


def _added(folder: Path, name: str, rows: int, partition: dict[str, str | None]) -> AddAction:
    size, now = os.path.getsize(folder / name), int(time.time() * 1000)
    return AddAction(name, size, partition, now, True, json.dumps({"numRecords": rows}))


def bucket_folder(bucket: int) -> str:
    return f"{BUCKET}={bucket}"


def bucket_number(name: str) -> int:
    """The bucket of a file by its name.

    >>> bucket_number("__bucket=12/a.parquet")
    12
    """
    return int(name.partition("/")[0].partition("=")[2])


def _adds_columns(old: pa.Schema, new: pa.Schema) -> bool:
    old_fields = {field.name: field for field in old}
    return any(_wider(old_fields.get(field.name), field) for field in new)


def _changes_types(old: pa.Schema, new: pa.Schema) -> bool:
    old_types = {field.name: field.type for field in old}
    return any(_changed(old_types[field.name], field.type) for field in new if field.name in old_types)


def _changed(old: pa.DataType, new: pa.DataType) -> bool:
    """Whether a field that both have, at any depth, has a wider type in `new`."""
    types = pa.types
    if types.is_struct(old) and types.is_struct(new):
        fields = {field.name: field.type for field in new}
        return any(field.name in fields and _changed(field.type, fields[field.name]) for field in old)
    if types.is_map(old) and types.is_map(new):
        return _changed(old.item_type, new.item_type)
    if types.is_list(old) and types.is_list(new):
        return _changed(old.value_type, new.value_type)
    widened = types.is_integer(old) and types.is_floating(new)
    return bool(
        widened or (types.is_date(old) and types.is_timestamp(new)) or (types.is_struct(old) and types.is_map(new))
    )


def _wider(old: pa.Field | None, new: pa.Field) -> bool:
    """Whether `new` has a field, at any depth, that `old` lacks."""
    if old is None:
        return True
    old_type, new_type = old.type, new.type
    if pa.types.is_struct(new_type) and pa.types.is_struct(old_type):
        names = {field.name: field for field in old_type}
        return any(_wider(names.get(field.name), field) for field in new_type)
    if pa.types.is_map(new_type) and pa.types.is_map(old_type):
        return _wider(old_type.item_field, new_type.item_field)
    if pa.types.is_list(new_type) and pa.types.is_list(old_type):
        return _wider(old_type.value_field, new_type.value_field)
    return False
