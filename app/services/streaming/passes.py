"""The passes of a turn, and the people that each of them evaluates; evaluates nothing.

People are fragments or, under a merge policy with an identity graph, persons. The persons to evaluate are those with a
fragment in the batches, and those that retired persons joined. If a definition refers to one about other people, all
fragments of these persons are evaluated too.

Everyone is evaluated if stored members are other people than those of the pass and cannot be followed person by person:
after data was deleted, so that the identity graph was rebuilt and persons may have split, and after the identity graph
of a merge policy was switched on or off.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from app.engine.ingest.batch_people import Touched
from app.engine.members.membership import Ordinals
from app.engine.members.regraph import retired
from app.engine.people.identity_graph import Graph
from app.engine.people.persons import ByBucket, fragments_of, persons_of, united
from app.engine.run.buckets import Known
from app.engine.store.lake import TenantLake
from app.services.evaluation.heads import Heads
from app.services.streaming.definitions import LiveStage


@dataclass(frozen=True, slots=True)
class Affected:
    """The `people` whose data or key changed, by bucket. `buckets` are theirs, and those that retired persons leave.

    With `everyone`, all people are evaluated, and those who are not among the `people` keep their status.
    """

    people: Callable[[int], Ordinals]
    buckets: frozenset[int]
    everyone: bool = False


@dataclass(frozen=True, slots=True)
class LivePass:
    """Stages about the same kind of people (`LiveStage.graph`). In the buckets `swept`, definitions that depend on the
    clock are evaluated for everyone."""

    stages: Sequence[LiveStage]
    affected: Affected
    swept: frozenset[int]

    @property
    def graph(self) -> int | None:
        return self.stages[0].graph

    @property
    def evaluated(self) -> set[str]:
        return {id_ for stage in self.stages for id_ in stage.plan.conditions}

    @property
    def references(self) -> set[str]:
        return {id_ for stage in self.stages for id_ in stage.plan.references}

    def buckets(self, stored: Iterable[int], present: Iterable[int]) -> list[int]:
        """The buckets to evaluate, given those with stored memberships and those with people."""
        whole = {*stored, *present} if self.affected.everyone else ()
        return sorted(self.swept.union(self.affected.buckets, whole))

    def is_whole(self, bucket: int) -> bool:
        """Whether everyone in the bucket is evaluated by some definitions."""
        return self.affected.everyone or bucket in self.swept

    def only(self, bucket: int) -> Ordinals | None:
        return None if self.is_whole(bucket) else self.affected.people(bucket)

    def known(self, stage: LiveStage, bucket: int) -> list[Known]:
        """In a swept bucket, the definitions whose results change only for the affected people."""
        lasting = frozenset(stage.plan.conditions) - stage.by_clock
        if not lasting or self.affected.everyone or bucket not in self.swept:
            return []
        return [Known(lasting, self.affected.people(bucket))]


def plan_passes(
    lake: TenantLake,
    heads: Heads,
    passes: Sequence[Sequence[LiveStage]],
    graph: Graph | None,
    batches: Touched,
    swept: frozenset[int],
) -> list[LivePass]:
    """`graph` is the version whose persons some stages are about, if any. May read all persons once."""
    ids: dict[int | None, set[str]] = defaultdict(set)
    for stage in (stage for stages in passes for stage in stages):
        ids[stage.graph].update(stage.plan.conditions)
    rebuilt = {kind: _is_stale(heads, of_kind, graph if kind is not None else None) for kind, of_kind in ids.items()}
    if are_crossing(passes):
        rebuilt = dict.fromkeys(rebuilt, any(rebuilt.values()))
    affected: dict[int | None, Affected] = {
        None: Affected(batches.people, frozenset(batches.buckets), rebuilt.get(None, False))
    }
    if graph is not None and graph.version in ids:
        versions = {heads.graphs[id_] for id_ in ids[graph.version] if id_ in heads.graphs}
        everyone = rebuilt[graph.version]
        left, persons = _persons(lake, graph, batches, () if everyone else versions)
        affected[graph.version] = _affected(persons, left, everyone)
        if are_crossing(passes):
            touched = {bucket: batches.people(bucket) for bucket in batches.buckets}
            affected[None] = _affected(united(touched, fragments_of(graph, persons)), frozenset(), everyone)
    return [LivePass(one, affected[one[0].graph], swept) for one in passes]


def are_crossing(passes: Sequence[Sequence[LiveStage]]) -> bool:
    """Whether a definition references one about other people, so that its members change for more people."""
    kind = {id_: stage.graph for stages in passes for stage in stages for id_ in stage.plan.conditions}
    return any(
        kind.get(id_, stage.graph) != stage.graph for one in passes for stage in one for id_ in stage.plan.references
    )


def _affected(people: ByBucket, left: frozenset[int], everyone: bool) -> Affected:
    return Affected(lambda bucket: people.get(bucket, Ordinals()), left.union(people), everyone)


def _persons(
    lake: TenantLake, graph: Graph, batches: Touched, versions: Iterable[int]
) -> tuple[frozenset[int], ByBucket]:
    """The buckets that persons left since these versions, and the persons to evaluate."""
    persons = persons_of(graph, ((bucket, batches.people(bucket)) for bucket in batches.buckets))
    left: frozenset[int] = frozenset()
    for version in versions:
        gone, joined = retired(lake, version, graph.version)
        left, persons = left | gone, united(persons, joined)
    return left, persons


def _is_stale(heads: Heads, ids: Iterable[str], graph: Graph | None) -> bool:
    """Whether stored members are people that the people of this version do not continue."""
    if graph is None:
        return any(id_ in heads.graphs for id_ in ids)
    stored = heads.audiences
    return any(id_ in stored and not graph.born <= heads.graphs.get(id_, -1) <= graph.version for id_ in ids)
