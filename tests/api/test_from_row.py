"""Objects that show a row make each field when it is read."""

from types import SimpleNamespace
from typing import ClassVar

import pytest

from app.api.execution.from_row import FromRow, RowFields, reader

calls: list[int] = []


def double(row: SimpleNamespace) -> int:
    calls.append(row.number)
    return 2 * int(row.number)


class Shown(FromRow):
    FROM_ROW: ClassVar[RowFields] = {"double": double}


def test_a_field_is_made_when_it_is_read_and_once() -> None:
    calls.clear()
    shown = Shown.of(SimpleNamespace(number=21, name="n"))
    assert calls == []
    assert (shown.double, shown.double, shown.name) == (42, 42, "n")
    assert calls == [21]


def test_what_neither_has_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = Shown.of(SimpleNamespace(number=1)).nothing
    with pytest.raises(AttributeError, match="Shown has no number"):
        _ = Shown.__new__(Shown).number


def test_a_reader_reads_what_the_attribute_is() -> None:
    class Counted(Shown):
        @property
        def own(self) -> str:
            return "property"

    row = SimpleNamespace(number=4, name="n", own="column")
    for name, expected in {"double": 8, "name": "n", "own": "property"}.items():
        assert reader(Counted, name)(Counted.of(row)) == getattr(Counted.of(row), name) == expected
    assert reader(SimpleNamespace, "name")(row) == "n"
    with pytest.raises(AttributeError):
        reader(Counted, "nothing")(Counted.of(row))
