"""From fragments to the persons of an identity graph and back, as ordinals by bucket; knows no memberships."""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.people.identity_graph import Graph
from app.engine.store.bitmaps import bitmap

ByBucket = dict[int, BitMap]
"""Ordinals by bucket."""
_KEYS = {"nodes": ("ordinal", "home", "person"), "members": ("person", "place", "ordinal")}


def persons_of(graph: Graph, fragments: Iterable[tuple[int, BitMap]]) -> ByBucket:
    """The persons that these fragments belong to; fragments without data have none."""
    return _other_side(graph, "nodes", fragments)


def fragments_of(graph: Graph, persons: Mapping[int, BitMap]) -> ByBucket:
    """All fragments of these persons."""
    return _other_side(graph, "members", persons.items())


def united(one: Mapping[int, BitMap], other: Mapping[int, BitMap]) -> ByBucket:
    """The people of both."""
    return {bucket: one.get(bucket, BitMap()) | other.get(bucket, BitMap()) for bucket in one.keys() | other.keys()}


def by_bucket(buckets: NDArray[np.int32], ordinals: NDArray[np.int32]) -> ByBucket:
    """One bitmap for each bucket.

    >>> by_bucket(np.array([3, 1, 3], np.int32), np.array([7, 2, 5], np.int32))
    {1: BitMap([2]), 3: BitMap([5, 7])}
    """
    return {
        int(bucket): bitmap(np.unique(ordinals[buckets == bucket]).astype(np.uint32)) for bucket in np.unique(buckets)
    }


def _other_side(graph: Graph, table: Literal["nodes", "members"], people: Iterable[tuple[int, BitMap]]) -> ByBucket:
    ours, their_bucket, their_ordinal = _KEYS[table]
    linked: ByBucket = {}
    for bucket, ordinals in people:
        rows = graph.nodes_of(bucket) if table == "nodes" else graph.members_of(bucket)
        rows = rows.filter(pc.is_valid(rows["ordinal"]))
        selected = np.isin(rows[ours].to_numpy(), np.frombuffer(ordinals.to_array(), np.uint32))
        rows = rows.filter(pa.array(selected))
        linked = united(linked, by_bucket(rows[their_bucket].to_numpy(), rows[their_ordinal].to_numpy()))
    return linked
