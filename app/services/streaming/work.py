"""A turn as far as it got: the batches that it takes, the people whom it evaluates, and what changes for them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.engine.ingest.batch_people import Touched
from app.engine.members.membership import Membership, Ordinals, differences
from app.engine.people.profiles import Snapshot
from app.engine.run.buckets import Known, with_statuses_kept
from app.pql.schema import Segment
from app.scope import Scope
from app.services.evaluation.heads import Heads
from app.services.evaluation.membership_log import Moved
from app.services.streaming.definitions import LiveStage
from app.storage.columns import StoredValues
from app.storage.queue.turns import Swept, WaitingBatch

BUCKETS_SWEPT = 16
"""So many buckets a turn evaluates for everybody."""


@dataclass(slots=True)
class Work:
    """A turn as far as it got; the changes are made on `heads`, which may be others by the time it ends. `entries` are
    the names of audiences in `segmentMembership`. In the buckets `swept` everybody is evaluated by what depends on the
    clock, and `swept_after` is what the sandbox's turn shows then."""

    scope: Scope
    batches: list[WaitingBatch]
    evaluated_at: datetime
    heads: Heads
    entries: Mapping[str, Segment]
    stages: list[LiveStage] = field(default_factory=list)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    people: Touched = field(default_factory=lambda: Touched({}))
    swept: frozenset[int] = frozenset()
    swept_after: Swept = field(default_factory=lambda: Swept(None))
    patches: list[StoredValues] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    moved: dict[str, Moved] = field(default_factory=dict)
    members: Counter[str] = field(default_factory=Counter)
    by_namespace: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def buckets(self) -> list[int]:
        return sorted(self.swept.union(self.people.buckets))

    def only(self, bucket: int) -> Ordinals | None:
        return None if bucket in self.swept else self.people.people(bucket)

    def known(self, stage: LiveStage, bucket: int) -> list[Known]:
        """In a bucket that is swept, what gives what it gave for all but the people of the batches."""
        lasting = frozenset(stage.plan.conditions) - stage.by_clock
        return [Known(lasting, self.people.people(bucket))] if lasting and bucket in self.swept else []

    def settled(
        self, bucket: int, before: Mapping[str, Membership], fresh: Sequence[Membership]
    ) -> dict[str, Membership]:
        """What came of a bucket; in one that is swept, whoever stays in or out keeps the status."""
        if bucket not in self.swept:
            return {one.definition: one for one in fresh}
        people = self.people.people(bucket)
        return {
            one.definition: with_statuses_kept(before.get(one.definition), one, self.evaluated_at, people)
            for one in fresh
        }

    @property
    def evaluated(self) -> set[str]:
        return {id_ for stage in self.stages for id_ in stage.plan.conditions}

    def count(self, id: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Adds what a bucket counts for a definition, in place of what it counted before."""
        self.members[id] += after["members"] - before["members"]
        namespaces = self.by_namespace.setdefault(id, Counter())
        namespaces.update(after["by_namespace"])
        namespaces.subtract(before["by_namespace"])

    def move(self, id: str, before: Membership | None, after: Membership) -> None:
        """Adds who entered and who left a definition in a bucket."""
        entered, exited = differences(before, after)
        earlier = self.moved.get(id, Moved(0, 0))
        self.moved[id] = Moved(earlier.entered + len(entered), earlier.exited + len(exited), after.version)

    def sweep(self, after: int | None, last: datetime | None) -> None:
        """Takes the next buckets of a sweep that is due, those `after` one (None: none is due); batches that land
        meanwhile wait for these alone. `last` is when the last sweep ended."""
        now = self.evaluated_at.astimezone(UTC)
        if after is None:
            self.swept_after = Swept(now if last is None else last)
            return
        buckets = sorted({bucket for snapshot in self.snapshots.values() for bucket in snapshot.buckets})
        rest = [bucket for bucket in buckets if bucket > after]
        self.swept = frozenset(rest[:BUCKETS_SWEPT])
        self.swept_after = Swept(last, max(self.swept)) if len(rest) > BUCKETS_SWEPT else Swept(now)
