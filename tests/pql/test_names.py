"""Names in backquotes: columns that are no identifiers, or that are words of the language."""

import json

import pytest

from app.pql.check.checker import check
from app.pql.editor.completion import complete
from app.pql.schema import ObjectType, Scalar, profile_schema
from app.pql.syntax.json_reader import from_json
from app.pql.syntax.json_writer import to_json
from app.pql.syntax.parser import parse
from app.pql.syntax.printer import print_tree

SCHEMA = profile_schema(
    ObjectType({"Order Date": Scalar.DATE, "a.b": Scalar.STRING, "and": Scalar.NUMBER, "x`y": Scalar.NUMBER}),
    ObjectType({"timestamp": Scalar.TIMESTAMP, "utm-source": Scalar.STRING, "$1": Scalar.NUMBER}),
)


@pytest.mark.parametrize(
    "text",
    [
        "`Order Date` = date(2026, 1, 1)",
        '`a.b` = "x"',
        "`and` > 1 and `x``y` = 2",
        'xEvent.`utm-source` = "x"',
        'xEvent.exists(`utm-source` = "x" and `$1` > 0)',
        'exists `an event` from xEvent where `an event`.`utm-source` = "x"',
    ],
)
def test_names_in_backquotes_check_print_and_survive_json(text: str) -> None:
    checked = check(text, SCHEMA, segments=())
    assert checked.ok, checked.diagnostics
    tree = parse(text)
    assert print_tree(tree) == text
    back = print_tree(from_json(to_json(tree)))
    assert check(back, SCHEMA, segments=()).condition == checked.condition


def test_an_unknown_name_is_reported_with_its_backquotes() -> None:
    (finding,) = check("`Order Dat` = date(2026, 1, 1)", SCHEMA, segments=()).diagnostics
    assert (finding.column, finding.length) == (1, 11)
    assert finding.suggestions == ("`Order Date`",)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('`a.c` = "x"', '`a.b` = "x"'),
        ("`ands` > 1", "`and` > 1"),
        ('xEvent.utm_source = "x"', 'xEvent.`utm-source` = "x"'),
        ('xEvent.exists(`utm source` = "x")', 'xEvent.exists(`utm-source` = "x")'),
    ],
)
def test_a_suggestion_can_replace_the_unknown_name(text: str, right: str) -> None:
    (finding,) = check(text, SCHEMA, segments=()).diagnostics
    start, end = finding.column - 1, finding.column - 1 + finding.length
    assert text[:start] + finding.suggestions[0] + text[end:] == right
    assert check(right, SCHEMA, segments=()).ok


@pytest.mark.parametrize("name", ["and", "In", "where", "null", "today", "now", "sum", "this", "Chain", "a b", "a`b"])
@pytest.mark.parametrize(
    "text",
    [
        "let # = 1 in # = 1",
        "exists # from xEvent where #.timestamp = now",
        "select # from xEvent where #.timestamp = now",
        "exists E from xEvent where true, # from xEvent where #.timestamp = E.timestamp",
        "(#) => #.xEvent.count() > 1",
        "xEvent.exists((#) => #.timestamp = now)",
        "CHAIN(xEvent, timestamp, [#: WHAT(true), B: WHAT(true) WHEN(<= 1 hour after #)])",
    ],
)
def test_a_variable_with_the_name_of_a_word_survives_printing(text: str, name: str) -> None:
    written = text.replace("#", "`" + name.replace("`", "``") + "`")
    checked = check(written, SCHEMA, segments=())
    assert checked.ok, checked.diagnostics
    printed = print_tree(parse(written))
    assert parse(printed) == parse(written)
    assert print_tree(from_json(to_json(parse(written)))) == printed


def test_json_names_fields_without_backquotes() -> None:
    written = json.loads(to_json(parse("`Order Date`.isNull()")))
    assert "Order Date" in json.dumps(written)
    assert "`" not in json.dumps(written)


def test_completion_writes_backquotes() -> None:
    offered = [one.text for one in complete("", 0, SCHEMA, segments={}, values=lambda path: [], limit=200)]
    assert {"`Order Date`", "`a.b`", "xEvent.`utm-source`"} <= set(offered)
    assert "a.b" not in offered


def offered(text: str, schema: ObjectType) -> list[str]:
    return [one.text for one in complete(text, len(text), schema, segments={}, limit=200)]


def test_completion_writes_words_of_the_language_in_backquotes() -> None:
    schema = ObjectType({"and": Scalar.NUMBER, "Today": Scalar.DATE, "o": ObjectType({"or": Scalar.NUMBER})})
    assert {"`and`", "`Today`", "o.or"} <= set(offered("", schema))
    assert "and" not in offered("", schema)
    assert offered("o.o", schema)[0] == "or"
    for name in ("`and` = 1", "`Today`.isNull()", "o.or = 1"):
        assert check(name, schema, segments=frozenset()).diagnostics == ()


@pytest.mark.parametrize("typed", ["`", "`Ord", "`Order D", "o.`my", "1 = 1 and `order d"])
def test_completion_inside_an_open_backquote(typed: str) -> None:
    schema = ObjectType({"Order Date": Scalar.DATE, "o": ObjectType({"my key": Scalar.STRING})})
    name = "`my key`" if typed.startswith("o.") else "`Order Date`"
    items = complete(typed, len(typed), schema, segments={}, limit=200)
    assert (items[0].text, items[0].start, items[0].end) == (name, typed.index("`"), len(typed))
    assert {item.kind for item in items} == {"FIELD"}


def test_what_is_typed_finds_names_in_backquotes() -> None:
    assert offered("ord", ObjectType({"border": Scalar.STRING, "Order Date": Scalar.DATE}))[:2] == [
        "`Order Date`",
        "border",
    ]
