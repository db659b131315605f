"""Shared by all reads of one request: the data under each merge policy, and the stored memberships of segments."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from app.clock import Clock
from app.engine.members.membership import MembershipFiles
from app.engine.people.profiles import (
    Dataset,
    MergeRule,
    Snapshot,
    open_snapshot,
)
from app.engine.store.lake import Lake
from app.scope import Scope
from app.services.evaluation.expressions import Segments, data_sources, read_segments
from app.services.evaluation.heads import Heads, read_heads
from app.services.evaluation.sandboxes import read_time_zone
from app.services.merge_policies import DEFAULT_POLICY_ID, all_policies, rule_of
from app.services.people.edge import Edge, edge_snapshots, open_edge
from app.services.streaming.definitions import live_definitions
from app.storage.database import Database

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    """The datasets and the merge policies."""

    datasets: Sequence[Dataset]
    default: MergeRule
    rules: Mapping[str, MergeRule]


class PinnedReads:
    """Reads each source once and keeps it, so that all reads of a request see the same state.

    A `rule` replaces the default merge policy.
    """

    def __init__(
        self, database: Database, lake: Lake, clock: Clock, scope: Scope, rule: MergeRule | None = None
    ) -> None:
        self.database = database
        self.clock = clock
        self.lake = lake.tenant(scope.tenant)
        self.scope = scope
        self.files = MembershipFiles(self.lake)
        self._rule = rule
        self._once: dict[str, asyncio.Task[Any]] = {}

    async def data(self) -> Data:
        async def read() -> Data:
            async with self.database.session() as session:
                policies = await all_policies(session, self.scope)
                datasets = await data_sources(session, self.scope)
            rules = {policy.id: rule_of(policy) for policy in policies}
            unmade = MergeRule(DEFAULT_POLICY_ID, "TIMESTAMP_ORDERED", ())
            default_rule = next((rules[policy.id] for policy in policies if policy.is_default), unmade)
            default = self._rule or default_rule
            return Data(datasets, default, {**rules, default.id: default})

        return await self._only_once("data", read)

    async def snapshot(self, policy: str) -> Snapshot:
        async def read() -> Snapshot:
            data = await self.data()
            return await asyncio.to_thread(open_snapshot, self.lake, data.rules[policy], data.datasets)

        return await self._only_once(f"snapshot {policy}", read)

    async def heads(self) -> Heads:
        async def read() -> Heads:
            async with self.database.session() as session:
                return await read_heads(session, self.scope, now=self.clock())

        return await self._only_once("heads", read)

    async def edge(self, policy: str) -> Edge | None:
        """The EDGE definitions, for reading people of a policy; None if there are none."""

        async def read() -> Edge | None:
            async with self.database.session() as session:
                definitions = await live_definitions(session, self.scope, edge=True)
                if not definitions:
                    return None
                segments = await read_segments(session, self.scope)
                zone = await read_time_zone(session, self.scope, self.lake.lake)
            data, heads, shown = await self.data(), await self.heads(), await self.snapshot(policy)
            rules = {id_: data.rules[id_] for id_ in sorted({definition.merge_policy_id for definition in definitions})}
            evaluated, now = heads.audiences | segments.external, self.clock().astimezone(zone)

            def opened() -> Edge:
                snapshots = edge_snapshots(self.lake, rules, data.datasets, shown)
                return open_edge(self.lake, definitions, snapshots, evaluated, segments, now)

            return await asyncio.to_thread(opened)

        return await self._only_once(f"edge {policy}", read)

    async def segments(self) -> tuple[Segments, ZoneInfo]:
        """The segments that expressions may name, and the time zone of the sandbox."""

        async def read() -> tuple[Segments, ZoneInfo]:
            async with self.database.session() as session:
                zone = await read_time_zone(session, self.scope, self.lake.lake)
                return await read_segments(session, self.scope), zone

        return await self._only_once("segments", read)

    async def _only_once(self, name: str, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        if name not in self._once:
            self._once[name] = asyncio.create_task(read())
        result: T = await asyncio.shield(self._once[name])
        return result
