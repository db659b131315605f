"""EDGE definitions, evaluated afresh for the people whose memberships are read; nothing of it is stored."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.engine.limits.budget import Budget
from app.engine.members.membership import Membership
from app.engine.people.profiles import Dataset, MergeRule, Snapshot, open_snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import Stage, Standing, evaluated_now
from app.engine.store.lake import TenantLake
from app.pql.schema import Segment
from app.services.evaluation.expressions import Segments
from app.services.streaming.definitions import LiveDefinition, LiveStage, live_stages


@dataclass(frozen=True, slots=True)
class Edge:
    """The EDGE definitions of a sandbox, ready to be evaluated at one instant."""

    stages: Sequence[LiveStage]
    snapshots: Mapping[str, Snapshot]
    evaluated_at: datetime
    entries: Mapping[str, Segment]
    budget: Budget

    def memberships(
        self,
        bucket: int,
        ordinals: Collection[int],
        stored: Callable[[str], Membership | None],
        standing: Callable[[Plan], Standing],
    ) -> dict[str, Membership]:
        """The memberships of these people of a bucket, changed for those only who are in or out by now and were not.

        `stored` is an audience's stored membership there, `standing` the memberships that a plan reads in
        `segmentMembership`. A definition that cannot be evaluated is left as it is.
        """
        evaluated: dict[str, Membership] = {}

        def known(audience: str) -> Membership | None:
            return evaluated.get(audience) or stored(audience)

        for stage in self.stages:
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
    """Definitions whose merge policy has none of the `snapshots` are left to their stored memberships. `evaluated` are
    audiences with known memberships, `segments` all that have names.
    """
    stages = live_stages(definitions, snapshots, evaluated, segments.aliases)
    return Edge(stages, snapshots, now, segments.entries, lake.lake.budget)


def edge_snapshots(
    lake: TenantLake, rules: Mapping[str, MergeRule], datasets: Sequence[Dataset], shown: Snapshot
) -> dict[str, Snapshot]:
    """The data under each merge policy with the identity graph of `shown`, the snapshot that people are read from."""
    return {
        id_: shown if rule == shown.sources.rule else open_snapshot(lake, rule, datasets)
        for id_, rule in rules.items()
        if rule.identity_graph == shown.sources.rule.identity_graph
    }
