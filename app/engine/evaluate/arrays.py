"""Operations over the elements of arrays: quantifiers, filters, aggregates, order, groups.

Sums of whole numbers and decimals are exact. Other sums add the elements of each array in order (like a plain loop over
doubles), so that slices, buckets and other definitions never change a result.
"""

import numpy as np

from app.engine.evaluate.columns import (
    Array,
    Bools,
    Column,
    Fields,
    Index,
    Map,
    Object,
    Rows,
    Text,
    Value,
    Values,
    condition,
    nulls,
    numbers,
    ranks,
    spread,
    stacked,
)
from app.engine.evaluate.exact import averages, sums
from app.engine.evaluate.memo import BinderKernel, Call, Evaluation, RowKernel
from app.engine.evaluate.row_spaces import RowSpace
from app.engine.evaluate.sets import codes_of, first_seen
from app.engine.evaluate.text import compared_text
from app.pql.core import Node
from app.pql.schema import ArrayType, Scalar, Type


def exists(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    array, child = evaluation.elements(node.operands[0], node.payload[0], scope)
    return condition(_any(array.rows, evaluation.mask(node.operands[1], child)))


def forall(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    array, child = evaluation.elements(node.operands[0], node.payload[0], scope)
    return condition(~_any(array.rows, ~evaluation.mask(node.operands[1], child)))


def filter_(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    """The elements that pass. A missing array yields an empty one."""
    array, child = evaluation.elements(node.operands[0], node.payload[0], scope)
    picked = np.flatnonzero(evaluation.mask(node.operands[1], child))
    scope.picked[node] = picked
    matches = array.narrowed(picked)
    return Array(matches.rows, matches.element)


def map_(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    """Drops nulls, and flattens nested arrays."""
    level = node.payload[0]
    array, child = evaluation.elements(node.operands[0], level, scope)
    body = spread(evaluation.operand(node.operands[1], child), child.n)
    if isinstance(body, Array):
        flat = Array(Rows(scope.n, array.rows.parent[body.rows.parent]), body.element, array.valid)
        present = flat.element.valid
    else:
        flat = Array(array.rows, body, array.valid)
        present = body.valid
    if present is None or present.all():
        return flat
    return flat.narrowed(np.flatnonzero(present))


def total(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    rows, values = _numbers(evaluation, node, scope)
    return numbers(sums(rows.parent, values, rows.counts))


def average(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    rows, values = _numbers(evaluation, node, scope)
    return numbers(averages(rows.parent, values, rows.counts), rows.counts > 0)


def extreme(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    """The smallest or largest element, with `minimum.reduceat` over the non-empty arrays."""
    rows, values = _present(evaluation, node, scope)
    dictionary = None
    if isinstance(values, Text):
        keys, dictionary = ranks(values)
    elif isinstance(values, Column):
        keys = values.values
    else:
        raise TypeError(f"no {node.op} of {node.operands[1].type}")
    filled = np.flatnonzero(rows.counts)
    extremes = np.zeros(rows.n, keys.dtype)
    if len(filled):
        reduce = np.minimum if node.op == "min" else np.maximum
        extremes[filled] = reduce.reduceat(keys, rows.starts[filled])
    valid = rows.counts > 0
    if dictionary is not None:
        return Text(np.where(valid, extremes, -1), dictionary)
    return Column(values.kind, extremes, valid) if isinstance(values, Column) else nulls(node.type, scope.n)


def ordered(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    """`top` and `bottom`: sorts by key within each array; ties keep the array's order, and null keys are dropped."""
    array, child = evaluation.elements(node.operands[0], node.payload[0], scope)
    key = evaluation.operand(node.operands[1], child)
    most = evaluation.operand(node.operands[2], scope)
    if not isinstance(most, Column):
        raise TypeError(f"{node.op} takes a number")
    rank = _sortable(spread(key, child.n))
    if node.op == "top":
        rank = -rank if rank.dtype == np.float64 else ~rank
    present_rows = np.arange(child.n) if key.valid is None else np.flatnonzero(np.broadcast_to(key.valid, child.n))
    parent = array.rows.parent
    order = present_rows[np.lexsort((rank[present_rows], parent[present_rows]))]
    rows = Rows(scope.n, parent[order])
    position = np.arange(len(order)) - rows.starts[rows.parent]
    limit = np.where(True if most.valid is None else most.valid, most.values, 0.0)
    within = position < (limit if len(limit) == 1 else limit[rows.parent])
    chosen_rows = order[within]
    return Array(Rows(scope.n, parent[chosen_rows]), array.element.take(chosen_rows), array.valid)


def group_by(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    """Groups in the order of their first elements, elements in the array's order; null is a key like any other."""
    array, child = evaluation.elements(node.operands[0], node.payload[0], scope)
    key = evaluation.operand(node.operands[1], child)
    key = spread(key, child.n)
    codes = codes_of([key])[0]
    pairs = array.rows.parent * (int(codes.max(initial=0)) + 2) + codes + 1
    first, group = first_seen(pairs)
    order = np.argsort(group, kind="stable")
    groups = Rows(len(first), group[order])
    values = Array(groups, array.element.take(order))
    group_objects = Object(Fields({"key": key.take(first), "values": values}), len(first))
    return Array(Rows(scope.n, array.rows.parent[first]), group_objects, array.valid)


def to_map(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    array, child = evaluation.elements(node.operands[0], node.payload[0], scope)
    key, value = (spread(evaluation.operand(part, child), child.n) for part in node.operands[1:])
    if not isinstance(key, Text):
        raise TypeError("the keys of a map are texts")
    parent, codes = array.rows.parent, key.codes.astype(np.int64)
    present = np.flatnonzero(codes >= 0)
    size = int(codes.max(initial=0)) + 1
    entry_rows = np.sort(present[np.unique(parent[present] * size + codes[present], return_index=True)[1]])
    return Map(Rows(scope.n, parent[entry_rows]), key.take(entry_rows), value.take(entry_rows), array.valid)


def head(call: Call, array: Value) -> Value:
    if not isinstance(array, Array):
        raise TypeError("the head of an array was asked for")
    return at_rows(array.element, array.rows.starts, array.rows.counts > 0, call.node.type)


def at_rows(value: Value, index: Index, there: Bools, type_: Type) -> Value:
    """The entries at `index`; null where `there` is false."""
    if not len(value):
        return nulls(type_, len(index))
    elements = value.take(np.where(there, index, 0))
    return elements if there.all() else elements.masked(there)


def count(call: Call, array: Value) -> Value:
    if not isinstance(array, Array):
        raise TypeError("the count of an array was asked for")
    present = array.element.valid
    if present is None or present.all():
        return numbers(array.rows.counts)
    return numbers(
        np.bincount(array.rows.parent[np.broadcast_to(present, array.rows.parent.shape)], minlength=len(array))
    )


def not_empty(call: Call, array: Value) -> Value:
    if not isinstance(array, Array):
        raise TypeError("an array was expected")
    if "counts" in array.rows.__dict__:
        return condition(array.rows.counts > 0)
    nonempty = np.zeros(array.rows.n, np.bool_)
    nonempty[array.rows.parent] = True
    return condition(nonempty)


def literal(call: Call, *items: Value) -> Value:
    """The items of each row as an array."""
    n, size = call.n, len(items)
    element = call.node.type.element if isinstance(call.node.type, ArrayType) else Scalar.NULL
    typed = [nulls(element, n) if _is_null(item) else spread(item, n) for item in items]
    rows = Rows(n, np.repeat(np.arange(n), size))
    if not typed:
        return Array(rows, nulls(element, 0))
    place = (np.arange(n)[:, None] + np.arange(size)[None, :] * n).ravel()
    return Array(rows, stacked(typed).take(place))


def get(call: Call, of: Value, key: Value) -> Value:
    """The value of the first entry with the key."""
    if not isinstance(of, Map) or not isinstance(key, Text):
        raise TypeError("a map and a key were expected")
    keys = key if len(key) == 1 else key.take(of.rows.parent)
    hits = np.flatnonzero(compared_text("eq", of.keys, keys))[::-1]
    index = np.full(of.rows.n, -1, np.intp)
    index[of.rows.parent[hits]] = hits
    return at_rows(of.items, index, index >= 0, call.node.type)


def keys(call: Call, of: Value) -> Value:
    if not isinstance(of, Map):
        raise TypeError("a map was expected")
    return Array(of.rows, of.keys, of.valid)


def values(call: Call, of: Value) -> Value:
    if not isinstance(of, Map):
        raise TypeError("a map was expected")
    return Array(of.rows, of.items, of.valid)


def _any(rows: Rows, mask: Bools) -> Bools:
    any_match = np.zeros(rows.n, np.bool_)
    any_match[rows.parent[mask]] = True
    return any_match


def _present(evaluation: Evaluation, node: Node, scope: RowSpace) -> tuple[Rows, Value]:
    """The body of an aggregate for each element, without nulls."""
    array, child = evaluation.elements(node.operands[0], node.payload[0], scope)
    body = evaluation.operand(node.operands[1], child)
    body = spread(body, child.n)
    if body.valid is None or body.valid.all():
        return array.rows, body
    present_rows = np.flatnonzero(body.valid)
    return array.rows.narrowed(present_rows), body.take(present_rows)


def _numbers(evaluation: Evaluation, node: Node, scope: RowSpace) -> tuple[Rows, Values]:
    rows, body = _present(evaluation, node, scope)
    if not isinstance(body, Column) or body.kind not in (Scalar.NUMBER, Scalar.NULL):
        raise TypeError(f"{node.op} takes numbers")
    return rows, body.values


def _sortable(key: Value) -> Values:
    if isinstance(key, Text):
        return ranks(key)[0]
    if isinstance(key, Column):
        if key.values.dtype == object:
            return np.unique(key.values, return_inverse=True)[1]
        return key.values.astype(np.int64) if key.values.dtype != np.float64 else key.values
    raise TypeError("arrays cannot be ordered by such keys")


def _is_null(value: Value) -> bool:
    return isinstance(value, Column) and value.kind is Scalar.NULL


BINDERS: dict[str, BinderKernel] = {
    "exists": exists,
    "forall": forall,
    "filter": filter_,
    "map": map_,
    "sum": total,
    "average": average,
    "min": extreme,
    "max": extreme,
    "top": ordered,
    "bottom": ordered,
    "group_by": group_by,
    "to_map": to_map,
}
KERNELS: dict[str, RowKernel] = {
    "head": head,
    "count": count,
    "not_empty": not_empty,
    "array": literal,
    "get": get,
    "keys": keys,
    "values": values,
}
