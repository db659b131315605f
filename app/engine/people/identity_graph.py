"""Who is the same person: identities linked by the records and events that name them; knows no attributes, no rules.

A *fragment* is what the lake calls a person: one primary identity with its bucket and ordinal. A record or an event of
a fragment may name more identities (`identityMap`); each of them is a link. The **persons** of the graph are the
connected components of these links. There is one graph for each sandbox, over all of its datasets, since who is who
does not depend on whose attributes win; views with the identity graph `none` do not look at it.

**Who survives.** A person is known by the bucket, ordinal and profile id of one of its fragments: the oldest, which is
the one that came into the graph first (of those that came together the one with the lowest bucket, then ordinal). So
people keep their place when something joins them, no ordinals of another kind are needed, and a view of persons is a
view of fragments with fewer rows. When a link joins two old persons, the younger one's ordinal is retired for good: it
is in no later view and no later membership. A link stays when the record that brought it is replaced; it goes with
its dataset, for which the graph is built anew.

**Kept incrementally.** The same rows lie in two tables: `nodes` by the bucket of the identity (to find a person by any
identity), `members` by the person's home, the bucket where its data and membership lie. A new batch reads the
buckets of the identities that it names and of the persons that it joins, and rewrites those that change. A version is
a list of files, written last and at once, so that a killed process leaves the version before. The links of one
refresh are held in memory (a few dozen bytes for each different one), nothing else is.
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
from app.engine.store.lake import TenantLake, bucket_of, bucket_sql, write_atomically

Files = tuple[DataFile, ...]
Seen = Mapping[str, frozenset[str]]
"""Of each dataset the files that were read."""

_COLUMNS = (
    "__bucket INTEGER, namespace VARCHAR, id VARCHAR, place INTEGER, ordinal INTEGER, home INTEGER, person INTEGER,"
    " since INTEGER, retired INTEGER"
)
_NAMES = "namespace, id, place, ordinal, home, person, since, retired"
_IDENTITIES = "identityMap"


@dataclass(frozen=True, slots=True)
class Graph:
    """One version. `born` is the version that was built from nothing: versions with the same one continue each other.

    A row of `nodes` and `members`: an identity, the bucket that its text hashes to (`place`), its ordinal there when it
    is a fragment with data, the person that it belongs to (`home`, `person`), the version in which that person came
    (`since`), and the version in which it ceased to be a person itself (`retired`, null for one that never was).
    """

    folder: Path
    bits: int
    version: int
    born: int
    seen: Seen
    nodes: Files
    members: Files

    def find(self, namespace: str, id: str) -> tuple[int, int] | None:
        """Home and ordinal of the person with this identity."""
        table = self.nodes_of(bucket_of(f"{namespace}:{id}", self.bits))
        rows = table.filter(pc.and_(pc.equal(table["id"], id), pc.equal(table["namespace"], namespace)))
        return (int(rows["home"][0].as_py()), int(rows["person"][0].as_py())) if rows.num_rows else None

    def fragments(self, person: tuple[int, int]) -> list[tuple[int, int]]:
        """Bucket and ordinal of each fragment of a person, in that order."""
        table = self.members_of(person[0])
        rows = table.filter(pc.and_(pc.equal(table["person"], person[1]), pc.is_valid(table["ordinal"])))
        return sorted(zip(rows["place"].to_pylist(), rows["ordinal"].to_pylist(), strict=True))

    def nodes_of(self, bucket: int) -> pa.Table:
        return self._read("nodes", self.nodes, bucket)

    def members_of(self, bucket: int) -> pa.Table:
        """Sorted by person, place and ordinal."""
        return self._read("members", self.members, bucket)

    def paths(self, table: str, buckets: Iterable[int] | None = None) -> list[Path]:
        selected = None if buckets is None else set(buckets)
        files = self.nodes if table == "nodes" else self.members
        return [self.folder / table / file.name for file in files if selected is None or file.bucket in selected]

    def _read(self, table: str, files: Files, bucket: int) -> pa.Table:
        paths = [self.folder / table / file.name for file in files if file.bucket == bucket]
        return pq.ParquetFile(paths[0]).read() if paths else _empty()


@cache
def _empty() -> pa.Table:
    """Made when needed: a first array imports pandas wherever that is installed, which takes a second."""
    return pa.schema(
        (name, pa.string() if kind == "VARCHAR" else pa.int32())
        for name, kind in (column.split(" ") for column in _COLUMNS.split(", ")[1:])
    ).empty_table()


def graph_of(lake: TenantLake, datasets: Iterable[str]) -> Graph:
    """The graph of these datasets as they are now, brought up to date."""
    with lake.lock("identity graph"):
        tables = {name: table for name in datasets if (table := open_table(lake.dataset(name))) is not None}
        seen = {name: frozenset(file.name for file in table.files) for name, table in tables.items()}
        old = _newest(lake)
        if old is not None and any(not files <= seen.get(name, frozenset()) for name, files in old.seen.items()):
            # Data went, and with them links that cannot be taken out one by one.
            old = Graph(old.folder, old.bits, old.version, old.version + 1, {}, (), ())
        if old is None:
            old = Graph(lake.graph, lake.bucket_bits() or 0, 0, 1, {}, (), ())
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
    return Graph(lake.graph, lake.bucket_bits() or 0, note["version"], note["born"], seen, nodes, members)


def _updated(lake: TenantLake, old: Graph, seen: Seen, fresh: Mapping[str, Sequence[Path]]) -> Graph:
    version = old.version + 1
    with lake.scratch() as scratch, lake.session(scratch) as database:
        _read_links(lake, database, fresh)
        _label(database, old)
        _join(database, version)
        _change(database, old, version)
        nodes = _rewrite(database, old, scratch, "nodes", "place")
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
    return Graph(lake.graph, lake.bucket_bits() or 0, version, old.born, seen, nodes, members)


def _read_links(lake: TenantLake, database: duckdb.DuckDBPyConnection, fresh: Mapping[str, Sequence[Path]]) -> None:
    """Fills `fragment` (who has new data, by name) and `link` (fragment → identity that its new data name)."""
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
    place = bucket_sql("namespace || ':' || id", lake.bucket_bits() or 0)
    database.execute(
        "CREATE TABLE fragment AS SELECT DISTINCT known.__bucket AS place, known.ordinal, namespace, id"
        f" FROM {stored} known JOIN present ON known.__bucket = bucket AND known.ordinal = present.ordinal"
    )
    database.execute(
        "CREATE TABLE node AS SELECT place, namespace, id, max(ordinal) AS ordinal FROM ("
        " SELECT place, namespace, id, ordinal FROM fragment"
        f" UNION ALL SELECT {place}, namespace, id, NULL FROM given) GROUP BY ALL"
    )
    database.execute(
        "CREATE TABLE link AS SELECT fragment.namespace AS from_namespace, fragment.id AS from_id, given.namespace,"
        " given.id FROM given JOIN fragment ON fragment.place = bucket AND fragment.ordinal = given.ordinal"
    )


def _label(database: duckdb.DuckDBPyConnection, old: Graph) -> None:
    """Fills `known` (the nodes with what the graph knows of them) and `label` (one for each person or new identity)."""
    touched = [number for (number,) in database.execute("SELECT DISTINCT place FROM node").fetchall()]
    before = parquet_list(old.paths("nodes", touched), _COLUMNS)
    database.execute(
        "CREATE TABLE known AS SELECT node.*, old.ordinal AS old_ordinal, old.home, old.person, old.since, old.retired"
        f" FROM node LEFT JOIN {before} old USING (place, namespace, id)"
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
    """Fills `winner`: for each label the person that it belongs to from now on."""
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
    """Fills `changed`: every row that is new or no longer as it was."""
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
        # What a lost person consisted of, with an ordinal that this batch may have brought.
        " SELECT old.namespace, old.id, old.place, coalesce(old.ordinal, known.ordinal)::INTEGER AS ordinal,"
        f" lost.home, lost.person, lost.since::INTEGER AS since, {ended}, old.home AS old_home"
        f" FROM {before} old JOIN lost ON old.home = old_home AND old.person = old_person"
        " LEFT JOIN known USING (place, namespace, id)"
        " UNION ALL SELECT namespace, id, place, coalesce(ordinal, old_ordinal)::INTEGER, winner.home, winner.person,"
        " winner.since::INTEGER, retired, labelled.home FROM labelled JOIN winner USING (label)"
        " WHERE labelled.home IS NULL OR (ordinal IS NOT NULL AND old_ordinal IS NULL"
        " AND (labelled.home, labelled.person) = (winner.home, winner.person))"
    )


def _rewrite(database: duckdb.DuckDBPyConnection, old: Graph, scratch: Path, table: str, key: str) -> Files:
    """The table with its touched buckets written anew."""
    places = f"SELECT {key} FROM changed" + (" UNION SELECT old_home FROM changed" if key == "home" else "")
    touched = {number for (number,) in database.execute(places).fetchall() if number is not None}
    before = parquet_list(old.paths(table, touched), _COLUMNS)
    reader = database.sql(
        f"SELECT {key} AS __bucket, {_NAMES} FROM (SELECT {_NAMES} FROM {before} old"
        " ANTI JOIN changed USING (place, namespace, id)"
        f" UNION ALL SELECT {_NAMES} FROM changed) ORDER BY 1, {'person, ' if key == 'home' else ''}place, ordinal, id"
    ).to_arrow_reader(1 << 16)
    writer = BucketWriter(scratch / table, uuid.uuid4().hex)
    files = writer.write(reader)
    writer.move(old.folder / table, files)
    return (*(file for file in getattr(old, table) if file.bucket not in touched), *files)


def components(count: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of `count` nodes the smallest one that the edges a–b connect it with.

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
