"""Numbers as written: integers of any size, and decimals of up to six places; knows no expressions.

Numbers are arrays of `int64`, of `float64`, or of Python numbers: for integers beyond 64 bits, and for those beyond
2^53 combined with fractions (slow, and rare). The quotient of integers is an integer if the division is exact. A double
stands for the shortest decimal that prints as it. Decimals of at most six places (and 15 digits) are computed as
integers of hundredths, ten-thousandths or millionths, and a result is the double nearest to the exact value.
"""

from collections.abc import Callable
from itertools import product
from math import inf
from sys import float_info
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]

SCALES = (100.0, 10_000.0, 1_000_000.0)
_FACTORS = sorted(product((1.0, *SCALES), repeat=2), key=lambda pair: pair[0] * pair[1])[1:]
"""Scales of the two sides of a product, smallest first."""
EXACT = float(1 << 53)
"""Below this, a double represents every integer exactly."""
_LARGEST = (1 << 63) - 1
_RANGE = int(float_info.max)
_HALF = 32
_BLOCK = 1 << 15

_PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "remainder": np.fmod,  # takes the sign of the dividend
}


def whole(value: float) -> Numbers:
    """A constant as an array of length one.

    >>> whole(2.0).dtype, whole(0.5).dtype, whole(2**70).dtype
    (dtype('int64'), dtype('float64'), dtype('O'))
    """
    if isinstance(value, int):
        return np.array([value], np.int64 if abs(value) <= _LARGEST else object)
    return np.array([int(value) if abs(value) < _LARGEST and value.is_integer() else value])


def doubles(values: Numbers) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def peak(values: Numbers) -> int:
    """The largest absolute value among integers."""
    return max(abs(int(values.max())), abs(int(values.min()))) if len(values) else 0


def alike(*arrays: Numbers) -> tuple[Numbers, ...]:
    """The arrays in one type that represents all of their values exactly."""
    if len({array.dtype for array in arrays}) == 1:
        return arrays
    if all(array.dtype != object for array in arrays):
        # Check the integers first: for a column and a constant, that is a single value.
        if all(array.dtype.kind == "f" or peak(array) < EXACT for array in arrays):
            return tuple(doubles(array) for array in arrays)
        if all(array.dtype.kind == "i" or _are_whole(array) for array in arrays):
            return tuple(array.astype(np.int64, copy=False) for array in arrays)
    return tuple(array.astype(object) for array in arrays)


def calculated(op: str, a: Numbers, b: Numbers) -> Numbers:
    """`a op b`; non-finite on overflow. Results of a division by zero are undefined."""
    kinds = {a.dtype.kind, b.dtype.kind}
    if kinds == {"i"} and (op != "divide" or max(peak(a), peak(b)) >= EXACT):
        return _integers(op, a, b)
    if "O" in kinds or (
        kinds == {"i", "f"} and max(peak(operand) for operand in (a, b) if operand.dtype.kind == "i") >= EXACT
    ):
        return _one_by_one(op, a, b)
    left, right = doubles(a), doubles(b)
    result: Numbers = _PLAIN[op](left, right)
    rest = np.ones(result.shape, np.bool_)
    for scale, other in _FACTORS if op == "multiply" else zip(SCALES, SCALES, strict=True):
        (x, fits_x), (y, fits_y) = scaled(left, scale), scaled(right, other)
        exact: Numbers = _PLAIN[op](x, y)
        fits = fits_x & fits_y & rest
        if op != "divide":
            fits &= np.abs(exact) < EXACT
            exact = exact / (scale * other if op == "multiply" else scale)
        result = exact if fits.all() else np.where(fits, exact, result)
        rest &= ~fits
        if not rest.any():
            break
    return result


def within_range(values: Numbers) -> Numbers:
    """Python numbers, those beyond the range of doubles replaced by infinity, so that none grows without limit.

    >>> within_range(np.array([2**1023, -(2**1024), 0.5], object))[1:].tolist()
    [-inf, 0.5]
    """

    def one(value: float) -> float:
        return inf * (1 if value > 0 else -1) if abs(value) > _RANGE else value

    return np.asarray(np.frompyfunc(one, 1, 1)(values), object)


def negated(values: Numbers) -> Numbers:
    if values.dtype == np.int64 and peak(values) > _LARGEST:
        values = values.astype(object)
    return -values


def scaled(values: NDArray[np.float64], scale: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The values as integral multiples of 1 / `scale`, and whether each is one exactly.

    >>> scaled(np.array([19.99, 0.125]), 100.0)
    (array([1999.,   12.]), array([ True, False]))
    """
    parts = np.rint(values * scale)
    return parts, (parts / scale == values) & (np.abs(parts) < EXACT)


def sums(parent: NDArray[np.intp], values: Numbers, counts: NDArray[np.intp]) -> Numbers:
    """The sum of the values of each parent."""
    if values.dtype == object:
        return _sums_of_objects(parent, values, counts)
    if values.dtype.kind == "i":
        return _whole_sums(parent, values, counts)
    return _decimal_sums(parent, values, counts, np.ones(1))


def averages(parent: NDArray[np.intp], values: Numbers, counts: NDArray[np.intp]) -> Numbers:
    """The mean of the values of each parent; non-finite if there are none."""
    if values.dtype.kind != "f":
        return calculated("divide", sums(parent, values, counts), counts.astype(np.int64))
    return _decimal_sums(parent, values, counts, counts)


def _are_whole(values: Numbers) -> bool:
    return bool(np.all((np.abs(values) < float(1 << 63)) & (values == np.trunc(values))))


def _integers(op: str, a: Numbers, b: Numbers) -> Numbers:
    if op == "remainder":
        return np.fmod(a, np.where(b == 0, 1, b))
    if op == "divide":
        return _one_by_one(op, a, b)
    if (peak(a) * peak(b) if op == "multiply" else peak(a) + peak(b)) <= _LARGEST:
        return _PLAIN[op](a, b)  # type: ignore[no-any-return]
    return _PLAIN[op](a.astype(object), b.astype(object))  # type: ignore[no-any-return]


def _one_by_one(op: str, a: Numbers, b: Numbers) -> Numbers:
    """In Python: integers exactly, others as doubles."""

    def one(x: float, y: float) -> float:
        x, y = _number(x), _number(y)
        if op == "divide" and isinstance(x, int) and isinstance(y, int):
            return _quotient(x, y)
        if isinstance(x, float) or isinstance(y, float):
            return _number(calculated(op, np.array([float(x)]), np.array([float(y)]))[0])
        if op == "remainder":
            return (abs(x) % abs(y) * (1 if x > 0 else -1)) if y else 0
        return {"add": x + y, "subtract": x - y, "multiply": x * y}[op]

    result: Numbers = np.frompyfunc(one, 2, 1)(a.astype(object), b.astype(object))
    return result


def _quotient(x: int, y: int) -> float:
    """
    >>> _quotient(9007199254740993, 1), _quotient(9007199254740995, 10), _quotient(1, 0)
    (9007199254740993, 900719925474099.5, inf)
    """
    try:
        return _number(x / y) if x % y else x // y
    except ArithmeticError:  # division by zero, or overflow
        return inf


def _number(value: float) -> float:
    # Python's own comparison: numpy would convert integers to doubles.
    is_whole = isinstance(value, int) or (float(value).is_integer() and abs(value) < EXACT)
    return int(value) if is_whole else float(value)


def _sums_of_objects(parent: NDArray[np.intp], values: Numbers, counts: NDArray[np.intp]) -> Numbers:
    numbers = [_number(value) for value in values]
    total = np.zeros(len(counts), object)
    np.add.at(total, parent, np.array([0 if isinstance(value, float) else value for value in numbers], object))
    mixed = np.zeros(len(counts), np.bool_)
    mixed[parent[np.array([isinstance(value, float) for value in numbers], np.bool_)]] = True
    return np.where(mixed, _decimal_sums(parent, doubles(values), counts, np.ones(1)), total)


def _whole_sums(parent: NDArray[np.intp], values: Numbers, counts: NDArray[np.intp]) -> Numbers:
    n, most = len(counts), int(counts.max(initial=0))
    if most >= 1 << (52 - _HALF):
        total = np.zeros(n, object)
        np.add.at(total, parent, values.astype(object))
        return total
    if peak(values) * most < EXACT:
        return np.bincount(parent, values, n).astype(np.int64)
    upper, lower = values >> _HALF, values & ((1 << _HALF) - 1)
    high, low = (np.bincount(parent, half, n).astype(np.int64) for half in (upper, lower))
    if peak(high) < 1 << (62 - _HALF):
        return (high << _HALF) + low
    return (high.astype(object) << _HALF) + low


def _decimal_sums(
    parent: NDArray[np.intp], values: NDArray[np.float64], counts: NDArray[np.intp], divisor: Numbers
) -> NDArray[np.float64]:
    """Exact if all values of a parent are decimals of one scale; otherwise sums the doubles in order."""
    n, most = len(counts), int(counts.max(initial=0))
    result = np.zeros(n)
    rest = np.ones(n, np.bool_)
    for scale in SCALES:
        good = rest.copy()
        parts = _all_scaled(values, scale)
        if parts is None:
            parts, fits = scaled(values, scale)
            good[parent[~fits]] = False
            parts[~fits] = 0.0
        if len(parts) and max(float(parts.max()), -float(parts.min())) * most < EXACT:
            exact = np.bincount(parent, parts, n) / (scale * divisor)
        else:
            exact = _large(_whole_sums(parent, parts.astype(np.int64), counts), int(scale)) / divisor
        if good.all():
            return exact
        result = np.where(good, exact, result)
        rest &= ~good
        if not rest.any():
            return result
    return np.where(rest, np.bincount(parent, values, n) / divisor, result)


def _all_scaled(values: NDArray[np.float64], scale: float) -> NDArray[np.float64] | None:
    """The result of `scaled` if all values fit, else None. Works in blocks that fit into the cache."""
    parts, back = np.empty(len(values)), np.empty(_BLOCK)
    for start in range(0, len(values), _BLOCK):
        some, block = values[start : start + _BLOCK], parts[start : start + _BLOCK]
        np.rint(np.multiply(some, scale, out=block), out=block)
        if not np.array_equal(np.divide(block, scale, out=back[: len(block)]), some):
            return None
    return parts if not len(parts) or max(parts.max(), -parts.min()) < EXACT else None


def _large(total: Numbers, scale: int) -> NDArray[np.float64]:
    """Divides an integer beyond 2^53 by the scale: first the integral part, then the remainder."""
    return doubles(total // scale) + doubles(total % scale) / scale
