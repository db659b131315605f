"""The identity graph: resolves identities, linked by records and events, to persons; knows no attributes and no rules.

A *fragment* is a person in the terms of the lake: one primary identity with its bucket and ordinal. A record or an
event of a fragment may name more identities (`identityMap`); each of them is a link. The **persons** of the graph are
the connected components of these links. There is one graph per sandbox, over all of its datasets, because identity does
not depend on the precedence of attributes. Views with the identity graph `none` do not use it.

**Surviving keys.** A person has the bucket, ordinal and profile id of one of its fragments: the oldest, which is the
one that entered the graph first (of those that entered together, the one with the lowest bucket, then ordinal). People
therefore keep their place when others join them, no second kind of ordinals is needed, and a view of persons is a view
of fragments with fewer rows. When a link joins two existing persons, the ordinal of the younger one is retired
permanently: it is in no later view and no later membership. A link remains when the record that named it is replaced.
It is removed with the data of its dataset or batch, because then the graph is rebuilt.

**Incremental updates.** The same rows are stored in two tables: `nodes` by the slot of the identity (to find a person
by any identity), and `members` by the person's home, the bucket of its data and memberships. An update reads the
buckets of the identities that new data names and of the persons that it joins, and rewrites those that change. A
version is a list of files, written last and atomically, so a killed process leaves the previous version. Only the links
of one update are held in memory (a few dozen bytes per distinct link).
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.engine.ingest.identities import rows_of
from app.engine.store.bucket_files import BucketWriter, parquet_list
from app.engine.store.delta import DataFile, open_table
from app.engine.store.lake import TenantLake, write_atomically
from app.engine.store.layout import Layout, hash_sql, slot_of, slot_sql

Files = tuple[DataFile, ...]
Seen = Mapping[str, frozenset[str]]
"""For each dataset, the files that were read."""

_COLUMNS = (
    "__bucket INTEGER, namespace VARCHAR, id VARCHAR, place INTEGER, ordinal INTEGER, home INTEGER, person INTEGER,"
    " since INTEGER, retired INTEGER"
)
_NAMES = "namespace, id, place, ordinal, home, person, since, retired"
_IDENTITIES = "identityMap"


@dataclass(frozen=True, slots=True)
class Graph:
    """One version. `born` is the version that was last built from scratch; later ones with the same `born` continue it.

    A row of `nodes` and `members` is an identity: for a fragment with data its bucket (`place`) and ordinal there, for
    others the slot that their text hashes to (`place`) and no ordinal; the person it belongs to (`home`, `person`),
    the version in which that person entered (`since`), and the version in which it ceased to be a person itself
    (`retired`; null if it is one, or never was).
    """

    folder: Path
    layout: Layout
    version: int
    born: int
    seen: Seen
    nodes: Files
    members: Files

    def find(self, namespace: str, id: str) -> tuple[int, int] | None:
        """Home and ordinal of the person with this identity; None if the graph does not have it."""
        slot = self.layout.generations[0].bucket_of(f"{namespace}:{id}")
        table = self._read("nodes", self.nodes, slot)
        rows = table.filter(pc.and_(pc.equal(table["id"], id), pc.equal(table["namespace"], namespace)))
        return (int(rows["home"][0].as_py()), int(rows["person"][0].as_py())) if rows.num_rows else None

    def fragments(self, person: tuple[int, int]) -> list[tuple[int, int]]:
        """Bucket and ordinal of each fragment of a person, sorted."""
        table = self.members_of(person[0])
        rows = table.filter(pc.and_(pc.equal(table["person"], person[1]), pc.is_valid(table["ordinal"])))
        return sorted(zip(rows["place"].to_pylist(), rows["ordinal"].to_pylist(), strict=True))

    def nodes_of(self, bucket: int) -> pa.Table:
        """The fragments of a bucket, and other identities with this place."""
        table = self._read("nodes", self.nodes, slot_of(bucket))
        return table.filter(pc.equal(table["place"], bucket))

    def members_of(self, bucket: int) -> pa.Table:
        """Sorted by person, place and ordinal."""
        return self._read("members", self.members, bucket)

    def paths(self, table: str, buckets: Iterable[int] | None = None) -> list[Path]:
        """The files of a table, or those with the rows of some buckets."""
        files, place = (self.nodes, slot_of) if table == "nodes" else (self.members, int)
        selected = None if buckets is None else set(map(place, buckets))
        return [self.folder / table / file.name for file in files if selected is None or file.bucket in selected]

    def _read(self, table: str, files: Files, bucket: int) -> pa.Table:
        paths = [self.folder / table / file.name for file in files if file.bucket == bucket]
        return pq.ParquetFile(paths[0]).read() if paths else _empty()


@cache
def _empty() -> pa.Table:
    """Created when needed: the first array imports pandas if it is installed, which takes a second."""
    return pa.schema(
        (name, pa.string() if kind == "VARCHAR" else pa.int32())
        for name, kind in (column.split(" ") for column in _COLUMNS.split(", ")[1:])
    ).empty_table()


def graph_of(lake: TenantLake, datasets: Iterable[str]) -> Graph:
    """The current graph of these datasets, after an update."""
    with lake.lock("identity graph"):
        tables = {name: table for name in datasets if (table := open_table(lake.dataset(name))) is not None}
        seen = {name: frozenset(file.name for file in table.files) for name, table in tables.items()}
        old = _newest(lake)
        if old is not None and any(not files <= seen.get(name, frozenset()) for name, files in old.seen.items()):
            # Data was deleted, and its links cannot be removed individually.
            old = Graph(old.folder, old.layout, old.version, old.version + 1, {}, (), ())
        if old is None:
            old = Graph(lake.graph, _layout(lake), 0, 1, {}, (), ())
        fresh = {name: sorted(files - old.seen.get(name, frozenset())) for name, files in seen.items()}
        if not any(fresh.values()) and old.version >= old.born:
            return old
        return _updated(lake, old, seen, {name: [lake.dataset(name) / file for file in fresh[name]] for name in fresh})


def open_graph(lake: TenantLake, version: int) -> Graph:
    """An earlier version. Raises `FileNotFoundError`."""
    return _parsed(lake, (lake.graph / "versions" / f"{version}.json").read_text())


def _newest(lake: TenantLake) -> Graph | None:
    versions = [int(path.stem) for path in (lake.graph / "versions").glob("[0-9]*.json")]
    return open_graph(lake, max(versions)) if versions else None


def _parsed(lake: TenantLake, text: str) -> Graph:
    note = json.loads(text)
    nodes, members = (tuple(DataFile(*file) for file in note[table]) for table in ("nodes", "members"))
    seen = {name: frozenset(files) for name, files in note["seen"].items()}
    return Graph(lake.graph, _layout(lake), note["version"], note["born"], seen, nodes, members)


def _updated(lake: TenantLake, old: Graph, seen: Seen, fresh: Mapping[str, Sequence[Path]]) -> Graph:
    version = old.version + 1
    with lake.scratch() as scratch, lake.session(scratch) as database:
        _read_links(lake, database, fresh)
        _label(database, old)
        _join(database, version)
        _change(database, old, version)
        nodes = _rewrite(database, old, scratch, "nodes", slot_sql("place"))
        members = _rewrite(database, old, scratch, "members", "home")
    content = {
        "version": version,
        "born": old.born,
        "seen": {name: sorted(files) for name, files in seen.items()},
        "nodes": [[file.name, file.bucket, file.rows] for file in nodes],
        "members": [[file.name, file.bucket, file.rows] for file in members],
    }
    (lake.graph / "versions").mkdir(parents=True, exist_ok=True)
    write_atomically(lake.graph / "versions" / f"{version}.json", json.dumps(content).encode())
    return Graph(lake.graph, _layout(lake), version, old.born, seen, nodes, members)


def _read_links(lake: TenantLake, database: duckdb.DuckDBPyConnection, fresh: Mapping[str, Sequence[Path]]) -> None:
    """Fills `fragment` (fragments with new data, by name) and `link` (fragment → identity named by its new data)."""
    database.execute("CREATE TABLE present (bucket INTEGER, ordinal INTEGER)")
    database.execute("CREATE TABLE given (bucket INTEGER, ordinal INTEGER, namespace VARCHAR, id VARCHAR)")
    for paths in fresh.values():
        if not paths:
            continue
        rows = parquet_list(paths, "")
        database.execute(f"INSERT INTO present SELECT DISTINCT __bucket, __ordinal FROM {rows}")
        naming = [path for path in paths if _IDENTITIES in pq.read_schema(path).names]
        if naming:
            database.execute(
                "INSERT INTO given SELECT DISTINCT * FROM (SELECT __bucket, __ordinal, entry.key AS namespace,"
                " unnest(entry.value).id AS id FROM (SELECT __bucket, __ordinal, unnest(map_entries(identityMap))"
                f" AS entry FROM {parquet_list(naming, '')})) WHERE trim(id) <> ''"
            )
    touched = [number for (number,) in database.execute("SELECT DISTINCT bucket FROM present").fetchall()]
    stored = rows_of(open_table(lake.identities), touched)
    slot = _layout(lake).generations[0].bucket_sql(hash_sql("namespace || ':' || id"))
    database.execute(
        "CREATE TABLE fragment AS SELECT DISTINCT known.__bucket AS place, known.ordinal, namespace, id"
        f" FROM {stored} known JOIN present ON known.__bucket = bucket AND known.ordinal = present.ordinal"
    )
    database.execute(
        "CREATE TABLE node AS SELECT namespace, id, max(ordinal) AS ordinal,"
        " coalesce(max(place) FILTER (WHERE ordinal IS NOT NULL), max(place)) AS place FROM ("
        " SELECT place, namespace, id, ordinal FROM fragment"
        f" UNION ALL SELECT {slot}, namespace, id, NULL FROM given) GROUP BY namespace, id"
    )
    database.execute(
        "CREATE TABLE link AS SELECT fragment.namespace AS from_namespace, fragment.id AS from_id, given.namespace,"
        " given.id FROM given JOIN fragment ON fragment.place = bucket AND fragment.ordinal = given.ordinal"
    )


def _label(database: duckdb.DuckDBPyConnection, old: Graph) -> None:
    """Fills `known` (the nodes with what the graph knows of them) and `label` (one per person or new identity)."""
    touched = [number for (number,) in database.execute(f"SELECT DISTINCT {slot_sql('place')} FROM node").fetchall()]
    before = parquet_list(old.paths("nodes", touched), _COLUMNS)
    database.execute(
        "CREATE TABLE known AS SELECT node.* EXCLUDE (place),"
        " CASE WHEN node.ordinal IS NULL THEN coalesce(old.place, node.place) ELSE node.place END AS place,"
        " old.ordinal AS old_ordinal, old.home, old.person, old.since, old.retired"
        f" FROM node LEFT JOIN {before} old USING (namespace, id)"
    )
    database.execute(
        "CREATE TABLE label AS SELECT (row_number() OVER () - 1)::BIGINT AS label, * FROM ("
        " SELECT DISTINCT home, person, since, NULL AS namespace, NULL AS id FROM known WHERE home IS NOT NULL"
        " UNION ALL SELECT CASE WHEN ordinal IS NOT NULL THEN place END, ordinal, NULL, namespace, id FROM known"
        " WHERE home IS NULL)"
    )
    database.execute(
        "CREATE TABLE labelled AS SELECT known.*, label FROM known JOIN label ON known.home = label.home"
        " AND known.person = label.person AND label.id IS NULL WHERE known.home IS NOT NULL"
        " UNION ALL SELECT known.*, label FROM known JOIN label ON known.namespace = label.namespace"
        " AND known.id = label.id WHERE known.home IS NULL"
    )


def _join(database: duckdb.DuckDBPyConnection, version: int) -> None:
    """Fills `winner`: for each label, the person to which it now belongs."""
    edges = database.sql(
        "SELECT DISTINCT a.label AS a, b.label AS b FROM link JOIN labelled a ON a.namespace = from_namespace"
        " AND a.id = from_id JOIN labelled b ON b.namespace = link.namespace AND b.id = link.id"
        " WHERE a.label <> b.label"
    ).to_arrow_table()
    ((count,),) = database.execute("SELECT count(*) FROM label").fetchall()
    roots = components(count, edges["a"].to_numpy(), edges["b"].to_numpy())
    database.register("joined", pa.table({"label": pa.array(np.arange(count)), "root": pa.array(roots)}))
    database.execute(
        "CREATE TABLE winner AS WITH best AS (SELECT root, min({'since': coalesce(since,"
        f" {version}), 'home': home, 'person': person}}) FILTER (WHERE home IS NOT NULL) AS best"
        " FROM joined JOIN label USING (label) GROUP BY root)"
        " SELECT label, best.home AS home, best.person AS person, best.since AS since"
        " FROM joined JOIN best USING (root)"
    )
    database.unregister("joined")


def _change(database: duckdb.DuckDBPyConnection, old: Graph, version: int) -> None:
    """Fills `changed`: every new or changed row."""
    lost = "label.since IS NOT NULL AND (label.home, label.person) <> (winner.home, winner.person)"
    database.execute(
        "CREATE TABLE lost AS SELECT label.home AS old_home, label.person AS old_person, winner.home, winner.person,"
        f" winner.since FROM label JOIN winner USING (label) WHERE {lost}"
    )
    homes = [number for (number,) in database.execute("SELECT DISTINCT old_home FROM lost").fetchall()]
    before = parquet_list(old.paths("members", homes), _COLUMNS)
    ended = (
        f"CASE WHEN (old.place, old.ordinal) = (old.home, old.person) THEN {version} ELSE old.retired END AS retired"
    )
    database.execute(
        "CREATE TABLE changed AS"
        # The fragments of a retired person, with an ordinal that this batch may have added.
        " SELECT old.namespace, old.id, coalesce(known.place, old.place) AS place,"
        " coalesce(old.ordinal, known.ordinal)::INTEGER AS ordinal,"
        f" lost.home, lost.person, lost.since::INTEGER AS since, {ended}, old.home AS old_home"
        f" FROM {before} old JOIN lost ON old.home = old_home AND old.person = old_person"
        " LEFT JOIN known USING (namespace, id)"
        " UNION ALL SELECT namespace, id, place, coalesce(ordinal, old_ordinal)::INTEGER, winner.home, winner.person,"
        " winner.since::INTEGER, retired, labelled.home FROM labelled JOIN winner USING (label)"
        " WHERE labelled.home IS NULL OR (ordinal IS NOT NULL AND old_ordinal IS NULL"
        " AND (labelled.home, labelled.person) = (winner.home, winner.person))"
    )


def _rewrite(database: duckdb.DuckDBPyConnection, old: Graph, scratch: Path, table: str, key: str) -> Files:
    """Rewrites the changed buckets of the table."""
    places = f"SELECT {key} FROM changed" + (" UNION SELECT old_home FROM changed" if key == "home" else "")
    touched = {number for (number,) in database.execute(places).fetchall() if number is not None}
    before = parquet_list(old.paths(table, touched), _COLUMNS)
    reader = database.sql(
        f"SELECT {key} AS __bucket, {_NAMES} FROM (SELECT {_NAMES} FROM {before} old"
        " ANTI JOIN changed USING (namespace, id)"
        f" UNION ALL SELECT {_NAMES} FROM changed) ORDER BY 1, {'person, ' if key == 'home' else ''}place, ordinal, id"
    ).to_arrow_reader(1 << 16)
    writer = BucketWriter(scratch / table, uuid.uuid4().hex)
    files = writer.write(reader)
    writer.move(old.folder / table, files)
    return (*(file for file in getattr(old, table) if file.bucket not in touched), *files)


def _layout(lake: TenantLake) -> Layout:
    return lake.layout() or Layout((0,))


def components(count: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of `count` nodes, the smallest node that the edges a–b connect it to.

    >>> components(5, np.array([1, 3]), np.array([2, 2])).tolist()
    [0, 1, 1, 1, 4]
    """
    root = np.arange(count)
    while len(a):
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        if not apart.any():
            break
        a, b, low, high = a[apart], b[apart], low[apart], high[apart]
        np.minimum.at(root, high, low)
        while (root[root] != root).any():
            root = root[root]
    return root
