"""Verifies an erasure: searches every file of a sandbox for a person's places, names and ids, and trusts nothing else.

Rows are identified by bucket and ordinal, memberships by their bits. All text is searched for the ids as words: in
Parquet files the decoded values, dictionary entries that no row uses, and the footers; in JSON files the strings; in
all other files the bytes.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.engine.erasure.memberships import bits
from app.engine.erasure.purge import PLACES
from app.engine.erasure.rows import Rows
from app.engine.erasure.subject import Subject
from app.engine.members.membership import MembershipFiles
from app.engine.store.files import listed
from app.engine.store.lake import TenantLake

_PASSED_OVER = frozenset({"scratch", "locks", "erasures"})
"""Skipped folders: their files last no longer than the process that wrote them, or than the erasure job itself."""
_PLACES = {**PLACES, "datasets": "Datasets", "identities": "Identities", "membership": "Memberships"}


def traces(lake: TenantLake, subject: Subject, check: Callable[[], None]) -> dict[str, int]:
    """The number of remaining rows, memberships and mentions, by place. `check` is called for each file, and may
    raise."""
    counts: dict[str, int] = {}
    for path in _files(lake):
        check()
        try:
            count = _count(lake, subject, path)
        except FileNotFoundError:
            continue
        if count:
            room = path.relative_to(lake.folder).parts[0]
            place = _PLACES.get(room, "Other files")
            counts[place] = counts.get(place, 0) + count
    return counts


def mentions(subject: Subject, value: object) -> int:
    """The number of strings in a JSON value that name the person."""
    if isinstance(value, str):
        return int(subject.words.search(value) is not None)
    if isinstance(value, dict):
        return sum(mentions(subject, part) for entry in value.items() for part in _parts(*entry))
    return sum(mentions(subject, part) for part in value) if isinstance(value, list) else 0


def _parts(name: str, value: object) -> tuple[object, object]:
    """The parts of an entry to search. Delta's statistics are JSON in a string; they are parsed, since a number of rows
    may look like an id."""
    if name != "stats" or not isinstance(value, str):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _files(lake: TenantLake) -> Iterator[Path]:
    for path in sorted(listed(lake.folder)):
        if path.relative_to(lake.folder).parts[0] not in _PASSED_OVER:
            yield path


def _count(lake: TenantLake, subject: Subject, path: Path) -> int:
    if path.suffix != ".parquet":
        return _in_text(subject, path.read_bytes())
    if path.relative_to(lake.folder).parts[0] == "membership":
        ordinals = subject.ordinals.get(int(path.name.partition("-")[0]))
        memberships = MembershipFiles(lake).read_path(path).values() if ordinals is not None else ()
        return sum(bits(membership, ordinals) for membership in memberships if ordinals is not None)
    if count := Rows(subject, path).count():
        return count
    file = pq.ParquetFile(path)
    return _in_values(subject, path, file.metadata) or _in_footer(subject, file)


def _in_text(subject: Subject, content: bytes) -> int:
    text = content.decode(errors="replace")
    count = 0
    for line in text.splitlines():
        try:
            count += mentions(subject, json.loads(line))
        except ValueError:
            count += int(subject.words.search(line) is not None)
    return count


def _in_values(subject: Subject, path: Path, footer: pq.FileMetaData) -> int:
    """The number of texts in a Parquet file, at any depth, that name the person; each counts once per row group.

    All texts are read as dictionaries, which also contain entries that no row uses.
    """
    schema = footer.schema
    columns = [schema.column(at) for at in range(len(schema.names))]
    texts = [column.path for column in columns if column.logical_type.type == "STRING"]
    file = pq.ParquetFile(path, metadata=footer, read_dictionary=texts)
    names = [field.name for field in file.schema_arrow if _has_text(field.type)]
    count = 0
    for group in range(file.num_row_groups if names else 0):
        for column in file.read_row_group(group, columns=names).columns:
            count += sum(_mentions(subject, leaf) for chunk in column.chunks for leaf in _texts(chunk))
    return count


def _in_footer(subject: Subject, file: pq.ParquetFile) -> int:
    """The number of column names, minimum and maximum values, and metadata entries that name the person."""
    metadata = file.metadata
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    statistics = [group.column(at).statistics for group in groups for at in range(group.num_columns)]
    bounds = [part for part in statistics if part is not None and part.has_min_max]
    notes = [text.decode(errors="replace") for entry in (metadata.metadata or {}).items() for text in entry]
    texts = [*_names(file.schema_arrow), *notes]
    texts += [value for column in bounds for value in (column.min, column.max) if isinstance(value, str)]
    # One search over all is fast, and hardly ever finds anything.
    return mentions(subject, texts) if subject.words.search("\n".join(texts)) else 0


def _names(fields: Iterable[pa.Field]) -> Iterator[str]:
    """The names of the fields, at any depth."""
    for field in fields:
        yield field.name
        yield from _names(field.type.field(at) for at in range(field.type.num_fields))


def _mentions(subject: Subject, texts: pa.Array) -> int:
    """The number of texts that name the person. RE2 first finds the terms anywhere, which is fast; the matches are then
    checked for word boundaries."""
    likely = pc.fill_null(pc.match_substring_regex(texts, subject.anywhere), False)
    return sum(subject.words.search(text) is not None for text in texts.filter(likely).to_pylist())


def _has_text(type_: pa.DataType) -> bool:
    if pa.types.is_map(type_):
        return _has_text(type_.key_type) or _has_text(type_.item_type)
    if pa.types.is_struct(type_):
        return any(_has_text(field.type) for field in type_)
    if pa.types.is_list(type_) or pa.types.is_dictionary(type_):
        return _has_text(type_.value_type)
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _texts(array: pa.Array) -> Iterator[pa.Array]:
    """The text arrays within a nested array."""
    type_ = array.type
    if pa.types.is_map(type_):
        yield from _texts(array.keys)
        yield from _texts(array.items)
    elif pa.types.is_struct(type_):
        for place in range(type_.num_fields):
            yield from _texts(array.field(place))
    elif pa.types.is_list(type_):
        yield from _texts(array.values)
    elif pa.types.is_dictionary(type_):
        yield from _texts(array.dictionary)
    elif _has_text(type_):
        yield array
