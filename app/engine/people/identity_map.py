"""Builds the map of a person's identities from the primary one and those in records; knows no files."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.engine.store.arrow_types import arrow_type
from app.pql.schema import IDENTITY_MAP

_TYPE = arrow_type(IDENTITY_MAP)


def identity_map(
    ordinals: NDArray[np.int32],
    owners: NDArray[np.int64],
    known: pa.Table,
    given: Sequence[tuple[NDArray[np.int32], pa.ChunkedArray]],
) -> pa.Array:
    """One map for each of the (ascending) `ordinals`.

    `known` are identities (namespace, id, primary) of the people in the rows `owners`; `given` are maps of some people,
    in the output format. Known identities come first in their namespace, with their own flag; the others keep theirs.
    """
    n = len(ordinals)
    owner = [owners]
    names, ids = [_plain(known["namespace"])], [_plain(known["id"])]
    marks = [known["primary"].to_numpy()]
    for people, maps in given:
        array = maps.combine_chunks()
        lists = array.items
        sizes = np.diff(lists.offsets.to_numpy())
        entries = np.repeat(np.searchsorted(ordinals, people), np.diff(array.offsets.to_numpy()))
        owner.append(np.repeat(entries, sizes))
        names.append(array.keys.take(pa.array(np.repeat(np.arange(len(lists)), sizes))))
        identities = lists.values
        ids.append(identities.field("id"))
        marks.append(identities.field("primary").fill_null(False).to_numpy(zero_copy_only=False))
    return _assembled(n, np.concatenate(owner), pa.concat_arrays(names), pa.concat_arrays(ids), np.concatenate(marks))


def _plain(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _assembled(
    n: int, owner: NDArray[np.int64], names: pa.Array, ids: pa.Array, primary: NDArray[np.bool_]
) -> pa.Array:
    """Sorts the identities by owner and namespace, without duplicates (keeping the first), and builds lists and
    maps."""
    name_codes = names.dictionary_encode().indices.to_numpy()
    id_codes = ids.dictionary_encode().indices.fill_null(-1).to_numpy()
    came = np.arange(len(owner))
    order = np.lexsort((came, id_codes, name_codes, owner))
    same = (np.diff(owner[order]) == 0) & (np.diff(name_codes[order]) == 0) & (np.diff(id_codes[order]) == 0)
    rows = order[np.insert(~same, 0, True)] if len(order) else order
    rows = rows[id_codes[rows] >= 0]
    rows = rows[np.lexsort((came[rows], name_codes[rows], owner[rows]))]
    starts = np.flatnonzero(
        np.insert((np.diff(owner[rows]) != 0) | (np.diff(name_codes[rows]) != 0), 0, True)
        if len(rows)
        else np.zeros(0, bool)
    )
    identity = pa.StructArray.from_arrays(
        [ids.take(pa.array(rows)), pa.array(primary[rows])], fields=list(_TYPE.item_type.value_type)
    )
    lists = pa.ListArray.from_arrays(pa.array(np.append(starts, len(rows)), pa.int32()), identity, type=_TYPE.item_type)
    counts = np.bincount(owner[rows[starts]], minlength=n)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pa.MapArray.from_arrays(offsets, names.take(pa.array(rows[starts])), lists, type=_TYPE)
