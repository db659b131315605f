"""Compaction: copies of several small files of events in one file, beside the dataset.

A batch adds a file to each bucket that it touches, and opening a thousand files costs more than reading them. If a
bucket has many, files of similar size are copied into one, which is read instead. The dataset's own files, one batch
each, stay unchanged. A copy that is missing, damaged or made of files that a version does not have is ignored: copies
only affect speed.

Files grow by a factor of `FEW` from tier to tier, as in a log-structured merge tree, so a row is rewritten once per
tier: at most four times, until its file has `LARGEST` bytes and is no longer copied.
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.engine.ingest.rows import ORDINAL, TIMESTAMP
from app.engine.limits.pool import Stopped, in_threads
from app.engine.people.event_ids import stored_ids
from app.engine.store.bucket_files import ROW_GROUP
from app.engine.store.checksums import intact, seal
from app.engine.store.delta import TableVersion, bucket_folder, open_table
from app.engine.store.files import publish
from app.engine.store.lake import TenantLake, write_atomically

FEW = 8
"""Number of files of one tier that are merged into one file of a higher tier."""

LARGEST = 8 << 20
"""Size in bytes from which a file is large enough."""

_SMALLEST = 16 << 10
"""Maximum size in bytes of a file in the lowest tier."""

_NOTE = "copies.json"

_READERS_SECONDS = 600.0
"""How long a replaced copy is kept for readers that have just looked up its name."""


T = TypeVar("T")


class _Busy(Exception):
    """Another process is compacting, and may be frozen."""


def _give_up() -> None:
    raise _Busy


@dataclass(frozen=True, slots=True)
class Copy:
    """A file with the rows of several files of a dataset (their names), in the same order."""

    name: str
    size: int
    sources: frozenset[str]


@dataclass(frozen=True, slots=True)
class Note:
    """The copies of one bucket, with disjoint files, and the replaced copies with the time (Unix) of replacement."""

    copies: tuple[Copy, ...] = ()
    replaced: tuple[tuple[str, float], ...] = ()


def event_paths(table: TableVersion, bucket: int) -> list[Path]:
    """The files with the events of a bucket: copies where available, and files without a copy."""
    folder, names = _folder(table, bucket), {file.name for file in table.files if file.bucket == bucket}
    copies = _usable(folder, names) if len(names) >= FEW else []
    covered = frozenset[str]().union(*(copy.sources for copy in copies))
    return [*(folder / copy.name for copy in copies), *(table.folder / name for name in names - covered)]


def compact(
    lake: TenantLake, tables: Iterable[TableVersion], threads: int, cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Copies the files of buckets that have many. Safe to kill; of several concurrent processes one does the work, and
    the others do not wait. A version with rows removed since, such as those of erased people, is not copied.

    Raises `Cancelled`; copies made until then stay.
    """
    for table in tables:
        buckets = sorted({file.bucket for file in table.files})
        crowded = [bucket for bucket in buckets if len(event_paths(table, bucket)) >= FEW]
        if crowded:
            with suppress(_Busy), lake.lock(f"compaction {table.folder.name}", _give_up), lake.scratch() as scratch:
                if not _is_present(table):
                    continue

                def work(bucket: int, _stopped: Stopped, table: TableVersion = table, scratch: Path = scratch) -> None:
                    _Compaction(table, bucket, scratch).run()

                in_threads(work, crowded, finished=lambda _: None, cancelled=cancelled, threads=threads)


def _is_present(table: TableVersion) -> bool:
    current = open_table(table.folder)
    return current is not None and {file.name for file in table.files} <= {file.name for file in current.files}


def _folder(table: TableVersion, bucket: int) -> Path:
    """The folder in `TenantLake.compacted` of the dataset; for copies by persons, a folder that never exists."""
    return table.folder.parents[1] / "compacted" / table.folder.name / bucket_folder(bucket)


def _usable(folder: Path, names: set[str]) -> list[Copy]:
    return [copy for copy in _read_note(folder / _NOTE).copies if copy.sources <= names and intact(folder / copy.name)]


def _read_note(path: Path) -> Note:
    try:
        written = path.stat()
        return _remembered_note(path, written.st_ino, written.st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):  # Not created yet, or damaged: then there are no copies.
        return Note()


@lru_cache(maxsize=1 << 12)
def _remembered_note(path: Path, _inode: int, _written: int) -> Note:
    content = json.loads(path.read_bytes())
    copies = tuple(Copy(name, size, frozenset(sources)) for name, size, sources in content["copies"])
    return Note(copies, tuple((name, float(since)) for name, since in content["replaced"]))


@dataclass(frozen=True, slots=True)
class _Unit:
    """A file that may become part of a copy: a copy itself, or a file of the dataset."""

    path: Path
    size: int
    copy: Copy | None = None


class _Compaction:
    """Updates the copies of one bucket for one version of its dataset."""

    def __init__(self, table: TableVersion, bucket: int, scratch: Path) -> None:
        self.table, self.bucket, self.scratch = table, bucket, scratch
        self.folder = _folder(table, bucket)

    def run(self) -> None:
        names = {file.name for file in self.table.files if file.bucket == self.bucket}
        self.folder.mkdir(parents=True, exist_ok=True)
        before = _read_note(self.folder / _NOTE)
        units = list(self._units(names))
        while group := crowd([unit for unit in units if unit.size < LARGEST], lambda unit: unit.size, _SMALLEST):
            # A damaged file is left to its readers, which report it.
            whole = [unit for unit in group if intact(unit.path)]
            merged = [self._merge(part) for part in _alike(whole)] if len(whole) > 1 else whole
            units = [unit for unit in units if unit not in group] + merged
            if len(merged) == len(whole):
                break
        copies = [unit.copy for unit in units if unit.copy is not None]
        if {*copies} == {*before.copies}:
            return
        now, present = time.time(), {copy.name for copy in copies}
        replaced = {name: since for name, since in before.replaced if since > now - _READERS_SECONDS}
        replaced |= {copy.name: now for copy in before.copies if copy.name not in present}
        content = {
            "copies": [[copy.name, copy.size, sorted(copy.sources)] for copy in copies],
            "replaced": list(replaced.items()),
        }
        write_atomically(self.folder / _NOTE, json.dumps(content).encode())
        for path in self.folder.glob("*.parquet"):
            if path.name not in present | replaced.keys():
                path.unlink(missing_ok=True)

    def _units(self, names: set[str]) -> Iterator[_Unit]:
        copies = _usable(self.folder, names)
        yield from (_Unit(self.folder / copy.name, copy.size, copy) for copy in copies)
        for name in sorted(names.difference(*(copy.sources for copy in copies))):
            path = self.table.folder / name
            with suppress(FileNotFoundError):
                yield _Unit(path, path.stat().st_size)

    def _merge(self, units: Sequence[_Unit]) -> _Unit:
        if len(units) == 1:
            return units[0]
        rows = pa.concat_tables([pq.ParquetFile(unit.path).read() for unit in units], promote_options="default")
        keys = pa.table({"ordinal": rows[ORDINAL], "time": rows[TIMESTAMP], "id": stored_ids(rows)})
        order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names])
        written = self.scratch / f"{self.bucket}.parquet"
        pq.write_table(rows.take(order), written, compression="zstd", store_schema=False, row_group_size=ROW_GROUP)
        name = seal(written, str(time.time_ns()))
        publish([(written, self.folder / name)])
        sources = [unit.copy.sources if unit.copy else {self._name(unit)} for unit in units]
        copy = Copy(name, (self.folder / name).stat().st_size, frozenset[str]().union(*sources))
        return _Unit(self.folder / name, copy.size, copy)

    def _name(self, unit: _Unit) -> str:
        return unit.path.relative_to(self.table.folder).as_posix()


def crowd(files: Iterable[T], size: Callable[[T], int], smallest: int) -> list[T]:
    """The files to merge next: those of the lowest tier that has `FEW`, with all smaller ones; none if no tier has.

    The lowest tier holds sizes up to `smallest`, the next those up to `FEW` times as large, and so on.

    >>> crowd([9, 1, 8, 300, 1, 2, 1, 1, 1, 1], lambda size: size, 8)
    [1, 8, 1, 2, 1, 1, 1, 1]
    """
    by_tier: dict[int, list[T]] = defaultdict(list)
    for file in files:
        tier, limit = 0, smallest
        while size(file) > limit:
            tier, limit = tier + 1, limit * FEW
        by_tier[tier].append(file)
    group: list[T] = []
    for tier in sorted(by_tier):
        group += by_tier[tier]
        if len(by_tier[tier]) >= FEW:
            return group
    return []


def _alike(units: Sequence[_Unit]) -> list[list[_Unit]]:
    """Groups the files that can be merged: columns in two of them must have the same type."""
    parts: list[tuple[pa.Schema, list[_Unit]]] = []
    for unit in units:
        schema = pq.read_schema(unit.path)
        for place, (shape, part) in enumerate(parts):
            try:
                parts[place] = pa.unify_schemas([shape, schema]), [*part, unit]
                break
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                continue
        else:
            parts.append((schema, [unit]))
    return [part for _, part in parts]
