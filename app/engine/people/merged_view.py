"""The merged view of a merge policy: one row per person of a bucket, updated incrementally; knows no expressions.

With the identity graph `none`, a person is a primary identity, and the view is built from the datasets. With `pdg`, it
is a person of the `identity_graph`, and the view is built from the datasets' copies by persons (`stitching`), which
have the same form. Each record then belongs to one fragment; of several records in one dataset, the newest takes
precedence. Each merge policy has its own view, and views never read each other, so one sandbox can have both kinds.
"""

import base64
import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.ingest.rows import ORDINAL, user_fields
from app.engine.limits.pool import Stopped, in_threads
from app.engine.people.compaction import compact
from app.engine.people.identity_graph import Graph
from app.engine.people.merging import IDENTITIES, PROFILE, merged_people, ordinals_in
from app.engine.people.sources import Dataset, MergeRule, Origin, Sources, people_graph, sources
from app.engine.people.stitching import stitched
from app.engine.store.arrow_types import arrow_type
from app.engine.store.bitmaps import bitmap
from app.engine.store.case_names import file_schema, with_names
from app.engine.store.checksums import intact, seal
from app.engine.store.delta import BUCKET, DataFile, TableVersion, bucket_folder, commit, open_table
from app.engine.store.field_types import contradicts
from app.engine.store.files import publish
from app.engine.store.lake import TenantLake
from app.engine.store.parquet_columns import plain_type
from app.errors import LakeAway
from app.pql.schema import IDENTITY_MAP, ObjectType

log = logging.getLogger(__name__)

Told = Callable[[int, int, int], None]
"""Receives the number of buckets built so far (0 at first), the number to build, and the number that the view has. It
may raise `Cancelled`; the buckets built until then are kept."""

_NAMESPACES = b"namespaces"
_EVENTS = b"events"
_MOST_BESIDE = 64
"""Maximum number of files of events that a bucket's file does not list; with more, the bucket is rebuilt."""
_ROW_GROUP = 1 << 14


@dataclass(frozen=True, slots=True)
class View:
    """One version of a merge policy's view; `table` is None while the sandbox has no people."""

    generation: int
    table: TableVersion | None


def refresh(
    lake: TenantLake,
    rule: MergeRule,
    datasets: Sequence[Dataset],
    versions: Mapping[str, int] | None = None,
    graph: Graph | None = None,
    told: Told | None = None,
    threads: int = 1,
) -> tuple[Sources, View]:
    """Updates the view, rebuilding only changed buckets, and returns the versions that it then shows.

    It shows the current data or, so that several views show the same data, the `versions` of the datasets and (with an
    identity graph) the data of that version of the `graph`.
    """
    with lake.lock(f"view {rule.id}"):
        if rule.identity_graph == "PDG":
            graph = graph or people_graph(lake, datasets)
            stitched(lake, graph)
        else:
            graph = None
        inputs = sources(lake, rule, datasets, versions, graph)
        if graph is None:
            compact(lake, inputs.events.values(), threads)
        generation = max((int(path.name) for path in lake.views(rule.id).glob("[0-9]*")), default=1)
        fields = _view_fields(inputs)
        try:
            current = open_table(lake.views(rule.id) / str(generation))
        except LakeAway:
            raise
        except Exception:  # From Delta, JSON or Arrow.
            log.exception("the view %s cannot be read; rebuilding it", lake.views(rule.id) / str(generation))
            generation, current = generation + 1, None
        if current is not None and contradicts(user_fields(current.schema), fields):
            # A dataset was deleted, so a field's type changed: start a new generation, and keep the old files for
            # their readers.
            generation, current = generation + 1, None
        update = _Update(inputs, fields, current, lake.views(rule.id) / str(generation))
        if told is not None:
            told(0, len(update.missing), len(update.origins))
        if update.missing or update.stale:
            _rebuild(lake, update, told, threads)
            current = open_table(update.folder)
        return inputs, View(generation, current)


def open_view(lake: TenantLake, rule: MergeRule, generation: int, version: int | None) -> View:
    """An earlier version of the view; one without people if `version` is None."""
    if version is None:
        return View(generation, None)
    return View(generation, open_table(lake.views(rule.id) / str(generation), version))


def namespaces(path: Path) -> dict[str, BitMap]:
    """The ordinals of the people with an identity in each namespace, from the metadata of a file of the view."""
    noted = (pq.read_metadata(path).metadata or {}).get(_NAMESPACES, b"{}")
    return {name: BitMap.deserialize(base64.b64decode(text)) for name, text in json.loads(noted).items()}


# ---------------------------------------------------------------- updates


class _Update:
    """What makes a view current: the buckets to build (`missing`), and the files to replace or remove (`stale`)."""

    def __init__(self, inputs: Sources, fields: ObjectType, current: TableVersion | None, folder: Path) -> None:
        self.sources = inputs
        self.fields = fields
        self.current = current
        self.folder = folder
        self.origins = inputs.origins()
        files = current.files if current is not None else ()
        usable = {file for file in files if intact(folder / file.name) and self._shows(file)}
        shown = {file.bucket for file in usable}
        # Damaged files are stale as well, since all of a view can be rebuilt.
        self.stale = [file for file in files if file not in usable]
        self.missing = sorted(self.origins.keys() - shown)

    def _shows(self, file: DataFile) -> bool:
        """Whether the file equals what would be built now: its inputs are the same, except for additional events of
        people that it contains."""
        origin = self.origins.get(file.bucket)
        people, whole, *_ = Path(file.name).name.split("-")
        if origin is None or people != origin.people:
            return False
        return whole == origin.fingerprint or self._has_all(self.folder / file.name, origin)

    def _has_all(self, path: Path, origin: Origin) -> bool:
        """Whether a file of the view that was built from some of these files of events also has the people of the
        others.

        False if a file of events that it was built from no longer exists, since people may have gone with it.
        """
        names = {_short(name): name for name in origin.events}
        noted = _noted_events(path)
        beside = names.keys() - noted
        return (
            noted <= names.keys()
            and len(beside) <= _MOST_BESIDE
            and all(_all_there(path, self.sources.events_path(names[name])) for name in beside)
        )

    @property
    def schema(self) -> pa.Schema:
        ours = [pa.field(BUCKET, pa.int32()), pa.field(ORDINAL, pa.int32()), pa.field(PROFILE, pa.string())]
        return pa.schema(ours + [pa.field(name, arrow_type(type_)) for name, type_ in self.fields.fields.items()])


def _rebuild(lake: TenantLake, update: _Update, told: Told | None, threads: int) -> None:
    """Builds the missing buckets, and commits them in place of the stale files."""
    built: list[DataFile] = []

    def finished(file: DataFile) -> None:
        built.append(file)
        if told is not None:
            told(len(built), len(update.missing), len(update.origins))

    try:
        _build_files(lake, update, finished, threads)
    finally:
        # Also commits what was built before an error or a cancellation, so that the next update continues from there.
        replaced = {file.bucket for file in built}
        gone = [file for file in update.stale if file.bucket in replaced or file.bucket not in update.origins]
        if built or gone:
            commit(update.folder, update.current, update.schema, built, gone)


def _noted_events(path: Path) -> frozenset[str]:
    """The names, shortened by `_short`, of the files of events that a file of the view was built from."""
    return frozenset(json.loads((pq.read_metadata(path).metadata or {}).get(_EVENTS, b"[]")))


@lru_cache(maxsize=1 << 14)
def _all_there(path: Path, events: Path) -> bool:
    """Whether everyone with an event in `events` has a row in `path`."""
    return bool(np.isin(ordinals_in(events), _people_in(path), assume_unique=True).all())


@lru_cache(maxsize=16)
def _people_in(path: Path) -> NDArray[np.int32]:
    return ordinals_in(path)


def _short(name: str) -> str:
    """A short digest of the name of a file of events, for the metadata of the view's files."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _view_fields(inputs: Sources) -> ObjectType:
    return ObjectType({IDENTITIES: IDENTITY_MAP, **inputs.record_fields.fields})


def _build_files(lake: TenantLake, update: _Update, finished: Callable[[DataFile], None], threads: int) -> None:
    """Builds one file per missing bucket, with the digests of its origin in its name."""
    identities = open_table(lake.identities)

    def build(bucket: int, _stopped: Stopped) -> DataFile:
        origin = update.origins[bucket]
        table = merged_people(update.sources, update.fields, identities, bucket)
        _write(scratch / f"{bucket}.parquet", table, origin)
        stem = f"{origin.people}-{origin.fingerprint}-{uuid.uuid4().hex}"
        name = f"{bucket_folder(bucket)}/{seal(scratch / f'{bucket}.parquet', stem)}"
        publish([(scratch / f"{bucket}.parquet", update.folder / name)])
        return DataFile(name, bucket, table.num_rows)

    with lake.scratch() as scratch:
        in_threads(build, update.missing, finished=finished, cancelled=lambda: False, threads=threads)


# ---------------------------------------------------------------- files


def _write(path: Path, table: pa.Table, origin: Origin) -> None:
    """Writes one file of the view, with text in plain columns. Its metadata lists the people by namespace and the files
    of events."""
    plain = pa.schema([pa.field(field.name, plain_type(field.type)) for field in table.schema])
    noted = {
        name: base64.b64encode(members.serialize()).decode()
        for name, members in _by_namespace(table[ORDINAL].to_numpy(), table[IDENTITIES].combine_chunks()).items()
    }
    stored = file_schema(plain)
    rows = pa.Table.from_batches([with_names(batch, stored) for batch in table.cast(plain).to_batches()], stored)
    with pq.ParquetWriter(path, stored, compression="zstd", store_schema=False) as writer:
        writer.write_table(rows, row_group_size=_ROW_GROUP)
        events = json.dumps(sorted(map(_short, origin.events)))
        writer.add_key_value_metadata({_NAMESPACES.decode(): json.dumps(noted), _EVENTS.decode(): events})


def _by_namespace(ordinals: NDArray[np.int32], identities: pa.MapArray) -> dict[str, BitMap]:
    owners = np.repeat(ordinals, np.diff(identities.offsets.to_numpy()))
    keys = identities.keys.dictionary_encode()
    codes = keys.indices.to_numpy()
    return {
        name: bitmap(np.unique(owners[codes == code]).astype(np.uint32))
        for code, name in enumerate(keys.dictionary.to_pylist())
    }
