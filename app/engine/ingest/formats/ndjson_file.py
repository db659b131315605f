"""NDJSON as a source of rows: structure and types from all lines, contradicting rows told apart; knows no datasets."""

import json
from collections.abc import Iterator, Mapping, Sequence
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
"""Only such a row may have a number that neither 64 bits nor a double hold."""
_OTHER = "another form"
"""Stands for texts at a place that are no times, among the kinds of JSON there."""
_AT_ONCE = 200
"""Texts of a row that are looked at in one query: each row's list of them is held until it is counted."""


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
            wrong = (
                first_of(list(structure.contradictions(found.fields[name], Scalar.STRING, path, name)))
                if name in found.fields
                else None
            )
            columns[name] = Column(Scalar.STRING, f"json_extract_string(json, {text_literal(path)})", wrong)
        elif name in found.fields:
            targets[name] = target = known.widened(name, found.fields[name])
            wrong = first_of(list(structure.contradictions(found.fields[name], target, path, name)))
            columns[name] = Column(target, name, wrong)
    stored = file_names(targets)
    for name in targets:
        columns[name] = replace(columns[name], value=f"record.{name_literal(stored[name])}")
    record = f", {as_type('json', ObjectType(targets))} AS record" if targets else ""
    if structure.looked_at:
        # All at once, so that a row is parsed once and not once for each of its values.
        record += f", json_extract(json, [{', '.join(map(text_literal, structure.looked_at))}]) AS single"
    return Source(
        relation=f"(SELECT __row, json, problem AS line_problem, {_LONG} AS long{record} FROM lines)",
        names=names,
        columns=columns,
        texts={name: f"json_extract_string(json, {text_literal('$.' + step(name))})" for name in names},
        problem="line_problem",
        unreadable=unreadable,
        notes=tuple(note for note in structure.notes if note[0] not in as_text),
    )


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
    """What all lines of a file hold together; `mixed` remembers the places where values are of several kinds, `notes`
    what the sender should know of them, with the column, and `looked_at` those whose values have to be checked by row,
    with their numbers in the list `single` of each row."""

    def __init__(self, database: duckdb.DuckDBPyConnection, objects: str) -> None:
        self.database = database
        self.objects = objects
        self.mixed: dict[str, frozenset[str]] = {}
        self.notes: list[tuple[str, str]] = []
        self.looked_at: dict[str, int] = {}
        self.has_long = bool(self._row(f"SELECT count(*) FROM {objects} WHERE {_LONG}")[0])

    def find(self, known: ObjectType) -> tuple[tuple[str, ...], ObjectType]:
        """The names at the top, and the types of what has a value. Raises `Refusal` when no line is an object."""
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
        """SQL for what is wrong in a row, for each place where some value may not fit the target type."""
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
        """The shapes of all values of a query together; equal shapes are counted by the database."""
        cursor = self.database.execute(f"SELECT json_structure(v), count(*) FROM ({values}) t(v) GROUP BY 1")
        shape = Shape()
        while rows := cursor.fetchmany(10_000):
            for text, count in rows:
                shape.add(json.loads(text) if text else "NULL", count)
        return shape

    def _resolve(self, shape: Shape, names: tuple[str, ...], path: str, expected: Type | None) -> Type | None:
        """The type at a place: of values of several kinds that expected, else that of most; None without values."""
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
        """The type of numbers of which some are no whole ones of 64 bits: that with which fewer are rejected, since
        beside fractions long whole numbers would be rounded."""
        value = f"json_extract(json, {text_literal(path)})"
        values = f"SELECT {f'unnest({value})' if has_many(path) else value} FROM {self.objects}"
        wrong = [f"count({mismatch('v', '', type_, many=False)})" for type_ in (Scalar.INTEGER, Scalar.NUMBER)]
        not_whole, rounded = self._row(f"SELECT {', '.join(wrong)} FROM ({values}) t(v)")
        return Scalar.INTEGER if not_whole <= rounded else Scalar.NUMBER

    def _outgrown(self, shape: Shape, names: tuple[str, ...], path: str, expected: Type | None) -> Type | None:
        """A map where an object has too many fields, in this file and before, and all of them one type of values."""
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
        """The draft with those texts made dates or times that look so in every row, or most where they are known so."""
        places = [path for path, type_ in _leaves(draft, "$") if type_ is Scalar.STRING and path not in self.mixed]
        counts_of = self._count_single([path for path in places if not has_many(path)])
        for path in places:
            if has_many(path):
                counts = ", ".join(f"count(*) FILTER (WHERE {looks_like('t', type_)})" for type_ in TIMES)
                texts = f"unnest(json_extract_string(json, {text_literal(path)}))"
                counts_of[path] = self._row(f"SELECT count(t), {counts} FROM (SELECT {texts} AS t FROM {self.objects})")
        guessed = {}
        for path, (seen, *each) in counts_of.items():
            looks = dict(zip(TIMES, each, strict=True))
            guessed[path] = guess(seen, looks)
            if guessed[path] is Scalar.STRING and known.get(path) in TIMES:
                guessed[path] = max(wider_types(known[path]), key=lambda type_: looks[type_])
                self.mixed[path] = frozenset({"VARCHAR", _OTHER})
        return _replaced(draft, "$", guessed)  # type: ignore[no-any-return]

    def _count_single(self, places: list[str]) -> dict[str, tuple[int, ...]]:
        """Of texts outside lists and maps how many there are, and how many look like each of the times; all of a row at
        once, so that each line is parsed once."""
        found = {}
        for start in range(0, len(places), _AT_ONCE):
            some = places[start : start + _AT_ONCE]
            texts = f"json_extract_string(json, [{', '.join(text_literal(path) for path in some)}])"
            pairs = f"SELECT unnest(range({len(some)})) AS place, unnest({texts}) AS t FROM {self.objects}"
            counts = ", ".join(f"count(*) FILTER (WHERE t IS NOT NULL AND {looks_like('t', type_)})" for type_ in TIMES)
            query = f"SELECT place, count(t), {counts} FROM ({pairs}) GROUP BY place"
            for place, *counted in self.database.execute(query).fetchall():
                found[some[place]] = tuple(counted)
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
