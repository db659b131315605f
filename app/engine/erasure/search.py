"""The second look: reads every file of a sandbox for a person's places, names and ids, and believes nothing else.

Rows are told by bucket and ordinal, memberships by their bits. All text is looked through for the ids as words: of
Parquet files the values once decoded, those of dictionaries that no row uses, and the footers; the strings of JSON
files; and the bytes of any other.
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
from app.engine.store.lake import TenantLake

_PASSED_OVER = frozenset({"scratch", "locks", "erasures"})
"""What lasts no longer than the process that made it, or the job that looks."""
_PLACES = {**PLACES, "datasets": "Datasets", "identities": "Identities", "membership": "Memberships"}


def traces(lake: TenantLake, subject: Subject, check: Callable[[], None]) -> dict[str, int]:
    """What is left, by place: rows, memberships and mentions. `check` is called for each file, and may raise."""
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
    """How many strings of a JSON value name the person."""
    if isinstance(value, str):
        return int(subject.words.search(value) is not None)
    if isinstance(value, dict):
        return sum(mentions(subject, part) for entry in value.items() for part in _parts(*entry))
    return sum(mentions(subject, part) for part in value) if isinstance(value, list) else 0


def _parts(name: str, value: object) -> tuple[object, object]:
    """What to look at of an entry. Delta's statistics are a text of JSON, in which an id may be a number of rows."""
    if name != "stats" or not isinstance(value, str):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _files(lake: TenantLake) -> Iterator[Path]:
    for path in sorted(lake.folder.rglob("*")):
        if path.relative_to(lake.folder).parts[0] not in _PASSED_OVER and path.is_file():
            yield path


def _count(lake: TenantLake, subject: Subject, path: Path) -> int:
    if path.suffix != ".parquet":
        return _in_text(subject, path.read_bytes())
    if path.relative_to(lake.folder).parts[0] == "membership":
        ordinals = subject.ordinals.get(int(path.name.partition("-")[0]))
        memberships = MembershipFiles(lake).read_path(path).values() if ordinals is not None else ()
        return sum(bits(membership, ordinals) for membership in memberships if ordinals is not None)
    return Rows(subject, path).count() or _in_values(subject, path) or _in_footer(subject, path)


def _in_text(subject: Subject, content: bytes) -> int:
    text = content.decode(errors="replace")
    count = 0
    for line in text.splitlines():
        try:
            count += mentions(subject, json.loads(line))
        except ValueError:
            count += int(subject.words.search(line) is not None)
    return count


def _in_values(subject: Subject, path: Path) -> int:
    """The texts of a Parquet file, at any depth, that name the person; each counts once in a row group.

    All are read as dictionaries, which also have what a writer left in them and no row uses.
    """
    schema = pq.ParquetFile(path).metadata.schema
    columns = [schema.column(at) for at in range(len(schema.names))]
    texts = [column.path for column in columns if column.logical_type.type == "STRING"]
    file = pq.ParquetFile(path, read_dictionary=texts)
    names = [field.name for field in file.schema_arrow if _has_text(field.type)]
    count = 0
    for group in range(file.num_row_groups if names else 0):
        for column in file.read_row_group(group, columns=names).columns:
            count += sum(_mentions(subject, leaf) for chunk in column.chunks for leaf in _texts(chunk))
    return count


def _in_footer(subject: Subject, path: Path) -> int:
    """The names of columns, least and greatest values, and notes that name the person."""
    file = pq.ParquetFile(path)
    metadata = file.metadata
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    statistics = [group.column(at).statistics for group in groups for at in range(group.num_columns)]
    known = [one for one in statistics if one is not None and one.has_min_max]
    notes = [text.decode(errors="replace") for entry in (metadata.metadata or {}).items() for text in entry]
    return mentions(
        subject, [*_names(file.schema_arrow), *notes, *(value for one in known for value in (one.min, one.max))]
    )


def _names(fields: Iterable[pa.Field]) -> Iterator[str]:
    """Of fields, at any depth."""
    for field in fields:
        yield field.name
        yield from _names(field.type.field(at) for at in range(field.type.num_fields))


def _mentions(subject: Subject, texts: pa.Array) -> int:
    """RE2 looks for the words anywhere, fast; what it finds is looked at once more for where words end."""
    plain = "|".join(_re2_quoted(word) for word in subject.searched)
    likely = pc.fill_null(pc.match_substring_regex(texts, plain), False)
    return sum(subject.words.search(text) is not None for text in texts.filter(likely).to_pylist())


def _re2_quoted(word: str) -> str:
    return "".join(character if character.isalnum() else f"\\x{{{ord(character):x}}}" for character in word)


def _has_text(type_: pa.DataType) -> bool:
    if pa.types.is_map(type_):
        return _has_text(type_.key_type) or _has_text(type_.item_type)
    if pa.types.is_struct(type_):
        return any(_has_text(field.type) for field in type_)
    if pa.types.is_list(type_) or pa.types.is_dictionary(type_):
        return _has_text(type_.value_type)
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))


def _texts(array: pa.Array) -> Iterator[pa.Array]:
    """The arrays of text in a nested one."""
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
