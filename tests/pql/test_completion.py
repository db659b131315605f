"""Completion: what is offered where, in which order, and that no place of any text is too strange for it."""

import random
from pathlib import Path

import pytest

from app.pql.editor.completion import Completion, CompletionKind, complete
from app.pql.functions import FREE, METHODS
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, profile_schema
from app.pql.syntax.nodes import UNITS

DATA = Path(__file__).parent.parent / "data" / "pql"
CORPUS = [line.split("\t")[0] for line in (DATA / "corpus.tsv").read_text("utf-8").splitlines()[1:]]
ERRORS = [line.split("\t")[0] for line in (DATA / "errors.tsv").read_text("utf-8").splitlines()[1:]]

ITEM = ObjectType({"sku": Scalar.STRING, "price": Scalar.NUMBER})
SCHEMA = profile_schema(
    ObjectType(
        {
            "address": ObjectType({"country": Scalar.STRING, "city": Scalar.STRING}),
            "active": Scalar.BOOLEAN,
            "birthDate": Scalar.DATE,
            "income": Scalar.NUMBER,
            "orders": ArrayType(ITEM),
            "phones": MapType(ObjectType({"number": Scalar.STRING})),
            "tags": ArrayType(Scalar.STRING),
        }
    ),
    ObjectType({"timestamp": Scalar.TIMESTAMP, "kind": Scalar.STRING, "items": ArrayType(ITEM)}),
)
SEGMENTS = {"seg1": "Big spenders", "seg2": "Lapsed"}


def seen(path: tuple[str, ...]) -> list[str]:
    return {("address", "country"): ["US", "CA"], ("xEvent", "items", "sku"): ['a"b']}.get(path, [])


def at(marked: str, limit: int = 200) -> list[Completion]:
    """Completions where the `|` stands."""
    offset = marked.index("|")
    return complete(marked[:offset] + marked[offset + 1 :], offset, SCHEMA, segments=SEGMENTS, values=seen, limit=limit)


def texts(marked: str, *kinds: CompletionKind) -> list[str]:
    return [found.text for found in at(marked) if not kinds or found.kind in kinds]


FIELD, FUNCTION, KEYWORD, SEGMENT, VALUE = CompletionKind
PROFILE = ["identityMap", "segmentMembership", "address", "active", "birthDate", "income", "orders", "phones", "tags"]
PROFILE_FIELDS = [*PROFILE, "xEvent"]
EVENT_FIELDS = ["timestamp", "kind", "items"]


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("inc|", ["income"]),
        ("INC|", ["income"]),
        ("addr|", ["address", "address.country", "address.city"]),
        ("countr|", ["address.country"]),
        ("address.c|", ["country", "city"]),
        ("address.co|untry = 5", ["country"]),
        ("orders.p|", ["price"]),
        ("orders.topN(price, 1).s|", ["sku"]),
        ('phones.get("home").|', ["number"]),
        ("phones.values().|", ["number"]),
        ("xEvent.items.|", ["sku", "price"]),
        ("xEvent[tim|", ["timestamp", "xEvent.timestamp"]),
        ("xEvent[items[pri|", ["price", "items.price", "orders.price", "xEvent.items.price"]),
        ("xEvent.filter(^tim|", ["xEvent.timestamp"]),
        ("xEvent[items.exists(^ki|", ["kind", "xEvent.kind"]),
        ("exists E from xEvent where E.|", [*EVENT_FIELDS, "items.sku", "items.price"]),
        ("exists E from xEvent where true, I from E.items where I.|", ["sku", "price"]),
        ("let Total = income in Tot|", ["Total"]),
        ("let O = orders in O.|", ["sku", "price"]),
        ("let Half = income / 2 in income > Half and Ha|", ["Half"]),
        ("(Person) => Person.inc|", ["income"]),
        ("(Person) => Pers|", ["Person"]),
        ("$1.inc|", ["income"]),
        ("sum O.pr|", []),
        ("CHAIN(xEvent, time|", ["timestamp", "xEvent.timestamp"]),
        ("CHAIN(xEvent, timestamp, [C0: WHAT(ki|", ["kind", "xEvent.kind"]),
        ("CHAIN(xEvent, timestamp, [C0: WHAT(true), C1: WHAT(true) WHEN(<= 2 days after C|", ["C0"]),
        ("income > 1 or (not (inc|", ["income"]),
        ("nothing.|", []),
        ("nothing.of.the.kind and inc|", ["income"]),
        ("exists |", []),
        ("let Na|", []),
        ("12|", []),
        ("$1|", []),
    ],
)
def test_fields(marked: str, expected: list[str]) -> None:
    found = texts(marked, FIELD)
    if marked.endswith("C|"):
        found = found[:1]
    assert found == expected


def test_at_the_beginning_all_fields_are_offered_the_nearest_first() -> None:
    assert texts("|", FIELD)[: len(PROFILE_FIELDS)] == PROFILE_FIELDS
    assert texts("orders.exists(|", FIELD)[: 2 + len(PROFILE_FIELDS)] == ["sku", "price", *PROFILE_FIELDS]
    assert texts("orders.exists(^|", FIELD)[: len(PROFILE_FIELDS)] == PROFILE_FIELDS


@pytest.mark.parametrize(
    ("marked", "some", "none"),
    [
        ("address.country.|", ["startsWith(", "contains(", "isNull()"], ["count()", "getMonth()", "get("]),
        ("birthDate.|", ["getMonth()", "isNotNull()"], ["startsWith(", "count()"]),
        ("orders.|", ["count()", "topN(", "exists("], ["startsWith(", "intersects("]),
        ("tags.|", ["intersects(", "startsWith(", "count()"], ["getMonth()"]),
        ("phones.|", ["get(", "keys()", "values()"], ["count()"]),
        ("address.|", ["isNull()"], ["count()", "startsWith("]),
        ("|", [f"{name}(" for name in ("inSegment", "if", "date", "stringCompare")], ["count()", "startsWith("]),
        ("income |", [], ["inSegment("]),
    ],
)
def test_functions_fit_what_is_left_of_them(marked: str, some: list[str], none: list[str]) -> None:
    found = texts(marked, FUNCTION)
    assert set(some) <= set(found)
    assert not set(none) & set(found)


COMPARISONS = ["=", "!=", "<", "<=", ">", ">=", "in", "notIn"]
LOGIC = ["and", "or"]
ARITHMETIC = ["+", "-", "*", "/", "%"]


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("income |", [*COMPARISONS, *LOGIC, *ARITHMETIC]),
        ("address.country |", [*COMPARISONS, "like", *LOGIC]),
        ("birthDate |", [*COMPARISONS, "occurs", *LOGIC]),
        ("income > 1 |", [*LOGIC, *ARITHMETIC]),
        ('address.country = "US" a|', ["and"]),
        ("birthDate occurs bet|", ["between"]),
        ("birthDate occurs <= 3 |", [*ARITHMETIC, *UNITS.values()]),
        ("birthDate occurs <= 3 days |", ["before", "after", "from"]),
        ("birthDate occurs between today |", ["and"]),
        ("sum E.price |", [*COMPARISONS, "like", "occurs", *LOGIC, *ARITHMETIC, "over"]),
        ("let N = income |", [*COMPARISONS[:6], "notIn", *LOGIC, *ARITHMETIC, "in"]),
        ("CHAIN(xEvent, timestamp, [C0: |", ["WHAT"]),
        ("CHAIN(xEvent, timestamp, [C0: WHAT(true) |", ["where", "WHEN", "count"]),
        ("birthDate occurs last mo|", ["month"]),
        ("fa|", ["false"]),
        ("(income > 1) |", LOGIC),
    ],
)  # fmt: skip
def test_keywords(marked: str, expected: list[str]) -> None:
    assert texts(marked, KEYWORD) == expected


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("address.country = |", ['"US"', '"CA"']),
        ('address.country = "C|', ['"CA"']),
        ('address.country in ["US", |', ['"US"', '"CA"']),
        ('address.country.equals("|', ['"US"', '"CA"']),
        ('stringCompare("startsWith", address.country, ["|', ['"US"', '"CA"']),
        ('"US" = |', []),
        ("xEvent.items.sku.includes(|", [r'"a\"b"']),
        ("xEvent[items.exists(sku = |", [r'"a\"b"']),
        ("exists E from xEvent where true, I from E.items where I.sku != |", [r'"a\"b"']),
        ("address.city = |", []),
        ("active = |", ["true", "false"]),
        ('address.country.equals("US", |', ["true", "false"]),
        ('stringCompare("start|', ['"startsWith"', '"doesNotStartWith"']),
        ("income > |", []),
    ],
)
def test_values(marked: str, expected: list[str]) -> None:
    assert texts(marked, VALUE) == expected


def test_segments_are_found_by_id_and_by_name() -> None:
    assert at("inSegment(|") == [
        Completion('"seg1"', SEGMENT, "Big spenders", 10, 10),
        Completion('"seg2"', SEGMENT, "Lapsed", 10, 10),
    ]
    assert at('inSegment("big|") and income > 1') == [Completion('"seg1"', SEGMENT, "Big spenders", 10, 15)]


def test_what_is_replaced() -> None:
    assert at("income > 1 and addr|ess.city = 5", 1) == [Completion("address", FIELD, "object", 15, 22)]
    assert at('address.country = "C|', 1) == [Completion('"CA"', VALUE, "seen in address.country", 18, 20)]
    assert at('address.country = "C|X" and active', 1) == [Completion('"CA"', VALUE, "seen in address.country", 18, 22)]
    assert at("income|", 1) == [Completion("income", FIELD, "number", 0, 6)]
    assert at("orders.cou|", 1) == [Completion("count()", FUNCTION, METHODS["count"].signature, 7, 10)]
    assert at("dat|", 1) == [Completion("date(", FUNCTION, FREE["date"].signature, 0, 3)]


def test_the_limit_and_offsets_outside_of_the_text() -> None:
    assert len(at("|", 3)) == 3
    assert at("|", 0) == []
    end = complete("inc", 99, SCHEMA, segments={})
    assert [found.text for found in end] == ["income"]
    assert complete("inc", -5, SCHEMA, segments={}, limit=1)[0].start == 0


@pytest.mark.parametrize(
    "text", [*CORPUS[::4], *ERRORS, '"', '"\\', "((((", "[[[", "let", "exists E from", "\x00", "a ‸ b"]
)
def test_no_place_of_any_text_is_too_strange(text: str) -> None:
    for offset in range(0, len(text) + 1, 1 + len(text) // 300):
        for found in complete(text, offset, SCHEMA, segments=SEGMENTS, values=seen):
            assert 0 <= found.start <= offset <= found.end <= len(text)


def test_texts_too_long_or_too_deep_have_no_completions() -> None:
    assert complete("a" * 70_000, 5, SCHEMA, segments={}) == []
    assert complete("(" * 300, 300, SCHEMA, segments={}) == []


def test_shuffled_tokens_are_survived() -> None:
    words = " ".join(CORPUS[:40]).split()
    choice = random.Random(7)
    for _ in range(300):
        text = " ".join(choice.choices(words, k=12))
        complete(text, choice.randrange(len(text)), SCHEMA, segments=SEGMENTS, values=seen)


def test_the_condition_of_a_quantifier_may_follow_or_not() -> None:
    assert {"where", "and"} <= {*texts("exists E from xEvent |", KEYWORD)}
