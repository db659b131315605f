"""The steps of a chain: the events that suit each by itself, and where the events of one step lie among another's."""

from dataclasses import dataclass

import numpy as np

from app.engine.evaluate.calendars import END, Micros
from app.engine.evaluate.columns import Bools, Column, Index
from app.engine.evaluate.dates import micros
from app.engine.evaluate.memo import Evaluation
from app.engine.evaluate.row_spaces import RowSpace
from app.pql.core import Node, walk

_LARGEST = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Step:
    """The events that suit a step, sorted by (track, time). `row` is the event's row in the chain's scope."""

    track: Index
    at: Micros
    row: Index

    def where(self, mask: Bools) -> "Step":
        return Step(self.track[mask], self.at[mask], self.row[mask])

    def between(self, start: int, stop: int) -> "Step":
        return Step(self.track[start:stop], self.at[start:stop], self.row[start:stop])

    def bounds(self, tracks: int) -> tuple[Index, Index]:
        """First row of each track, and first row after it."""
        ends = np.cumsum(np.bincount(self.track, minlength=tracks))
        return np.concatenate([np.zeros(1, np.intp), ends[:-1]]), ends

    def bounds_of(self, other: "Step", tracks: int) -> tuple[Index, Index]:
        """For each row of another step the bounds of its track."""
        starts, ends = self.bounds(tracks)
        return starts[other.track], ends[other.track]


def steps_of(evaluation: Evaluation, node: Node, scope: RowSpace) -> tuple[RowSpace, list[Step]]:
    """The scope of the events, and those that suit each step by themselves."""
    level, count, _ = node.payload
    array, child = evaluation.elements(node.operands[0], level, scope)
    whats = node.operands[2 : 2 + count]
    whens = node.operands[2 + count :]
    masks = [evaluation.mask(what, child) for what in whats]
    for at, when in enumerate(whens):
        if not labels_of(when):
            masks[at] = masks[at] & evaluation.mask(when, child)
    parent = array.rows.parent
    if count == 1:
        rows_of_step = np.flatnonzero(masks[0])
        return child, [Step(parent[rows_of_step], np.zeros(len(rows_of_step), np.int64), rows_of_step)]
    time = evaluation.operand(node.operands[1], child)
    if not isinstance(time, Column):
        raise TypeError("the time of a chain was expected")
    times = np.broadcast_to(micros(time), child.n)
    rows = child.derived(("time order", node.operands[1]), lambda: _in_time_order(parent, times))
    steps = []
    for mask in masks:
        possible = mask if time.valid is None else mask & time.valid
        rows_of_step = np.flatnonzero(possible) if rows is None else rows[possible[rows]]
        steps.append(Step(parent[rows_of_step], times[rows_of_step], rows_of_step))
    return child, steps


def labels_of(when: Node) -> frozenset[int]:
    """The earlier steps that a WHEN refers to."""
    return frozenset(node.payload[0] for node in walk(when) if node.op == "label")


def numbered(step: Step, tracks: int) -> Index:
    """Which event of its track each row is, from 1."""
    return np.arange(len(step.track)) - step.bounds(tracks)[0][step.track] + 1


def placed(
    tracks: Index, values: Micros, track: Index, targets: Micros, low: Index, high: Index, *, right: bool
) -> Index:
    """As `searched`, for stretches that lie within one track each, where the values rise with the tracks and in them.

    Tracks and times make one number as long as that fits, and numbers that rise are looked up in one go.
    """
    if not len(values) or not len(targets):
        return low.copy()
    least = int(values.min()) - 1
    span = int(values.max()) - least + 2
    if (int(max(tracks[-1], track.max())) + 1) * span > _LARGEST:
        return searched(values, targets, low, high, right=right)
    keys = tracks * span + (values - least)
    sought = track * span + (np.clip(targets, least, least + span - 1) - least)
    return np.clip(np.searchsorted(keys, sought, "right" if right else "left"), low, high)


def searched(values: Micros, targets: Micros, low: Index, high: Index, *, right: bool) -> Index:
    """Where each target would stand in its own stretch `low <= i < high` of values that rise within a stretch.

    >>> searched(np.array([1, 5, 9, 2, 2]), np.array([5, 2]), np.array([0, 3]), np.array([3, 5]), right=True)
    array([2, 5])
    """
    low, high = low.copy(), high.copy()
    active = np.flatnonzero(low < high)
    while len(active):
        middle = (low[active] + high[active]) // 2
        below = values[middle] <= targets[active] if right else values[middle] < targets[active]
        low[active[below]] = middle[below] + 1
        high[active[~below]] = middle[~below]
        active = active[low[active] < high[active]]
    return low


def _in_time_order(parent: Index, at: Micros) -> Index | None:
    """The rows sorted by (parent, time); None when they are."""
    if bool(np.all((at[1:] >= at[:-1]) | (parent[1:] != parent[:-1]))):
        return None
    return np.lexsort((at, parent))


def earlier(before: Step, step: Step, tracks: int) -> Bools:
    """Which rows come strictly after the first one of the step before."""
    starts, ends = before.bounds(tracks)
    first = np.full(tracks, END, np.int64)
    filled = starts < ends
    first[filled] = before.at[starts[filled]]
    return np.asarray(first[step.track] < step.at)


def first_after(step: Step, candidates: Step, tracks: int) -> Index:
    bounds = step.bounds_of(candidates, tracks)
    return placed(step.track, step.at, candidates.track, candidates.at, *bounds, right=True)


def laid_out(step: Step, starts: Index, ends: Index) -> Step:
    """A track of its own for each stretch of a step."""
    counts = ends - starts
    total = np.cumsum(counts)
    index = np.arange(int(counts.sum())) + np.repeat(starts - (total - counts), counts)
    return Step(np.repeat(np.arange(len(counts)), counts), step.at[index], step.row[index])
