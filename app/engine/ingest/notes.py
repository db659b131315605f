"""Notes of batches beside the data of a dataset: what to remove when no commit follows, and what a batch brought."""

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
    """What a batch brought, None when it never landed: tells what happened before a crash.

    `version` is one in which its rows are, not always the first.
    """
    folder = lake.dataset(dataset_id)
    current = open_table(folder)
    if current is None or committed_version(folder, batch_id) is None:
        return None
    note = json.loads(note_path(folder, batch_id).read_text())["ingested"]
    rejected = tuple(RejectedRow(**row) for row in note.pop("rejected"))
    note |= {"version": current.version, "warnings": tuple(note.get("warnings", ()))}
    return Ingested(**note, rejected=rejected)


def give_up_batch(lake: TenantLake, dataset_id: str, shape: DatasetShape, batch_id: str) -> Ingested | None:
    """Settles for good that a batch never lands, whatever its loader still tries, unless it has: then what it brought.

    Does not wait for the loader, which may be frozen with the dataset's lock in its hand.
    """
    if give_up(lake.dataset(dataset_id), columns_of(shape, ObjectType()), batch_id) is None:
        return None
    return committed_batch(lake, dataset_id, batch_id)


def withdraw_batch(lake: TenantLake, dataset_id: str, batch_id: str) -> int:
    """Takes the rows of a batch out of the dataset again, and gives a version without them; records that it replaced
    count again. Doing so twice is no error. Its files stay for those who read earlier versions."""
    folder = lake.dataset(dataset_id)
    with lake.lock(f"dataset {dataset_id}"):
        current = open_table(folder)
        if current is None or committed_version(folder, batch_id) is None:
            return current.version if current is not None else 0
        names = {path for _, path in batch_files(lake, dataset_id, batch_id)}
        return withdraw(folder, [file for file in current.files if folder / file.name in names], batch_id)


def batch_files(lake: TenantLake, dataset_id: str, batch_id: str) -> list[tuple[int, Path]]:
    """The files that a landed batch brought, each with its bucket; none when the dataset is gone."""
    folder = lake.dataset(dataset_id)
    try:
        names = json.loads(note_path(folder, batch_id).read_text())["files"]
    except FileNotFoundError:
        return []
    return [(bucket_number(name), folder / name) for name in names]


def prefix(batch_id: str) -> str:
    """How the names of a batch's files begin."""
    return hashlib.sha256(batch_id.encode()).hexdigest()[:32]


def note_path(folder: Path, batch_id: str) -> Path:
    """The note of a batch in the folder of its dataset."""
    return folder / "_batches" / f"{prefix(batch_id)}.json"


def remove_unfinished(folder: Path) -> None:
    """Removes files that a killed process moved here and did not commit. Call it under the dataset's lock."""
    for mark in (folder / "_batches").glob("*.unfinished"):
        note = mark.with_suffix(".json")
        # Without a note this was begun before, and ended with a kill between the two.
        content = json.loads(note.read_text()) if note.exists() else None
        if content is not None and committed_version(folder, content["batch"]) is None:
            for name in content["files"]:
                (folder / name).unlink(missing_ok=True)
            note.unlink()
        mark.unlink()


def clear_unfinished(lake: TenantLake, dataset_id: str) -> None:
    """The same at once, or not at all when a batch of the dataset is being loaded: that one does it."""
    no_waiting = Stop()
    no_waiting.request()
    with suppress(Stopped), lake.lock(f"dataset {dataset_id}", no_waiting.check):
        remove_unfinished(lake.dataset(dataset_id))
