"""EDGE definitions, evaluated afresh for the people whose memberships are read; nothing of it is stored."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.engine.limits.budget import Budget
from app.engine.members.membership import Membership
from app.engine.people.profiles import Dataset, MergeRule, Snapshot, open_snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import Standing, evaluated_now
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
                stage.plan,
                self.snapshots[stage.merge_policy_id],
                bucket,
                ordinals,
                now=self.evaluated_at,
                stored=known,
                standing=standing(stage.plan),
                budget=self.budget,
                versions=stage.versions,
            )
        return evaluated


def open_edge(  # noqa: PLR0913
    lake: TenantLake,
    definitions: Sequence[LiveDefinition],
    rules: Mapping[str, MergeRule],
    datasets: Sequence[Dataset],
    shown: Snapshot,
    evaluated: Collection[str],
    segments: Segments,
    now: datetime,
) -> Edge:
    """`shown` is the snapshot that people are read from: definitions over people of another identity graph are left to
    their stored memberships. `evaluated` are audiences with known memberships, `segments` all that have names.
    """
    snapshots = {
        id_: shown if rule == shown.sources.rule else open_snapshot(lake, rule, datasets)
        for id_, rule in rules.items()
        if rule.identity_graph == shown.sources.rule.identity_graph
    }
    stages = live_stages(definitions, snapshots, evaluated, segments.aliases)
    return Edge(stages, snapshots, now, segments.entries, lake.lake.budget)
