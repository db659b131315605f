"""The second look: reads every file of a sandbox for a person's places, names and ids, and believes nothing else.

Rows are told by bucket and ordinal, memberships by their bits. All text is looked through for the ids as words: the
values of Parquet files once decoded, the strings of JSON files, and the bytes of any other.
"""

import json
from collections.abc import Callable, Iterator
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
        # Delta counts rows in a text of its own.
        return sum(mentions(subject, part) for name, part in value.items() if name != "stats" for part in (name, part))
    return sum(mentions(subject, part) for part in value) if isinstance(value, list) else 0


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
    return Rows(subject, path).count() or _in_values(subject, path)


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
    """The texts of a Parquet file, at any depth, that name the person."""
    file = pq.ParquetFile(path)
    names = [field.name for field in file.schema_arrow if _has_text(field.type)]
    count = 0
    for group in range(file.num_row_groups if names else 0):
        for column in file.read_row_group(group, columns=names).columns:
            count += sum(_mentions(subject, leaf) for chunk in column.chunks for leaf in _texts(chunk))
    return count


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
    if pa.types.is_list(type_):
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
    elif _has_text(type_):
        yield array
