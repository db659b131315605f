"""Delta tables, partitioned by bucket or plain: versions, and commits of files already written; knows no people."""

import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.store.case_names import file_schema, our_schema
from app.engine.store.fences import require_leases
from app.engine.store.logs import (
    checkpoint,
    commit_of,
    commit_sizes,
    create_delta_table,
    delta_table,
    is_delta_table,
    newest_commit,
)
from app.engine.store.objects import ObjectPath
from app.errors import ErrorCode, LakeAway, Refusal, outage

BUCKET = "__bucket"


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a table; `name` is relative to the table's folder. Files of plain tables have bucket 0."""

    name: str
    bucket: int
    rows: int


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One version of a table: its files, and its columns (including the bucket).

    Rows of people `retired` (ordinals by bucket) are in the files, but not in the version.
    """

    folder: Path
    version: int
    schema: pa.Schema
    files: tuple[DataFile, ...]
    retired: Mapping[int, BitMap] = field(default_factory=dict, hash=False)

    def paths(self, bucket: int | None = None) -> list[Path]:
        """The files of one bucket, or all files, in unspecified order."""
        return [self.folder / file.name for file in self.files if bucket is None or file.bucket == bucket]

    def retired_in(self, bucket: int) -> NDArray[np.int32]:
        """The ordinals of a bucket, ascending, whose rows readers must leave out."""
        return np.array(self.retired.get(bucket, BitMap()).to_array(), np.int32)


def open_table(folder: Path, version: int | None = None) -> TableVersion | None:
    """The newest version, or the given one; None if there is no table. Raises `LogLost`."""
    newest = newest_commit(folder)
    if newest is None:
        return None
    commit = newest if version in {None, newest.version} else commit_of(folder, version or 0)
    if commit is None:
        return _read_version(folder, newest.version if version is None else version)
    return _remembered.get(folder, commit.version, commit.inode, commit.written)


class _Versions:
    """A cache of versions with at most `most` files and columns in total: thousands of small tables, or a few large
    ones."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._lock = most, 0, threading.Lock()
        self._versions: OrderedDict[tuple[Path, int, int, int], TableVersion] = OrderedDict()

    def get(self, folder: Path, version: int, inode: int, written: int) -> TableVersion:
        """A version never changes, and a table recreated in the same place has another commit file."""
        key = folder, version, inode, written
        with self._lock:
            if (cached := self._versions.get(key)) is not None:
                self._versions.move_to_end(key)
                return cached
        content = _read_version(folder, version)
        with self._lock:
            if key not in self._versions:
                self._versions[key] = content
                self._held += _weight(content)
            while self._held > self._most and len(self._versions) > 1:
                self._held -= _weight(self._versions.popitem(last=False)[1])
        return content


def _weight(version: TableVersion) -> int:
    return len(version.files) + len(version.schema)


_remembered = _Versions(1 << 18)


class LogLost(Refusal):
    """The log of a table is damaged, so that its contents are unknown."""

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
        table = delta_table(folder, version)
    except (TableNotFoundError, LakeAway):
        raise
    except (DeltaError, ValueError, OSError) as error:
        if isinstance(folder, ObjectPath) and (problem := outage(error)):
            raise LakeAway(problem) from error
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
    """Delta ignores empty commits, and with them the rows that they added; no program writes one."""
    for name, size in commit_sizes(folder):
        if not size:
            raise LogLost(folder, f"{name} is empty")


class GivenUp(Exception):
    """The transaction was abandoned and will never be committed."""


_BEGUN, _GIVEN_UP = -2, -1
"""Versions that a transaction has in the log when it has only widened the columns, and when it is abandoned."""


def committed_version(folder: Path, transaction: str) -> int | None:
    """The version created by the commit with this transaction id; None if there is none."""
    if newest_commit(folder) is None:
        return None
    version = delta_table(folder).transaction_version(transaction)
    return version if version is not None and version >= 0 else None


def give_up(folder: Path, schema: pa.Schema, transaction: str) -> int | None:
    """Abandons a transaction and returns None; if it was already committed, returns its version.

    A process about to commit it gets `GivenUp`, however late it resumes: of two commits with one transaction id that
    started from the same version, Delta accepts only the first. `schema` is used if the table does not exist yet.
    """
    while True:
        table = _partitioned_table(folder, schema)
        version = table.transaction_version(transaction)
        if version is not None and version != _BEGUN:
            return version if version >= 0 else None
        with suppress(CommitFailedError):
            stored_schema, properties = pa.schema(table.schema().to_arrow()), _note(transaction, _GIVEN_UP)
            require_leases()
            table.create_write_transaction([], "append", stored_schema, [BUCKET], commit_properties=properties)


def next_version(current: TableVersion | None, schema: pa.Schema) -> int:
    """The version that `commit` will create (a new or wider schema is a separate version before it)."""
    if current is None:
        return 1
    return current.version + (
        2 if _adds_columns(current.schema, schema) or _changes_types(current.schema, schema) else 1
    )


def withdraw(folder: Path, files: Sequence[DataFile], transaction: str) -> int:
    """Reverts what a transaction added, in one version, and returns that version; the transaction then counts as never
    committed."""
    table = delta_table(folder)
    version, now = table.version() + 1, int(time.time() * 1000)
    gone: list[AddAction | RemoveAction] = [
        RemoveAction(file.name, True, now, None, {BUCKET: str(file.bucket)}) for file in files
    ]
    schema, properties = pa.schema(table.schema().to_arrow()), _note(transaction, _GIVEN_UP)
    require_leases()
    table.create_write_transaction(gone, "append", schema, [BUCKET], commit_properties=properties)
    return version


def commit(
    folder: Path,
    current: TableVersion | None,
    schema: pa.Schema,
    add: Sequence[DataFile],
    remove: Sequence[DataFile] = (),
    transaction: str | None = None,
    alone: bool = False,
) -> int:
    """Adds and removes files in one version, after creating the table or widening its columns if needed; returns the
    version.

    `schema` has the bucket's column and all existing columns, some with wider types (earlier files keep theirs). The
    files must already be in the folder. Raises `GivenUp` if the transaction was abandoned, and `CommitFailedError` if
    another writer has changed the same files or, with `alone`, anything.
    """
    table = _partitioned_table(folder, schema) if current is None else delta_table(folder)
    _refuse_given_up(table, transaction)
    if alone and table.version() != (0 if current is None else current.version):
        raise CommitFailedError("another writer has committed meanwhile")
    try:
        stored_schema = pa.schema(table.schema().to_arrow())
        schema = file_schema(schema, stored_schema)
        if _changes_types(stored_schema, schema) or _adds_columns(stored_schema, schema):
            _widen(table, stored_schema, schema, _note(transaction, _BEGUN))
            table = delta_table(folder)
            _refuse_given_up(table, transaction)
        version = table.version() + 1
        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            _added(folder, file.name, file.rows, {BUCKET: str(file.bucket)}) for file in add
        ]
        actions += [RemoveAction(file.name, True, now, None, {BUCKET: str(file.bucket)}) for file in remove]
        require_leases()
        table.create_write_transaction(
            actions, "append", schema, [BUCKET], commit_properties=_note(transaction, version)
        )
    except CommitFailedError:
        _refuse_given_up(delta_table(folder), transaction)
        raise
    checkpoint(folder, version, 0 if current is None else len(current.files))
    return version


def _widen(table: DeltaTable, known: pa.Schema, schema: pa.Schema, properties: CommitProperties) -> None:
    if _changes_types(known, schema):
        # Replaces the files of a nonexistent bucket, and with them the columns.
        nowhere = [(BUCKET, "=", "-1")]
        require_leases()
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
    """Adds files (name, rows) to a plain table in one version, after creating the table or widening its columns if
    needed.

    A transaction is committed once, however many processes try it concurrently; other writers only cause a retry.
    """
    while committed_version(folder, transaction) is None:
        table, stored = _plain_table(folder, schema)
        version = table.version() + 1
        actions: list[AddAction | RemoveAction] = [_added(folder, name, rows, {}) for name, rows in files]
        properties = CommitProperties(app_transactions=[Transaction(transaction, version)])
        # By Delta's rules it fails if another process has committed the same transaction meanwhile.
        with suppress(CommitFailedError):
            require_leases()
            table.create_write_transaction(actions, "append", stored, [], commit_properties=properties)


def replace(folder: Path, gone: Sequence[DataFile], added: Sequence[DataFile]) -> None:
    """Replaces files of a table by others, in one version. Raises `CommitFailedError` if another writer has changed the
    same files."""
    table = delta_table(folder)
    by_bucket = list(table.metadata().partition_columns)
    now = int(time.time() * 1000)

    def partition(file: DataFile) -> dict[str, str | None]:
        return {BUCKET: str(file.bucket)} if by_bucket else {}

    actions: list[AddAction | RemoveAction] = [_added(folder, file.name, file.rows, partition(file)) for file in added]
    actions += [RemoveAction(file.name, True, now, None, partition(file)) for file in gone]
    if actions:
        require_leases()
        table.create_write_transaction(actions, "append", pa.schema(table.schema().to_arrow()), by_bucket)


def remove(folder: Path, prefix: str) -> None:
    """Removes the files whose names start with a prefix from a plain table, in one version."""
    table = delta_table(folder)
    names = [name for name in pa.table(table.get_add_actions())["path"].to_pylist() if name.startswith(prefix)]
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [RemoveAction(name, True, now, None, {}) for name in names]
    if actions:
        schema = pa.schema(table.schema().to_arrow())
        require_leases()
        table.create_write_transaction(actions, "append", schema, [])


def _partitioned_table(folder: Path, schema: pa.Schema) -> DeltaTable:
    """The table, created with these columns if needed; of several concurrent creators one wins."""
    while not is_delta_table(folder):
        create_delta_table(folder, file_schema(schema), [BUCKET])
    return delta_table(folder)


def _plain_table(folder: Path, schema: pa.Schema) -> tuple[DeltaTable, pa.Schema]:
    """The table with all of the columns, and these columns under the table's names. Of several concurrent creators one
    wins, and the others use its table."""
    while not is_delta_table(folder):
        create_delta_table(folder, file_schema(schema))
    while True:
        table = delta_table(folder)
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
    """The bucket of a file, from its name.

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
