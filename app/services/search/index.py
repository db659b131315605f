"""The in-memory index: entries in, ranked hits out; knows neither tables nor tenants."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import tantivy

from app import lucene
from app.services.search.entries import SCHEMA, Entry, Rank, document
from app.services.search.queries import TOO_WIDE, Compiler

WRITER_BYTES = 15_000_000

_SHIFT = 1 << 24
"""More than the number of entries that an index can have."""

Place = int
"""Sort keys of the hits, best first: the negated score, then the position in `order`. They are plain numbers because
thousands of objects per search would trigger long garbage collections."""


def score_of(place: Place) -> int:
    return -(place // _SHIFT)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable index as of one version of the data; `Index.apply` creates the next one."""

    version: int
    entries: Mapping[tuple[str, str], Entry]
    searcher: tantivy.Searcher
    order: Sequence[Entry]
    """By rank."""
    ordinals: Mapping[int, int]
    """Slot → index in `order`."""

    def hits(self, node: lucene.Node, weights: Sequence[int] | None = None) -> tuple[list[Place], list[int]]:
        """The sort keys of all hits, in order, and the weights of the query's parts: those given, or the current ones.

        Raises `ExpressionRefused` for a regular expression that cannot be used.
        """
        if isinstance(node, lucene.Everything):
            return list(range(len(self.order))), []
        compiler = Compiler(self._count, len(self.order), weights)
        query = compiler.query(node)
        if query is None or not self.entries:
            return [], compiler.weights
        try:
            matches = self.searcher.search(query, limit=len(self.entries), count=False).hits
        except ValueError:
            lucene.refuse(TOO_WIDE, 0, 0)
        slots = cast(list[int], self.searcher.fast_field_values("slot", [address for _, address in matches]))
        ordinals = self.ordinals
        places = [ordinals[slot] - round(score) * _SHIFT for (score, _), slot in zip(matches, slots, strict=True)]
        places.sort()
        return places, compiler.weights

    def entry(self, place: Place) -> Entry:
        return self.order[place % _SHIFT]

    def after(self, score: int, rank: Rank) -> Place:
        """The first position after a hit with this score and rank, even if that hit no longer exists."""
        return bisect_right(self.order, rank, key=lambda entry: entry.rank) - score * _SHIFT

    def at(self, score: int, rank: Rank) -> Place:
        """The position of a hit with this score and rank, or of the next one if it no longer exists."""
        return bisect_left(self.order, rank, key=lambda entry: entry.rank) - score * _SHIFT

    def _count(self, query: tantivy.Query) -> int:
        result: Any = self.searcher.search(query, limit=1)
        return int(result.count)


class Damaged(RuntimeError):
    """The index is inconsistent and must be rebuilt."""


class Index:
    """Creates successive snapshots. Not thread-safe."""

    def __init__(self, version: int, entries: Iterable[Entry]) -> None:
        self._index = tantivy.Index(SCHEMA)
        # Disable automatic reloading: `apply` would wait 100 ms for the lock that reloading takes.
        self._index.config_reader("Manual")
        self._next_slot = 0
        self._slot_of: dict[tuple[str, str], int] = {}
        self._ranked: list[tuple[Rank, int, Entry]] = []
        self.snapshot = Snapshot(version, {}, self._index.searcher(), (), {})
        self.apply(version, list(entries), ())

    def apply(self, version: int, changed: Sequence[Entry], gone: Iterable[tuple[str, str]]) -> None:
        """Adds or replaces changed entries and removes deleted ones. Raises `Damaged`."""
        entries = dict(self.snapshot.entries)
        writer = self._index.writer(WRITER_BYTES, 1)
        outdated = set()
        for key in ({entry.key for entry in changed} | set(gone)) & entries.keys():
            writer.delete_documents_by_term("key", ":".join(key))
            outdated.add(self._slot_of.pop(key))
            del entries[key]
        ranked = [each for each in self._ranked if each[1] not in outdated]
        for entry in changed:
            writer.add_document(document(self._next_slot, entry))
            ranked.append((entry.rank, self._next_slot, entry))
            self._slot_of[entry.key] = self._next_slot
            entries[entry.key] = entry
            self._next_slot += 1
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        searcher = self._index.searcher()
        if searcher.num_docs != len(entries):
            raise Damaged(f"{searcher.num_docs} documents where there should be {len(entries)}")
        ranked.sort()
        self._ranked = ranked
        ordinals = {slot: at for at, (_, slot, _) in enumerate(ranked)}
        self.snapshot = Snapshot(version, entries, searcher, tuple(entry for _, _, entry in ranked), ordinals)
