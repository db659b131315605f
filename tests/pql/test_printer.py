"""The canonical text: it parses to the same tree, and printing it again changes nothing."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from app.pql.syntax.parser import parse
from app.pql.syntax.printer import print_tree
from tests.support.expressions import E, expressions, text

CORPUS = Path(__file__).parent.parent / "data" / "pql" / "corpus.tsv"
EXPRESSIONS = [line.split("\t")[0] for line in CORPUS.read_text("utf-8").splitlines()[1:]]


def test_the_corpus_is_whole() -> None:
    assert len(EXPRESSIONS) == 426


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_printed_parses_to_the_same_tree(expression: str) -> None:
    tree = parse(expression)
    printed = print_tree(tree)
    assert parse(printed) == tree
    assert print_tree(parse(printed)) == printed


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ('NOT ( (country)="US"  OR (income>1) )', 'not (country = "US" or income > 1)'),
        ("a or (b and c) or (d or e)", "a or b and c or d or e"),
        ("(a or b) and c", "(a or b) and c"),
        ("1 + 2 * 3 - (4 - 5) > 0", "1 + 2 * 3 - (4 - 5) > 0"),
        ("- -5 < 3.50", "- -5 < 3.5"),
        ("(exists E from x where E.a = 1) and c", "(exists E from x where E.a = 1) and c"),
        ("exists E from x : E.a = 1", "exists E from x where E.a = 1"),
        ("let N = (a in [1,2]) in N and b", "let N = (a in [1, 2]) in N and b"),
        ("t OCCURS <= 1 days BEFORE Now", "t occurs <= 1 day before now"),
        ("t occurs <= 3 day before last weeks", "t occurs <= 3 days before last week"),
        ("x.y[^z = 1 and ^.w = 2]", "x.y[^z = 1 and ^w = 2]"),
        (r'name = "a \"b\" \\"', r'name = "a \"b\" \\"'),
        ("(P) => P.a.isNull()", "(P) => P.a.isNull()"),
    ],
)
def test_one_spelling(written: str, canonical: str) -> None:
    assert print_tree(parse(written)) == canonical


def test_thousands_of_terms_do_not_overflow_the_stack() -> None:
    chain = " or ".join(f"a{n} = {n}" for n in range(3_000))
    assert print_tree(parse(chain)) == chain
    total = "1" + " + 1" * 10_000 + " > 2"
    assert print_tree(parse(total)) == total


@settings(max_examples=300, derandomize=True, deadline=None)
@given(expressions())
def test_random_expressions_survive_printing(expression: E) -> None:
    tree = parse(text(expression))
    printed = print_tree(tree)
    assert parse(printed) == tree
    assert print_tree(parse(printed)) == printed
