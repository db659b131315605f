"""What follows from definitions without any data: circles of references, and whether streaming may evaluate one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from app.pql.core import Node, walk


@dataclass(frozen=True, slots=True)
class StreamingEligibility:
    """Whether a definition may be evaluated as soon as a batch lands; `reasons` when not."""

    eligible: bool
    reasons: tuple[str, ...]


def find_cycle(edges: Mapping[str, Collection[str]]) -> list[str] | None:
    """A circle of references, its first id repeated at the end; None when there is none.

    >>> find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]})
    ['b', 'c', 'b']
    """
    finished: set[str] = set()
    for start in edges:
        path: list[str] = []
        waiting = [(start, iter(sorted(edges[start])))] if start not in finished else []
        path.extend(id_ for id_, _ in waiting)
        while waiting:
            id_, following = waiting[-1]
            successor = next(following, None)
            if successor is None:
                finished.add(id_)
                waiting.pop()
                path.pop()
            elif successor in path:
                return [*path[path.index(successor) :], successor]
            elif successor not in finished:
                waiting.append((successor, iter(sorted(edges.get(successor, ())))))
                path.append(successor)
    return None


def streaming_eligibility(condition: Node | None) -> StreamingEligibility:
    """By segmentation-service.md: attributes, or events of the last 24 hours; not segments together with events."""
    if condition is None:
        return StreamingEligibility(False, ("the expression has errors",))
    nodes = list(walk(condition))
    events = any(node.op == "field" and node.payload == ("xEvent",) and node.operands[0].op == "element" for node in nodes)
    segments = any(node.op == "in_segment" for node in nodes)
    if not events:
        return StreamingEligibility(True, ())
    reasons = ["it looks at events, and that they are of the last 24 hours cannot be shown"]
    if segments:
        reasons.append("it combines inSegment with events")
    return StreamingEligibility(False, tuple(reasons))
