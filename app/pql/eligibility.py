"""Whether a definition may be evaluated as soon as data lands, which follows from its condition alone."""

from dataclasses import dataclass

from app.pql.core import BINDERS, Node, walk
from app.pql.schema import EVENTS, MEMBERSHIP


@dataclass(frozen=True, slots=True)
class StreamingEligibility:
    """Whether a definition may be evaluated as soon as a batch lands; `reasons` when not."""

    eligible: bool
    reasons: tuple[str, ...]


def streaming_eligibility(condition: Node) -> StreamingEligibility:
    """Attributes, or single events of the last 24 hours; not segments together with events
    (segmentation-service.md)."""
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


_NOT_RECENT = "it looks at events older than 24 hours: add `timestamp occurs <= 24 hours before now`"
_ALL_EVENTS = "it counts or combines several events, and only single ones or a sequence in time can be streamed"
_SEGMENTS_AND_EVENTS = (
    "it combines inSegment or segmentMembership with events: put one of them into a definition of its own"
)
_OVER_MANY = BINDERS - {"exists", "filter", "chain"} | {"count"}
_DAYS = {"millisecond": 1 / 86_400_000, "second": 1 / 86_400, "minute": 1 / 1_440, "hour": 1 / 24, "day": 1.0}


def _is_events(node: Node) -> bool:
    return node.op == "field" and node.payload == (EVENTS,) and node.operands[0].op == "element"


def _is_of_segments(node: Node) -> bool:
    return node.op == "in_segment" or (node.op == "field" and node.payload == (MEMBERSHIP,))


def _is_filtered_events(node: Node) -> bool:
    return node.op == "filter" and (_is_events(node.operands[0]) or _is_filtered_events(node.operands[0]))


def _recent(binder: Node) -> bool:
    """Whether the binder takes only events of the last 24 hours: every step of a chain must."""
    if binder.op != "chain":
        return any(map(_within_a_day, _conjuncts(binder.operands[-1])))
    steps = int(binder.payload[1])
    whats, whens = binder.operands[2 : 2 + steps], binder.operands[2 + steps :]
    return all(
        any(map(_within_a_day, (*_conjuncts(what), *_conjuncts(when)))) for what, when in zip(whats, whens, strict=True)
    )


def _conjuncts(node: Node) -> tuple[Node, ...]:
    return node.operands if node.op == "and" else (node,)


def _within_a_day(node: Node) -> bool:
    if node.op != "occurs" or node.payload[0] not in {"<", "<="} or node.payload[2] != "before":
        return False
    _, count, reference = node.operands
    written = count.payload[0] if count.op == "const" else None
    limit = float("inf") if written is None else written * _DAYS.get(node.payload[1], float("inf"))
    return reference.op == "now" and limit <= 1
