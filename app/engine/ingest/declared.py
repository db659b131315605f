"""Schemas declared before any rows exist: stored with the dataset and applied to its batches; knows no formats."""

import json
from collections.abc import Callable

from app.engine.ingest.batch import dataset_fields
from app.engine.ingest.neighbours import Neighbours
from app.engine.ingest.rows import DatasetShape, columns_of, user_fields
from app.engine.ingest.widening import DECLARED, declarable, declared_of
from app.engine.store.delta import commit, open_table
from app.engine.store.files import remove_tree
from app.engine.store.json_schema import declared
from app.engine.store.lake import TenantLake, write_atomically
from app.engine.store.schema_writer import json_schema
from app.json_values import JsonObject, JsonValue
from app.pql.schema import ObjectType


def declare(lake: TenantLake, dataset_id: str, shape: DatasetShape, schema: JsonValue) -> Callable[[], None]:
    """Declares the JSON Schema of the dataset: its fields exist from now on, and batches use their types.

    Existing fields stay, and keep or widen their types. Returns a function that reverts the declaration; fields added
    to existing data then stay, without values. Raises `Refusal` or `Refusals` for a schema that is invalid or
    contradicts the data.
    """
    fields = declared(schema).fields
    with lake.lock(f"dataset {dataset_id}"):
        folder = lake.dataset(dataset_id)
        current = open_table(folder)
        before = (folder / DECLARED).read_bytes() if (folder / DECLARED).exists() else None
        if current is not None and not current.files:
            current = None
        known = user_fields(current.schema) if current is not None else ObjectType()
        with Neighbours(lake, folder, shape).settled() as neighbours:
            all_fields = declarable(current, known, fields, shape, neighbours)
            if current is None and folder.exists():
                remove_tree(folder)
            neighbours.mark()
            commit(folder, current, columns_of(shape, all_fields), [])
        write_atomically(folder / DECLARED, json.dumps(schema).encode())

    def undo() -> None:
        if before is not None:
            declare(lake, dataset_id, shape, json.loads(before))
            return
        with lake.lock(f"dataset {dataset_id}"):
            now = open_table(folder)
            if now is None or not now.files:
                remove_tree(folder)
            else:
                (folder / DECLARED).unlink(missing_ok=True)

    return undo


def dataset_schema(lake: TenantLake, dataset_id: str) -> JsonObject:
    """The JSON Schema of a dataset's rows: the declared schema, widened by the loaded data."""
    return json_schema(dataset_fields(lake, dataset_id), declared_of(lake.dataset(dataset_id)).rules)
