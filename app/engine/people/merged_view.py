"""The merged view of a merge policy: one row for each person of a bucket, kept up to date; knows no expressions.

With the identity graph `none` a person is a primary identity, and the view is made of the datasets. With `pdg` it is a
person of the `identity_graph`, and the view is made of the datasets' copies by persons (`stitching`), which have the
same form; a record then is that of one fragment, and of several in one dataset the newest counts first. Views are one
for each merge policy and never read one another, so that both kinds stand side by side in one sandbox.
"""

import base64
import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.ingest.identities import primary_identities
from app.engine.ingest.rows import TIMESTAMP, user_fields
from app.engine.people.identity_graph import Graph, graph_of
from app.engine.people.identity_map import identity_map
from app.engine.people.stitching import FRAGMENT, open_stitched, stitched
from app.engine.pool import Stopped, in_threads
from app.engine.store.arrow_types import arrow_type
from app.engine.store.case_names import file_schema, with_names
from app.engine.store.checksums import intact, seal
from app.engine.store.delta import BUCKET, DataFile, TableVersion, bucket_folder, commit, open_table
from app.engine.store.field_types import contradicts, widen
from app.engine.store.lake import TenantLake
from app.engine.store.parquet_columns import open_file, plain_type, read_columns, stored_type
from app.pql.schema import IDENTITY_MAP, ObjectType, Scalar, Type, profile_fields, profile_schema

log = logging.getLogger(__name__)

Told = Callable[[int, int, int], None]
"""Gets how many buckets of a view have been built, of how many that have to be, and how many the view has; 0 first. It
may raise `Cancelled`: what has been built stays."""

ORDINAL = "__ordinal"
PROFILE = "__profile"
_IDENTITIES = "identityMap"
_NAMESPACES = b"namespaces"
_FORM = "1"
_ROW_GROUP = 1 << 14


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset as the view sees it."""

    id: str
    kind: Literal["PROFILE", "EVENT", "AUDIENCE"]


@dataclass(frozen=True, slots=True)
class MergeRule:
    """How the records of a person from several datasets become one.

    `TIMESTAMP_ORDERED`: for each field the newest value that is not null, over all datasets. `DATA_SET_PRECEDENCE`: the
    value of the first dataset that has one, in the order of `datasets`; records of other datasets are left out (with no
    `datasets`, the order is that in which the datasets are given). Events are never merged.

    `identity_graph` tells whose records are one person's: `NONE` those with one primary identity, `PDG` all that are
    linked by identities.
    """

    id: str
    method: Literal["TIMESTAMP_ORDERED", "DATA_SET_PRECEDENCE"]
    datasets: tuple[str, ...] = ()
    identity_graph: Literal["NONE", "PDG"] = "NONE"


@dataclass(frozen=True, slots=True)
class Sources:
    """The dataset versions that a view is made of; records in the order of their precedence.

    `members` are datasets whose people are profiles too, though nothing is known of them but who they are. With a
    `graph` they are the copies by persons of that version.
    """

    rule: MergeRule
    records: Mapping[str, TableVersion]
    events: Mapping[str, TableVersion]
    graph: Graph | None = None
    members: Mapping[str, TableVersion] = field(default_factory=dict)

    @property
    def tables(self) -> Mapping[str, TableVersion]:
        return {**self.records, **self.events, **self.members}

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Each dataset with its kind, in the order in which they count: a list, since a database may not keep that of
        an object."""
        by_kind = {"PROFILE": self.records, "EVENT": self.events, "AUDIENCE": self.members}
        return [(dataset, kind) for kind, tables in by_kind.items() for dataset in tables]

    @property
    def record_fields(self) -> ObjectType:
        """The fields of all records; where two datasets disagree on a type, the first one's is taken."""
        return _all_fields(self.records)

    @property
    def event_fields(self) -> ObjectType:
        return widen(ObjectType({TIMESTAMP: Scalar.TIMESTAMP}), _all_fields(self.events))

    @property
    def schema(self) -> ObjectType:
        """What expressions are checked against."""
        return profile_schema(self.record_fields, self.event_fields)

    @property
    def stored_fields(self) -> ObjectType:
        """Of a profile, with its numbers as they are stored."""
        return profile_fields(self.record_fields, self.event_fields)

    @property
    def buckets(self) -> list[int]:
        return sorted({file.bucket for table in self.tables.values() for file in table.files})

    def fingerprints(self) -> dict[int, str]:
        """For each bucket what its part of the view depends on."""
        parts: dict[int, list[str]] = {}
        for kind, tables in (("r", self.records), ("e", self.events), ("a", self.members)):
            for dataset, table in tables.items():
                for file in sorted(table.files, key=lambda file: file.name):
                    parts.setdefault(file.bucket, []).append(f"{kind}/{dataset}/{file.name}")
        start = f"{_FORM}/{self.rule.method}"
        if self.graph is not None:
            start += "/pdg"
            for file in self.graph.members:
                if file.bucket in parts:
                    parts[file.bucket].append(f"m/{file.name}")
        return {
            bucket: hashlib.sha256("\n".join([start, *names]).encode()).hexdigest()[:32]
            for bucket, names in parts.items()
        }


def sources(
    lake: TenantLake,
    rule: MergeRule,
    datasets: Sequence[Dataset],
    versions: Mapping[str, int] | None = None,
    graph: Graph | None = None,
) -> Sources:
    """The datasets as they are now, or at the versions given (a dataset without one is left out), or by persons as in
    a version of the graph that they were laid out for."""
    order = [dataset.id for dataset in datasets if dataset.kind == "PROFILE"]
    if rule.method == "DATA_SET_PRECEDENCE" and rule.datasets:
        order = [dataset_id for dataset_id in rule.datasets if dataset_id in order]
    events = [dataset.id for dataset in datasets if dataset.kind == "EVENT"]
    members = [dataset.id for dataset in datasets if dataset.kind == "AUDIENCE"]
    names = [*order, *events, *members]
    if graph is not None:
        tables: Mapping[str, TableVersion | None] = open_stitched(lake, graph).tables
    elif versions is None:
        tables = {name: open_table(lake.dataset(name)) for name in names}
    else:
        tables = {name: open_table(lake.dataset(name), versions[name]) for name in names if name in versions}
    opened = {name: table for name, table in tables.items() if table is not None}
    return Sources(
        rule,
        {name: opened[name] for name in order if name in opened},
        {name: opened[name] for name in events if name in opened},
        graph,
        {name: opened[name] for name in members if name in opened},
    )


def people_graph(lake: TenantLake, datasets: Sequence[Dataset]) -> Graph:
    """Who is the same person, by all of the sandbox's datasets as they are now."""
    return graph_of(lake, [dataset.id for dataset in datasets])


def schema_of(lake: TenantLake, datasets: Sequence[Dataset]) -> ObjectType:
    """The schema that expressions are checked against; where datasets disagree on a type, the first one's is taken."""
    return sources(lake, MergeRule("", "TIMESTAMP_ORDERED"), datasets).schema


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
    """Brings the view up to date, rebuilding touched buckets only, and gives the versions that it then shows.

    It shows the data as they are now, or, so that several views show the same, the `versions` of the datasets and (with
    an identity graph) the data of that version of the `graph`.
    """
    with lake.lock(f"view {rule.id}"):
        if rule.identity_graph == "PDG":
            graph = graph or people_graph(lake, datasets)
            stitched(lake, graph)
        else:
            graph = None
        inputs = sources(lake, rule, datasets, versions, graph)
        generation = max((int(path.name) for path in lake.views(rule.id).glob("[0-9]*")), default=1)
        fields = _view_fields(inputs)
        try:
            current = open_table(lake.views(rule.id) / str(generation))
        except Exception:  # Of Delta, JSON or Arrow.
            log.exception("the view %s cannot be read, and is made anew", lake.views(rule.id) / str(generation))
            generation, current = generation + 1, None
        if current is not None and contradicts(user_fields(current.schema), fields):
            # A dataset went, and with it the type of a field: begin anew, the old files stay for those who read them.
            generation, current = generation + 1, None
        update = _Update(inputs, fields, current, lake.views(rule.id) / str(generation))
        if told is not None:
            told(0, len(update.missing), len(update.fingerprints))
        if update.missing or update.stale:
            _rebuild(lake, update, told, threads)
            current = open_table(update.folder)
        return inputs, View(generation, current)


class _Update:
    """What brings a view up to date: the buckets that are missing, and the files that show something else."""

    def __init__(self, found: Sources, fields: ObjectType, current: TableVersion | None, folder: Path) -> None:
        self.sources = found
        self.fields = fields
        self.current = current
        self.folder = folder
        self.fingerprints = found.fingerprints()
        files = current.files if current is not None else ()
        usable = {file for file in files if _shows(file, self.fingerprints) and intact(folder / file.name)}
        shown = {file.bucket for file in usable}
        # What is damaged as well: all of a view can be made anew.
        self.stale = [file for file in files if file not in usable]
        self.missing = sorted(self.fingerprints.keys() - shown)

    @property
    def schema(self) -> pa.Schema:
        ours = [pa.field(BUCKET, pa.int32()), pa.field(ORDINAL, pa.int32()), pa.field(PROFILE, pa.string())]
        return pa.schema(ours + [pa.field(name, arrow_type(type_)) for name, type_ in self.fields.fields.items()])


def _rebuild(lake: TenantLake, update: _Update, told: Told | None, threads: int) -> None:
    """Builds what is missing, and commits it in place of what is stale."""
    built: list[DataFile] = []

    def finished(file: DataFile) -> None:
        built.append(file)
        if told is not None:
            told(len(built), len(update.missing), len(update.fingerprints))

    fingerprints = {bucket: update.fingerprints[bucket] for bucket in update.missing}
    try:
        _build_files(lake, update.sources, update.fields, update.folder, fingerprints, finished, threads)
    finally:
        # Also what was built before the work was given up, so that the next one goes on from there.
        replaced = {file.bucket for file in built}
        gone = [file for file in update.stale if file.bucket in replaced or file.bucket not in update.fingerprints]
        if built or gone:
            commit(update.folder, update.current, update.schema, built, gone)


def open_view(lake: TenantLake, rule: MergeRule, generation: int, version: int | None) -> View:
    """The view as it was in that version."""
    if version is None:
        return View(generation, None)
    return View(generation, open_table(lake.views(rule.id) / str(generation), version))


def namespaces(path: Path) -> dict[str, BitMap]:
    """The ordinals that have an identity in each namespace, as noted in a file of the view."""
    noted = (pq.read_metadata(path).metadata or {}).get(_NAMESPACES, b"{}")
    return {name: BitMap.deserialize(base64.b64decode(text)) for name, text in json.loads(noted).items()}


def _all_fields(tables: Mapping[str, TableVersion]) -> ObjectType:
    fields = ObjectType()
    for table in tables.values():
        fields = widen(fields, user_fields(table.schema))
    return fields


def _shows(file: DataFile, wanted: Mapping[int, str]) -> bool:
    return Path(file.name).name.split("-")[0] == wanted.get(file.bucket)


def _view_fields(found: Sources) -> ObjectType:
    return ObjectType({_IDENTITIES: IDENTITY_MAP, **found.record_fields.fields})


def _build_files(
    lake: TenantLake,
    found: Sources,
    fields: ObjectType,
    folder: Path,
    wanted: Mapping[int, str],
    finished: Callable[[DataFile], None],
    threads: int,
) -> None:
    """One file for each bucket, with its fingerprint in its name."""
    identities = open_table(lake.identities)

    def build(bucket: int, _stopped: Stopped) -> DataFile:
        table = _merged(found, fields, identities, bucket)
        _write(scratch / f"{bucket}.parquet", table)
        stem = f"{wanted[bucket]}-{uuid.uuid4().hex}"
        name = f"{bucket_folder(bucket)}/{seal(scratch / f'{bucket}.parquet', stem)}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (scratch / f"{bucket}.parquet").rename(folder / name)
        return DataFile(name, bucket, table.num_rows)

    with lake.scratch() as scratch:
        in_threads(build, wanted, finished=finished, cancelled=lambda: False, threads=threads)


def _merged(found: Sources, fields: ObjectType, known: TableVersion | None, bucket: int) -> pa.Table:
    """The people of the bucket: their ordinals, ids, identities and merged fields."""
    records = [_records(table, fields, bucket) for table in found.records.values()]
    others = [*found.events.values(), *found.members.values()]
    senders = [ordinals_in(path) for table in others for path in table.paths(bucket)]
    ordinals = np.unique(np.concatenate([*(record[ORDINAL].to_numpy() for record in records), *senders]))
    columns: dict[str, pa.Array] = {ORDINAL: pa.array(ordinals.astype(np.int32))}
    owners, names = _names(found, known, ordinals, bucket)
    firsts = names.take(pa.array(np.searchsorted(owners, np.arange(len(ordinals)))))
    columns[PROFILE] = pc.binary_join_element_wise(firsts["namespace"], firsts["id"], ":").combine_chunks()
    values_of = [
        (record[ORDINAL].to_numpy(), record[_IDENTITIES]) for record in records if _IDENTITIES in record.schema.names
    ]
    columns[_IDENTITIES] = identity_map(ordinals, owners, names, values_of)
    order = _order(found, ordinals, records)
    for name, type_ in fields.fields.items():
        if name != _IDENTITIES and any(name in record.schema.names for record in records):
            columns[name] = _best(_column(records, name, type_), type_, order)
    return pa.table(columns)


def _names(
    found: Sources, known: TableVersion | None, ordinals: NDArray[np.int32], bucket: int
) -> tuple[NDArray[np.int64], pa.Table]:
    """Identities (namespace, id, primary) and the row of the person of each (rising); that of the profile id first."""
    if found.graph is None:
        table = primary_identities(known, bucket).take(pa.array(ordinals))
        return np.arange(len(ordinals)), table.append_column("primary", pa.array(np.ones(len(ordinals), bool)))
    table = found.graph.members_of(bucket)
    persons = table["person"].to_numpy()
    table = table.filter(pa.array(np.isin(persons, ordinals)))
    own = (
        pc.fill_null(
            pc.and_(pc.equal(table["place"], bucket), pc.equal(table["ordinal"], table["person"])), False
        ).to_numpy(zero_copy_only=False)
        if table.num_rows
        else np.zeros(0, bool)
    )
    owners = np.searchsorted(ordinals, table["person"].to_numpy())
    order = np.lexsort((~own, owners))
    named = table.select(["namespace", "id"]).append_column("primary", pc.is_valid(table["ordinal"]))
    return owners[order], named.take(pa.array(order))


def _records(table: TableVersion, fields: ObjectType, bucket: int) -> pa.Table:
    """What one dataset knows of each person of the bucket, in no order; a later batch replaces a fragment's record."""
    parts = []
    for path in table.paths(bucket):
        file = open_file(path, fields)
        part = read_columns(file, fields, plain=[ORDINAL, FRAGMENT, "__version", "__time"])
        absent = [name for name in fields.fields if name not in part.schema.names and name in table.schema.names]
        for name in absent:
            part = part.append_column(name, pa.nulls(part.num_rows, stored_type(fields.fields[name])))
        parts.append(part)
    if not parts:
        return pa.table({ORDINAL: pa.array([], pa.int32()), "__time": pa.array([], pa.timestamp("us", tz="UTC"))})
    rows = pa.concat_tables([part.select(parts[0].schema.names) for part in parts]).combine_chunks()
    fragments = rows[FRAGMENT if FRAGMENT in rows.schema.names else ORDINAL].to_numpy()
    order = np.lexsort((rows["__version"].to_numpy(), fragments))
    last = np.flatnonzero(np.append(np.diff(fragments[order]) != 0, True))
    return rows.take(pa.array(order[last]))


def ordinals_in(path: Path) -> NDArray[np.int32]:
    return np.unique(pq.ParquetFile(path).read(columns=[ORDINAL])[ORDINAL].to_numpy())


@dataclass(frozen=True, slots=True)
class _Order:
    """All records below each other: `rows` of them by person, those that count more first; `owners` their persons."""

    rows: NDArray[np.int64]
    owners: NDArray[np.int64]
    people: int

    def first(self, valid: NDArray[np.bool_]) -> pa.Array:
        """Of each person the first row that is valid; null when there is none."""
        places = np.flatnonzero(valid[self.rows])
        owners = self.owners[places]
        begins = np.flatnonzero(np.insert(np.diff(owners) != 0, 0, True)) if len(owners) else places
        first_rows = np.full(self.people, -1, np.int64)
        first_rows[owners[begins]] = self.rows[places[begins]]
        return pa.array(first_rows, mask=first_rows < 0)


def _order(found: Sources, ordinals: NDArray[np.int32], records: Sequence[pa.Table]) -> _Order:
    """By the rule. Of records that are equally new the one of the first dataset, then of the first fragment, wins."""
    if not records:
        return _Order(np.empty(0, np.int64), np.empty(0, np.int64), len(ordinals))
    owners = np.searchsorted(ordinals, np.concatenate([record[ORDINAL].to_numpy() for record in records]))
    ages = -np.concatenate([record["__time"].cast(pa.int64()).to_numpy() for record in records])
    datasets = np.repeat(np.arange(len(records)), [record.num_rows for record in records])
    rows = np.arange(len(owners))
    keys = (ages, datasets) if found.rule.method == "TIMESTAMP_ORDERED" else (datasets, ages)
    order = np.lexsort((rows, keys[1], keys[0], owners))
    return _Order(order, owners[order], len(ordinals))


def _column(records: Sequence[pa.Table], name: str, type_: Type) -> pa.Array:
    """One field of all records below each other."""
    target = stored_type(type_)
    parts = [
        _one_array(record[name]) if name in record.schema.names else pa.nulls(record.num_rows, target)
        for record in records
    ]
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _best(values: pa.Array, type_: Type, order: _Order) -> pa.Array:
    """For each person the value, of those that are not null, that counts most; of objects, each field for itself."""
    if isinstance(type_, ObjectType) and len(order.rows) > len(np.unique(order.owners)):
        children = [
            _best(child, inner, order) for child, inner in zip(values.flatten(), type_.fields.values(), strict=True)
        ]
        absent = np.logical_and.reduce([child.is_null().to_numpy(zero_copy_only=False) for child in children])
        return pa.StructArray.from_arrays(children, fields=list(stored_type(type_)), mask=pa.array(absent))
    return values.take(order.first(values.is_valid().to_numpy(zero_copy_only=False)))


def _write(path: Path, table: pa.Table) -> None:
    """One file of the view, text in plain columns, with the namespaces of its people noted in it."""
    plain = pa.schema([pa.field(field.name, plain_type(field.type)) for field in table.schema])
    noted = {
        name: base64.b64encode(members.serialize()).decode()
        for name, members in _by_namespace(table[ORDINAL].to_numpy(), table[_IDENTITIES].combine_chunks()).items()
    }
    stored = file_schema(plain)
    rows = pa.Table.from_batches([with_names(batch, stored) for batch in table.cast(plain).to_batches()], stored)
    with pq.ParquetWriter(path, stored, compression="zstd", store_schema=False) as writer:
        writer.write_table(rows, row_group_size=_ROW_GROUP)
        writer.add_key_value_metadata({_NAMESPACES.decode(): json.dumps(noted)})


def _by_namespace(ordinals: NDArray[np.int32], identities: pa.MapArray) -> dict[str, BitMap]:
    owners = np.repeat(ordinals, np.diff(identities.offsets.to_numpy()))
    keys = identities.keys.dictionary_encode()
    codes = keys.indices.to_numpy()
    return {
        name: BitMap(np.unique(owners[codes == code]).astype(np.uint32))
        for code, name in enumerate(keys.dictionary.to_pylist())
    }
