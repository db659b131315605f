"""Notes of batches beside a dataset's data: files to remove if no commit follows, and what a batch brought."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from app.engine.ingest.rows import DatasetShape, Ingested, RejectedRow, columns_of
from app.engine.ingest.stop import Stop, Stopped
from app.engine.store.delta import bucket_number, committed_version, give_up, open_table, withdraw
from app.engine.store.lake import TenantLake
from app.pql.schema import ObjectType


def committed_batch(lake: TenantLake, dataset_id: str, batch_id: str) -> Ingested | None:
    """What a batch brought, None if it was not committed: tells what happened before a crash.

    `version` contains its rows, but is not always the first one that does.
    """
    folder = lake.dataset(dataset_id)
    # It is written before the commit, so that a new batch need not read the log.
    if not note_path(folder, batch_id).exists():
        return None
    current = open_table(folder)
    if current is None or committed_version(folder, batch_id) is None:
        return None
    note = json.loads(note_path(folder, batch_id).read_text())["ingested"]
    rejected = _rejected(note.pop("rejected"))
    note |= {"version": current.version, "warnings": tuple(note.get("warnings", ()))}
    return Ingested(**note, rejected=rejected)


def rejected_rows(lake: TenantLake, dataset_id: str, batch_id: str) -> tuple[RejectedRow, ...]:
    """The rejected rows that the batch's note has: the first ones, without those that name an erased person; empty for
    a batch that an export wrote."""
    try:
        note = json.loads(note_path(lake.dataset(dataset_id), batch_id).read_text())
    except FileNotFoundError:
        return ()
    return _rejected(note["ingested"]["rejected"])


def _rejected(rows: list[dict[str, str]]) -> tuple[RejectedRow, ...]:
    return tuple(RejectedRow(int(row["row"]), row["message"]) for row in rows)


def give_up_batch(lake: TenantLake, dataset_id: str, shape: DatasetShape, batch_id: str) -> Ingested | None:
    """Abandons a batch permanently, whatever its loader still tries, and returns None; if it is committed, returns what
    it brought.

    Does not wait for the loader, which may be frozen while it holds the dataset's lock.
    """
    if give_up(lake.dataset(dataset_id), columns_of(shape, ObjectType()), batch_id) is None:
        return None
    return committed_batch(lake, dataset_id, batch_id)


def withdraw_batch(lake: TenantLake, dataset_id: str, batch_id: str) -> int:
    """Removes the rows of a batch from the dataset and returns a version without them; records that it replaced become
    valid again. Idempotent. Its files remain for readers of earlier versions."""
    folder = lake.dataset(dataset_id)
    with lake.lock(f"dataset {dataset_id}"):
        current = open_table(folder)
        if current is None or committed_version(folder, batch_id) is None:
            return current.version if current is not None else 0
        names = {path for _, path in batch_files(lake, dataset_id, batch_id)}
        return withdraw(folder, [file for file in current.files if folder / file.name in names], batch_id)


def batch_files(lake: TenantLake, dataset_id: str, batch_id: str) -> list[tuple[int, Path]]:
    """The files that a committed batch added, each with its bucket; empty if the dataset no longer exists."""
    folder = lake.dataset(dataset_id)
    try:
        names = json.loads(note_path(folder, batch_id).read_text())["files"]
    except FileNotFoundError:
        return []
    return [(bucket_number(name), folder / name) for name in names]


def prefix(batch_id: str) -> str:
    """The prefix of a batch's file names."""
    return hashlib.sha256(batch_id.encode()).hexdigest()[:32]


def note_path(folder: Path, batch_id: str) -> Path:
    """The note of a batch, in the folder of its dataset."""
    return folder / "_batches" / f"{prefix(batch_id)}.json"


def remove_unfinished(folder: Path) -> None:
    """Removes files that a killed process moved here without committing them. Call it under the dataset's lock."""
    for mark in (folder / "_batches").glob("*.unfinished"):
        note = mark.with_suffix(".json")
        # Without a note, a previous removal was killed between the two steps.
        content = json.loads(note.read_text()) if note.exists() else None
        if content is not None and committed_version(folder, content["batch"]) is None:
            for name in content["files"]:
                (folder / name).unlink(missing_ok=True)
            note.unlink()
        mark.unlink()


def clear_unfinished(lake: TenantLake, dataset_id: str) -> None:
    """Like `remove_unfinished`, but does nothing while a batch of the dataset is loading: that load does it."""
    no_waiting = Stop()
    no_waiting.request()
    with suppress(Stopped), lake.lock(f"dataset {dataset_id}", no_waiting.check):
        remove_unfinished(lake.dataset(dataset_id))
