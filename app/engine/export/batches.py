"""Batches of exports in their dataset, a plain Delta table: published in one commit each, or withdrawn; knows no
people.

Files are written outside the dataset's folder and renamed into it right before the commit that makes them visible.
"""

from collections.abc import Collection, Sequence

import pyarrow as pa

from app.engine.export.request import BatchFile
from app.engine.store.arrow_types import object_type, pql_type
from app.engine.store.delta import append, committed_version, open_table, remove
from app.engine.store.field_types import contradicts
from app.engine.store.files import remove_tree
from app.engine.store.lake import TenantLake
from app.errors import ErrorCode, Refusal


def refuse_contradictions(lake: TenantLake, dataset_id: str, schema: pa.Schema) -> None:
    """Raises `Refusal` if a column of the dataset has another type than the export would write."""
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
    """Makes a batch visible at once as a whole; a visible one stays unchanged."""
    folder, source = lake.dataset(dataset_id), lake.export(job_id)
    if committed_version(folder, batch_id) is not None:
        return
    for file in files:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        # An attempt that was killed at this point has moved some files already.
        if (source / file.name).exists():
            (source / file.name).replace(target)
    append(folder, schema, [(file.name, file.rows) for file in files], batch_id)


def withdraw(lake: TenantLake, dataset_id: str, batch_ids: Collection[str]) -> None:
    """Withdraws batches from the dataset, and removes their files from its folder."""
    folder = lake.dataset(dataset_id)
    for batch_id in batch_ids:
        if committed_version(folder, batch_id) is not None:
            remove(folder, f"{batch_id}/")
        remove_tree(folder / batch_id)


def clear(lake: TenantLake, job_id: str) -> None:
    """Removes the files that a job has written and not published; they will never become visible."""
    remove_tree(lake.export(job_id))
