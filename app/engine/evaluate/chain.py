"""CHAIN: different events, each strictly later than the one before, each with its WHAT and WHEN.

A step's rows are feasible when some feasible row of the step before is earlier, and near enough when WHEN refers to it.
As the windows of a WHEN never turn back when the earlier time grows, the rows before that suit a given row stand side
by side: two binary searches find whether there are any. That is linear (but for a logarithm) in events, whatever the
window, and pairs nothing.

A WHEN that refers to an older label (or measures by the later event's own fields) takes that away. Then the profiles
that pass without such conditions are searched with the label *pinned*: each of its candidates is a constant. Where the
later steps measure by that label alone, the first event that suits each step is as good as any (`_reached`): linear
too. Else each candidate becomes a track of its own with the events in reach of it, in slices.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from app.engine.evaluate.calendars import BEGINNING, END, Micros
from app.engine.evaluate.chain_steps import Step, earlier, first_after, labels_of, laid_out, numbered, placed, steps_of
from app.engine.evaluate.columns import Bools, Column, Index, Value, condition, spread
from app.engine.evaluate.dates import Window, between_windows, distance_windows, inside, reference_windows
from app.engine.evaluate.exact import doubles
from app.engine.evaluate.memo import BinderKernel, Evaluation
from app.engine.evaluate.row_spaces import RowSpace, cuts
from app.pql.core import Node
from app.pql.schema import Scalar

PAIRS_AT_ONCE = 1 << 21
_ALWAYS = (np.full(1, BEGINNING, np.int64), np.full(1, END, np.int64))


@dataclass(frozen=True, slots=True)
class Tracks:
    """Places in which a chain is looked for: at first one for each outer row (`of`). `pinned` are times of labels."""

    of: Index
    pinned: dict[int, Micros]

    def __len__(self) -> int:
        return len(self.of)


def chain(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    child, steps = steps_of(evaluation, node, scope)
    if len(steps) == 1:
        return condition(np.bincount(steps[0].track, minlength=scope.n) >= node.payload[2][0])
    search = _Search(evaluation, node, scope, child)
    return condition(search.found(Tracks(np.arange(scope.n), {}), 0, steps, search.pins()))


@dataclass(frozen=True, slots=True)
class StepMatch:
    """Of one step, for one outer row: the events looked at, those that suit WHAT, and whether the chain got this far.

    `row` is the event in the chain's scope that matched, in the first chain there is (by its first step, then its
    second, …); None when there is no whole chain.
    """

    events: int
    suiting: int
    reached: bool
    row: int | None


def matches(evaluation: Evaluation, node: Node, scope: RowSpace) -> list[StepMatch]:
    """How far a chain got for the only row of `scope`, by the same search that says whether there is one."""
    child, steps = steps_of(evaluation, node, scope)
    search = _Search(evaluation, node, scope, child)
    pins, counts = search.pins(), node.payload[2]

    def found(some: Sequence[Step]) -> bool:
        enough = all(len(step.row) >= count for step, count in zip(some, counts, strict=False))
        if len(some) == 1 or not enough:
            return enough
        tracks = Tracks(np.zeros(1, np.intp), {})
        return bool(search.found(tracks, 0, some, frozenset(pin for pin in pins if pin < len(some) - 1))[0])

    reached = [found(steps[: at + 1]) for at in range(len(steps))]
    rows = _first_chain(steps, counts, found) if reached[-1] else [None] * len(steps)
    return [
        StepMatch(child.n, len(step.row), so_far, row) for step, so_far, row in zip(steps, reached, rows, strict=True)
    ]


def _first_chain(steps: Sequence[Step], counts: Sequence[int], found: Callable[[Sequence[Step]], bool]) -> list[int]:
    """The rows of the first chain: each step in turn is halved to the earliest event that still leaves a chain."""
    shortest = list(steps)
    for at, (step, count) in enumerate(zip(steps, counts, strict=True)):
        low, high = 1, len(step.row)
        while low < high:
            middle = (low + high) // 2
            shortest[at] = step.between(0, middle)
            low, high = (low, middle) if found(shortest) else (middle + 1, high)
        shortest[at] = step.between(0 if count > 1 else high - 1, high)
    return [int(step.row[-1]) for step in shortest]


class _Search:
    def __init__(self, evaluation: Evaluation, node: Node, scope: RowSpace, child: RowSpace) -> None:
        self._evaluation = evaluation
        self._scope = scope
        self._child = child
        self._level, count, self._counts = node.payload
        self._time = node.operands[1]
        self._whens = node.operands[2 + count :]
        self._labels = [labels_of(when) for when in self._whens]

        self._own_fields = [
            bool(labels)
            and (when.operands[0] != self._time or any(self._level in operand.free for operand in when.operands[1:]))
            for when, labels in zip(self._whens, self._labels, strict=True)
        ]

    def pins(self) -> frozenset[int]:
        """Labels to be pinned: those that a later step than the next one refers to, or one with fields of its own."""
        pinned: set[int] = set()
        for at, labels in enumerate(self._labels):
            pinned |= labels if self._own_fields[at] else labels - {at - 1}
        return frozenset(pinned)

    def found(self, tracks: Tracks, first: int, steps: Sequence[Step], pins: frozenset[int]) -> Bools:
        """Which tracks have a chain of the steps from `first` on; `steps[i]` is step `first + i`."""
        last = self._feasible(tracks, first, steps, pins)
        result = np.zeros(len(tracks), np.bool_)
        result[last.track] = True
        if not pins:
            return result
        pin = min(pins)
        candidates = self._feasible(tracks, first, steps[: pin - first + 1], pins)
        candidates = candidates.where(result[candidates.track])
        later = steps[pin - first + 1 :]
        result[:] = False
        if pins == {pin} and all(self._is_greedy(at, pin, tracks) for at in range(pin + 1, pin + 1 + len(later))):
            result[self._reached(tracks, pin, candidates, later)] = True
            return result
        starts, ends = self._in_reach(tracks, pin, candidates, later)
        sizes = np.sum([end - start for start, end in zip(starts, ends, strict=True)], axis=0)
        bounds = cuts(sizes, PAIRS_AT_ONCE)
        for begin, stop in pairwise(bounds):
            self._evaluation.check_cancelled()
            part = np.arange(begin, stop)
            part = part[~result[candidates.track[part]]]
            owner = candidates.track[part]
            pinned = {label: times[owner] for label, times in tracks.pinned.items()} | {pin: candidates.at[part]}
            inner = [laid_out(step, s[part], e[part]) for step, s, e in zip(later, starts, ends, strict=True)]
            hit = self.found(Tracks(tracks.of[owner], pinned), pin + 1, inner, pins - {pin})
            result[owner[hit]] = True
        return result

    def _is_greedy(self, at: int, pin: int, tracks: Tracks) -> bool:
        """Whether nothing is lost by an earlier event in the step before: its own WHEN only asks for a least distance,
        or does not refer to it."""
        when, others = self._whens[at], self._labels[at] - {pin} - tracks.pinned.keys()
        at_least = when.op == "occurs_after" or (
            when.op == "occurs" and when.payload[0] in (">", ">=") and when.payload[2] == "after"
        )
        return not self._own_fields[at] and (not others or (others == {at - 1} and at_least))

    def _reached(self, tracks: Tracks, pin: int, candidates: Step, later: Sequence[Step]) -> Index:
        """The tracks in which some candidate of the label leads to the end: each step takes its first event."""
        before = candidates.at
        for at, step in enumerate(later, pin + 1):
            if not len(step.at):
                return step.track
            windows, valid = self._pinned_windows(tracks, at, {pin: candidates.at, at - 1: before}, candidates.track)
            bounds = _, ends = step.bounds_of(candidates, len(tracks))
            strictly = placed(step.track, step.at, candidates.track, before, *bounds, right=True)
            later_ones = self._counts[at] - 1
            first = np.full(len(before), END, np.int64)
            for lower, upper in windows:
                place = strictly
                if not _always(lower, BEGINNING):
                    lower = _long(lower, candidates)
                    place = np.maximum(
                        place, placed(step.track, step.at, candidates.track, lower, *bounds, right=False)
                    )
                place = place + later_ones
                time = step.at[np.minimum(place, len(step.at) - 1)]
                first = np.where((place < ends) & (time < upper), np.minimum(first, time), first)
            alive = first < END if valid is None else (first < END) & valid
            candidates, before = candidates.where(alive), first[alive]
        return candidates.track

    def _in_reach(
        self, tracks: Tracks, pin: int, candidates: Step, later: Sequence[Step]
    ) -> tuple[list[Index], list[Index]]:
        """Stretches of the later steps for each candidate of the label: no event out of them can be in its chain."""
        starts = [first_after(step, candidates, len(tracks)) for step in later]
        ends = [step.bounds_of(candidates, len(tracks))[1] for step in later]
        limit = np.full(len(candidates.at), END, np.int64)
        for place, step in reversed(list(enumerate(later))):
            at, low, high = pin + 1 + place, starts[place], ends[place]
            if self._labels[at] <= {pin} | tracks.pinned.keys() and not self._own_fields[at]:
                windows, _ = self._pinned_windows(tracks, at, {pin: candidates.at}, candidates.track)
                limit = np.minimum(limit, windows[-1][1])
                lower = _long(windows[0][0], candidates)
                starts[place] = placed(step.track, step.at, candidates.track, lower, low, high, right=False)
            until = placed(step.track, step.at, candidates.track, limit, low, high, right=False)
            ends[place] = np.maximum(starts[place], until)
        return starts, ends

    def _pinned_windows(
        self, tracks: Tracks, at: int, times: dict[int, Micros], track: Index
    ) -> tuple[list[Window], Bools | None]:
        """The windows of a WHEN, given the times of labels in addition to those pinned before."""
        if not self._labels[at]:
            return [_ALWAYS], None  # it was tested with WHAT
        pinned = {label: times_of[track] for label, times_of in tracks.pinned.items()}
        return self._windows(self._whens[at], pinned | times, tracks.of[track], None)

    def _feasible(self, tracks: Tracks, first: int, steps: Sequence[Step], relaxed: frozenset[int]) -> Step:
        """The rows of the last step that end a chain; a WHEN that needs a label of `relaxed` counts as true."""
        before: Step | None = None
        for at, step in enumerate(steps, first):
            labels = self._labels[at]
            if labels & relaxed:
                labels = frozenset()
            elif labels and labels <= tracks.pinned.keys():
                step = step.where(self._holds_pinned(tracks, at, step))
                labels = frozenset()
            if before is not None:
                if labels:
                    step = step.where(self._linked(tracks, at, before, step))
                else:
                    step = step.where(earlier(before, step, len(tracks)))
                    step = step.where(numbered(step, len(tracks)) >= self._counts[at])
            elif self._counts[at] > 1:
                step = step.where(numbered(step, len(tracks)) >= self._counts[at])
            before = step
        if before is None:
            raise ValueError("a chain has at least one step")
        return before

    def _holds_pinned(self, tracks: Tracks, at: int, step: Step) -> Bools:
        """A WHEN all of whose labels are pinned is a test of each row."""
        times = {label: pinned[step.track] for label, pinned in tracks.pinned.items()}
        windows, valid = self._windows(self._whens[at], times, tracks.of[step.track], step.row)
        t = self._own(self._whens[at].operands[0], tracks.of[step.track], step.row)
        if not isinstance(t, Column):
            raise TypeError("a time was expected")
        held = np.broadcast_to(inside(t, windows), step.track.shape)
        for validity in (t.valid, valid):
            held = held if validity is None else held & validity
        return held

    def _linked(self, tracks: Tracks, at: int, before: Step, step: Step) -> Bools:
        """Which rows have a feasible row of the step before in the window that their WHEN gives."""
        times = {label: pinned[before.track] for label, pinned in tracks.pinned.items()} | {at - 1: before.at}
        windows, valid = self._windows(self._whens[at], times, tracks.of[before.track], None)
        if valid is not None and not valid.all():
            keep = np.broadcast_to(valid, before.track.shape)  # the same for all of a track
            windows = [(_kept(lower, keep), _kept(upper, keep)) for lower, upper in windows]
            before = before.where(keep)
        in_window = np.zeros(len(step.track), np.bool_)
        if not len(before.at):
            return in_window
        bounds = starts, _ = before.bounds_of(step, len(tracks))
        strictly = placed(before.track, before.at, step.track, step.at, *bounds, right=False)
        for lower, upper in windows:
            lower, upper, early = _long(lower, before), _long(upper, before), strictly
            if not bool(np.all(lower <= before.at + 1)):  # strictly later is enough
                early = np.minimum(early, placed(before.track, lower, step.track, step.at, *bounds, right=True))
            if (needed := self._counts[at]) > 1:
                late = placed(before.track, upper, step.track, step.at, *bounds, right=True)
                in_window |= (early > late) & self._enough_between(before, late, lower, step, needed, len(tracks))
            else:
                # Of the rows before that are early enough the window of the last one ends last.
                in_window |= (early > starts) & (upper[np.maximum(early - 1, 0)] > step.at)
        return in_window

    def _enough_between(self, before: Step, first: Index, lower: Micros, step: Step, needed: int, tracks: int) -> Bools:
        """Whether enough events of the step lie between the earliest row before that suits a row and that row."""
        first = np.minimum(first, len(before.at) - 1)
        begin = np.maximum(lower[first], before.at[first] + 1)
        since = placed(step.track, step.at, step.track, begin, *step.bounds_of(step, tracks), right=False)
        return np.asarray(np.arange(len(step.at)) - since + 1 >= needed)

    def _windows(
        self, when: Node, times: dict[int, Micros], of: Index, rows: Index | None
    ) -> tuple[list[Window], Bools | None]:
        operands = [self._operand(operand, times, of, rows) for operand in when.operands[1:]]
        valid: Bools | None = None
        for operand in operands:
            if operand.valid is not None:
                valid = operand.valid if valid is None else valid & operand.valid
        t_is_date = self._time.type is Scalar.DATE
        match when.op, operands:
            case "occurs", [Column() as n, r]:
                return distance_windows(doubles(n.values), r, *when.payload), valid
            case "occurs_between", [a, b]:
                return between_windows(a, b), valid
            case (("occurs_before" | "occurs_after" | "occurs_on"), [r]):
                return reference_windows(when.op, r, t_is_date), valid
        raise TypeError(f"WHEN cannot be {when.op}")

    def _operand(self, node: Node, times: dict[int, Micros], of: Index, rows: Index | None) -> Value:
        if node.op == "label":
            return Column(Scalar.TIMESTAMP, times[node.payload[0]])
        return self._own(node, of, rows)

    def _own(self, node: Node, of: Index, rows: Index | None) -> Value:
        """An operand without labels: by each entry's event where it reads that, else by its track's outer row."""
        if self._level in node.free and rows is not None:
            value = self._evaluation.operand(node, self._child)
            return spread(value, self._child.n).take(rows)
        value = self._evaluation.operand(node, self._scope)
        return value if len(value) == 1 and self._scope.n != 1 else value.take(of)


def _kept(bound: Micros, keep: Bools) -> Micros:
    return bound if len(bound) == 1 and len(keep) != 1 else bound[keep]


def _long(bound: Micros, before: Step) -> Micros:
    return np.broadcast_to(bound, before.at.shape)


def _always(bound: Micros, limit: int) -> bool:
    return len(bound) == 1 and int(bound[0]) == limit


BINDERS: dict[str, BinderKernel] = {"chain": chain}
