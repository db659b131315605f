"""The services over one database and lake, in short words."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from app.clock import FixedClock
from app.engine.ingest.formats import InputFile
from app.engine.members.membership import Membership, MembershipFiles
from app.engine.run.engine import Engine
from app.engine.store.lake import Lake
from app.scope import Scope
from app.services import merge_policies
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.evaluation.heads import read_heads
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.services.people.profiles import ProfileReader
from app.services.streaming.turn import run_turn
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.queue.turns import Turn, claim_turn
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.definitions import DefinitionRow
from app.storage.tables.jobs import JobKind
from app.storage.tables.merge_policies import IdentityGraph
from app.storage.tenancy import within

SCOPE = Scope("acme", "prod", "ann")
LEASE = timedelta(seconds=60)


class Gateway:
    """One sandbox; everything is done by the test itself, and no worker is beside it."""

    def __init__(self, database: Database, lake: Lake, clock: FixedClock, folder: Path) -> None:
        self.database, self.lake, self.clock, self.folder = database, lake, clock, folder
        self.files = MembershipFiles(lake.tenant(SCOPE.tenant))
        self.engine: Engine | None = None

    async def people(self, rows: Sequence[Mapping[str, Any]], dataset: str = "people") -> str:
        return await self._send(dataset, "PROFILE", None, rows)

    async def events(self, rows: Sequence[Mapping[str, Any]], dataset: str = "visits") -> str:
        return await self._send(dataset, "EVENT", "timestamp", rows)

    async def _send(self, dataset: str, kind: str, time: str | None, rows: Sequence[Mapping[str, Any]]) -> str:
        file = self.folder / "batch.ndjson"
        file.write_text("\n".join(map(json.dumps, rows)))
        sent = await ingest_file(
            self.database,
            self.lake,
            self.clock,
            SCOPE,
            NewDataset(dataset, DatasetKind(kind), "id", "crm", time),
            InputFile(file, "NDJSON"),
        )
        return sent.batch.id

    async def define(self, name: str, expression: str, method: str = "STREAMING", policy: str | None = None) -> str:
        new = NewDefinition(name=name, expression=expression, merge_policy_id=policy, evaluation_methods=[method])
        return (await definitions.create(self.database, self.lake, self.clock, SCOPE, new)).id

    async def set(self, id: str, **values: Any) -> None:
        async with self.database.write() as session:
            change = within(update(AudienceRow), AudienceRow, SCOPE.tenant)
            await session.execute(change.where(AudienceRow.id == id).values(**values))  # type: ignore[arg-type]

    async def break_expression(self, id: str) -> None:
        """As if the data had lost a field since."""
        async with self.database.write() as session:
            change = within(update(DefinitionRow), DefinitionRow, SCOPE.tenant)
            await session.execute(change.where(DefinitionRow.id == id).values(expression="gone = 1"))  # type: ignore[arg-type]

    async def stitch(self, policy_id: str) -> None:
        """Gives a merge policy the identity graph PDG."""
        changes: merge_policies.PolicyChanges = {"identity_graph": IdentityGraph.PDG}
        await merge_policies.update(self.database, self.clock, SCOPE, policy_id, None, changes)

    async def take(self, sweep_every: timedelta | None = None) -> Turn:
        turn = await claim_turn(self.database, self.clock, owner="test", lease=LEASE, sweep_every=sweep_every)
        assert turn is not None
        return turn

    async def stream(self, sweep_every: timedelta | None = None) -> int:
        turn = await self.take(sweep_every)
        return await run_turn(self.database, self.lake, self.clock, turn, 2, lambda: False)

    async def nothing_waits(self, sweep_every: timedelta | None = None) -> bool:
        waits = await claim_turn(self.database, self.clock, owner="test", lease=LEASE, sweep_every=sweep_every)
        return waits is None

    async def start_job(self, *ids: str) -> Attempt:
        await segment_jobs.create(self.database, self.clock, SCOPE, list(ids) or None, all_definitions=not ids)
        claim = await claim_next(self.database, self.clock, owner="test", lease=LEASE, kind=JobKind.SEGMENT)
        assert claim is not None
        return Attempt(self.database, self.clock, claim)

    async def job(self, *ids: str) -> None:
        run = await self.start_job(*ids)
        await run_segment_job(run, self.lake, 1, self.engine)
        assert run.ended_as == "SUCCEEDED"

    async def memberships(self, id: str) -> dict[int, Membership]:
        async with self.database.session() as session:
            heads = await read_heads(session, SCOPE)
        return dict(heads.of(self.files, id))

    async def members(self, id: str) -> dict[tuple[int, int], tuple[str, Any]]:
        """Status and time of everybody who is or was a member."""
        return {
            (bucket, ordinal): (membership.status(ordinal), membership.last_qualified(ordinal))
            for bucket, membership in (await self.memberships(id)).items()
            for ordinal in membership.members | membership.exited
        }

    async def statuses(self, id: str) -> list[str]:
        return sorted(status for status, _ in (await self.members(id)).values())

    async def numbers(self, id: str) -> tuple[int | None, dict[str, int]]:
        async with self.database.session() as session:
            columns = select(AudienceRow.total_profiles, AudienceRow.by_namespace)  # type: ignore[call-overload]
            row = (await session.execute(within(columns, AudienceRow, SCOPE.tenant).where(AudienceRow.id == id))).one()
        return row.total_profiles, row.by_namespace

    async def count(self, table: Any) -> int:
        async with self.database.session() as session:
            return int((await session.execute(select(func.count()).select_from(table))).scalar_one())

    def reader(self) -> ProfileReader:
        return ProfileReader(self.database, self.lake, self.clock, SCOPE)
