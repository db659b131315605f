"""Batches of exports in their dataset, a plain Delta table: landed in one commit each, or withdrawn; knows no people.

Files are written outside of the dataset's folder and renamed into it right before the commit that makes them visible.
"""

import shutil
from collections.abc import Collection, Sequence

import pyarrow as pa

from app.engine.export.request import BatchFile
from app.engine.store.arrow_types import object_type, pql_type
from app.engine.store.delta import append, committed_version, open_table, remove
from app.engine.store.field_types import contradicts
from app.engine.store.lake import TenantLake
from app.errors import ErrorCode, Refusal


def refuse_contradictions(lake: TenantLake, dataset_id: str, schema: pa.Schema) -> None:
    """Raises `Refusal` when the dataset has a column of another type than the export would write."""
    current = open_table(lake.dataset(dataset_id))
    if current is None:
        return
    there = object_type(current.schema).fields
    for field in schema:
        if field.name in there and contradicts(there[field.name], pql_type(field.type)):
            message = (
                f"the column {field.name!r} has another type in the dataset than in the data now: "
                "export to a new dataset, or leave the field out"
            )
            raise Refusal(ErrorCode.INVALID_STATE, message, ("destination", "dataset_id"))


def land(
    lake: TenantLake, dataset_id: str, job_id: str, batch_id: str, schema: pa.Schema, files: Sequence[BatchFile]
) -> None:
    """Makes a batch visible, all of it at once; one that is visible already is left as it is."""
    folder, source = lake.dataset(dataset_id), lake.export(job_id)
    if committed_version(folder, batch_id) is not None:
        return
    for file in files:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        # An attempt that was killed here has moved some already.
        if (source / file.name).exists():
            (source / file.name).replace(target)
    append(folder, schema, [(file.name, file.rows) for file in files], batch_id)


def withdraw(lake: TenantLake, dataset_id: str, batch_ids: Collection[str]) -> None:
    """Takes batches out of the dataset again, and removes whatever of their files is in its folder."""
    folder = lake.dataset(dataset_id)
    for batch_id in batch_ids:
        if committed_version(folder, batch_id) is not None:
            remove(folder, f"{batch_id}/")
        shutil.rmtree(folder / batch_id, ignore_errors=True)


def clear(lake: TenantLake, job_id: str) -> None:
    """Removes what a job has written and nobody is to see any more."""
    shutil.rmtree(lake.export(job_id), ignore_errors=True)
