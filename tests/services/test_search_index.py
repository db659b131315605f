"""What is found and in which order, by judgements on realistic names; and how the index follows changes."""

import csv
from pathlib import Path

import pytest

from app import lucene
from app.errors import ExpressionRefused
from app.services.search.entries import Entry
from app.services.search.index import Damaged, Index, Snapshot, score_of
from app.services.search.queries import FIELDS, TOO_WIDE

DATA = Path(__file__).parents[1] / "data" / "search"


def table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def entries(*names: str) -> list[Entry]:
    return [Entry("Audience", f"id{at}", name, "AEPSegments") for at, name in enumerate(names)]


def found(index: Index, query: str) -> list[str]:
    node = lucene.parse(query, [name for name in FIELDS if name])
    return [index.snapshot.entry(hit).name for hit in index.snapshot.hits(node)[0]]


def scores(snapshot: Snapshot, hits: list[int]) -> dict[str, int]:
    return {snapshot.entry(hit).id: score_of(hit) for hit in hits}


@pytest.fixture(scope="module")
def realistic() -> Index:
    rows = table("audiences.tsv")
    named = [
        Entry("Audience", f"{at:03}", row["name"], "AEPSegments", row["description"] or None)
        for at, row in enumerate(rows)
    ]
    return Index(1, named)


def test_the_judgements_are_forty_on_three_hundred_names(realistic: Index) -> None:
    assert len(table("judged.tsv")) == 40
    assert len(realistic.snapshot.entries) == 300


@pytest.mark.parametrize("judged", table("judged.tsv"), ids=lambda row: row["query"])
def test_hits_come_in_the_order_that_a_person_expects(realistic: Index, judged: dict[str, str]) -> None:
    """`first`: the first hits, groups in this order and any order within one; `never`: a name that must not be hit."""
    names = found(realistic, judged["query"])
    groups = [set(group.split(" | ")) for group in judged["first"].split(" > ")]
    at = 0
    for group in groups:
        assert set(names[at : at + len(group)]) == group, names[:10]
        at += len(group)
    assert judged["never"] not in names


def test_every_judged_name_is_one_of_the_names(realistic: Index) -> None:
    names = {entry.name for entry in realistic.snapshot.entries.values()}
    judged = {name for row in table("judged.tsv") for group in row["first"].split(" > ") for name in group.split(" | ")}
    assert judged <= names


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("name:blue", ["Blue"]),
        ("segmentName:blue", ["Blue"]),
        ("segmentDescription:blue", ["Described", "Described too"]),
        ("blue", ["Blue", "Described", "Described too"]),
        ("segmentId:AB-1", ["Blue"]),
        ("AB-1", ["Blue"]),
        ("segmentId:ab*", ["Blue"]),
        ("ab*", []),
        ("folderId:f1", ["Blue", "Retail"]),
        ("parentFolderId:f1", ["Blue"]),
        ("parentFolderId:f0", ["Retail"]),
        ("folderLocation:retail", ["Blue", "Retail"]),
        ('folderLocation:"shop retail"', ["Blue", "Retail"]),
        ("name:retail", ["Retail"]),
        ("segmentName:retail", []),
        ("retail", ["Retail"]),
        ("name:(blue OR retail)", ["Blue", "Retail"]),
        ("*", ["Blue", "Described", "Retail", "Described too"]),
        ("", ["Blue", "Described", "Retail", "Described too"]),
        ("NOT blue", ["Retail"]),
        ("& %", []),
        ("blue AND &", ["Blue", "Described", "Described too"]),
        (r"/[br]\w+/", ["Blue", "Retail", "Described", "Described too"]),
        (r"/BLU\w/", ["Blue", "Described", "Described too"]),
        ("blue retail", ["Retail", "Blue", "Described", "Described too"]),
        ("blue^10 retail", ["Blue", "Retail", "Described", "Described too"]),
    ],
)
def test_fields(query: str, names: list[str]) -> None:
    index = Index(
        1,
        [
            Entry("Audience", "u1", "Blue", "AEPSegments", None, "f1", "/Shop/Retail", "AB-1"),
            Entry("Audience", "u2", "Described", "AEPSegments", "blue"),
            Entry("Audience", "u3", "Described too", "AEPSegments", "more blue, much blue"),
            Entry("Folder", "f1", "Retail", "AEPSegments", None, "f0", "/Shop/Retail"),
        ],
    )
    assert found(index, query) == names


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("colour", ["Colour"]),
        ("colour~0", ["Colour"]),
        ("colour~1", ["Colour", "Color"]),
        ("colour~2", ["Colour", "Color", "Colr"]),
        ("colour~", ["Colour", "Color", "Colr"]),
        ("coluor~1", ["Color", "Colour"]),
        ("col?r", ["Color"]),
        ("col*r", ["Color", "Colour", "Colr"]),
        ('"a b"', ["A b"]),
        ('"b a"~1', []),
        ('"b a"~2', ["A b"]),
        ('"a b"~1', ["A b", "A x b"]),
    ],
)
def test_near_words_and_near_places(query: str, names: list[str]) -> None:
    assert found(Index(1, entries("Colr", "Color", "Colour", "A x b", "A b")), query) == names


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            "a /(/",
            "the regular expression is not well formed, or too large. It stands for one whole word, as /[mh]otel/",
        ),
        (
            "a " + "?" * 1500,
            "the word with wildcards is not well formed, or too large. It stands for one whole word, as run*",
        ),
        (
            "a b-" + "?" * 1500,
            "the word with wildcards is not well formed, or too large. It stands for one whole word, as run*",
        ),
        ("a /\\p{L}/", "\\p means nothing in a regular expression here: only \\w and \\d do"),
    ],
)
def test_a_bad_regular_expression_is_refused_with_its_place(query: str, message: str) -> None:
    for index in (Index(1, entries("a")), Index(1, [])):
        with pytest.raises(ExpressionRefused) as caught:
            found(index, query)
        (diagnostic,) = caught.value.diagnostics
        assert (diagnostic.message, diagnostic.column, diagnostic.length) == (message, 3, len(query) - 2)


def test_wildcards_that_fit_too_many_words_are_refused() -> None:
    index = Index(1, entries(*(f"word{at}" for at in range(200))))
    with pytest.raises(ExpressionRefused) as caught:
        found(index, "a " + "-".join("*" * 100))
    assert caught.value.diagnostics[0].message == TOO_WIDE
    assert (caught.value.diagnostics[0].column, caught.value.diagnostics[0].length) == (3, 199)
    with pytest.raises(ExpressionRefused, match=TOO_WIDE):
        index.snapshot.hits(lucene.parse("-".join("*" * 100), []), [5])


def test_a_snapshot_stays_as_it_is_while_the_index_goes_on() -> None:
    index = Index(1, entries("One", "Two"))
    before = index.snapshot
    index.apply(2, [Entry("Audience", "id0", "Uno", "AEPSegments")], {("Audience", "id0"), ("Audience", "id1")})
    assert (before.version, sorted(entry.name for entry in before.entries.values())) == (1, ["One", "Two"])
    hits, _ = before.hits(lucene.parse("one two", []))
    assert [before.entry(hit).name for hit in hits] == ["One", "Two"]
    assert (index.snapshot.version, found(index, "*"), found(index, "one two uno")) == (2, ["Uno"], ["Uno"])


def test_scores_of_old_entries_stay_with_the_weights_whatever_is_added() -> None:
    index = Index(1, entries("Gold", "Gold tier", "Silver tier"))
    node = lucene.parse("gold tier", [])
    before = index.snapshot
    first, weights = before.hits(node)
    index.apply(2, [Entry("Audience", f"new{at}", "Tier", "AEPSegments") for at in range(50)], ())
    again, kept = index.snapshot.hits(node, weights)
    assert kept == weights
    assert scores(before, first).items() <= scores(index.snapshot, again).items()
    assert index.snapshot.hits(node)[1] != weights


def test_an_index_that_does_not_add_up_says_so() -> None:
    index = Index(1, entries("One"))
    twice = [Entry("Audience", "id5", "Twice", "AEPSegments")] * 2
    with pytest.raises(Damaged, match="3 documents where there should be 2"):
        index.apply(2, twice, ())


def test_emoji_are_words() -> None:
    index = Index(1, entries("🔥 Hot leads", "Hot leads", "VIP🔥", "Cart 👍🏽", "→ next"))
    assert found(index, "🔥") == ["🔥 Hot leads", "VIP🔥"], "the first word counts more"
    assert found(index, "🔥 AND leads") == ["🔥 Hot leads"]
    assert found(index, "vip*") == ["VIP🔥"]
    assert found(index, "👍") == ["Cart 👍🏽"]
    assert found(index, "→") == ["→ next"]
    assert found(index, "❄") == []
