"""NDJSON as a source of rows: infers structure and types from all lines and rejects conflicting rows; knows no
datasets."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb

from app.engine.ingest.formats.columns import (
    MOST_FIELDS,
    Column,
    KnownTypes,
    Source,
    check_names,
    first_of,
    refuse,
)
from app.engine.ingest.formats.ndjson_lines import load_lines, set_twice_named_aside
from app.engine.ingest.formats.ndjson_shapes import Shape
from app.engine.ingest.formats.ndjson_values import (
    NUMBERS,
    TIMES,
    WHOLE,
    allowed_kinds,
    as_type,
    fits_kind,
    has_many,
    mismatch,
    step,
)
from app.engine.store.case_names import file_names
from app.engine.store.field_types import (
    MAPS,
    fits_map,
    guess,
    looks_like,
    wider_types,
)
from app.engine.store.lake import name_literal, only_row, text_literal
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

_LONG = "regexp_matches(json, '[0-9]{16}')"
"""Only such a row can contain a number that fits neither 64 bits nor a double."""
_OTHER = "another form"
"""Marks texts that are not times, among the JSON kinds at a place."""
_AT_ONCE = 200
"""Number of texts of a row examined in one query, since each row's list of them is held until counted."""
_SAMPLE = 1_000
"""Number of rows that are looked at first."""
_TIMES_IN_TEXTS = ", ".join(
    ["count(t)", *(f"count(*) FILTER (WHERE t IS NOT NULL AND {looks_like('t', type_)})" for type_ in TIMES)]
)
_TOGETHER = 250
"""Number of columns read as one object: DuckDB's planning time for each field grows with the fields of its object."""


def read(
    database: duckdb.DuckDBPyConnection, file: Path, scratch: Path, known: KnownTypes, as_text: frozenset[str]
) -> Source:
    with file.open("rb") as raw:
        if raw.read(4) == b"PAR1":
            raise refuse("the file is Parquet, not NDJSON")
    unreadable = load_lines(database, file, scratch)
    structure = _Structure(database, "(SELECT json FROM lines WHERE json IS NOT NULL)")
    names, found = structure.find(known.fields)
    set_twice_named_aside(database, ["$", *_objects(found, "$")])
    columns, targets = {}, {}
    for name in names:
        path = f"$.{step(name)}"
        if name in as_text:
            kind = found.fields.get(name)
            problems = [] if kind is None else list(structure.contradictions(kind, Scalar.STRING, path, name))
            text = f"json_extract_string(json, {text_literal(path)})"
            columns[name] = Column(Scalar.STRING, text, first_of(problems))
        elif name in found.fields:
            targets[name] = target = known.widened(name, found.fields[name])
            wrong = first_of(list(structure.contradictions(found.fields[name], target, path, name)))
            columns[name] = Column(target, name, wrong)
    relation = f"(SELECT __row, json, problem AS line_problem, {_LONG} AS long FROM lines)"
    if structure.looked_at:
        # All at once, so that a row is parsed once instead of once per value.
        single = f"json_extract(json, [{', '.join(map(text_literal, structure.looked_at))}]) AS single"
        relation = f"(SELECT *, {single} FROM {relation})"
    if len(structure.looked_at) > _AT_ONCE:
        database.execute(f"CREATE TABLE checked AS FROM {relation}")
        relation = "checked"
    record_of, records = _records(targets, columns)

    def rows(some: Iterable[str]) -> str:
        derived = dict.fromkeys(record_of[name] for name in some if name in record_of)
        return f"(SELECT *{''.join(f', {records[record]} AS {record}' for record in derived)} FROM {relation})"

    return Source(
        rows=rows,
        names=names,
        columns=columns,
        texts={name: f"json_extract_string(json, {text_literal('$.' + step(name))})" for name in names},
        problem="line_problem",
        unreadable=unreadable,
        notes=tuple(note for note in structure.notes if note[0] not in as_text),
    )


def _records(types: Mapping[str, Type], columns: dict[str, Column]) -> tuple[dict[str, str], dict[str, str]]:
    """The record of each column with one of these types, and the SQL of the records: objects that contain the values
    of at most `_TOGETHER` columns, so that the planning time per column does not grow with the number of columns.
    Updates the SQL of each column to a field of its record."""
    names, record_of, records = list(types), {}, {}
    for start in range(0, len(names), _TOGETHER):
        some = {name: types[name] for name in names[start : start + _TOGETHER]}
        record = f"record{start}"
        records[record] = as_type("json", ObjectType(some))
        for name, stored in file_names(some).items():
            record_of[name] = record
            columns[name] = replace(columns[name], value=f"{record}.{name_literal(stored)}")
    return record_of, records


def _mixed(names: Sequence[str], counts: Mapping[str, int]) -> str:
    """
    >>> _mixed(("home", "zip"), {"numbers": 2_000, "texts": 1})[:57]
    'the values of "home.zip" are of several kinds (2,000 numb'
    """
    path = ".".join(name for name in names if name not in ("[]", "*"))
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    advice = "declare its type to have the others rejected"
    return f'the values of "{path}" are of several kinds ({kinds}), so all are loaded as text: {advice}'


class _Structure:
    """The common structure of all lines of a file. `mixed` records the places with values of several kinds, `notes` the
    warnings by column, and `looked_at` the places whose values must be checked by row, with their positions in each
    row's list `single`."""

    def __init__(self, database: duckdb.DuckDBPyConnection, objects: str) -> None:
        self.database = database
        self.objects = objects
        self.mixed: dict[str, frozenset[str]] = {}
        self.notes: list[tuple[str, str]] = []
        self.looked_at: dict[str, int] = {}
        self.has_long = bool(self._row(f"SELECT count(*) FROM {objects} WHERE {_LONG}")[0])

    def find(self, known: ObjectType) -> tuple[tuple[str, ...], ObjectType]:
        """The top-level names, and the types of fields with values. Raises `Refusal` if no line is an object."""
        top = self._merged(f"SELECT json FROM {self.objects}").fields
        if not top:
            raise refuse("the file is not NDJSON: none of its lines is a JSON object with fields")
        check_names(top)
        drafts = {
            name: draft
            for name, shape in top.items()
            if (draft := self._resolve(shape, (name,), f"$.{step(name)}", known.fields.get(name)))
        }
        return tuple(top), self._with_times(ObjectType(drafts), dict(_leaves(known, "$")))

    def contradictions(self, found: Type, target: Type, path: str, label: str) -> Iterator[str]:
        """SQL for the error of a row, for each place where a value may not fit the target type."""
        kinds = self.mixed.get(path)
        fits = fits_kind(found, target)
        if not fits or (kinds and not kinds <= allowed_kinds(target)):
            yield self._mismatch(path, label, target)
        elif self.has_long and target in (Scalar.INTEGER, Scalar.NUMBER):
            yield f"CASE WHEN long THEN {self._mismatch(path, label, target)} END"
        if not fits:
            return
        match found, target:
            case ObjectType(), ObjectType():
                for name, inner in found.fields.items():
                    yield from self.contradictions(
                        inner, target.fields[name], f"{path}.{step(name)}", f"{label}.{name}"
                    )
            case ArrayType(inner), ArrayType(other):
                yield from self.contradictions(inner, other, f"{path}[*]", label)
            case MapType(inner), MapType(other):
                yield from self.contradictions(inner, other, f"{path}.*", label)

    def _mismatch(self, path: str, label: str, target: Type) -> str:
        if has_many(path):
            return mismatch(f"json_extract(json, {text_literal(path)})", label, target, many=True)
        place = self.looked_at.setdefault(path, len(self.looked_at) + 1)
        return mismatch(f"single[{place}]", label, target, many=False)

    def _merged(self, values: str) -> Shape:
        """The combined shapes of all values of a query; the database counts equal shapes, and orders them, so that
        equal files give equal fields and warnings."""
        counted = f"SELECT json_structure(v), count(*) FROM ({values}) t(v) GROUP BY 1 ORDER BY 2 DESC, 1"
        cursor = self.database.execute(counted)
        shape = Shape()
        while rows := cursor.fetchmany(10_000):
            for text, count in rows:
                shape.add(json.loads(text) if text else "NULL", count)
        return shape

    def _resolve(self, shape: Shape, names: tuple[str, ...], path: str, expected: Type | None) -> Type | None:
        """The type at a place: if values have several kinds, the expected one, otherwise that of most; None without
        values."""
        if shape.unclear:
            value = f"json_extract(json, {text_literal(path)})"
            shape = self._merged(f"SELECT {f'unnest({value})' if has_many(path) else value} FROM {self.objects}")
        if len(shape.kinds) > 1:
            self.mixed[path] = frozenset(shape.kinds)
        kind = shape.kind(expected)
        if kind == "OBJECT" and not isinstance(expected, MapType):
            expected = self._outgrown(shape, (*names, "*"), f"{path}.*", expected)
        if kind == "OBJECT" and isinstance(expected, MapType):
            value_type = self._resolve(shape.any_field(), (*names, "*"), f"{path}.*", expected.value)
            return expected if value_type is None else MapType(value_type)
        if kind == "OBJECT":
            inner = expected.fields if isinstance(expected, ObjectType) else {}
            fields = {}
            for name, below in shape.fields.items():
                place = (*names, name)
                type_ = self._resolve(below, place, f"{path}.{step(name)}", inner.get(name) or MAPS.get(place))
                if type_ is not None:
                    fields[name] = type_
            return ObjectType(fields) if fields else None
        if kind == "ARRAY":
            element = expected.element if isinstance(expected, ArrayType) else None
            type_ = self._resolve(shape.element, (*names, "[]"), f"{path}[*]", element) if shape.element else None
            return None if type_ is None else ArrayType(type_)
        scalar = shape.scalar(expected)
        if scalar is Scalar.STRING and expected is None and (counts := shape.scalar_counts()).keys() - {"texts"}:
            self.notes.append((names[0], _mixed(names, counts)))
        is_open = scalar is Scalar.NUMBER is not expected and self.has_long
        return self._whole_or_not(path) if is_open and shape.kinds.keys() & set(WHOLE) else scalar

    def _whole_or_not(self, path: str) -> Scalar:
        """The type of numbers that are not all 64-bit integers: the one that rejects fewer, since long integers would
        be rounded beside fractions."""
        value = f"json_extract(json, {text_literal(path)})"
        values = f"SELECT {f'unnest({value})' if has_many(path) else value} FROM {self.objects}"
        wrong = [f"count({mismatch('v', '', type_, many=False)})" for type_ in (Scalar.INTEGER, Scalar.NUMBER)]
        not_whole, rounded = self._row(f"SELECT {', '.join(wrong)} FROM ({values}) t(v)")
        return Scalar.INTEGER if not_whole <= rounded else Scalar.NUMBER

    def _outgrown(self, shape: Shape, names: tuple[str, ...], path: str, expected: Type | None) -> Type | None:
        """A map if an object has too many fields, in this file and before, with one type of values."""
        known = expected if isinstance(expected, ObjectType) else ObjectType()
        if len(shape.fields.keys() | known.fields.keys()) <= MOST_FIELDS:
            return expected
        values = shape.any_field()
        if values.unclear or (len(values.kinds) > 1 and not values.kinds.keys() <= set(NUMBERS)):
            return expected
        type_ = self._resolve(values, names, path, next(iter(known.fields.values()), None))
        if type_ is None:
            return expected
        return MapType(type_) if fits_map(known, type_) else expected

    def _with_times(self, draft: ObjectType, known: Mapping[str, Scalar]) -> ObjectType:
        """The draft, with texts typed as dates or times if they look so in every row, or in most rows where that type
        is already known."""
        places = [path for path, type_ in _leaves(draft, "$") if type_ is Scalar.STRING and path not in self.mixed]
        # Most texts are ruled out by the first rows, since all rows of an unknown column must look like times.
        first = self._count_times(places, f"(SELECT * FROM {self.objects} LIMIT {_SAMPLE})")
        open_ = [path for path in places if known.get(path) in TIMES or first[path][0] in first[path][1:]]
        counts_of = self._count_times(open_, self.objects)
        guessed = {}
        for path, (seen, *each) in counts_of.items():
            looks = dict(zip(TIMES, each, strict=True))
            guessed[path] = guess(seen, looks)
            if guessed[path] is Scalar.STRING and known.get(path) in TIMES:
                guessed[path] = max(wider_types(known[path]), key=lambda type_: looks[type_])
                self.mixed[path] = frozenset({"VARCHAR", _OTHER})
        return _replaced(draft, "$", guessed)  # type: ignore[no-any-return]

    def _count_times(self, places: list[str], objects: str) -> dict[str, tuple[int, ...]]:
        """For texts, their number, and how many look like each time type. Extracts up to `_AT_ONCE` texts outside lists
        and maps together, so that each line is parsed only once for them."""
        found = {}
        single = [path for path in places if not has_many(path)]
        for start in range(0, len(single), _AT_ONCE):
            some = single[start : start + _AT_ONCE]
            texts = f"json_extract_string(json, [{', '.join(text_literal(path) for path in some)}])"
            pairs = f"SELECT unnest(range({len(some)})) AS place, unnest({texts}) AS t FROM {objects}"
            query = f"SELECT place, {_TIMES_IN_TEXTS} FROM ({pairs}) GROUP BY place"
            for place, *counted in self.database.execute(query).fetchall():
                found[some[place]] = tuple(counted)
        for path in places:
            if has_many(path):
                texts = f"unnest(json_extract_string(json, {text_literal(path)}))"
                found[path] = self._row(f"SELECT {_TIMES_IN_TEXTS} FROM (SELECT {texts} AS t FROM {objects})")
        return found

    def _row(self, query: str) -> tuple[Any, ...]:
        return only_row(self.database, query)


def _objects(type_: Type, path: str) -> Iterator[str]:
    """The paths of the objects and maps below a type."""
    match type_:
        case ObjectType():
            for name, inner in type_.fields.items():
                place = f"{path}.{step(name)}"
                if isinstance(inner, ObjectType | MapType):
                    yield place
                yield from _objects(inner, place)
        case ArrayType(element):
            if isinstance(element, ObjectType | MapType):
                yield f"{path}[*]"
            yield from _objects(element, f"{path}[*]")
        case MapType(value):
            if isinstance(value, ObjectType | MapType):
                yield f"{path}.*"
            yield from _objects(value, f"{path}.*")


def _leaves(type_: Type, path: str) -> Iterator[tuple[str, Scalar]]:
    match type_:
        case ObjectType():
            for name, inner in type_.fields.items():
                yield from _leaves(inner, f"{path}.{step(name)}")
        case ArrayType(element):
            yield from _leaves(element, f"{path}[*]")
        case MapType(value):
            yield from _leaves(value, f"{path}.*")
        case Scalar():
            yield path, type_


def _replaced(type_: Any, path: str, guessed: dict[str, Scalar]) -> Any:
    match type_:
        case ObjectType():
            return ObjectType({n: _replaced(inner, f"{path}.{step(n)}", guessed) for n, inner in type_.fields.items()})
        case ArrayType(element):
            return ArrayType(_replaced(element, f"{path}[*]", guessed))
        case MapType(value):
            return MapType(_replaced(value, f"{path}.*", guessed))
        case _:
            return guessed.get(path, type_)
