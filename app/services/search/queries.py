"""Compiles a search tree into an index query, with a score for each kind of match; knows no index.

A score is a sum of integers that depends only on the document and on the weights of the query's parts. A caller that
keeps the weights therefore gets the same scores again, whatever has been added to the index since.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tantivy import Occur, Query

from app import lucene
from app.services.search.entries import SCHEMA, WHOLES, WORDS, fold, words


class Level(NamedTuple):
    """Scores of a match: in the first word of a name, elsewhere in a name, and in a description. Names rank before
    descriptions, and exact matches before others."""

    start: int
    name: int
    description: int

    def of(self, column: str) -> int:
        return int(getattr(self, column, self.name))


EXACT, PATTERN, NEAR, FAR = Level(18, 16, 4), Level(14, 12, 3), Level(11, 10, 3), Level(9, 8, 2)
"""Scores of the word itself, a pattern match, one edit, and two edits."""

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
"""Field of the query language → columns of the index, and the kind to which it is limited."""

OF_FOLDERS = frozenset({"folderId", "parentFolderId", "folderLocation"})
"""Fields with information about folders."""

TOO_WIDE = "the wildcards fit too many words: put more letters between them"
"""Tantivy reports this only when it searches."""


class Compiler:
    """Collects the weights of the leaves in order, from the share of documents that `count` finds, or consumes given
    weights."""

    def __init__(self, count: Callable[[Query], int], total: int, weights: Sequence[int] | None) -> None:
        self._count = count
        self._total = total
        self._given: Iterator[int] | None = None if weights is None else iter(weights)
        self.weights: list[int] = []

    def query(self, node: lucene.Node) -> Query | None:
        """The index query; None if the query contains no word. Raises `ExpressionRefused` for a regular expression that
        cannot be used."""
        compiled = self._compiled(node, 1.0)
        phrase = _plain_phrase(node)
        if compiled is None or phrase is None:
            return compiled
        # A name that contains the words exactly as typed is the best match.
        side_by_side = self._weighted([(_words_query("name", phrase, 0), EXACT.name)], 1.0)
        return Query.boolean_query([(Occur.Must, compiled), (Occur.Should, side_by_side)])

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
        try:
            weighted = self._weighted(scored, boost * node.boost)
        except ValueError:
            lucene.refuse(TOO_WIDE, node.start, node.end)
        if kind is None:
            return weighted
        of_kind = Query.const_score_query(Query.term_query(SCHEMA, "kind", kind), 0)
        return Query.boolean_query([(Occur.Must, weighted), (Occur.Must, of_kind)])

    def _group(self, group: lucene.Group, boost: float) -> Query | None:
        """Clauses without words (such as a lone `&`) are ignored."""
        compiled = [(occur, self._compiled(clause, boost)) for occur, clause in group.clauses]
        clauses = [(_OCCUR[occur], query) for occur, query in compiled if query is not None]
        if not clauses:
            return None
        if all(occur == Occur.MustNot for occur, _ in clauses):
            clauses.append((Occur.Must, Query.const_score_query(Query.all_query(), 1)))
        return Query.boolean_query(clauses)

    def _weighted(self, scored: Sequence[tuple[Query, int]], boost: float) -> Query:
        """The best of several kinds of match. Rare terms weigh more, as in BM25."""
        if self._given is None:
            every = Query.boolean_query([(Occur.Should, query) for query, _ in scored])
            number = self._count(every)
            weight = 1 + round(100 * math.log1p((self._total - number + 0.5) / (number + 0.5)))
        else:
            weight = next(self._given, 1)
        self.weights.append(weight)
        ways = [Query.const_score_query(query, round(level * weight * boost)) for query, level in scored]
        return ways[0] if len(ways) == 1 else Query.disjunction_max_query(ways)

    def _finds(self, leaf: lucene.Leaf, column: str) -> Iterator[tuple[Query, int]]:
        """Queries for a leaf in one column, each with its score."""
        exact, pattern_level = EXACT.of(column), PATTERN.of(column)
        match leaf:
            case lucene.Word(text=text) if column in WHOLES:
                yield Query.term_query(SCHEMA, column, fold(text)), exact
            case lucene.Phrase(text=text) if column in WHOLES:
                yield Query.term_query(SCHEMA, column, fold(text)), exact
            case _ if column == "ids" and leaf.field is None:
                return  # without a field, ids only match as a whole: `a*` does not mean ids that start with a
            case lucene.Word(text=text) if terms := words(text):
                yield _words_query(column, terms, 0), exact
            case lucene.Phrase(text=text, slop=slop) if terms := words(text):
                yield _words_query(column, terms, slop), exact
            case lucene.Fuzzy(text=text, distance=distance):
                parts = [fold(text)] if column in WHOLES else words(text)
                yield from _fuzzy(column, parts, distance)
            case lucene.Wildcard(parts=parts):
                yield from ((query, pattern_level) for query in _wildcard(column, parts, leaf))
            case lucene.Regex(pattern=pattern):
                yield _automaton(column, _folded_pattern(pattern, leaf), leaf, "regular expression"), pattern_level


_OCCUR = {
    lucene.Occur.SHOULD: Occur.Should,
    lucene.Occur.MUST: Occur.Must,
    lucene.Occur.MUST_NOT: Occur.MustNot,
}


def _plain_phrase(node: lucene.Node) -> list[str] | None:
    """The words of a query that consists only of several words."""
    if not isinstance(node, lucene.Group):
        return None
    texts = []
    for occur, clause in node.clauses:
        if occur is lucene.Occur.MUST_NOT or not isinstance(clause, lucene.Word) or clause.field is not None:
            return None
        texts.append(clause.text)
    terms = words(" ".join(texts))
    return terms if len(terms) > 1 else None


def _words_query(column: str, found: Sequence[str], slop: int) -> Query:
    if len(found) == 1:
        return Query.term_query(SCHEMA, column, found[0])
    return Query.phrase_query(SCHEMA, column, list(found), slop)


def _fuzzy(column: str, found: Sequence[str], distance: int) -> Iterator[tuple[Query, int]]:
    """In a text of several words (`e-mail~1`) each may differ by this distance."""
    for edits, level in enumerate((EXACT, NEAR, FAR)[: distance + 1]):
        each = [Query.fuzzy_term_query(SCHEMA, column, word, edits) for word in found]
        if each:
            yield (
                each[0] if len(each) == 1 else Query.boolean_query([(Occur.Must, term_query) for term_query in each]),
                level.of(column),
            )


def _wildcard(column: str, parts: Sequence[str | lucene.Wild], leaf: lucene.Leaf) -> Iterator[Query]:
    """In a text, `e-mail*` is two words, and the wildcard applies to the second."""
    patterns = [""]
    for part in parts:
        if isinstance(part, lucene.Wild):
            patterns[-1] += ".*" if part is lucene.Wild.ANY else "."
            continue
        if column in WHOLES:
            patterns[-1] += re.escape(fold(part))
            continue
        folded, end = fold(part), 0
        for word in WORDS.finditer(folded):
            if word.start() > end or (end and word.start() == end):
                patterns.append("")
            patterns[-1] += word[0]
            end = word.end()
        if end < len(folded):
            patterns.append("")
    found_ones = [pattern for pattern in patterns if pattern]
    if len(found_ones) == 1:
        yield _automaton(column, found_ones[0], leaf, "word with wildcards")
    elif found_ones:
        for each in found_ones:
            _automaton(column, each, leaf, "word with wildcards")
        yield Query.regex_phrase_query(SCHEMA, column, list[str | tuple[int, str]](found_ones))


_PATTERN = re.compile(r"\\(.)|\[:\^?\w+:\]|\(\?[^:)]*[:)]|([^\\\[(]+)|[\[(]", re.DOTALL)
_CLASSES = {"w": "[^ ]", "d": "[0-9]"}
"""Words contain only letters and digits. Unicode's character classes would create automata with a thousand states."""


def _folded_pattern(pattern: str, leaf: lucene.Leaf) -> str:
    """Folds letters as the index does, and leaves regular-expression syntax unchanged."""

    def folded(found: re.Match[str]) -> str:
        escaped, letters = found.groups()
        if escaped and escaped.isalnum():
            if escaped not in _CLASSES:
                classes = " and ".join(f"\\{name}" for name in _CLASSES)
                message = f"\\{escaped} means nothing in a regular expression here: only {classes} do"
                lucene.refuse(message, leaf.start, leaf.end)
            return _CLASSES[escaped]
        return fold(letters) if letters else found[0]

    return _PATTERN.sub(folded, pattern)


def _automaton(column: str, pattern: str, leaf: lucene.Leaf, what: str) -> Query:
    try:
        return Query.regex_query(SCHEMA, column, pattern)
    except ValueError:
        message = f"the {what} is not well formed, or too large. It stands for one whole word, as {_EXAMPLES[what]}"
        lucene.refuse(message, leaf.start, leaf.end)


_EXAMPLES = {"regular expression": "/[mh]otel/", "word with wildcards": "run*"}
