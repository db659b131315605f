"""The steps of a chain: the events that satisfy each step by itself, and their positions relative to other steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from app.engine.evaluate.calendars import Micros
from app.engine.evaluate.columns import Bools, Column, Index
from app.engine.evaluate.dates import micros
from app.engine.evaluate.memo import Evaluation
from app.engine.evaluate.row_spaces import RowSpace
from app.pql.core import Node, walk

_LARGEST = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class Events:
    """All events of a chain's scope by outer row and time.

    `row` is the event's row in the scope, None if the scope has this order. `order` ascends, and is equal for events of
    one outer row at the same time; None if there are none.
    """

    track: Index
    at: Micros
    row: Index | None
    order: Index | None


@dataclass(frozen=True)
class Step:
    """The events that satisfy a step, by their ascending positions in `events`; sorted by (track, time).

    Tracks are outer rows, or those that were `laid` out for the events.
    """

    events: Events
    index: Index
    laid: Index | None = None

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def track(self) -> Index:
        return self.events.track[self.index] if self.laid is None else self.laid

    @cached_property
    def at(self) -> Micros:
        return self.events.at[self.index]

    @cached_property
    def row(self) -> Index:
        return self.index if self.events.row is None else self.events.row[self.index]

    @cached_property
    def order(self) -> Index:
        return self.index if self.events.order is None else self.events.order[self.index]

    def where(self, mask: Bools) -> "Step":
        return self if mask.all() else self.take(np.flatnonzero(mask))

    def between(self, start: int, stop: int) -> "Step":
        return self.take(np.arange(start, stop))

    def take(self, rows: Index) -> "Step":
        return Step(self.events, self.index[rows], None if self.laid is None else self.laid[rows])

    def bounds(self, tracks: int) -> tuple[Index, Index]:
        """Start and end (exclusive) of each track's rows."""
        ends = np.cumsum(np.bincount(self.track, minlength=tracks))
        return np.concatenate([np.zeros(1, np.intp), ends[:-1]]), ends

    def bounds_of(self, other: "Step", tracks: int) -> tuple[Index, Index]:
        """For each row of another step, the bounds of its track."""
        starts, ends = self.bounds(tracks)
        return starts[other.track], ends[other.track]


def steps_of(evaluation: Evaluation, node: Node, scope: RowSpace) -> tuple[RowSpace, list[Step]]:
    """The scope of the events, and the events that satisfy each step by itself."""
    level, count, _ = node.payload
    array, child = evaluation.elements(node.operands[0], level, scope)
    time = None if count == 1 else node.operands[1]
    steps = []
    for what, when in zip(node.operands[2 : 2 + count], node.operands[2 + count :], strict=True):
        # Many chains share a WHAT.
        step = child.derived(what, ("step", time), partial(_step, evaluation, what, time, child, array.rows.parent))
        if when.op != "const" and not labels_of(when):
            step = step.where(evaluation.mask(when, child)[step.row])
        steps.append(step)
    return child, steps


def _step(evaluation: Evaluation, what: Node, time: Node | None, child: RowSpace, parent: Index) -> Step:
    mask = evaluation.mask(what, child)
    if time is None:
        return Step(Events(parent, np.broadcast_to(np.int64(0), child.n), None, None), np.flatnonzero(mask))
    value = evaluation.operand(time, child)
    if not isinstance(value, Column):
        raise TypeError("the time of a chain was expected")
    at = np.broadcast_to(micros(value), child.n)
    events = child.derived(time, "events", lambda: _events(parent, at))
    mask = mask if value.valid is None else mask & value.valid
    return Step(events, np.flatnonzero(mask if events.row is None else mask[events.row]))


def _events(track: Index, at: Micros) -> Events:
    row = _in_time_order(track, at)
    if row is not None:
        track, at = track[row], at[row]
    changes = (track[1:] != track[:-1]) | (at[1:] != at[:-1])
    return Events(track, at, row, None if changes.all() else np.append(0, np.cumsum(changes))[: len(at)])


def labels_of(when: Node) -> frozenset[int]:
    """The earlier steps that a WHEN refers to."""
    return frozenset(node.payload[0] for node in walk(when) if node.op == "label")


def grouped(step: Step, count: int, tracks: int) -> tuple[Step, Step]:
    """The rows that end a group of `count` events within a track, and the rows that begin these groups."""
    if count == 1:
        return step, step
    position = np.arange(len(step)) - step.bounds(tracks)[0][step.track]
    ends = np.flatnonzero(position >= count - 1)
    return step.take(ends - (count - 1)), step.take(ends)


def either(steps: Sequence[Step]) -> Step:
    """The rows that are in one of these parts of a step."""
    first = steps[0]
    if len(steps) == 1:
        return first
    index = np.concatenate([step.index for step in steps])
    track = np.concatenate([step.track for step in steps])
    rows = np.unique(track * len(first.events.track) + index, return_index=True)[1]
    return Step(first.events, index[rows], None if first.laid is None else track[rows])


def placed(
    tracks: Index, values: Micros, track: Index, targets: Micros, low: Index, high: Index, *, right: bool
) -> Index:
    """Like `searched`, for ranges that each lie within one track, with values ascending by track and within tracks.

    Track and time are combined into one number if it fits into 64 bits; then one ascending search suffices.
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
    """The insertion position of each target in its own range `low <= i < high`; values ascend within a range.

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
    """The rows sorted by (parent, time); None if they already are."""
    if bool(np.all((at[1:] >= at[:-1]) | (parent[1:] != parent[:-1]))):
        return None
    return np.lexsort((at, parent))


def preceding(before: Step, step: Step, tracks: int) -> Index:
    """For each row of a step, the number of rows of another one in earlier tracks, or strictly earlier in its own."""
    if step.laid is None:
        return np.searchsorted(before.order, step.order)
    return placed(before.track, before.at, step.track, step.at, *before.bounds_of(step, tracks), right=False)


def first_after(step: Step, candidates: Step, tracks: int) -> Index:
    bounds = step.bounds_of(candidates, tracks)
    return placed(step.track, step.at, candidates.track, candidates.at, *bounds, right=True)


def laid_out(step: Step, starts: Index, ends: Index) -> Step:
    """Makes each range of a step a track of its own."""
    counts = ends - starts
    total = np.cumsum(counts)
    index = np.arange(int(counts.sum())) + np.repeat(starts - (total - counts), counts)
    return Step(step.events, step.index[index], np.repeat(np.arange(len(counts)), counts))
