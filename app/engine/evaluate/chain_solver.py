"""The events that can end a chain whose steps refer to any of the earlier ones; knows no expressions.

A `Link` says from when until when a step may happen, as seen from each row of an earlier step. Its bounds ascend, so of
two choices of rows that satisfy all links, the later row of each step satisfies them too. Therefore each row has one
*latest* choice of earlier rows, if it has any, and one pass over the steps finds it: a step is solved with the latest
choices of the steps before it. The cost is linear in the events (except for a logarithm), whatever the windows and
references, and no pairs are formed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.engine.evaluate.calendars import Micros
from app.engine.evaluate.chain_steps import Step, placed, preceding
from app.engine.evaluate.columns import Bools, Index


@dataclass(frozen=True, slots=True)
class Link:
    """For each row of an earlier step, a step's events are in `lower <= t < upper` (None: no bound), where `valid`."""

    lower: Micros | None
    upper: Micros | None
    valid: Bools | None = None


@dataclass(frozen=True, slots=True)
class Solved:
    """The rows of a step that can end a chain, its links by earlier step, and for each row the latest rows of these
    steps, as positions among their own solved rows."""

    ends: Step
    links: Mapping[int, Link]
    latest: Sequence[Index]


def solved(before: Sequence[Solved], begins: Step, ends: Step, links: Mapping[int, Link], tracks: int) -> Solved:
    """Solves the next step: a row `ends` what `begins` in the same row (they differ if a step is several events)."""
    if not before:
        return Solved(ends, links, ())
    if not all(len(step.ends) for step in before) or not len(ends):
        return Solved(ends.take(np.zeros(0, np.intp)), links, [np.zeros(0, np.intp)] * len(before))
    limits: list[Index | None] = [None] * len(before)
    limits[-1] = preceding(before[-1].ends, begins, tracks)
    for at, link in links.items():
        earlier = before[at].ends
        if link.lower is not None:
            bounds = earlier.bounds_of(begins, tracks)
            limit = placed(earlier.track, link.lower, begins.track, begins.at, *bounds, right=True)
            limits[at] = _least(limits[at], limit)
    latest, there = _latest(before, limits, ends.track, tracks)
    for at, link in links.items():
        if link.upper is not None:
            there &= link.upper[latest[at]] > ends.at
        if link.valid is not None:
            there &= link.valid[latest[at]]
    if there.all():
        return Solved(ends, links, latest)
    rows = np.flatnonzero(there)
    return Solved(ends.take(rows), links, [choice[rows] for choice in latest])


def ascending(link: Link, earlier: Step, tracks: int, *, generous: bool) -> tuple[Link, Index]:
    """The link with bounds that ascend in each track, and the tracks in which they did not. Where they did not, the
    windows become wider if `generous`, otherwise narrower."""
    within = earlier.track[1:] == earlier.track[:-1]
    swapped = np.zeros(len(within), np.bool_)
    for bound in (link.lower, link.upper):
        if bound is not None:
            swapped |= within & (bound[1:] < bound[:-1])
    starts, ends = earlier.bounds(tracks)
    lower, upper = (None if bound is None else bound.copy() for bound in (link.lower, link.upper))
    of = np.unique(earlier.track[1:][swapped])
    for track in of:
        rows = slice(starts[track], ends[track])
        if lower is not None:
            lower[rows] = _least_following(lower[rows]) if generous else np.maximum.accumulate(lower[rows])
        if upper is not None:
            upper[rows] = np.maximum.accumulate(upper[rows]) if generous else _least_following(upper[rows])
    return Link(lower, upper, link.valid), of


def _least_following(bound: Micros) -> Micros:
    return np.minimum.accumulate(bound[::-1])[::-1]


def _latest(
    steps: Sequence[Solved], limits: Sequence[Index | None], track: Index, tracks: int
) -> tuple[list[Index], Bools]:
    """For each track asked for, the latest rows of the steps, each below its limit, that satisfy the steps' own links;
    and whether there are any."""
    latest: list[Index] = []
    there = np.ones(len(track), np.bool_)
    for step, limit in zip(steps, limits, strict=True):
        for at, link in step.links.items():
            if link.upper is not None:
                bounds = step.ends.bounds(tracks)
                low, high = (bound[track] for bound in bounds)
                early = placed(step.ends.track, step.ends.at, track, link.upper[latest[at]], low, high, right=False)
                limit = _least(limit, early)
        if limit is None:
            limit = step.ends.bounds(tracks)[1][track]
        row = np.maximum(limit - 1, 0)
        there &= (limit > 0) & (step.ends.track[row] == track)
        latest = [np.minimum(sofar, choice[row]) for sofar, choice in zip(latest, step.latest, strict=True)]
        latest.append(row)
    return latest, there


def _least(one: Index | None, other: Index) -> Index:
    return other if one is None else np.minimum(one, other)
