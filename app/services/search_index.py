"""An index of names and descriptions in memory: words in, hits with scores out; knows neither tables nor tenants.

A score is a sum of whole numbers that depends on the document and on the weights of the query's parts only. Whoever
keeps the weights finds the same scores again, whatever else was added to the index meanwhile.
"""

import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import tantivy
from tantivy import Occur, Query

from app import lucene

WRITER_BYTES = 15_000_000


Rank = tuple[int, str, str]
"""Order of those with the same score: short names first, then by the alphabet; unique."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that can be found. `folder_id` is the folder it is in; `location` the path of the folder that it is
    or is in."""

    kind: str
    id: str
    name: str
    namespace: str
    description: str | None = None
    folder_id: str | None = None
    location: str | None = None
    other_id: str | None = None
    rank: Rank = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rank", (len(words(self.name)), fold(self.name), f"{self.kind}:{self.id}"))

    @property
    def key(self) -> tuple[str, str]:
        return self.kind, self.id


class Level(NamedTuple):
    """How much a find counts as the first word of a name, elsewhere in a name, and in a description: names come before
    descriptions, and exact ones before others."""

    start: int
    name: int
    description: int

    def of(self, column: str) -> int:
        return int(getattr(self, column, self.name))


EXACT, PATTERN, NEAR, FAR = Level(18, 16, 4), Level(14, 12, 3), Level(11, 10, 3), Level(9, 8, 2)
"""The word itself, one that fits a pattern, one that is one edit away, one that is two edits away."""

FIELDS: Mapping[str | None, tuple[tuple[str, ...], str | None]] = {
    None: (("start", "name", "description", "ids"), None),
    "name": (("start", "name"), None),
    "segmentName": (("start", "name"), "Audience"),
    "segmentDescription": (("description",), "Audience"),
    "segmentId": (("ids",), "Audience"),
    "folderId": (("folder",), None),
    "parentFolderId": (("parent",), None),
    "folderLocation": (("location",), None),
}
"""Field of the language → columns of the index, and the kind that it is limited to."""

_TEXTS = ("start", "name", "description", "location")
"""Columns of words; `start` has only the first word of the name."""
_WHOLES = ("key", "kind", "ids", "folder", "parent")


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    for name in _TEXTS:
        builder.add_text_field(name, tokenizer_name="whitespace", index_option="position")
    for name in _WHOLES:
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("slot", fast=True)
    return builder.build()


SCHEMA = _schema()

# ---------------------------------------------------------------- words

_LETTERS = str.maketrans({"ø": "o", "đ": "d", "ð": "d", "ł": "l", "ħ": "h", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"})
"""Letters that Unicode does not take apart into a plain one and its mark."""

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")


def fold(text: str) -> str:
    """Without accents and case.

    >>> fold("Größe ÆRØ Ｃafé")
    'grosse aero cafe'
    """
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(each for each in apart if not unicodedata.combining(each)).translate(_LETTERS)


def words(text: str) -> list[str]:
    """Folded runs of letters and digits; scripts without spaces give a word for each character.

    >>> words("Women's e-mail, 50% off"), words("上海 VIP")
    (['women', 's', 'e', 'mail', '50', 'off'], ['上', '海', 'vip'])
    """
    return _WORDS.findall(fold(text))


# ---------------------------------------------------------------- the index


_SHIFT = 1 << 24
"""More than there will ever be entries in one index."""

Place = int
"""Where a hit stands among all hits, the best first: its score with the sign turned, then its place in `order`. Plain
numbers, since thousands of objects for each search make Python's garbage collector stop the process now and then."""


def score_of(place: Place) -> int:
    return -(place // _SHIFT)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The index as of a version of the data. It never changes; `Index.apply` makes the next one."""

    version: int
    entries: Mapping[tuple[str, str], Entry]
    searcher: tantivy.Searcher
    order: Sequence[Entry]
    """By rank."""
    ordinals: Mapping[int, int]
    """Slot → index in `order`."""

    def hits(self, node: lucene.Node, weights: Sequence[int] | None = None) -> tuple[list[Place], list[int]]:
        """The places of all hits, in order, and the weights of the query's parts: those given, or as they are now.

        Raises `ExpressionRefused` for a regular expression that cannot be used.
        """
        if isinstance(node, lucene.Everything):
            return list(range(len(self.order))), []
        compiler = _Compiler(self, weights)
        query = compiler.query(node)
        if query is None or not self.entries:
            return [], compiler.weights
        found = self.searcher.search(query, limit=len(self.entries), count=False).hits
        slots = cast(list[int], self.searcher.fast_field_values("slot", [address for _, address in found]))
        ordinals = self.ordinals
        places = [ordinals[slot] - round(score) * _SHIFT for (score, _), slot in zip(found, slots, strict=True)]
        places.sort()
        return places, compiler.weights

    def entry(self, place: Place) -> Entry:
        return self.order[place % _SHIFT]

    def after(self, score: int, rank: Rank) -> Place:
        """The first place behind a hit with this score and rank, whether or not that one is still there."""
        return bisect_right(self.order, rank, key=lambda entry: entry.rank) - score * _SHIFT

    def count(self, query: Query) -> int:
        found: Any = self.searcher.search(query, limit=1)
        return int(found.count)


class Damaged(RuntimeError):
    """The index does not hold what it should: make it anew."""


class Index:
    """Makes snapshots one after another. Not for several threads at once."""

    def __init__(self, version: int, entries: Iterable[Entry]) -> None:
        self._index = tantivy.Index(SCHEMA)
        # It must not reload by itself: `apply` would wait 100 ms for the lock that this takes.
        self._index.config_reader("Manual")
        self._next_slot = 0
        self._slot_of: dict[tuple[str, str], int] = {}
        self._ranked: list[tuple[Rank, int, Entry]] = []
        self.snapshot = Snapshot(version, {}, self._index.searcher(), (), {})
        self.apply(version, list(entries), ())

    def apply(self, version: int, changed: Sequence[Entry], gone: Iterable[tuple[str, str]]) -> None:
        """Puts in what is new or has changed and takes out what is gone. Raises `Damaged`."""
        entries = dict(self.snapshot.entries)
        writer = self._index.writer(WRITER_BYTES, 1)
        outdated = set()
        for key in ({entry.key for entry in changed} | set(gone)) & entries.keys():
            writer.delete_documents_by_term("key", ":".join(key))
            outdated.add(self._slot_of.pop(key))
            del entries[key]
        ranked = [each for each in self._ranked if each[1] not in outdated]
        for entry in changed:
            writer.add_document(_document(self._next_slot, entry))
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


def _document(slot: int, entry: Entry) -> tantivy.Document:
    document = tantivy.Document()
    document.add_unsigned("slot", slot)
    texts = {"name": words(entry.name), "start": words(entry.name)[:1]}
    texts |= {"description": words(entry.description or ""), "location": words(entry.location or "")}
    for name, found in texts.items():
        document.add_text(name, " ".join(found))
    wholes: dict[str, Sequence[str]] = {
        "key": (f"{entry.kind}:{entry.id}",),
        "kind": (entry.kind,),
        "ids": (fold(entry.id), fold(entry.other_id or entry.id)) if entry.kind == "Audience" else (),
        "folder": (fold(entry.id if entry.kind == "Folder" else entry.folder_id or ""),),
        "parent": (fold(entry.folder_id or ""),),
    }
    for name, values in wholes.items():
        for value in sorted(set(values) - {""}):
            document.add_text(name, value)
    return document


# ---------------------------------------------------------------- queries


class _Compiler:
    """Turns a tree into a query of the index; collects or uses up the weights of its leaves, in their order."""

    def __init__(self, snapshot: Snapshot, weights: Sequence[int] | None) -> None:
        self._snapshot = snapshot
        self._given: Iterator[int] | None = None if weights is None else iter(weights)
        self.weights: list[int] = []

    def query(self, node: lucene.Node) -> Query | None:
        found = self._compiled(node, 1.0)
        phrase = _plain_phrase(node)
        if found is None or phrase is None:
            return found
        # Words that stand in the name just as they were typed are what was meant.
        side_by_side = self._weighted([(_words_query("name", phrase, 0), EXACT.name)], 1.0)
        return Query.boolean_query([(Occur.Must, found), (Occur.Should, side_by_side)])

    def _compiled(self, node: lucene.Node, boost: float) -> Query | None:
        if isinstance(node, lucene.Group):
            return self._group(node, boost * node.boost)
        if isinstance(node, lucene.Everything):
            return Query.const_score_query(Query.all_query(), 1)
        if node.field is None and isinstance(node, lucene.Word | lucene.Fuzzy | lucene.Phrase) and not words(node.text):
            return None
        columns, kind = FIELDS[node.field]
        scored = [pair for column in columns for pair in self._finds(node, column)]
        if not scored:
            return None
        found = self._weighted(scored, boost * node.boost)
        if kind is None:
            return found
        of_kind = Query.const_score_query(Query.term_query(SCHEMA, "kind", kind), 0)
        return Query.boolean_query([(Occur.Must, found), (Occur.Must, of_kind)])

    def _group(self, group: lucene.Group, boost: float) -> Query | None:
        """Clauses without a word in them (a lone `&`, say) are as if they were not there."""
        compiled = [(occur, self._compiled(clause, boost)) for occur, clause in group.clauses]
        clauses = [(_OCCUR[occur], query) for occur, query in compiled if query is not None]
        if not clauses:
            return None
        if all(occur == Occur.MustNot for occur, _ in clauses):
            clauses.append((Occur.Must, Query.const_score_query(Query.all_query(), 1)))
        return Query.boolean_query(clauses)

    def _weighted(self, scored: Sequence[tuple[Query, int]], boost: float) -> Query:
        """The best of several ways to be found. What is rare weighs more, as in BM25."""
        if self._given is None:
            every = Query.boolean_query([(Occur.Should, query) for query, _ in scored])
            number, total = self._snapshot.count(every), len(self._snapshot.entries)
            weight = 1 + round(100 * math.log1p((total - number + 0.5) / (number + 0.5)))
        else:
            weight = next(self._given, 1)
        self.weights.append(weight)
        ways = [Query.const_score_query(query, round(level * weight * boost)) for query, level in scored]
        return ways[0] if len(ways) == 1 else Query.disjunction_max_query(ways)

    def _finds(self, leaf: lucene.Leaf, column: str) -> Iterator[tuple[Query, int]]:
        """Queries for a leaf in one column, each with what it counts."""
        exact, pattern_level = EXACT.of(column), PATTERN.of(column)
        match leaf:
            case lucene.Word(text=text) if column in _WHOLES:
                yield Query.term_query(SCHEMA, column, fold(text)), exact
            case lucene.Phrase(text=text) if column in _WHOLES:
                yield Query.term_query(SCHEMA, column, fold(text)), exact
            case _ if column == "ids" and leaf.field is None:
                return  # without their field ids are found as a whole only: `a*` does not mean those that begin with a
            case lucene.Word(text=text) if found := words(text):
                yield _words_query(column, found, 0), exact
            case lucene.Phrase(text=text, slop=slop) if found := words(text):
                yield _words_query(column, found, slop), exact
            case lucene.Fuzzy(text=text, distance=distance):
                parts = [fold(text)] if column in _WHOLES else words(text)
                yield from _fuzzy(column, parts, distance)
            case lucene.Wildcard(parts=parts):
                yield from ((query, pattern_level) for query in _wildcard(column, parts))
            case lucene.Regex(pattern=pattern):
                yield _regex(column, _folded_pattern(pattern, leaf), leaf), pattern_level


_OCCUR = {
    lucene.Occur.SHOULD: Occur.Should,
    lucene.Occur.MUST: Occur.Must,
    lucene.Occur.MUST_NOT: Occur.MustNot,
}


def _plain_phrase(node: lucene.Node) -> list[str] | None:
    """The words of a query that is nothing but several of them."""
    if not isinstance(node, lucene.Group):
        return None
    texts = []
    for occur, clause in node.clauses:
        if occur is lucene.Occur.MUST_NOT or not isinstance(clause, lucene.Word) or clause.field is not None:
            return None
        texts.append(clause.text)
    found = words(" ".join(texts))
    return found if len(found) > 1 else None


def _words_query(column: str, found: Sequence[str], slop: int) -> Query:
    if len(found) == 1:
        return Query.term_query(SCHEMA, column, found[0])
    return Query.phrase_query(SCHEMA, column, list(found), slop)


def _fuzzy(column: str, found: Sequence[str], distance: int) -> Iterator[tuple[Query, int]]:
    """Of several words (`e-mail~1`) each may be that far away."""
    for edits, level in enumerate((EXACT, NEAR, FAR)[: distance + 1]):
        each = [Query.fuzzy_term_query(SCHEMA, column, word, edits) for word in found]
        if each:
            yield (
                each[0] if len(each) == 1 else Query.boolean_query([(Occur.Must, one) for one in each]),
                level.of(column),
            )


def _wildcard(column: str, parts: Sequence[str | lucene.Wild]) -> Iterator[Query]:
    """In a text `e-mail*` is two words, the second of them with the wildcard."""
    patterns = [""]
    for part in parts:
        if isinstance(part, lucene.Wild):
            patterns[-1] += ".*" if part is lucene.Wild.ANY else "."
            continue
        if column in _WHOLES:
            patterns[-1] += re.escape(fold(part))
            continue
        folded, end = fold(part), 0
        for found in _WORDS.finditer(folded):
            if found.start() > end or (end and found.start() == end):
                patterns.append("")
            patterns[-1] += found[0]
            end = found.end()
        if end < len(folded):
            patterns.append("")
    found_ones = [pattern for pattern in patterns if pattern]
    if len(found_ones) == 1:
        yield Query.regex_query(SCHEMA, column, found_ones[0])
    elif found_ones:
        yield Query.regex_phrase_query(SCHEMA, column, list[str | tuple[int, str]](found_ones))


_PATTERN = re.compile(r"\\(.)|\[:\^?\w+:\]|\(\?[^:)]*[:)]|([^\\\[(]+)|[\[(]", re.DOTALL)
_CLASSES = {"w": "[^ ]", "d": "[0-9]"}
"""Words hold nothing but letters and digits. Unicode's own classes would make automata of a thousand states."""


def _folded_pattern(pattern: str, leaf: lucene.Leaf) -> str:
    """Letters folded as in the index; what has a meaning of its own is left."""

    def folded(found: re.Match[str]) -> str:
        escaped, letters = found.groups()
        if escaped and escaped.isalnum():
            if escaped not in _CLASSES:
                known = " and ".join(f"\\{name}" for name in _CLASSES)
                message = f"\\{escaped} means nothing in a regular expression here: only {known} do"
                lucene.refuse(message, leaf.start, leaf.end)
            return _CLASSES[escaped]
        return fold(letters) if letters else found[0]

    return _PATTERN.sub(folded, pattern)


def _regex(column: str, pattern: str, leaf: lucene.Leaf) -> Query:
    try:
        return Query.regex_query(SCHEMA, column, pattern)
    except ValueError as error:
        reason = re.sub(r"\s+", " ", str(error).rpartition("error: ")[2].rpartition("RegexQueryError: ")[2]).strip(" '")
        message = f"the regular expression cannot be used: {reason}. It stands for one whole word, as /[mh]otel/"
        lucene.refuse(message, leaf.start, leaf.end)
