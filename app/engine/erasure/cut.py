"""Removes a person's rows from the current version of every table; data that others still read stays for now."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import CommitFailedError

from app.engine.erasure.rows import Rows
from app.engine.erasure.subject import Subject
from app.engine.ingest.notes import batch_files
from app.engine.store.checksums import seal
from app.engine.store.delta import DataFile, TableVersion, open_table, replace
from app.engine.store.files import publish
from app.engine.store.lake import TenantLake, file_name, write_atomically

Check = Callable[[], None]
"""Raises to abort."""


@dataclass(frozen=True, slots=True)
class Table:
    """A dataset's table; `lock` is the lock of its writers, None if nothing writes to it any more."""

    folder: Path
    lock: str | None = None


def tables(lake: TenantLake, datasets: Iterable[str]) -> list[Table]:
    """The tables of existing datasets, and of deleted ones that have not been cleaned up."""
    by_name = {file_name(dataset): dataset for dataset in datasets}
    folders = sorted(path for path in (lake.folder / "datasets").glob("*") if path.is_dir())
    return [Table(path, f"dataset {by_name[path.name]}" if path.name in by_name else None) for path in folders]


def count_rows(subject: Subject, table: Table) -> int:
    """The number of the person's rows in the current version."""
    current = open_table(table.folder)
    return 0 if current is None else sum(count for _, count in _hit(subject, current))


def cut(lake: TenantLake, subject: Subject, table: Table, check: Check) -> None:
    """Commits a version without the person's rows, if there are any. `check` may raise while others write."""
    with lake.lock(table.lock, check) if table.lock is not None else nullcontext():
        while True:
            current = open_table(table.folder)
            hit = [] if current is None else list(_hit(subject, current))
            if not hit:
                return
            check()
            with _rewritten(lake, subject, table.folder, hit) as renamed:
                _rename_in_notes(table.folder, {old.name: [old.name, *new] for old, new in _names(renamed)})
                with suppress(CommitFailedError):
                    replace(table.folder, [old for old, _ in hit], [new for new in renamed.values() if new is not None])
                    _rename_in_notes(table.folder, {old.name: new for old, new in _names(renamed)})


def blank_identities(lake: TenantLake, subject: Subject) -> None:
    """Removes the ids from the person's places, which stay reserved: an ordinal is never reused."""
    with lake.lock("identities"):
        current = open_table(lake.identities)
        hit = [] if current is None else list(_hit(subject, current))
        if not hit:
            return
        with lake.scratch() as scratch:
            added = [_blanked(scratch, lake.identities, subject, file) for file, _ in hit]
            replace(lake.identities, [file for file, _ in hit], added)


def count_identities(lake: TenantLake, subject: Subject) -> int:
    current = open_table(lake.identities)
    return 0 if current is None else sum(count for _, count in _hit(subject, current))


def batch_rows(lake: TenantLake, dataset: str, batches: Iterable[str]) -> dict[str, int]:
    """The number of rows of each batch in the current version of a loaded or export dataset."""
    current = open_table(lake.dataset(dataset))
    rows = {file.name: file.rows for file in current.files} if current is not None else {}
    counted = {}
    for batch in batches:
        names = {path.relative_to(lake.dataset(dataset)).as_posix() for _, path in batch_files(lake, dataset, batch)}
        exported = f"{batch}/"
        counted[batch] = sum(count for name, count in rows.items() if name in names or name.startswith(exported))
    return counted


def _hit(subject: Subject, current: TableVersion) -> Iterator[tuple[DataFile, int]]:
    for file in current.files:
        if count := Rows(subject, current.folder / file.name).count():
            yield file, count


def _names(renamed: Mapping[DataFile, DataFile | None]) -> list[tuple[DataFile, list[str]]]:
    return [(old, [] if new is None else [new.name]) for old, new in renamed.items()]


@contextmanager
def _rewritten(
    lake: TenantLake, subject: Subject, folder: Path, hit: Sequence[tuple[DataFile, int]]
) -> Iterator[dict[DataFile, DataFile | None]]:
    """New files in the table's folder for those that also contain rows of others."""
    renamed: dict[DataFile, DataFile | None] = {}
    with lake.scratch() as scratch:
        for file, count in hit:
            if count == file.rows:
                renamed[file] = None
                continue
            written = scratch / "rest.parquet"
            rows = Rows(subject, folder / file.name).without(written)
            renamed[file] = _moved(written, folder, file, rows)
        yield renamed


def _moved(written: Path, folder: Path, old: DataFile, rows: int) -> DataFile:
    """A new file beside the old one, with its checksum in the name."""
    place = Path(old.name)
    name = (place.parent / seal(written, place.name.split(".")[0])).as_posix()
    publish([(written, folder / name)])
    return DataFile(name, old.bucket, rows)


def _blanked(scratch: Path, folder: Path, subject: Subject, file: DataFile) -> DataFile:
    table = pq.ParquetFile(folder / file.name).read()
    names = pc.binary_join_element_wise(table["namespace"], table["id"], ":")
    mine = pc.is_in(names, pa.array(sorted(subject.names), pa.string()))
    for column in ("namespace", "id"):
        blank = pc.if_else(mine, pa.scalar("", pa.string()), table[column])
        table = table.set_column(table.schema.get_field_index(column), column, blank)
    pq.write_table(table, scratch / "blank.parquet", compression="zstd", store_schema=False)
    return _moved(scratch / "blank.parquet", folder, file, table.num_rows)


def _rename_in_notes(folder: Path, names: Mapping[str, Sequence[str]]) -> None:
    """Batches record the files that they brought, which are used for evaluation and deletion."""
    for note in sorted((folder / "_batches").glob("*.json")):
        content = json.loads(note.read_text())
        files = [new for name in content["files"] for new in names.get(name, (name,))]
        if files != content["files"]:
            content["files"] = list(dict.fromkeys(files))
            write_atomically(note, json.dumps(content).encode())
