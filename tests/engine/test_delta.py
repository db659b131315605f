"""Versions of Delta tables: each is read once, and never mistaken for another one."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from app.engine.store import delta
from app.engine.store.delta import (
    BUCKET,
    DataFile,
    TableVersion,
    bucket_folder,
    commit,
    committed_version,
    open_table,
)


def _append(folder: Path, *values: int) -> None:
    write_deltalake(str(folder), pa.table({"a": list(values)}), mode="append")


def _rows(table: TableVersion | None) -> int:
    assert table is not None
    return sum(file.rows for file in table.files)


def test_where_there_is_no_table_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty" / "_delta_log").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("gone", "empty", "file"):
        assert open_table(tmp_path / name) is None
        assert open_table(tmp_path / name, 3) is None
        assert committed_version(tmp_path / name, "t") is None


def test_every_version_is_as_the_library_reads_it(tmp_path: Path) -> None:
    for version in range(4):
        _append(tmp_path, *range(version + 1))
        newest = open_table(tmp_path)
        assert newest is not None
        assert (newest.version, newest.schema.names, _rows(newest)) == (version, ["a"], [1, 3, 6, 10][version])
    for version in range(4):
        table, known = open_table(tmp_path, version), DeltaTable(str(tmp_path), version=version)
        assert table is not None
        assert table.version == version
        assert sorted(map(str, table.paths())) == sorted(known.file_uris())


def test_a_version_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(folder: Path, version: int) -> TableVersion:
        read.append(version)
        return original(folder, version)

    original = delta._read_version
    monkeypatch.setattr(delta, "_read_version", counted)
    _append(tmp_path, 1)
    assert open_table(tmp_path) is open_table(tmp_path) is open_table(tmp_path, 0)
    _append(tmp_path, 2)
    assert (_rows(open_table(tmp_path)), _rows(open_table(tmp_path, 0))) == (2, 1)
    assert read == [0, 1]


def test_a_table_made_anew_in_the_same_place_is_another(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    _append(folder, 1)
    assert _rows(open_table(folder)) == 1
    shutil.rmtree(folder)
    assert open_table(folder) is None
    _append(folder, 1, 2, 3)
    assert _rows(open_table(folder)) == 3


def test_versions_known_from_a_checkpoint_alone_are_read(tmp_path: Path) -> None:
    _append(tmp_path, 0)
    _append(tmp_path, 1, 2)
    DeltaTable(str(tmp_path)).create_checkpoint()
    _append(tmp_path, 3)
    for version in range(2):
        (tmp_path / "_delta_log" / f"{version:020}.json").unlink()
    assert (_rows(open_table(tmp_path)), _rows(open_table(tmp_path, 1))) == (4, 3)


def test_versions_of_many_tables_are_remembered_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox with more than 64 datasets read all of their logs for each expression that was checked."""
    for number in range(80):
        write_deltalake(tmp_path / str(number), pa.table({"x": [number]}))
    reads: list[str] = []
    read = delta._read_version

    def noted(folder: Path, version: int) -> TableVersion:
        reads.append(folder.name)
        return read(folder, version)

    monkeypatch.setattr(delta, "_read_version", noted)
    monkeypatch.setattr(delta, "_remembered", delta._Versions(160))
    for _ in range(2):
        for number in range(80):
            open_table(tmp_path / str(number))
    assert reads == [str(number) for number in range(80)]
    # Each weighs 2, a file and a column: with three more than there is room for, the oldest go.
    for number in range(3):
        write_deltalake(tmp_path / f"more {number}", pa.table({"x": [number]}))
        open_table(tmp_path / f"more {number}")
    reads.clear()
    open_table(tmp_path / "79")
    open_table(tmp_path / "0")
    assert reads == ["0"]


def test_the_log_is_summed_up_before_it_is_long(tmp_path: Path) -> None:
    folder, schema = tmp_path / "table", pa.schema([(BUCKET, pa.int32()), ("n", pa.int64())])
    for number in range(21):
        name = f"{bucket_folder(number % 2)}/{number}.parquet"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": [number]}), folder / name)
        commit(folder, open_table(folder), schema, [DataFile(name, number % 2, 1)], transaction=f"t{number}")
    checkpoints = sorted(path.name for path in (folder / "_delta_log").glob("*.checkpoint.parquet"))
    assert checkpoints == [f"{version:020}.checkpoint.parquet" for version in (10, 20)]
    # Nothing else is needed: neither the files nor the transactions of earlier commits.
    for version in range(20):
        (folder / "_delta_log" / f"{version:020}.json").unlink()
    current = open_table(folder)
    assert current is not None
    assert sorted(file.name for file in current.files) == sorted(
        f"{bucket_folder(n % 2)}/{n}.parquet" for n in range(21)
    )
    assert [committed_version(folder, f"t{number}") for number in (0, 20, 21)] == [1, 21, None]
