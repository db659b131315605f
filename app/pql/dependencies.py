"""What follows from the references between definitions: cycles, and the stages in which they can be evaluated."""

from collections.abc import Collection, Mapping


def find_cycle(edges: Mapping[str, Collection[str]]) -> list[str] | None:
    """A cycle of references, its first id repeated at the end; None when there is none.

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
