"""References between definitions: cycles, and the stages in which definitions can be evaluated."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from graphlib import TopologicalSorter

StageIds = tuple[str, Sequence[str]]
"""A unit of evaluation: a group, such as a merge policy, and its ids. References point to earlier stages."""


class Cycle(ValueError):
    """Ids that reference each other in a cycle; `ids` repeats the first one at the end."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(f"definitions form a cycle: {' → '.join(ids)}")
        self.ids = ids


def in_order(references: Mapping[str, Collection[str]]) -> list[str]:
    """Topological order: each id after the ids it references, otherwise in the given order. Raises `Cycle`.

    >>> in_order({"a": ["c", "elsewhere"], "b": [], "c": ["b"]})
    ['b', 'c', 'a']
    """
    finished: dict[str, None] = {}
    for start in references:
        path = [(start, iter(sorted(references[start])))] if start not in finished else []
        open_ids = [id_ for id_, _ in path]
        while path:
            id_, following = path[-1]
            successor = next(following, None)
            if successor is None:
                finished[id_] = None
                path.pop()
                open_ids.pop()
            elif successor in open_ids:
                raise Cycle([*open_ids[open_ids.index(successor) :], successor])
            elif successor not in finished and successor in references:
                path.append((successor, iter(sorted(references[successor]))))
                open_ids.append(successor)
    return list(finished)


def find_cycle(edges: Mapping[str, Collection[str]]) -> list[str] | None:
    """A cycle of references, with its first id repeated at the end; None if there is none.

    >>> find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]})
    ['b', 'c', 'b']
    """
    try:
        in_order(edges)
    except Cycle as cycle:
        return cycle.ids
    return None


def in_passes(
    references: Mapping[str, Collection[str]],
    groups: Mapping[str, str],
    people: Mapping[str, object],
    settled_later: Collection[str] = (),
) -> list[list[StageIds]]:
    """Groups the ids into passes over all data, each a list of stages.

    An id is in a later stage than the ids of other groups that it references. It is in a later pass than referenced
    ids about different `people`: a person in one bucket may be fragments in other buckets, so the referenced results
    must be complete. It is also in a later pass than referenced ids that are `settled_later`, which are completed by a
    step over all buckets after their pass; the last pass contains none of these.

    >>> in_passes({"a": [], "b": ["a"], "c": ["b"]}, {"a": "x", "b": "y", "c": "z"}, {"a": None, "b": None, "c": 7})
    [[('x', ['a']), ('y', ['b'])], [('z', ['c'])]]
    >>> in_passes({"a": [], "b": ["a"]}, {"a": "x", "b": "x"}, {"a": None, "b": None}, {"a", "b"})
    [[('x', ['a'])], [('x', ['b'])], []]
    """
    places: dict[str, tuple[int, int]] = {}
    inside = {id_: sorted(set(references[id_]) & references.keys()) for id_ in sorted(references)}

    def after(id_: str, other: str) -> tuple[int, int]:
        number, stage = places[other]
        if people[id_] != people[other] or other in settled_later:
            return number + 1, 0
        return number, stage + (groups[id_] != groups[other])

    for id_ in TopologicalSorter(inside).static_order():
        places[id_] = max((after(id_, other) for other in inside[id_]), default=(0, 0))
    passes: dict[int, dict[tuple[int, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for id_ in sorted(places):
        number, stage = places[id_]
        passes[number][stage, groups[id_]].append(id_)
    ordered: list[list[StageIds]] = []
    for number in sorted(passes):
        ordered.append([(group, ids) for (_, group), ids in sorted(passes[number].items())])
    if ordered and any(id_ in settled_later for _, ids in ordered[-1] for id_ in ids):
        ordered.append([])
    return ordered
