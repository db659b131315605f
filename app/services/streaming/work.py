"""The state of a turn: its batches, the passes over its people, and the resulting changes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from app.engine.members.membership import Membership, differences
from app.engine.people.profiles import Snapshot
from app.pql.schema import Segment
from app.scope import Scope
from app.services.evaluation.heads import Heads, Patch
from app.services.evaluation.membership_log import Moved
from app.services.streaming.passes import LivePass
from app.storage.columns import StoredValues
from app.storage.queue.turns import Swept, WaitingBatch

BUCKETS_SWEPT = 16
"""Number of buckets per turn in which a sweep evaluates all profiles."""


@dataclass(slots=True)
class Work:
    """The state of a turn. Its changes apply to `heads`, which may be outdated when it ends; `current` are the heads
    with the patches of the finished passes. `entries` are the names of audiences in `segmentMembership`, `swept_after`
    is the sweep state to store afterwards."""

    scope: Scope
    batches: list[WaitingBatch]
    evaluated_at: datetime
    heads: Heads
    entries: Mapping[str, Segment]
    passes: Sequence[LivePass] = ()
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    swept_after: Swept = field(default_factory=lambda: Swept(None))
    patches: dict[int, StoredValues] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    moved: dict[str, Moved] = field(default_factory=dict)
    members: Counter[str] = field(default_factory=Counter)
    by_namespace: dict[str, Counter[str]] = field(default_factory=dict)
    current: Heads = field(init=False)

    def __post_init__(self) -> None:
        self.current = self.heads

    @property
    def evaluated(self) -> set[str]:
        return {id_ for live in self.passes for id_ in live.evaluated}

    @property
    def graphs(self) -> dict[str, int | None]:
        """For the audiences whose members are now persons of another version of the identity graph, that version."""
        graphs = {id_: live.graph for live in self.passes for id_ in live.evaluated}
        return {id_: graph for id_, graph in graphs.items() if self.heads.graphs.get(id_) != graph}

    def finish(self, one: LivePass) -> None:
        """Makes the results of a pass visible to the next ones."""
        graphs = {id_: graph for id_, graph in self.current.graphs.items() if id_ not in one.evaluated}
        if one.graph is not None:
            graphs |= dict.fromkeys(one.evaluated, one.graph)
        written = {
            bucket: Patch(patch["turn"], patch["file"], patch["bases"]) for bucket, patch in self.patches.items()
        }
        self.current = replace(self.current, patches={**self.current.patches, **written}, graphs=graphs)

    def count(self, id: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Replaces a definition's old counts of a bucket by the new ones in the totals."""
        self.members[id] += after["members"] - before["members"]
        namespaces = self.by_namespace.setdefault(id, Counter())
        namespaces.update(after["by_namespace"])
        namespaces.subtract(before["by_namespace"])

    def move(self, id: str, before: Membership | None, after: Membership) -> None:
        """Adds the profiles that entered and left a definition in a bucket."""
        entered, exited = differences(before, after)
        earlier = self.moved.get(id, Moved(0, 0))
        self.moved[id] = Moved(earlier.entered + len(entered), earlier.exited + len(exited), after.version)


def next_buckets(
    snapshots: Iterable[Snapshot], now: datetime, after: int | None, last: datetime | None, all_at_once: bool
) -> tuple[frozenset[int], Swept]:
    """The next buckets of a due sweep, those after `after` (None: none is due), and the sweep state afterwards. Batches
    that arrive meanwhile wait for these buckets only. `last` is when the last sweep ended."""
    now = now.astimezone(UTC)
    if after is None:
        return frozenset(), Swept(now if last is None else last)
    buckets = sorted({bucket for snapshot in snapshots for bucket in snapshot.buckets})
    rest = [bucket for bucket in buckets if bucket > after]
    swept = frozenset(rest if all_at_once else rest[:BUCKETS_SWEPT])
    return swept, Swept(last, max(swept)) if len(swept) < len(rest) else Swept(now)
