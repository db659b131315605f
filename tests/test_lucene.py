"""Lucene's syntax: what each form means, and where it says that something is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import lucene
from app.errors import DiagnosticKind, ErrorCode, ExpressionRefused
from app.lucene import Everything, Fuzzy, Group, Leaf, Node, Phrase, Regex, Wildcard, Word, parse

FIELDS = ("name", "segmentId", "segmentName")


def written(node: Node) -> str:
    """The tree in one line: clauses in parentheses with their signs, leaves by what they are."""
    boost = "" if node.boost == 1 else f"^{node.boost:g}"
    if isinstance(node, Group):
        return "(" + " ".join(f"{occur}{written(clause)}" for occur, clause in node.clauses) + ")" + boost
    assert isinstance(node, Leaf)
    field = "" if node.field is None else f"{node.field}:"
    match node:
        case Everything():
            text = "everything"
        case Word(text=found):
            text = found
        case Fuzzy(text=found, distance=distance):
            text = f"{found}~{distance}"
        case Phrase(text=found, slop=slop):
            text = f"[{found}]{slop}"
        case Wildcard(parts=parts):
            text = "".join(f"<{part}>" if isinstance(part, lucene.Wild) else part for part in parts)
        case Regex(pattern=pattern):
            text = f"/{pattern}/"
    return field + text + boost


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("", "everything"),
        (" \t\n", "everything"),
        ("*", "everything"),
        ("*:*", "everything"),
        ("blue", "blue"),
        (" blue ", "blue"),
        ("blue shoes", "(blue shoes)"),
        ("blue OR shoes", "(blue shoes)"),
        ("blue || shoes", "(blue shoes)"),
        ("blue AND shoes", "(+blue +shoes)"),
        ("blue && shoes", "(+blue +shoes)"),
        ("a b AND c d", "(a (+b +c) d)"),
        ("a AND b OR c AND d", "((+a +b) (+c +d))"),
        ("a AND (b OR c)", "(+a +(b c))"),
        ("a AND NOT b", "(+a -b)"),
        ("a NOT b", "(a -b)"),
        ("a !b", "(a -b)"),
        ("+a -b c", "(+a -b c)"),
        ("NOT a", "(-a)"),
        ("-(a b)", "(-(a b))"),
        ("+a", "a"),
        ("((a))", "a"),
        ("(a b)^2 c^0.5", "((a b)^2 c^0.5)"),
        ("and or not And", "(and or not And)"),
        ("ANDY NOTE", "(ANDY NOTE)"),
        ('"AND"', "[AND]0"),
        ("name:blue", "name:blue"),
        ("name : blue", "name:blue"),
        ("name:(blue OR -red)", "(name:blue -name:red)"),
        ("name:(blue segmentId:x)", "(name:blue segmentId:x)"),
        ('name:"blue shoes"~3', "name:[blue shoes]3"),
        ("name:*", "name:<*>"),
        ("name:/a/", "name:/a/"),
        ("run*", "run<*>"),
        ("cam?", "cam<?>"),
        ("*a?b*", "<*>a<?>b<*>"),
        ("a***??", "a<*><?><?>"),
        (r"a\*b*", "a*b<*>"),
        (r"a\*", "a*"),
        (r"\(a\)", "(a)"),
        (r"a\ b", "a b"),
        (r"12\:30", "12:30"),
        ("blue~", "blue~2"),
        ("blue~0", "blue~0"),
        ("blue~1^3", "blue~1^3"),
        ("(blue~)", "blue~2"),
        (r'"say \"hi\""', '[say "hi"]0'),
        ("/[mh]otel/", "/[mh]otel/"),
        (r"/a\/b/", "/a/b/"),
        ("core/C1 e-mail R&D Yahoo! C++", "(core/C1 e-mail R&D Yahoo! C++)"),
        ("Food & Drink | Co", "(Food & Drink | Co)"),
        ("Zürich 上海", "(Zürich 上海)"),
    ],
)
def test_what_a_query_means(query: str, tree: str) -> None:
    assert written(parse(query, FIELDS)) == tree


SYNTAX, FIELD, LIMIT = DiagnosticKind.SYNTAX, DiagnosticKind.UNKNOWN_FIELD, DiagnosticKind.LIMIT


@pytest.mark.parametrize(
    ("query", "kind", "column", "length", "message"),
    [
        ("(a", SYNTAX, 1, 1, 'this "(" is never closed: add a ")"'),
        ("x (", SYNTAX, 3, 1, 'this "(" is never closed: add a ")"'),
        ("a (b (c)", SYNTAX, 3, 1, 'this "(" is never closed: add a ")"'),
        ("a)", SYNTAX, 2, 1, 'this ")" closes no "(": take it out, or open one before it'),
        ("a ( )", SYNTAX, 3, 3, 'there is nothing between "(" and ")": put a word there, or take both out'),
        ("a AND", SYNTAX, 6, 0, "the query ends where a word is expected: add one, or take out what stands before"),
        ("a OR", SYNTAX, 5, 0, "the query ends where a word is expected: add one, or take out what stands before"),
        ("NOT", SYNTAX, 4, 0, "the query ends where a word is expected: add one, or take out what stands before"),
        ("OR a", SYNTAX, 1, 2, 'a word is expected and here is the operator OR: to search for it write "or"'),
        ("a AND OR b", SYNTAX, 7, 2, 'a word is expected and here is the operator OR: to search for it write "or"'),
        (
            "US - East",
            SYNTAX,
            4,
            1,
            '"-" stands directly before what it is about, as in -word: '
            'write the character as \\-, or put the text into double quotes: "…"',
        ),
        ('a "b', SYNTAX, 3, 2, "this double quote is never closed: add one at the end of the phrase"),
        (
            "a /b",
            SYNTAX,
            3,
            2,
            'this "/" begins a regular expression that never ends: add a "/", or '
            'write the character as \\/, or put the text into double quotes: "…"',
        ),
        ("//", SYNTAX, 1, 2, "the regular expression between the slashes is empty: write one"),
        ("blue~3", SYNTAX, 6, 1, "3 is not possible after ~: write a whole number from 0 up to 2"),
        ("blue~0.8", SYNTAX, 6, 3, "0.8 is not possible after ~: write a whole number from 0 up to 2"),
        ("blu*~1", SYNTAX, 1, 5, "a word is fuzzy (~) or has wildcards (* ?), not both: take one of them out"),
        ("a^0", SYNTAX, 2, 2, '"^" needs a number above 0 after it, as in word^2'),
        (
            "a^b",
            SYNTAX,
            2,
            1,
            '"^" needs a number after it: write the character as \\^, or put the text into double quotes: "…"',
        ),
        (
            "name:[a TO b]",
            SYNTAX,
            6,
            1,
            'ranges are not supported: write the character as \\[, or put the text into double quotes: "…"',
        ),
        ("name:", SYNTAX, 1, 5, "the field 'name' has nothing to look for after its colon: add a word"),
        ("(name:)", SYNTAX, 2, 5, "the field 'name' has nothing to look for after its colon: add a word"),
        ("a \ud800", SYNTAX, 3, 1, "this is half of a character: omit it"),
        ("a\\", SYNTAX, 2, 1, "the backslash has nothing after it: it goes before a character to take it as it is"),
        (
            "nmae:x",
            FIELD,
            1,
            4,
            "there is no field 'nmae'; the fields are name, segmentId, segmentName. "
            "To search for a colon write it as \\:",
        ),
        ("(" * 31 + "a", LIMIT, 31, 1, "parentheses are more than 30 deep: write the query flatter"),
        ("a " * 101, LIMIT, 201, 2, "the query has more than 100 parts: leave some out"),
        ("a" * 2001, LIMIT, 2001, 1, "the query has 2001 characters, and at most 2,000 are read: shorten it"),
    ],
)
def test_a_mistake_is_refused_with_its_place(
    query: str, kind: DiagnosticKind, column: int, length: int, message: str
) -> None:
    with pytest.raises(ExpressionRefused) as caught:
        parse(query, FIELDS)
    assert caught.value.code is ErrorCode.INVALID_EXPRESSION
    (found,) = caught.value.diagnostics
    assert (found.kind, found.line, found.column, found.length, found.message) == (kind, 1, column, length, message)


def test_an_unknown_field_suggests_near_ones() -> None:
    with pytest.raises(ExpressionRefused) as caught:
        parse("SegmentNam:x", FIELDS)
    assert caught.value.diagnostics[0].suggestions == ("segmentName", "segmentId")


@given(st.text(alphabet='ab :"/\\()+-!*?~^&|[]ANDOR12', max_size=30))
def test_any_text_is_read_or_refused_within_it(query: str) -> None:
    try:
        parse(query, FIELDS)
    except ExpressionRefused as refusal:
        (found,) = refusal.diagnostics
        assert 1 <= found.column <= len(query) + 1
        assert found.column - 1 + found.length <= len(query)


@given(st.text(max_size=30))
def test_any_text_in_quotes_is_a_phrase(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    found = parse(f'"{escaped}"', FIELDS)
    assert isinstance(found, Phrase)
    assert found.text == text


def test_groups_side_by_side_are_not_deep() -> None:
    groups = " ".join(["(a b)"] * (lucene.DEEPEST + 1))
    assert written(parse(groups, FIELDS)) == f"({groups})"


def test_boosts_multiply() -> None:
    assert written(parse("(a^2)^3", FIELDS)) == "a^6"
