"""EDGE definitions, evaluated when memberships are read; the results are not stored."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.engine.limits.budget import Budget
from app.engine.members.membership import Membership
from app.engine.people.identity_graph import Graph
from app.engine.people.profiles import Dataset, MergeRule, Snapshot, open_snapshot, people_graph
from app.engine.plan.plan import Plan
from app.engine.run.buckets import Stage, Standing, evaluated_now
from app.engine.store.lake import TenantLake
from app.pql.schema import Segment
from app.services.evaluation.expressions import Segments
from app.services.streaming.definitions import LiveDefinition, LiveStage, live_passes


@dataclass(frozen=True, slots=True)
class Edge:
    """The EDGE definitions of a sandbox, prepared for evaluation at one instant. Some of them are about the persons of
    a version of the identity `graph`, if any."""

    stages: Sequence[LiveStage]
    snapshots: Mapping[str, Snapshot]
    graph: Graph | None
    evaluated_at: datetime
    entries: Mapping[str, Segment]
    budget: Budget

    @property
    def kinds(self) -> set[int | None]:
        """The kinds of people that definitions are about (`LiveStage.graph`)."""
        return {stage.graph for stage in self.stages}

    def memberships(
        self,
        kind: int | None,
        bucket: int,
        ordinals: Collection[int],
        stored: Callable[[str], Membership | None],
        standing: Callable[[Plan], Standing],
    ) -> dict[str, Membership]:
        """The memberships of these people of a bucket in the definitions about their kind; only people who have entered
        or left since the stored evaluation change.

        `stored` returns an audience's stored membership in the bucket, `standing` the memberships that a plan reads
        through `segmentMembership`. A definition that cannot be evaluated keeps its stored membership.
        """
        evaluated: dict[str, Membership] = {}

        def known(audience: str) -> Membership | None:
            return evaluated.get(audience) or stored(audience)

        for stage in (stage for stage in self.stages if stage.graph == kind):
            evaluated |= evaluated_now(
                self._stage(stage, known, standing(stage.plan)),
                bucket,
                ordinals,
                now=self.evaluated_at,
                versions=stage.versions,
                budget=self.budget,
            )
        return evaluated

    def _stage(self, live: LiveStage, known: Callable[[str], Membership | None], standing: Standing) -> Stage:
        before = {id_: membership for id_ in live.plan.conditions if (membership := known(id_)) is not None}
        snapshot = self.snapshots[live.merge_policy_id]
        return Stage(live.plan, snapshot, lambda segment, _bucket: known(segment), lambda _bucket: before, standing)


def open_edge(
    lake: TenantLake,
    definitions: Sequence[LiveDefinition],
    snapshots: Mapping[str, Snapshot],
    evaluated: Collection[str],
    segments: Segments,
    now: datetime,
) -> Edge:
    """`snapshots` are by merge policy. `evaluated` are the audiences with known memberships, `segments` all audiences
    with names."""
    passes = live_passes(definitions, snapshots, evaluated, segments.aliases)
    graph = next((graph for each in snapshots.values() if (graph := each.sources.graph) is not None), None)
    return Edge(
        [stage for stages in passes for stage in stages], snapshots, graph, now, segments.entries, lake.lake.budget
    )


def edge_snapshots(
    lake: TenantLake, rules: Mapping[str, MergeRule], datasets: Sequence[Dataset], shown: Snapshot
) -> dict[str, Snapshot]:
    """A snapshot for each merge policy. Persons are of the same version of the identity graph as in `shown`, the
    snapshot that people are read from."""
    graph = shown.sources.graph
    if graph is None and any(rule.identity_graph == "PDG" for rule in rules.values()):
        graph = people_graph(lake, datasets)
    return {
        id_: shown if rule == shown.sources.rule else open_snapshot(lake, rule, datasets, graph=graph)
        for id_, rule in rules.items()
    }
