"""Schemas that datasets have before any row: stored with the dataset, and followed by its batches; knows no formats."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

from app.engine.ingest.rows import EVENT_ID, TIMESTAMP, DatasetShape, columns_of, user_fields
from app.engine.ingest.widening import DECLARED, holds_large
from app.engine.store.delta import TableVersion, commit, open_table
from app.engine.store.field_types import WIDENINGS, widen
from app.engine.store.json_schema import fields_of
from app.engine.store.lake import TenantLake, write_atomically
from app.errors import ErrorCode, Refusal
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type


def declare(lake: TenantLake, dataset_id: str, shape: DatasetShape, schema: Any) -> None:
    """Makes the JSON Schema the dataset's: its fields are there from now on, and batches follow their types.

    Fields that have data stay, and keep or widen their types. Raises `Refusal` or `Refusals` for a schema that cannot
    be read, and for one that contradicts the data.
    """
    fields = _of_rows(fields_of(schema), shape)
    with lake.lock(f"dataset {dataset_id}"):
        folder = lake.dataset(dataset_id)
        current = open_table(folder)
        if current is not None and not current.files:
            shutil.rmtree(folder)
            current = None
        known = user_fields(current.schema) if current is not None else ObjectType()
        for path, old, new in _differences(known, fields, ()):
            _refuse_altering(current, path, old, new)
        commit(folder, current, columns_of(shape, widen(known, fields)), [])
        write_atomically(folder / DECLARED, json.dumps(schema).encode())


def _of_rows(fields: ObjectType, shape: DatasetShape) -> ObjectType:
    is_event = shape.kind == "EVENT"
    for name in (shape.identity_column, EVENT_ID if is_event else shape.identity_column):
        if fields.fields.get(name, Scalar.STRING) is not Scalar.STRING:
            raise _refuse(f"{name!r} is an id, read as text exactly as written: declare it as a string")
    if not is_event:
        return fields
    time = shape.timestamp_column or TIMESTAMP
    if fields.fields.get(time, Scalar.TIMESTAMP) not in (Scalar.TIMESTAMP, Scalar.DATE):
        raise _refuse(f"{time!r} is the time of an event: declare it as a string of the format date-time")
    if time != TIMESTAMP and TIMESTAMP in fields.fields:
        raise _refuse(f"the time column {time!r} becomes {TIMESTAMP!r}: declare no other column of that name")
    return ObjectType({name: type_ for name, type_ in fields.fields.items() if name not in (time, TIMESTAMP)})


def _differences(old: Type, new: Type, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Type, Type]]:
    match old, new:
        case ObjectType(), ObjectType():
            for name in old.fields.keys() & new.fields.keys():
                yield from _differences(old.fields[name], new.fields[name], (*path, name))
        case ArrayType(one), ArrayType(other):
            yield from _differences(one, other, (*path, "[]"))
        case MapType(one), MapType(other):
            yield from _differences(one, other, (*path, "{}"))
        case _:
            if old != new:
                yield path, old, new


def _refuse_altering(current: TableVersion | None, path: tuple[str, ...], old: Type, new: Type) -> None:
    name = ".".join(path)
    if (old, new) not in WIDENINGS:
        raise _refuse(f"{name!r} holds data of the type {old}, which cannot become {new}: declare it as it is")
    if old is Scalar.INTEGER and current is not None and holds_large(current, path):
        raise _refuse(f"{name!r} holds whole numbers past 2^53, which a number would round: declare it as an integer")


def _refuse(message: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_INPUT, message, ("schema",))
