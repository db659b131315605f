"""`join`: which outer rows have an equal element, within limits; by sorting, without forming pairs."""

from collections.abc import Sequence

import numpy as np

from app.engine.evaluate.chain_steps import searched
from app.engine.evaluate.columns import Bools, Column, Index, Text, Value, Values, condition, ranks, spread, unified
from app.engine.evaluate.dates import micros
from app.engine.evaluate.exact import alike
from app.engine.evaluate.memo import BinderKernel, Evaluation
from app.engine.evaluate.row_spaces import RowSpace
from app.engine.evaluate.sets import codes_of
from app.pql.core import Node
from app.pql.schema import Scalar


def join(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    level, equations, ops = node.payload
    array, *operands = node.operands
    bound, outside = operands[: equations + 1], operands[equations + 1 :]
    home = scope.at(max(array.level, *(max(operand.free - {level}, default=-1) for operand in bound)))
    elements, child = evaluation.elements(array, level, home)
    mine = [spread(evaluation.operand(operand, child), child.n) for operand in bound]
    theirs = [spread(evaluation.operand(operand, scope), scope.n) for operand in outside]
    outer = np.arange(scope.n) if scope is home else scope.index_into(home)
    groups, sought = _groups(elements.rows.parent, outer, mine[:equations], theirs[:equations])
    present = _all_valid(mine)
    if not ops:
        return condition(np.isin(sought, groups[present]) & _all_valid(theirs))
    limited, *limits = _comparable([mine[-1], *theirs[equations:]])
    order = np.flatnonzero(present)
    order = order[np.lexsort((limited[order], groups[order]))]
    groups, limited = groups[order], limited[order]
    start, end = np.searchsorted(groups, sought, "left"), np.searchsorted(groups, sought, "right")
    low, high = start, end
    for op, limit in zip(ops, limits, strict=True):
        place = searched(limited, limit, start, end, right=op in ("gt", "le"))
        if op in ("gt", "ge"):
            low = np.maximum(low, place)
        else:
            high = np.minimum(high, place)
    return condition((low < high) & _all_valid(theirs))


def _groups(parent: Index, outer: Index, mine: Sequence[Value], theirs: Sequence[Value]) -> tuple[Values, Values]:
    """A number for each row of both sides: equal if they are of one array and all their values are equal."""
    numbers = np.concatenate([parent, outer])
    for sides in zip(mine, theirs, strict=True):
        codes = np.concatenate(codes_of(list(sides))) + 1
        numbers = np.unique(numbers * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1]
    return numbers[: len(parent)], numbers[len(parent) :]


def _comparable(values: Sequence[Value]) -> list[Values]:
    """Numbers in the order of the values; those of nulls are undefined."""
    texts = [value for value in values if isinstance(value, Text)]
    if texts:
        return [ranks(text)[0] for text in unified(texts)]
    columns = [value for value in values if isinstance(value, Column)]
    if Scalar.TIMESTAMP in {column.kind for column in columns}:
        return [micros(column) for column in columns]
    numbers = alike(*(column.values for column in columns))
    if numbers[0].dtype != object:
        return list(numbers)
    places = np.unique(np.concatenate(numbers), return_inverse=True)[1]
    return np.split(places, np.cumsum([len(column) for column in columns])[:-1])


def _all_valid(values: Sequence[Value]) -> Bools:
    valid = np.ones(len(values[0]), np.bool_)
    for value in values:
        valid = valid if value.valid is None else valid & value.valid
    return valid


BINDERS: dict[str, BinderKernel] = {"join": join}
