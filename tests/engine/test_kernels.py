"""Every kernel alone: its cases in every form of storage, and random rows against its definition."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.evaluate import kernels
from app.pql.functions import FUNCTIONS
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type
from tests.support.kernels import EVENT, JUNE, KERNELS, LEAP, REGEXES, Kernel, day
from tests.support.values import FORMS, NOW, Form, results

POOLS: dict[Scalar, tuple[Any, ...]] = {
    Scalar.NUMBER: (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 0.5, 1e308),
    Scalar.STRING: ("", "a", "b", "ab", "Ab", "B", "é", "p1", "x%", "a_"),
    Scalar.BOOLEAN: (True, False),
    Scalar.DATE: tuple(map(day, ("2024-02-29", "2026-06-15", "2026-06-14", "1970-01-01", "1969-12-31"))),
    Scalar.TIMESTAMP: (NOW, JUNE, LEAP, LEAP.replace(day=28), JUNE.replace(day=14), JUNE.replace(microsecond=1)),
}


def values(type_: Type, *, nulls: bool = True) -> st.SearchStrategy[Any]:
    """Elements of arrays and maps are not null: what they mean there is given by the cases."""
    made: st.SearchStrategy[Any]
    match type_:
        case ArrayType(element):
            made = st.lists(values(element, nulls=False), max_size=4)
        case MapType(item):
            made = st.dictionaries(values(Scalar.STRING, nulls=False), values(item, nulls=False), max_size=3)
        case ObjectType(fields):
            made = st.fixed_dictionaries({name: values(of, nulls=type_ is not EVENT) for name, of in fields.items()})
        case Scalar():
            made = st.sampled_from(POOLS[type_])
    return st.none() | made if nulls else made


def strategy(kernel: Kernel) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    columns = [values(type_) for type_ in kernel.takes]
    if kernel.op in ("matches", "regex_group"):
        columns[1] = st.none() | st.sampled_from(REGEXES)
    if kernel.op in ("occurs", "date"):
        columns[1] = st.none() | st.sampled_from((-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 12.0))
    return st.lists(st.tuples(*columns), min_size=1, max_size=8)


def split(kernel: Kernel) -> tuple[list[tuple[Any, ...]], list[Any]]:
    width = len(kernel.takes)
    return [case[:width] for case in kernel.cases], [case[-1] for case in kernel.cases]


def test_every_operation_has_its_cases() -> None:
    tried = {kernel.op for kernel in KERNELS}
    assert {*kernels.KERNELS.rows, *kernels.KERNELS.binders} - tried == set()
    assert {function.op for function in FUNCTIONS} - tried == {"in_segment"}, "segments are not a matter of kernels"
    assert [str(kernel) for kernel in KERNELS if not kernel.cases] == []


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_cases(kernel: Kernel, form: Form) -> None:
    rows, expected = split(kernel)
    assert results(kernel.node, rows, kernel.takes, form) == expected
    assert [kernel.definition(*row) for row in rows] == expected, "the definition is that of the cases"
    for row, result in zip(rows, expected, strict=True):
        assert results(kernel.node, [row], kernel.takes, form) == [result], row


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_missing_parent_is_null_in_all_its_fields(kernel: Kernel) -> None:
    rows, expected = split(kernel)
    nothing = kernel.definition(*[None] * len(kernel.takes))
    assert results(kernel.node, [(), *rows, ()], kernel.takes) == [nothing, *expected, nothing]


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_literals_are_as_good_as_fields(kernel: Kernel) -> None:
    for *row, result in kernel.cases:
        if "(" in row:
            continue  # written out, an invalid regular expression is refused by the check
        for at in range(len(row)):
            assert results(kernel.node, [row, row], kernel.takes, constants=frozenset({at})) == [result, result], row


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@settings(max_examples=10, derandomize=True, deadline=None)
@given(data=st.data())
def test_random_rows_are_as_defined(kernel: Kernel, data: st.DataObject) -> None:
    rows = data.draw(strategy(kernel))
    form = data.draw(st.sampled_from(FORMS))
    assert results(kernel.node, rows, kernel.takes, form) == [kernel.definition(*row) for row in rows]
