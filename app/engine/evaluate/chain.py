"""CHAIN: distinct events, each strictly later than the previous one, each satisfying its WHAT and WHEN.

A WHEN that refers to earlier labels limits when its events happen, by bounds that ascend with the times of these
labels. Such chains are solved in linear time (`chain_solver`), whichever labels they refer to. A WHEN with several
windows is solved once for each of them.

A WHEN that measures by the later event's own fields breaks this property. Then the profiles that pass without such
conditions are searched with the label *pinned*: each of its candidates becomes a constant, and its own track with the
events it can reach, processed in slices.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from app.engine.evaluate.calendars import BEGINNING, END, MONTHS, Micros
from app.engine.evaluate.chain_solver import Link, Solved, ascending, solved
from app.engine.evaluate.chain_steps import Step, either, first_after, grouped, labels_of, laid_out, placed, steps_of
from app.engine.evaluate.columns import Bools, Column, Index, Value, condition, spread
from app.engine.evaluate.dates import Window, between_windows, distance_windows, inside, reference_windows
from app.engine.evaluate.exact import doubles
from app.engine.evaluate.memo import BinderKernel, Evaluation
from app.engine.evaluate.row_spaces import RowSpace, cuts
from app.engine.evaluate.zones import ZONE
from app.pql.core import Node
from app.pql.schema import Scalar

PAIRS_AT_ONCE = 1 << 21
_ALWAYS = (np.full(1, BEGINNING, np.int64), np.full(1, END, np.int64))


@dataclass(frozen=True, slots=True)
class Tracks:
    """Places to search for a chain: initially one per outer row (`of`). `pinned` are times of labels."""

    of: Index
    pinned: dict[int, Micros]

    def __len__(self) -> int:
        return len(self.of)


def chain(evaluation: Evaluation, node: Node, scope: RowSpace) -> Value:
    child, steps = steps_of(evaluation, node, scope)
    if len(steps) == 1:
        return condition(np.bincount(steps[0].track, minlength=scope.n) >= node.payload[2][0])
    return condition(_Search(evaluation, node, scope, child).found(steps))


@dataclass(frozen=True, slots=True)
class StepMatch:
    """For one step and one outer row: the number of events examined, the number that satisfy WHAT, and whether the
    chain got this far.

    `row` is the matching event's row in the chain's scope, in the first chain (by its first step, then its second, …);
    None if there is no complete chain.
    """

    events: int
    suiting: int
    reached: bool
    row: int | None


def matches(evaluation: Evaluation, node: Node, scope: RowSpace) -> list[StepMatch]:
    """How far a chain got for the only row of `scope`, using the same search as the condition itself."""
    child, steps = steps_of(evaluation, node, scope)
    search = _Search(evaluation, node, scope, child)
    counts = node.payload[2]

    def found(some: Sequence[Step]) -> bool:
        enough = all(len(step) >= count for step, count in zip(some, counts, strict=False))
        if len(some) == 1 or not enough:
            return enough
        return bool(search.found(some)[0])

    reached = [found(steps[: at + 1]) for at in range(len(steps))]
    rows = _first_chain(steps, counts, found) if reached[-1] else [None] * len(steps)
    return [StepMatch(child.n, len(step), so_far, row) for step, so_far, row in zip(steps, reached, rows, strict=True)]


def _first_chain(steps: Sequence[Step], counts: Sequence[int], found: Callable[[Sequence[Step]], bool]) -> list[int]:
    """The rows of the first chain: for each step in turn, a binary search for the earliest event that still allows a
    chain."""
    shortest = list(steps)
    for at, (step, count) in enumerate(zip(steps, counts, strict=True)):
        low, high = 1, len(step)
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
        self._all = np.ones(scope.n, np.bool_)
        self._swapped = np.zeros(scope.n, np.bool_)
        self._generous = True

    def found(self, steps: Sequence[Step]) -> Bools:
        """Which outer rows have a chain of the first steps, all of them or less.

        Where the calendar swaps windows, a chain found with generous bounds is sure if it is also found with narrow
        ones; otherwise all its labels are pinned.
        """
        pins = self._pins(len(steps))
        result = self._found_among(steps, self._all, pins)
        doubtful = result & self._swapped
        if doubtful.any():
            self._generous = False
            doubtful &= ~self._found_among(steps, doubtful, pins)
            self._generous = True
        if doubtful.any():
            labels = frozenset[int]().union(*self._labels[: len(steps)])
            result &= ~doubtful | self._found_among(steps, doubtful, labels)
        return result

    def _found_among(self, steps: Sequence[Step], rows: Bools, pins: frozenset[int]) -> Bools:
        few = steps if rows is self._all else [step.where(rows[step.track]) for step in steps]
        return self._found(Tracks(np.arange(self._scope.n), {}), 0, few, pins)

    def _pins(self, steps: int) -> frozenset[int]:
        """The labels to pin: none, unless a WHEN uses its event's own fields; then those of such a step, and those
        referenced by a step other than the next one."""
        own = [labels for labels, fields in zip(self._labels[:steps], self._own_fields, strict=False) if fields]
        if not own:
            return frozenset()
        return frozenset().union(*own, *(labels - {at - 1} for at, labels in enumerate(self._labels[:steps])))

    def _found(self, tracks: Tracks, first: int, steps: Sequence[Step], pins: frozenset[int]) -> Bools:
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
            hit = self._found(Tracks(tracks.of[owner], pinned), pin + 1, inner, pins - {pin})
            result[owner[hit]] = True
        return result

    def _in_reach(
        self, tracks: Tracks, pin: int, candidates: Step, later: Sequence[Step]
    ) -> tuple[list[Index], list[Index]]:
        """For each candidate of the label, the range of each later step outside which no event can be in its chain."""
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
        """The windows of a WHEN, given the times of labels in addition to the pinned ones."""
        if not self._labels[at]:
            return [_ALWAYS], None  # already tested together with WHAT
        pinned = {label: times_of[track] for label, times_of in tracks.pinned.items()}
        return self._windows(self._whens[at], pinned | times, tracks.of[track], None)

    def _feasible(self, tracks: Tracks, first: int, steps: Sequence[Step], relaxed: frozenset[int]) -> Step:
        """The rows of the last step that end a chain; a WHEN that refers to a `relaxed` label counts as true."""
        open_labels = [
            frozenset() if labels & relaxed else labels - tracks.pinned.keys()
            for labels in self._labels[first : first + len(steps)]
        ]
        ways: list[list[Solved]] = [[]]
        base = first
        for at, step in enumerate(steps, first):
            self._evaluation.check_cancelled()
            labels = self._labels[at]
            if labels and labels <= tracks.pinned.keys():
                step = step.where(self._holds_pinned(tracks, at, step))
            begins, ends = grouped(step, self._counts[at], len(tracks))
            labels = open_labels[at - first]
            crossed = any(label < at for later in open_labels[at - first + 1 :] for label in later)
            ways = [
                [*way, solved(way, begins, ends, links, len(tracks))]
                for way in ways
                for links in self._links(tracks, at, labels, way, base, crossed)
            ]
            if not ways:
                return ends.between(0, 0)
            if not crossed:  # what comes before this step no longer matters
                ways, base = [[Solved(either([way[-1].ends for way in ways]), {}, ())]], at
        return ways[0][-1].ends

    def _links(
        self, tracks: Tracks, at: int, labels: frozenset[int], before: Sequence[Solved], base: int, crossed: bool
    ) -> Iterator[dict[int, Link]]:
        """The links of a step to the earlier ones that its WHEN refers to; one way for each of its windows."""
        choices = {
            label - base: self._links_to(tracks, at, label, labels, before[label - base].ends, crossed)
            for label in labels
        }
        for links in product(*choices.values()):
            yield dict(zip(choices, links, strict=True))

    def _links_to(
        self, tracks: Tracks, at: int, label: int, labels: frozenset[int], earlier: Step, crossed: bool
    ) -> list[Link]:
        when = self._whens[at]
        times = {pin: times[earlier.track] for pin, times in tracks.pinned.items()}
        times |= dict.fromkeys(labels, earlier.at)  # `between` two labels: one link has the lower bound, one the upper
        windows, valid = self._windows(when, times, tracks.of[earlier.track], None)
        valid = None if valid is None else np.broadcast_to(valid, earlier.at.shape)
        others = [operand.op == "label" and operand.payload[0] in labels - {label} for operand in when.operands[1:]]
        two = when.op == "occurs_between"
        links = []
        for lower, upper in windows:
            if len(windows) > 1 and bool(np.all(upper <= earlier.at + 1)):
                continue  # it is over before a later event can happen
            later_suffices = (two and others[0]) or lower is earlier.at or bool(np.all(lower <= earlier.at + 1))
            endless = (two and others[1]) or (len(upper) == 1 and int(upper[0]) == END)
            links.append(
                Link(
                    None if later_suffices else np.broadcast_to(lower, earlier.at.shape),
                    None if endless else np.broadcast_to(upper, earlier.at.shape),
                    valid,
                )
            )
        if not _keeps_order(when):
            links = [self._ascending(tracks, earlier, link, crossed or label < at - 1) for link in links]
        return links

    def _ascending(self, tracks: Tracks, earlier: Step, link: Link, crossed: bool) -> Link:
        """The link with ascending bounds, generous ones if no row of the earlier step is asked for by another step:
        then this changes nothing, since the row with the bound is as good. Other rows with changed bounds are noted."""
        alone = not crossed and (link.lower is None or link.upper is None)
        link, swapped = ascending(link, earlier, len(tracks), generous=alone or self._generous)
        if not alone:
            self._swapped[tracks.of[swapped]] = True
        return link

    def _holds_pinned(self, tracks: Tracks, at: int, step: Step) -> Bools:
        """Evaluates a WHEN with only pinned labels as a test of each row."""
        times = {label: pinned[step.track] for label, pinned in tracks.pinned.items()}
        windows, valid = self._windows(self._whens[at], times, tracks.of[step.track], step.row)
        t = self._own(self._whens[at].operands[0], tracks.of[step.track], step.row)
        if not isinstance(t, Column):
            raise TypeError("a time was expected")
        held = np.broadcast_to(inside(t, windows), step.track.shape)
        for validity in (t.valid, valid):
            held = held if validity is None else held & validity
        return held

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
        """An operand without labels: per event if it reads the event, otherwise per outer row of the track."""
        if self._level in node.free and rows is not None:
            value = self._evaluation.operand(node, self._child)
            return spread(value, self._child.n).take(rows)
        value = self._evaluation.operand(node, self._scope)
        return value if len(value) == 1 and self._scope.n != 1 else value.take(of)


def _long(bound: Micros, before: Step) -> Micros:
    return np.broadcast_to(bound, before.at.shape)


def _keeps_order(when: Node) -> bool:
    """Whether later labels always give later windows. Not with a month: 31 January at 10:00 and 30 January at 23:00
    both lead to 28 February; nor where clocks change."""
    return when.op != "occurs" or (when.payload[1] not in MONTHS and ZONE.get() is None)


BINDERS: dict[str, BinderKernel] = {"chain": chain}
