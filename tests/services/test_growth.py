"""A sandbox that gets new buckets between runs: every surface shows what it would have shown without."""

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from app.engine.limits.pool import Stopped
from app.engine.run.engine import Done, LocalEngine, Work
from app.engine.store.lake import Lake
from app.services.audiences import reads as audiences
from app.services.datasets import datasets
from app.services.insight.comparison import compare
from app.services.insight.overlap import People, measure
from app.services.jobs.export.input import ExportFilter, ExportSegment, NewExport
from app.services.jobs.preview import requests as previews
from app.services.jobs.preview.requests import NewPreview
from app.services.jobs.preview.run import run_preview
from app.services.lists.paging import PageRequest
from app.services.maintenance.doctor import examine
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind
from tests.services.conftest import SCOPE, Gateway
from tests.services.test_changes import read as changes_of
from tests.services.test_changes import replayed
from tests.services.test_erasure import erase, later, naming
from tests.services.test_explanation import members, why
from tests.services.test_export_jobs import LEASE, export, written
from tests.services.test_moments import at, differ, hour
from tests.services.test_streaming_persons import Twins, emails, linked_policy


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Four buckets of two people at first."""
    return Lake(tmp_path / "lake", people_in_a_bucket=2)


def generations(gateway: Gateway) -> int:
    layout = gateway.lake.tenant(SCOPE.tenant).layout()
    return 0 if layout is None else len(layout.bits)


@dataclass(frozen=True)
class Growing(LocalEngine):
    """New people arrive between the pins of a job and its first bucket."""

    gateway: Gateway
    loop: asyncio.AbstractEventLoop

    def run(self, work: Work, buckets: Iterable[int], finished: Callable[[Done], None], cancelled: Stopped) -> None:
        for rows in (numbered(8, 12), numbered(12, 60)):
            asyncio.run_coroutine_threadsafe(self.gateway.people(rows), self.loop).result()
        LocalEngine.run(self, work, buckets, finished, cancelled)


def numbered(first: int, last: int, tier: int = 3) -> list[dict[str, Any]]:
    return [{"id": f"{n:03}", "n": n, "gold": n % tier == 0} for n in range(first, last)]


def golden(last: int) -> set[str]:
    return {f"{n:03}" for n in range(last) if n % 3 == 0}


async def audience(gateway: Gateway, id_: str) -> AudienceRow:
    async with gateway.database.session() as session:
        return await audiences.required(session, SCOPE, id_)


async def test_every_surface_agrees_before_and_after(gateway: Gateway) -> None:
    await gateway.people(numbered(0, 8))
    live = await gateway.define("Live", "gold = true")
    batch = await gateway.define("Batch", "gold = true", "BATCH")
    await gateway.job()
    assert generations(gateway) == 1
    small = hour(gateway)
    first = (await gateway.reader().members_many([batch], PageRequest(2)))[batch]
    seen = await changes_of(gateway, live, batch)

    # A list is half read, and a job under way, while new buckets come twice.
    gateway.engine = Growing(1, gateway, asyncio.get_running_loop())
    await gateway.job(batch)
    gateway.engine = None
    assert generations(gateway) == 3
    assert await members(gateway, batch) == golden(8)
    await gateway.stream()
    assert await members(gateway, live) == golden(60)
    await gateway.job()
    grown = hour(gateway)
    assert await members(gateway, batch) == golden(60)
    rest = (await gateway.reader().members_many([batch], PageRequest(500, cursor=first.cursors[-1])))[batch]
    keys = [member.key for member in (*first.items, *rest.items)]
    assert len(set(keys)) == len(keys) == 20

    # The past is as it was, and leads to the present.
    assert await at(gateway, batch, small) == " ".join(sorted(golden(8)))
    assert await at(gateway, batch, grown) == " ".join(sorted(golden(60)))
    assert (await differ(gateway, batch, small, grown))[0] == (3, 20, 3, 17, 0)
    for one in (live, batch):
        assert replayed(await changes_of(gateway, one)) == golden(60)
    assert len(await changes_of(gateway, live, batch)) == len(seen) + 2 * 17

    # People of every generation leave, and others enter.
    await gateway.people(numbered(0, 60, tier=4))
    await gateway.stream()
    assert generations(gateway) == 3
    fours = {f"{n:03}" for n in range(60) if n % 4 == 0}
    assert await members(gateway, live) == fours
    overlap = await measure(
        gateway.reader(), [People(audience=await audience(gateway, one)) for one in (live, batch)], None, 1
    )
    both = len(fours & golden(60))
    assert dict(overlap.cells) == {(True, True): both, (True, False): 15 - both, (False, True): 20 - both}
    comparison = await compare(gateway.reader(), await audience(gateway, live), None, "n < 30", 1)
    counts = await comparison.counts(1)
    assert (counts.exact, counts.before, counts.stay.size, counts.enter.size, counts.leave.size) == (True, 15, 8, 22, 7)
    for id_ in ("000", "009", "056", "057"):
        assert (await why(gateway, id_, live)).member == (id_ in fours)

    preview = await previews.create(gateway.database, gateway.lake, gateway.clock, SCOPE, NewPreview("n >= 5"))
    claim = await claim_next(gateway.database, gateway.clock, owner="test", lease=LEASE, kind=JobKind.PREVIEW)
    assert claim is not None
    await run_preview(Attempt(gateway.database, gateway.clock, claim), gateway.lake, 1)
    async with gateway.database.session() as session:
        row = (await previews.get_many(session, SCOPE, [preview.id]))[preview.id]
    assert (row.total_profiles, row.profiles_read, row.profiles_matched) == (60, 60, 55)

    target = (
        await datasets.create(gateway.database, gateway.clock, SCOPE, datasets.NewDataset("out", DatasetKind.EXPORT))
    ).id
    wanted = NewExport(target, "_xdm.context.profile", filter=ExportFilter((ExportSegment(live),)))
    await export(gateway.database, gateway.lake, gateway.clock, wanted)
    assert written(gateway.lake, target) == [f"crm:{id_}" for id_ in sorted(fours)]
    assert await examine(gateway.database, gateway.lake, gateway.clock) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_streamed_persons_are_those_of_jobs_while_the_sandbox_grows(gateway: Gateway) -> None:
    random, twins = Random(3), Twins(gateway)
    await gateway.people([{"id": f"{n:02}", "tier": "tin", **emails(f"e{n}")} for n in range(6)])
    linked = await linked_policy(gateway)
    await twins.define("gold", 'tier = "gold"', linked)
    await twins.define("apart", 'inSegment("{gold}")')
    await gateway.job()
    for step in range(4):
        ids = random.sample(range(10 * (step + 1)), 8)
        links = [emails(*(f"e{random.randrange(40)}" for _ in range(random.choice([0, 1, 2])))) for _ in ids]
        tiers = [random.choice(["gold", "tin"]) for _ in ids]
        await gateway.people(
            [{"id": f"{n:02}", "tier": tier, **link} for n, tier, link in zip(ids, tiers, links, strict=True)]
        )
        await gateway.stream()
        await twins.agree()
    assert generations(gateway) >= 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_person_of_two_generations_is_erased(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everywhere, and rows are only looked for where the person can be."""
    ids = [f"person-{n:03}" for n in range(60)]
    people = [{"id": id, "gold": n % 3 == 0} for n, id in enumerate(ids)]
    people[48]["identityMap"] = {"crm": [{"id": ids[3]}]}
    for start, end in ((0, 8), (8, 60)):
        await gateway.people(people[start:end])
        await gateway.events([{"id": id, "timestamp": "2026-01-01T00:00:00Z", "n": 1} for id in ids[start:end]])
    gold = await gateway.define("Gold", "gold = true", "BATCH")
    await gateway.job(gold)
    places = {id: await gateway.reader().find_identity("crm", id) for id in (ids[3], ids[48])}
    later(gateway)
    opened = set[str]()

    def open_file(path: Path, *arguments: Any, **options: Any) -> pq.ParquetFile:
        opened.add(path.relative_to(gateway.lake.tenant(SCOPE.tenant).folder).as_posix())
        return pq.ParquetFile(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr("app.engine.erasure.rows.pq", SimpleNamespace(**{**vars(pq), "ParquetFile": open_file}))
        job = await erase(gateway, ids[3])
    assert (job.verified, dict(job.places)["Dataset people"], dict(job.places)["Dataset visits"]) == (True, 2, 2)
    assert naming(gateway.lake.tenant(SCOPE.tenant).folder, ids[3], ids[48]) == []
    assert await gateway.numbers(gold) == (18, {"crm": 18})
    await gateway.job(gold)
    assert await gateway.numbers(gold) == (18, {"crm": 18})
    assert [finding.problem for finding in await examine(gateway.database, gateway.lake, gateway.clock)] == []
    assert generations(gateway) == 2
    buckets = {profile.bucket for profile in places.values() if profile is not None}
    assert len(buckets) == 2
    by_ordinal = [name for name in opened if name.startswith(("datasets", "profiles"))]
    assert {int(re.findall(r"__bucket=(\d+)", name)[0]) for name in by_ordinal} == buckets
