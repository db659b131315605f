"""Finds erased people whose data came back with a backup, by the digests in a later state of the lake."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from app.engine.people.identity_graph import graph_of
from app.engine.store.delta import open_table
from app.engine.store.erased import Erased, Identity, note_digests, read_erased, read_erased_file
from app.engine.store.lake import TenantLake


def returned(lake: TenantLake, later: Path, datasets: list[str]) -> list[Identity]:
    """One identity of each person in the lake who is erased according to the file `later`, but not according to the
    lake's own; empty if there is no such file. Batches that start loading afterwards recognise them as erased.

    People who are erased according to the lake's own file are left out: a setting allowed them to be loaded again.
    """
    newer, own = read_erased_file(later), read_erased(lake)
    if newer is None:
        return []
    since = Erased(newer.salt, newer.digests - own.digests if own is not None else newer.digests)
    note_digests(lake, newer)
    names = [identity for identity in _identities(lake) if since.digest(identity) in since.digests]
    graph = graph_of(lake, datasets) if names else None
    by_person = {graph.find(*name) or name if graph is not None else name: name for name in reversed(names)}
    return sorted(by_person.values())


def _identities(lake: TenantLake) -> Iterator[Identity]:
    current = open_table(lake.identities)
    for path in current.paths() if current is not None else ():
        table = pq.ParquetFile(path).read(["namespace", "id"])
        yield from zip(table["namespace"].to_pylist(), table["id"].to_pylist(), strict=True)
