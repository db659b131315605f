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
    assert finding.suggestions == ("Order Date",)


def test_json_names_fields_without_backquotes() -> None:
    written = json.loads(to_json(parse("`Order Date`.isNull()")))
    assert "Order Date" in json.dumps(written)
    assert "`" not in json.dumps(written)


def test_completion_writes_backquotes() -> None:
    offered = [one.text for one in complete("", 0, SCHEMA, segments={}, values=lambda path: [], limit=200)]
    assert {"`Order Date`", "`a.b`", "xEvent.`utm-source`"} <= set(offered)
    assert "a.b" not in offered
