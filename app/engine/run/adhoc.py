"""Loads files of profiles and events as one bucket, to evaluate expressions without a lake (`segmentation pql eval`,
tests).

Everything is held in memory: suitable for a few hundred thousand rows, not for millions. Types of NDJSON are inferred
from all values: a text column that contains only dates (or only ISO instants) becomes dates (or timestamps), integers
stay integers, and a missing key is null.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from app.engine.evaluate import EvaluationError, evaluate
from app.engine.evaluate.calendars import Instant
from app.engine.members.membership_map import NO_TIME, Standings, with_standings
from app.engine.people.merging import PROFILE
from app.engine.plan.plan import Plan
from app.engine.store.arrow_types import arrow_type, object_type
from app.engine.store.bucket import Bucket
from app.errors import ErrorCode, ExpressionRefused, Refusal
from app.json_values import JsonObject, JsonValue
from app.pql.check.checker import check
from app.pql.schema import (
    COMPUTED,
    IDENTITY_MAP,
    SEGMENT_MEMBERSHIP,
    ArrayType,
    MapType,
    ObjectType,
    Scalar,
    Segment,
    Type,
    profile_schema,
)

T = TypeVar("T")

_SUBSCRIPTIONS = MapType(ObjectType({"val": Scalar.STRING}))
_MAPS: dict[str, Type] = {
    "identityMap": IDENTITY_MAP,
    "segmentMembership": SEGMENT_MEMBERSHIP,
    "consents.marketing.email.subscriptions": _SUBSCRIPTIONS,
}
"""Fields that are maps, which files do not distinguish from objects."""

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?")
_NOT_A_QUANTITY = "^[+]|^-?0[0-9]|[eE]"
_TIME = "timestamp"
_MEMBERSHIP_COLUMNS = ("profileId", "segmentId", "status")
_MEMBER_STATUSES = ("realized", "existing")


@dataclass(frozen=True, slots=True)
class Trial:
    """`ids[i]` is the person of row i of the bucket; `members` are the stored segments by id, with their members."""

    schema: ObjectType
    bucket: Bucket
    ids: list[str]
    members: Mapping[str, set[str]]

    def member(self, segment: str) -> NDArray[np.bool_]:
        """Stored membership, one boolean per row."""
        inside = self.members.get(segment, set())
        return np.array([id in inside for id in self.ids], np.bool_)

    def matching(self, rows: NDArray[np.bool_]) -> list[str]:
        """The sorted ids of the rows."""
        return sorted(self.ids[row] for row in np.flatnonzero(rows))


def load_trial(
    profiles: Path,
    events: Path | None = None,
    *,
    id: str = "_id",
    event_id: str = "profileId",
    time: str = _TIME,
    membership: Path | None = None,
) -> Trial:
    """Reads NDJSON, CSV or Parquet files (by their names). A person with events but no record is included.

    Raises `Refusal` if a file cannot be read or lacks one of the named columns.
    """
    people = _read(profiles, {id: Scalar.STRING})
    _require(people, id, profiles)
    people = people.filter(pc.is_valid(people[id]))
    ids = [str(person_id) for person_id in people[id].to_pylist()]
    last = {person_id: row for row, person_id in enumerate(ids)}
    if len(last) != len(ids):  # a later record of a person replaces an earlier one
        people = people.take(pa.array(sorted(last.values())))
        ids = [str(person_id) for person_id in people[id].to_pylist()]
    happened = _read(events, {event_id: Scalar.STRING}) if events is not None else pa.table({})
    rows = np.zeros(0, np.int32)
    if events is not None:
        _require(happened, event_id, events)
        _require(happened, time, events)
        happened, rows, ids = _events_by_row(happened, ids, event_id, time)
    missing = len(ids) - people.num_rows
    if missing:
        padding = pa.table({name: pa.nulls(missing, people.schema.field(name).type) for name in people.column_names})
        people = pa.concat_tables([people, padding])
    members, standings = _members(membership, ids)
    schema = profile_schema(object_type(people.schema), object_type(happened.schema))
    people = with_standings(people, len(ids), standings)
    people = people.append_column(PROFILE, pa.array(ids, pa.string()))
    bucket = Bucket(0, np.arange(len(ids), dtype=np.uint32), people, happened, rows)
    return Trial(schema, bucket, ids, members)


def evaluate_trial(trial: Trial, expression: str, now: datetime) -> list[str]:
    """The sorted ids of the people that an expression matches.

    Raises `ExpressionRefused` for an expression that does not check, `Refusal` for one that cannot be evaluated.
    """
    checked = check(expression, trial.schema, segments=trial.members)
    if not checked.ok or checked.condition is None:
        raise ExpressionRefused(checked.diagnostics)
    plan = Plan({"trial": checked.condition})
    result = evaluate(plan, trial.bucket, now=now, member=trial.member, cancelled=lambda: False)["trial"]
    if isinstance(result, EvaluationError):
        raise Refusal(ErrorCode.INVALID_EXPRESSION, result.message)
    return trial.matching(result)


def inferred(values: Iterable[JsonValue], path: str = "") -> Type:
    """The type of JSON values; values that are all null, or that conflict, are text.

    >>> inferred(["2026-06-15", None]), inferred([1, 2.5]), inferred(["2026-06-15", "soon"])
    (<Scalar.DATE: 'date'>, <Scalar.NUMBER: 'number'>, <Scalar.STRING: 'string'>)
    """
    if path in _MAPS:
        return _MAPS[path]
    present = [value for value in values if value is not None]
    if _all_of(present, dict):
        names = {name: None for value in present for name in value}
        prefix = f"{path}." if path else ""
        return ObjectType({name: inferred([value.get(name) for value in present], prefix + name) for name in names})
    if _all_of(present, list):
        return ArrayType(inferred([item for value in present for item in value], f"{path}[]"))
    if _all_of(present, bool):
        return Scalar.BOOLEAN
    if present and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return Scalar.INTEGER if all(isinstance(value, int) for value in present) else Scalar.NUMBER
    if _all_of(present, str):
        if all(_DATE.fullmatch(value) for value in present):
            return Scalar.DATE
        if all(_INSTANT.fullmatch(value) for value in present):
            return Scalar.TIMESTAMP
    return Scalar.STRING


def _all_of(values: Sequence[JsonValue], kind: type[T]) -> TypeGuard[Sequence[T]]:
    return len(values) > 0 and all(isinstance(value, kind) for value in values)


def _read(path: Path, forced: Mapping[str, Scalar]) -> pa.Table:
    try:
        match path.suffix.lower():
            case ".csv":
                return _from_csv(path, forced)
            case ".parquet":
                table = pyarrow.parquet.read_table(path)
                for name in forced.keys() & set(table.column_names):
                    at = table.column_names.index(name)
                    table = table.set_column(at, name, table[name].cast(pa.string()))
                return table
            case _:
                return _from_json(path, forced)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as problem:
        raise Refusal(ErrorCode.INVALID_INPUT, f"{path.name} cannot be read: {problem}") from problem


def _from_csv(path: Path, forced: Mapping[str, Scalar]) -> pa.Table:
    """Column types by the form of the values; numbers with a leading zero, a plus sign or an exponent are texts."""

    def read(types: Mapping[str, pa.DataType]) -> pa.Table:
        options = pyarrow.csv.ConvertOptions(column_types=dict(types), strings_can_be_null=True)
        return pyarrow.csv.read_csv(path, convert_options=options)

    types = {name: arrow_type(type_) for name, type_ in forced.items()}
    table = read(types)
    numbers = [
        field.name for field in table.schema if pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    ]
    texts = read({**types, **dict.fromkeys(numbers, pa.string())})
    named = [name for name in numbers if pc.any(pc.match_substring_regex(texts[name], _NOT_A_QUANTITY)).as_py()]
    return read({**types, **dict.fromkeys(named, pa.string())}) if named else table


def _from_json(path: Path, forced: Mapping[str, Scalar]) -> pa.Table:
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                rows.append(_object(line, path, number))
    names = {name: None for row in rows for name in row}
    fields = {name: forced.get(name) or inferred([row.get(name) for row in rows], name) for name in names}
    try:
        columns = {
            name: pa.array([_stored(row.get(name), type_) for row in rows], arrow_type(type_))
            for name, type_ in fields.items()
        }
    except OverflowError as problem:
        raise Refusal(ErrorCode.INVALID_INPUT, f"{path.name}: {problem}") from problem
    return pa.table(columns)


def _object(line: str, path: Path, number: int) -> JsonObject:
    try:
        row = json.loads(line)
    except ValueError as problem:
        raise Refusal(ErrorCode.INVALID_INPUT, f"{path.name}, line {number} is not JSON: {problem}") from problem
    if not isinstance(row, dict):
        raise Refusal(ErrorCode.INVALID_INPUT, f"{path.name}, line {number} is not a JSON object")
    return row


def _stored(value: Any, type_: Type) -> Any:
    """A JSON value in the form that Arrow accepts for a type."""
    if value is None:
        return None
    match type_:
        case ObjectType(fields):
            return {name: _stored(value.get(name), inner) for name, inner in fields.items()}
        case ArrayType(element):
            return [_stored(item, element) for item in value]
        case MapType(item):
            return [(key, _stored(inner, item)) for key, inner in value.items()]
        case Scalar.INTEGER:
            if not -(1 << 63) <= value < 1 << 63:
                raise OverflowError(f"{value} is not a whole number of 64 bits")
            return value
        case Scalar.NUMBER:
            if float(value) != value:
                raise OverflowError(f"{value} would be rounded beside numbers with fractions: write it as text")
            return float(value)
        case Scalar.DATE:
            return datetime.strptime(value, "%Y-%m-%d").date()  # noqa: DTZ007 (a day, not an instant)
        case Scalar.TIMESTAMP:
            return pc.cast(pa.scalar(_zoned(value)), arrow_type(Scalar.TIMESTAMP)).as_py()
        case Scalar.BOOLEAN:
            return value
    return value if isinstance(value, str) else json.dumps(value)


def _zoned(text: str) -> str:
    """An ISO instant with its zone; UTC if it has none."""
    return text if re.search(r"(Z|[+-]\d{2}:?\d{2})$", text[10:]) else text + "Z"


def _events_by_row(
    events: pa.Table, ids: Sequence[str], event_id: str, time: str
) -> tuple[pa.Table, NDArray[np.int32], list[str]]:
    """Events sorted by (row, timestamp, _id), their rows, and the ids extended by people who only have events."""
    events = events.filter(pc.is_valid(events[event_id]))
    if time != _TIME and _TIME not in events.column_names:
        events = events.rename_columns([_TIME if name == time else name for name in events.column_names])
        time = _TIME
    stamps = events[time].cast(arrow_type(Scalar.TIMESTAMP))
    events = events.set_column(events.column_names.index(time), time, stamps)
    row_of = {person_id: row for row, person_id in enumerate(ids)}
    for person_id in sorted({str(owner) for owner in events[event_id].to_pylist()} - row_of.keys()):
        row_of[person_id] = len(row_of)
    rows = pa.array([row_of[str(owner)] for owner in events[event_id].to_pylist()], pa.int32())
    keys = {"row": rows, "time": stamps}
    if "_id" in events.column_names:
        keys["id"] = events["_id"].cast(pa.string())
    order = pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])
    return events.take(order), rows.take(order).to_numpy(), list(row_of)


def _members(path: Path | None, ids: Sequence[str]) -> tuple[dict[str, set[str]], Standings]:
    """The members of each segment, from rows of (profileId, segmentId, status) and optionally namespace and
    lastQualificationTime, including segments that all have left; and the same as entries of `segmentMembership`."""
    members: dict[str, set[str]] = {}
    row_of = {id: row for row, id in enumerate(ids)}
    segments: dict[Segment, int] = {}
    entries: list[tuple[int, int, str, int]] = []
    for row in _membership_rows(path):
        profile, segment, status = (str(row[name]) for name in _MEMBERSHIP_COLUMNS)
        inside = members.setdefault(segment, set())
        if status in _MEMBER_STATUSES:
            inside.add(profile)
        if profile in row_of:
            place = segments.setdefault((str(row["namespace"] or COMPUTED), segment), len(segments))
            at = row["lastQualificationTime"]
            entries.append((row_of[profile], place, status, NO_TIME if at is None else Instant.of(at).micros))
    owners, places, statuses, times = zip(*entries, strict=True) if entries else ((), (), (), ())
    standings = Standings(
        list(segments),
        np.array(owners, np.int64),
        np.array(places, np.int64),
        pa.array(statuses, pa.string()),
        np.array(times, np.int64),
    )
    return members, standings


def _membership_rows(path: Path | None) -> Iterator[dict[str, Any]]:
    if path is None:
        return
    table = _read(path, {"profileId": Scalar.STRING, "segmentId": Scalar.STRING})
    for name in _MEMBERSHIP_COLUMNS:
        _require(table, name, path)
    if "namespace" not in table.column_names:
        table = table.append_column("namespace", pa.nulls(table.num_rows, pa.string()))
    times = pa.nulls(table.num_rows, arrow_type(Scalar.TIMESTAMP))
    if "lastQualificationTime" in table.column_names:
        times = table["lastQualificationTime"].cast(times.type)
        table = table.drop_columns(["lastQualificationTime"])
    yield from table.append_column("lastQualificationTime", times).to_pylist()


def _require(table: pa.Table, name: str, path: Path) -> None:
    if name not in table.column_names:
        columns = ", ".join(table.column_names) or "no columns at all"
        raise Refusal(ErrorCode.INVALID_INPUT, f'{path.name} has no column "{name}": it has {columns}')
