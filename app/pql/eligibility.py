"""Whether a definition can or must be evaluated in a given way, derived from its condition alone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from app.pql.core import BINDERS, Node, walk
from app.pql.schema import EVENTS, MEMBERSHIP


@dataclass(frozen=True, slots=True)
class StreamingEligibility:
    """Whether a definition can be evaluated as soon as a batch is committed; `reasons` if not."""

    eligible: bool
    reasons: tuple[str, ...]


def streaming_eligibility(condition: Node) -> StreamingEligibility:
    """Eligible are conditions on attributes or on single events of the last 24 hours, but not on segments together with
    events (segmentation-service.md)."""
    nodes = list(walk(condition))
    reasons: dict[str, None] = {}
    for node in nodes:
        if node.op in BINDERS and _is_events(node.operands[0]):
            if not _recent(node):
                reasons[_NOT_RECENT] = None
            if node.op not in {"exists", "filter", "chain"}:
                reasons[_ALL_EVENTS] = None
        elif any(map(_is_events, node.operands)):
            reasons[_NOT_RECENT] = None
        elif node.op in _OVER_MANY and any(_is_filtered_events(operand) for operand in node.operands):
            reasons[_ALL_EVENTS] = None
    if any(map(_is_events, nodes)) and any(map(_is_of_segments, nodes)):
        reasons[_SEGMENTS_AND_EVENTS] = None
    return StreamingEligibility(not reasons, tuple(reasons))


def reads_clock(nodes: Iterable[Node]) -> bool:
    """Whether the result of an expression with these nodes can change as time passes."""
    return any(node.op in CLOCKS for node in nodes)


def reads_memberships(nodes: Iterable[Node]) -> bool:
    """Whether `segmentMembership` is read, which any definition's run can change."""
    return any(node.op == "field" and node.payload == (MEMBERSHIP,) for node in nodes)


CLOCKS: Final = frozenset({"now", "day", "period"})
"""The operations that depend on the instant of a run."""

_NOT_RECENT = "it looks at events older than 24 hours: add `timestamp occurs <= 24 hours before now`"
_ALL_EVENTS = "it counts or combines several events, and only single ones or a sequence in time can be streamed"
_SEGMENTS_AND_EVENTS = (
    "it combines inSegment or segmentMembership with events: put one of them into a definition of its own"
)
_OVER_MANY = BINDERS - {"exists", "filter", "chain"} | {"count"}
_HOURS = {"millisecond": 1 / 3_600_000, "second": 1 / 3_600, "minute": 1 / 60, "hour": 1.0, "day": 24.0, "week": 168.0}
_A_DAY = 24.0


def _is_events(node: Node) -> bool:
    return node.op == "field" and node.payload == (EVENTS,) and node.operands[0].op == "element"


def _is_of_segments(node: Node) -> bool:
    return node.op == "in_segment" or (node.op == "field" and node.payload == (MEMBERSHIP,))


def _is_filtered_events(node: Node) -> bool:
    return node.op == "filter" and (_is_events(node.operands[0]) or _is_filtered_events(node.operands[0]))


def _recent(binder: Node) -> bool:
    """Whether the binder selects only events of the last 24 hours. Later steps of a chain are newer than the first."""
    if binder.op != "chain":
        return _age(binder.operands[-1]) <= _A_DAY
    steps = int(binder.payload[1])
    return min(_age(binder.operands[2]), _age(binder.operands[2 + steps])) <= _A_DAY


def _age(condition: Node) -> float:
    """Maximum age in hours of an event that satisfies the condition; infinite if unbounded."""
    if condition.op == "and":
        return min(map(_age, condition.operands))
    if condition.op == "or":
        return max(map(_age, condition.operands))
    if condition.op in _MIRRORED and _is_timestamp(condition.operands[1]):
        return _start(condition.operands[0])
    if condition.op not in _BOUNDS or not _is_timestamp(condition.operands[0]):
        return inf
    return _BOUNDS[condition.op](condition)


def _within(node: Node) -> float:
    op, unit, direction = node.payload
    _, count, reference = node.operands
    written = count.payload[0] if count.op == "const" else None
    length = _HOURS.get(unit, inf)
    if written is None or op == "!=":
        return inf
    if op == "=":  # a whole unit of the calendar
        return _start(reference) + length * (1 - written if direction == "after" else 1 + written)
    if direction == "after":
        return _later_start(reference) - (written * length if op in (">", ">=") else 0)
    return _start(reference) + written * length if op in ("<", "<=") else inf


def _start(reference: Node) -> float:
    """Maximum age in hours of a reference's start: `today` up to 24, `last hour` up to 2."""
    if reference.op == "day":
        return _A_DAY * (1 - reference.payload[0])
    if reference.op == "period":
        shift, unit = reference.payload
        return 0.0 if shift > 0 else (1 - shift) * _HOURS.get(unit, inf)
    return 0.0 if reference.op == "now" else inf


def _end(reference: Node) -> float:
    """Maximum age in hours of a reference's end."""
    if reference.op == "day":
        return -_A_DAY * reference.payload[0]
    if reference.op == "period":
        shift, unit = reference.payload
        return 0.0 if shift >= 0 else -shift * _HOURS.get(unit, inf)
    return _start(reference)


def _later_start(reference: Node) -> float:
    """Maximum age in hours of the point from which distances after a reference are measured."""
    return _end(reference) if reference.op == "period" else _start(reference)


def _is_timestamp(node: Node) -> bool:
    return node.op == "field" and node.payload == ("timestamp",) and node.operands[0].op == "element"


_MIRRORED: Final = frozenset({"lt", "le", "eq"})
"""The comparisons that bound the age of a timestamp on their right: `today <= timestamp`."""
_BOUNDS: Final[dict[str, Callable[[Node], float]]] = {
    "occurs": _within,
    "occurs_on": lambda node: _start(node.operands[1]),
    "occurs_after": lambda node: _end(node.operands[1]),
    "occurs_between": lambda node: _start(node.operands[1]),
    **dict.fromkeys(("gt", "ge", "eq"), lambda node: _start(node.operands[1])),
}
"""Hours, by operation."""
