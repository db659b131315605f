"""pql/json: every expression survives the way there and back, and what is no pql/json is refused at its object."""

import json
from pathlib import Path

import pytest

from app.errors import DiagnosticKind, ExpressionRefused
from app.pql.syntax.json_reader import from_json
from app.pql.syntax.json_writer import to_json
from app.pql.syntax.parser import parse
from app.pql.syntax.printer import print_tree

CORPUS = Path(__file__).parent.parent / "data" / "pql" / "corpus.tsv"
EXPRESSIONS = [line.split("\t")[0] for line in CORPUS.read_text("utf-8").splitlines()[1:]]

PROFILE = {"nodeType": "parameterReference", "position": 1}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_corpus_survives(expression: str) -> None:
    tree = parse(expression)
    there = to_json(tree)
    back = from_json(there)
    assert to_json(back) == there
    # `$1.x` comes back as `x`, which means the same; all else comes back as it was.
    assert back == tree or "$1." in expression


def field(name: str) -> dict[str, object]:
    return {"nodeType": "fieldLookup", "fieldName": name, "object": PROFILE}


def literal(kind: str, value: object) -> dict[str, object]:
    return {"nodeType": "literal", "literalType": kind, "value": value}


def apply(name: str, *params: object) -> dict[str, object]:
    return {"nodeType": "fnApply", "fnName": name, "params": list(params)}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ('country = "US"', apply("=", field("country"), literal("String", "US"))),
        ("$1.income>-1", apply(">", field("income"), literal("Integer", -1))),
        ("income > 1.5", apply(">", field("income"), literal("Double", 1.5))),
        ("a.b = null", apply("=", {**field("b"), "object": field("a")}, literal("Null", None))),
        ('a in ["x", 2, -3, true]', apply("in", field("a"), literal("List", ["x", 2, -3, True]))),
        ("a in [b, 1]", apply("in", field("a"), literal("List", [field("b"), 1]))),
        ("1 + 2 + 3 - 4 > 0", apply(
            ">",
            apply("-", apply("+", *(literal("Integer", n) for n in (1, 2, 3))), literal("Integer", 4)),
            literal("Integer", 0),
        )),
        ("not (a or b or c)", apply("not", apply("or", field("a"), field("b"), field("c")))),
        ('name.startsWith("A", false)', apply(
            "startsWith", field("name"), literal("String", "A"), literal("Boolean", False)
        )),
        ("currentYear() = 2026", apply("=", apply("currentYear"), literal("Integer", 2026))),
        ("orders[price > ^limit]", {
            "nodeType": "index",
            "array": field("orders"),
            "condition": apply(
                ">",
                {"nodeType": "nameReference", "name": "price"},
                {"nodeType": "nameReference", "name": "limit", "up": 1},
            ),
        }),
        ("let N = 1 in N = M", {
            "nodeType": "let",
            "name": "N",
            "value": literal("Integer", 1),
            "body": apply("=", {"nodeType": "varRef", "varName": "N"}, field("M")),
        }),
        ("(P) => P.a", {
            "nodeType": "lambda",
            "parameters": ["P"],
            "body": {"nodeType": "fieldLookup", "fieldName": "a", "object": {"nodeType": "varRef", "varName": "P"}},
        }),
        ("t occurs <= 3 days before now", {
            "nodeType": "occursWithin",
            "time": field("t"),
            "operator": "<=",
            "count": literal("Integer", 3),
            "unit": "day",
            "direction": "before",
            "reference": {"nodeType": "moment", "word": "now"},
        }),
        ("t occurs before last month", {
            "nodeType": "occurs",
            "time": field("t"),
            "relation": "before",
            "reference": {"nodeType": "period", "which": "last", "unit": "month"},
        }),
    ],
)  # fmt: skip
def test_what_is_written(expression: str, expected: object) -> None:
    assert json.loads(to_json(parse(expression))) == expected


RANGE = {"nodeType": "fieldLookup", "fieldName": "xEvent"}
TOTAL = {"nodeType": "fieldLookup", "fieldName": "total", "object": {"nodeType": "varRef", "varName": "E"}}
OF_EVENTS = {"varName": "E", "range": RANGE}
MORE = apply(">", TOTAL, literal("integer", 5))
DECLARED = {"nodeType": "varDecl", **OF_EVENTS}


@pytest.mark.parametrize(
    ("node", "expression"),
    [
        (RANGE, "xEvent"),
        ({"nodeType": "some", **OF_EVENTS, "condition": MORE}, "exists E from xEvent where E.total > 5"),
        ({"nodeType": "all", **OF_EVENTS, "where": MORE}, "forall E from xEvent where E.total > 5"),
        ({"nodeType": "some", **OF_EVENTS}, "exists E from xEvent where true"),
        ({"nodeType": "select", "varDecl": DECLARED, "condition": MORE}, "select E from xEvent where E.total > 5"),
        (
            {"nodeType": "select", "varDecl": "E", "range": RANGE, "body": MORE},
            "select E from xEvent where E.total > 5",
        ),
        (
            {"nodeType": "quantification", "quantifier": "some", **OF_EVENTS, "predicate": MORE},
            "exists E from xEvent where E.total > 5",
        ),
        (literal("XDMObject", ["a", 1.5, None]), '["a", 1.5, null]'),
        (literal("Number", -2), "-2"),
        (literal("XDMObject", True), "true"),
        ({"nodeType": "some", "varName": "E"}, None),
        ({"nodeType": "some", "range": RANGE}, None),
        ({"nodeType": "quantification", "quantifier": "most", **OF_EVENTS}, None),
        (literal("XDMObject", {"a": 1}), None),
    ],
)  # fmt: skip
def test_adobes_spelling_is_read(node: object, expression: str | None) -> None:
    text = json.dumps(node)
    if expression is None:
        with pytest.raises(ExpressionRefused):
            from_json(text)
        return
    tree = from_json(text)
    assert print_tree(tree) == expression
    assert from_json(to_json(tree)) == tree


def test_adobes_spelling_is_written() -> None:
    clause = {"varName": "E", "range": field("orders"), "condition": {"nodeType": "varRef", "varName": "E"}}
    assert json.loads(to_json(parse("exists E from orders where E"))) == {"nodeType": "some", **clause}
    declared = {"nodeType": "varDecl", "varName": "E", "range": field("orders")}
    written = {"nodeType": "select", "varDecl": declared, "condition": clause["condition"]}
    assert json.loads(to_json(parse("select E from orders where E"))) == written
    both = json.loads(to_json(parse("forall E from orders where E, F from E where F")))
    assert (both["nodeType"], both["quantifier"]) == ("quantification", "all")
    assert [one["varName"] for one in both["clauses"]] == ["E", "F"]
    ours = {"nodeType": "clause", "variable": "E", "array": field("orders"), "condition": field("a")}
    old = json.dumps({"nodeType": "quantifier", "kind": "exists", "clauses": [ours]})
    assert print_tree(from_json(old)) == "exists E from orders where a"


@pytest.mark.parametrize(
    "expression",
    [
        "CHAIN(xEvent, timestamp, [C0: WHAT(a = 1) WHERE(b) WHEN(today) COUNT(3)])",
        'orders.groupBy(sku).map((K, G) => mapEntry(K, G.count())).get("PS") > 1',
        "orders.filter((E) => E.price > limit)",
        "income > -0",
        "- -5 = 1",
        "a in [[1], [-2]]",
        "isNull(x)",
        "a.foo(1)",
        "foo(a)",
        "x.date(1, 2, 3)",
        "$1.now = 1",
        "$1.sum > 2",
        "let a = 1 in $1.a = a",
        "$2.a = 1",
        "(P, Q) => P.a = 1 and b",
        "exists E from x where $1.E = E",
        r'a = "\"\\ é"',
        "CHAIN(xEvent, timestamp, [C0: WHAT(a = 1), C1: WHAT(b) WHEN(<= 7 days after C0)])",
        "sum E.price over E from orders where E.sku = 1",
        "count E from orders where E.sku = 1",
    ],
)
def test_what_looks_like_something_else_stays_what_it_is(expression: str) -> None:
    tree = parse(expression)
    assert from_json(to_json(tree)) == tree


@pytest.mark.parametrize(
    "expression",
    ["1" + " + 1" * 10_000 + " > 2", " or ".join(f"a{n} = {n}" for n in range(2_000)), "not " * 190 + "a"],
)
def test_long_and_deep_ones_survive(expression: str) -> None:
    assert print_tree(from_json(to_json(parse(expression)))) == expression


def test_what_is_too_deep_for_json_is_refused() -> None:
    with pytest.raises(ExpressionRefused) as refused:
        to_json(parse("1" + " + 1 - 1" * 1_000 + " > 2"))
    assert refused.value.diagnostics[0].kind is DiagnosticKind.LIMIT


MISSING_VALUE = (
    '{"nodeType": "fnApply", "fnName": "not", "params": [\n {"nodeType": "literal", "literalType": "Null"}]}'
)


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("", 1, 1, "not JSON: Expecting value"),
        ('{"nodeType": moment}', 1, 14, "not JSON"),
        ("[]", 1, 1, "a node must be an object with a `nodeType`, not an array"),
        ('"income > 1"', 1, 1, 'a node must be an object with a `nodeType`, not "income > 1"'),
        ("{}", 1, 1, "there is no nodeType null; there are: parameterReference, "),
        ('{"nodeType": "fnAply"}', 1, 1, 'there is no nodeType "fnAply"; did you mean `fnApply`?'),
        ('{"nodeType": ["fnApply"]}', 1, 1, "there is no nodeType an array"),
        (MISSING_VALUE, 2, 2, "a `literal` needs `value`"),
        ('{"nodeType": "moment", "word": "noon"}', 1, 1, "`word` must be one of now today tomorrow yesterday"),
        ('{"nodeType": "moment", "word": "now", "wrd": 1}', 1, 1, 'a `moment` has no key "wrd"; did you mean `word`?'),
        ('{"nodeType": "clause"}', 1, 1, "a `clause` cannot stand here"),
        ('{"nodeType": "select", "clause": {"nodeType": "moment", "word": "now"}}', 1, 34, "a `moment` cannot stand"),
        ('{"nodeType": "nameReference", "name": ""}', 1, 1, '"" cannot be a name'),
        ('{"nodeType": "nameReference", "name": "a", "up": -1}', 1, 1, "`up` must be the number of levels"),
        ('{"nodeType": "fnApply", "fnName": "a = 1 or b", "params": []}', 1, 1, 'there is no function "a = 1 or b"'),
        ('{"nodeType": "fnApply", "fnName": "not", "params": []}', 1, 1, "the operator `not` cannot have 0 params"),
        ('{"nodeType": "literal", "literalType": "Integer", "value": 1.5}', 1, 1, "1.5 is not a valid Integer"),
        ('{"nodeType": "literal", "literalType": "Integer", "value": true}', 1, 1, "true is not a valid Integer"),
        ('{"nodeType": "literal", "literalType": "Double", "value": NaN}', 1, 1, "NaN is not a PQL number"),
        ('{"nodeType": "literal", "literalType": "Double", "value": 1e999}', 1, 1, "Infinity is not a PQL number"),
        ('{"nodeType": "literal", "literalType": "String", "value": "\\ud800"}', 1, 1, '"\\ud800" is not a PQL value'),
        ('{"nodeType": "parameterReference", "position": "1"}', 1, 1, "`position` must be a whole number"),
        (
            '{"nodeType": "occurs", "relation": "on", "reference": {"nodeType": "moment", "word": "now"}}',
            1,
            1,
            "`time`",
        ),
        ('{"nodeType": "lambda", "parameters": [], "body": {}}', 1, 1, "`parameters` must be an array of names"),
        ("[" * 100_000, 1, 1, "nested deeper than 600"),
        ('{"a":' * 700 + "1" + "}" * 700, 1, 1, "nested deeper than 600"),
        ('"' + "x" * 3_000_000 + '"', 1, 1, "more than 2097152 bytes"),
    ],
    ids=range(27),
)
def test_what_is_no_pql_json_is_refused(text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(ExpressionRefused) as refused:
        from_json(text)
    (found,) = refused.value.diagnostics
    assert (found.line, found.column) == (line, column)
    assert said in found.message
