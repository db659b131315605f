"""What follows from the references between definitions: cycles, and the stages in which they can be evaluated."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from graphlib import TopologicalSorter

StageIds = tuple[str, Sequence[str]]
"""What is evaluated together: a group, such as a merge policy, and ids of it. References lead to earlier stages."""


class Cycle(ValueError):
    """Ids that refer to each other in a circle; `ids` repeats the first one at the end."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(f"definitions form a cycle: {' → '.join(ids)}")
        self.ids = ids


def in_order(references: Mapping[str, Collection[str]]) -> list[str]:
    """The ids after those that they refer to, else as given. Raises `Cycle`.

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
    """A cycle of references, its first id repeated at the end; None when there is none.

    >>> find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]})
    ['b', 'c', 'b']
    """
    try:
        in_order(edges)
    except Cycle as cycle:
        return cycle.ids
    return None


def in_stages(references: Mapping[str, Collection[str]], groups: Mapping[str, str]) -> list[StageIds]:
    """The ids in as few stages as it takes for every id to come with or after those that it refers to.

    Raises `ValueError` for a cycle.

    >>> in_stages({"a": [], "b": ["a"], "c": ["b"], "d": []}, {"a": "x", "b": "y", "c": "x", "d": "x"})
    [('x', ['a', 'd']), ('y', ['b']), ('x', ['c'])]
    """
    waiting = dict(references)
    stages: list[StageIds] = []
    while waiting:
        ready = {group: _ready(waiting, groups, group) for group in sorted({groups[id_] for id_ in waiting})}
        group, ids = max(ready.items(), key=lambda stage: len(stage[1]))
        if not ids:
            raise ValueError(f"{sorted(waiting)} form a cycle")
        stages.append((group, ids))
        for id_ in ids:
            del waiting[id_]
    return stages


def _ready(waiting: Mapping[str, Collection[str]], groups: Mapping[str, str], group: str) -> list[str]:
    ready: dict[str, None] = {}
    before = -1
    while before < len(ready):
        before = len(ready)
        for id_, others in waiting.items():
            if groups[id_] == group and all(other in ready or other not in waiting for other in others):
                ready[id_] = None
    return list(ready)


def in_passes(
    references: Mapping[str, Collection[str]],
    groups: Mapping[str, str],
    people: Mapping[str, object],
    settled_later: Collection[str] = (),
) -> list[list[StageIds]]:
    """The ids in passes over all data, each of them stages.

    An id comes in a later stage than those of another group that it refers to, and in a later pass when those are
    about other `people`: who is in one bucket as a person is in others as fragments, so all of it must be known. So it
    does when they are `settled_later`, by a look at all buckets after their pass; none of these is in the last pass.

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
