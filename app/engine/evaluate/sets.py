"""Set operations on arrays: membership, overlap, equality, distinct elements; each takes values of one scope.

Sets ignore order, duplicates and nulls. Objects are equal if all their fields are.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.engine.evaluate.columns import (
    Array,
    Bools,
    Column,
    Index,
    Object,
    Rows,
    Text,
    Value,
    Values,
    both,
    condition,
    spread,
    unified,
)
from app.engine.evaluate.dates import micros
from app.engine.evaluate.exact import alike
from app.engine.evaluate.logic import comparable
from app.engine.evaluate.memo import Call, RowKernel
from app.engine.evaluate.text import compared_text, matching
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

_FEW = 8


def member(call: Call, x: Value, among: Value) -> Value:
    """`in` and `not_in`."""
    if not isinstance(among, Array):
        raise TypeError("an array was expected")
    contained = _in_constant(x, among.element) if len(among) == 1 else _in_own(spread(x, call.n), among)
    if call.node.op == "not_in":
        contained = ~contained
    for valid in (x.valid, among.valid):
        contained = contained if valid is None else contained & valid
    return condition(contained)


def compare_sets(call: Call, a: Value, b: Value) -> Value:
    """`intersects`, `subset_of`, `superset_of`, `set_eq`, `set_ne`: compares the sizes of both sets and of their
    intersection."""
    if not (isinstance(a, Array) and isinstance(b, Array)):
        raise TypeError("two arrays were expected")
    left, right, size = _sets(call, a, b)
    shared = np.bincount(np.intersect1d(left, right, assume_unique=True) // size, minlength=call.n)
    of_left, of_right = (np.bincount(keys // size, minlength=call.n) for keys in (left, right))
    result: Bools
    match call.node.op:
        case "intersects":
            result = shared > 0
        case "subset_of":
            result = shared == of_left
        case "superset_of":
            result = shared == of_right
        case _:
            result = (shared == of_left) & (shared == of_right)
    if call.node.op == "set_ne":
        result = ~result
    valid = both(a.valid, b.valid)
    return condition(result if valid is None else result & valid)


def distinct(call: Call, array: Value) -> Value:
    """The distinct elements in order of first appearance, without null."""
    if not isinstance(array, Array):
        raise TypeError("an array was expected")
    codes = codes_of([array.element], [_element(call.node.operands[0].type)])[0]
    return array.narrowed(_first_of_each(array.rows, codes))


def intersection(call: Call, a: Value, b: Value) -> Value:
    """The distinct elements of `a` that are in `b`; missing if either is."""
    if not (isinstance(a, Array) and isinstance(b, Array)):
        raise TypeError("two arrays were expected")
    left, right = spread(a, call.n), spread(b, call.n)
    if not (isinstance(left, Array) and isinstance(right, Array)):
        raise TypeError("two arrays were expected")
    types = [_element(operand.type) for operand in call.node.operands]
    codes, others = codes_of([left.element, right.element], types)
    size = _size(codes, others)
    rows = _first_of_each(left.rows, codes)
    present = others >= 0
    shared = np.isin(left.rows.parent[rows] * size + codes[rows], right.rows.parent[present] * size + others[present])
    common = left.narrowed(rows[shared])
    return common if right.valid is None else common.masked(np.asarray(right.valid))


def codes_of(values: list[Value], types: list[Type] | None = None) -> list[NDArray[np.int64]]:
    """Codes that are equal for equal elements (across all values); -1 for null."""
    first = values[0]
    if isinstance(first, Text):
        texts = unified([value for value in values if isinstance(value, Text)])
        return [text.codes.astype(np.int64) for text in texts]
    if isinstance(first, Column):
        columns = [value for value in values if isinstance(value, Column)]
        return _split(_column_codes(columns), values)
    if isinstance(first, Object) and types is not None and isinstance(types[0], ObjectType):
        return _split(_object_codes(values, types[0]), values)
    raise TypeError("such elements cannot be compared")


def first_seen(keys: Values) -> tuple[Index, Index]:
    """The first row of each distinct key, in row order, and for each row the number of its key in that order."""
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(order), np.intp)
    number[order] = np.arange(len(order))
    return first[order], number[which]


def _column_codes(columns: list[Column]) -> NDArray[np.int64]:
    kinds = {column.kind for column in columns}
    mixed = len(kinds) > 1 and Scalar.TIMESTAMP in kinds
    data = np.concatenate(alike(*(micros(column) if mixed else column.values for column in columns)))
    codes = np.unique(data, return_inverse=True)[1].astype(np.int64)
    for column, start in zip(columns, np.cumsum([0, *map(len, columns)]), strict=False):
        if column.valid is not None:
            codes[start : start + len(column)][~column.valid] = -1
    return codes


def _object_codes(values: list[Value], type_: ObjectType) -> NDArray[np.int64]:
    """Combines the codes of all fields. Missing fields equal each other; a missing object is null."""
    n = sum(map(len, values))
    codes = np.zeros(n, np.int64)
    for name, inner in type_.fields.items():
        if isinstance(inner, ArrayType | MapType):
            raise TypeError("objects that contain arrays or maps cannot be compared")
        fields = [spread(column.field(name, inner), len(column)) for column in values if isinstance(column, Object)]
        of_field = np.concatenate(codes_of(fields, [inner] * len(fields)))
        codes = np.unique(codes * (int(of_field.max(initial=0)) + 2) + of_field + 1, return_inverse=True)[1]
    start = 0
    for column in values:
        if column.valid is not None:
            codes[start : start + len(column)][~column.valid] = -1
        start += len(column)
    return codes


def _split(codes: NDArray[np.int64], values: list[Value]) -> list[NDArray[np.int64]]:
    return np.split(codes, np.cumsum([len(value) for value in values])[:-1])


def _sets(call: Call, a: Array, b: Array) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """The elements of both arrays as sorted keys `row * size + code`, without duplicates."""
    types = [_element(operand.type) for operand in call.node.operands]
    codes = codes_of([a.element, b.element], types)
    size = _size(*codes)
    keys = []
    for array, code in zip((a, b), codes, strict=True):
        parent = array.rows.parent
        if len(array) == 1 and call.n != 1:
            code = np.unique(code)
            parent, code = np.repeat(np.arange(call.n), len(code)), np.tile(code, call.n)
        keys.append(np.unique(parent[code >= 0] * size + code[code >= 0]))
    return keys[0], keys[1], size


def _size(*codes: NDArray[np.int64]) -> int:
    return max(int(column.max(initial=0)) for column in codes) + 1


def _first_of_each(rows: Rows, codes: NDArray[np.int64]) -> Index:
    """The first occurrence of each distinct element in each array, in order."""
    present = np.flatnonzero(codes >= 0)
    first = first_seen(rows.parent[present] * _size(codes) + codes[present])[0]
    return present[first]


def _in_constant(x: Value, elements: Value) -> Bools:
    if isinstance(x, Text) and isinstance(elements, Text):
        among = elements.dictionary.take(pa.array(np.unique(elements.codes[elements.codes >= 0])))
        return matching(x, lambda texts: pc.is_in(texts, among))
    if not (isinstance(x, Column) and isinstance(elements, Column)):
        raise TypeError("such values cannot be looked up in an array")
    values, others = comparable(x, elements)
    if elements.valid is not None:
        others = others[elements.valid]
    if len(others) > _FEW:
        return np.isin(values, others)
    contained = np.zeros(len(values), np.bool_)
    for other in others:
        contained |= values == other
    return contained


def _in_own(x: Value, among: Array) -> Bools:
    parent = among.rows.parent
    mine = x.take(parent)
    if isinstance(mine, Text) and isinstance(among.element, Text):
        equal = compared_text("eq", mine, among.element) if len(mine) else np.zeros(0, np.bool_)
    elif isinstance(mine, Column) and isinstance(among.element, Column):
        left, right = comparable(mine, among.element)
        equal = left == right
        if among.element.valid is not None:
            equal = equal & among.element.valid
    else:
        mine_codes, codes = codes_of([mine, among.element])
        equal = (mine_codes == codes) & (codes >= 0)
    contained = np.zeros(among.rows.n, np.bool_)
    contained[parent[equal]] = True
    return contained


def _element(type_: Type) -> Type:
    return type_.element if isinstance(type_, ArrayType) else type_


KERNELS: dict[str, RowKernel] = {
    "in": member,
    "not_in": member,
    **dict.fromkeys(["intersects", "subset_of", "superset_of", "set_eq", "set_ne"], compare_sets),
    "distinct": distinct,
    "intersection": intersection,
}
