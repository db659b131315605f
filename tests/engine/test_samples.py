"""`sample("salt", percent)`: even, independent of other salts, the same everywhere, and told by the profile's id."""

from itertools import product
from math import sqrt
from pathlib import Path

import pytest

from app.engine.evaluate.samples import sampled
from app.errors import DiagnosticKind
from app.pql.check.checker import check
from app.pql.schema import ObjectType, Scalar
from app.pql.syntax.json_reader import from_json
from app.pql.syntax.json_writer import to_json
from app.pql.syntax.parser import parse
from app.pql.syntax.printer import print_tree
from tests.support.sandbox import PEOPLE, Sandbox
from tests.support.selected import selected

IDS = [f"crm:{number:06}" for number in range(50_000)]
SCHEMA = ObjectType({"income": Scalar.NUMBER, "city": Scalar.STRING})


@pytest.mark.parametrize(("salt", "percent"), list(product(("spring", "autumn", "ü"), (0.5, 10, 50, 90))))
def test_a_sample_is_even(salt: str, percent: float) -> None:
    share = percent / 100
    found = sum(sampled(salt, percent, id) for id in IDS)
    assert abs(found - share * len(IDS)) < 4 * sqrt(len(IDS) * share * (1 - share))


def test_salts_are_independent() -> None:
    """Of those in one sample as many are in another as of all; also of similar salts and of similar ids."""
    for one, other in (("a", "b"), ("spring", "spring2"), ("x", "x ")):
        both = sum(sampled(one, 30, id) and sampled(other, 30, id) for id in IDS)
        assert abs(both - 0.09 * len(IDS)) < 4 * sqrt(len(IDS) * 0.09 * 0.91)
    pairs = sum(sampled("a", 50, f"crm:{n}") == sampled("a", 50, f"crm:{n + 1}") for n in range(50_000))
    assert abs(pairs - 25_000) < 4 * sqrt(50_000 / 4)


def test_a_smaller_share_lies_in_a_larger_one() -> None:
    for id in IDS[:5_000]:
        inside = [sampled("s", percent, id) for percent in (0, 1, 10, 50, 99.9, 100)]
        assert inside == sorted(inside)
        assert (inside[0], inside[-1]) == (False, True)


def test_people_of_a_dataset_are_told_by_their_profile_ids(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    sandbox.csv("p", PEOPLE, "id,city\n" + "".join(f"{number},Rome\n" for number in range(200)))
    names = {f"CRM:{number}": str(number) for number in range(200)}
    expected = sorted(id for name, id in names.items() if sampled("spring", 25, name))
    assert 20 < len(expected) < 80
    assert selected(sandbox, 'sample("spring", 25)') == expected
    assert selected(sandbox, 'not sample("spring", 25) and city = "Rome"') == sorted(set(names.values()) - {*expected})


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ('sample("", 10)', 8, "the salt of a sample is written out"),
        ("sample(city, 10)", 8, "the salt of a sample is written out"),
        ('sample("a", 101)', 13, "the share of a sample is a number of 0 to 100"),
        ('sample("a", -1)', 13, "the share of a sample is a number of 0 to 100"),
        ('sample("a", income)', 13, "the share of a sample is a number of 0 to 100"),
    ],
)
def test_what_is_not_written_out_is_refused(text: str, column: int, message: str) -> None:
    (found,) = check(text, SCHEMA, segments=()).diagnostics
    assert (found.kind, found.line, found.column) == (DiagnosticKind.TYPE, 1, column)
    assert found.message.startswith(message)


def test_it_is_printed_read_as_json_and_streamed() -> None:
    text = 'sample("spring", 12.5) and city = "Rome"'
    checked = check(text, SCHEMA, segments=())
    assert str(checked.canonical) == text
    assert checked.streaming.eligible
    assert print_tree(from_json(to_json(parse(text)))) == text
