"""A job takes over what its last run found where nothing can have changed, and finds what a full run finds."""

import inspect
import json
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pyroaring import BitMap

from app.clock import FixedClock
from app.engine.evaluate.kernels import KERNELS
from app.engine.ingest.formats import InputFile
from app.engine.people.snapshot import Snapshot
from app.engine.store.lake import Lake
from app.pql.eligibility import CLOCKS
from app.services.audiences import computed as definitions
from app.services.datasets.datasets import NewDataset
from app.services.datasets.deletion import delete_batch
from app.services.datasets.uploads import ingest_file
from app.services.evaluation import sandboxes
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment import run as runs
from app.services.jobs.segment.unchanged import Since, Unchanged
from app.storage.database import Database
from app.storage.tables.datasets import DatasetKind
from tests.services.conftest import SCOPE
from tests.services.test_people import World
from tests.services.test_segment_jobs import job_of, results, run_next

pytestmark = pytest.mark.usefixtures("real_buckets")

PEOPLE = 120
LASTING = "points > 5"
REFERRING = 'inSegment("{}") and city != "Rome"'
EVENTS = 'xEvent[kind = "buy"].count() >= 1'
CLOCKED = "xEvent.exists(timestamp occurs <= 2 days before now)"


class Shop(World):
    """People with points and a city, and their events. `read` are the buckets that the last job read, and of how many
    people (None: of all)."""

    def __init__(
        self, database: Database, lake: Lake, clock: FixedClock, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        super().__init__(database, lake, clock, folder)
        self.read: list[tuple[int, int | None]] = []
        read = Snapshot.read

        def noted(snapshot: Snapshot, bucket: int, needs: Any, only: BitMap | None = None) -> Any:
            self.read.append((bucket, None if only is None else len(only)))
            return read(snapshot, bucket, needs, only)

        monkeypatch.setattr(Snapshot, "read", noted)

    @property
    def read_whole(self) -> int:
        """How many buckets were read with all of their people."""
        return sum(people is None for _, people in self.read)

    async def shoppers(self, *numbers: int, points: int = 9, **fields: Any) -> None:
        await self.people(*((f"{n:03d}", [], {"points": (points + n) % 12, "city": "Rome", **fields}) for n in numbers))

    async def event(self, number: int, kind: str = "buy") -> str:
        """The id of the batch."""
        self.batches += 1
        path = self.folder / f"events-{self.batches}.ndjson"
        row = {"id": f"{number:03d}", "timestamp": self.clock().isoformat(), "kind": kind, "_id": f"e{self.batches}"}
        path.write_text(json.dumps(row))
        new = NewDataset("events", DatasetKind.EVENT, "id", "CRM", "timestamp")
        uploaded = await ingest_file(self.database, self.lake, self.clock, SCOPE, new, InputFile(path, "NDJSON"))
        return uploaded.batch.id

    async def job(self, *ids: str) -> Any:
        """The job after its run, which must succeed."""
        self.read.clear()
        self.clock.advance(timedelta(minutes=1))
        job = await segment_jobs.create(self.database, self.clock, SCOPE, list(ids))
        await run_next(self.database, self.lake, self.clock)
        ended = await job_of(self.database, job.id)
        assert (ended.status, ended.errors) == ("SUCCEEDED", [])
        assert ended.profiles_read == ended.total_profiles
        return ended

    async def redefine(self, id_: str, **changes: Any) -> None:
        await definitions.update(self.database, self.lake, self.clock, SCOPE, id_, None, changes)  # type: ignore[arg-type]


@pytest.fixture
async def shop(
    database: Database, lake: Lake, clock: FixedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shop:
    shop = Shop(database, lake, clock, tmp_path, monkeypatch)
    await shop.shoppers(*range(PEOPLE))
    await shop.event(1)
    return shop


def unchanged(job: Any) -> int:
    return int(job.metrics["unchanged_profiles"])


async def test_only_people_of_whom_anything_has_come_are_read_again(shop: Shop) -> None:
    first = await shop.define("A", LASTING)
    ids = [first, await shop.define("B", REFERRING.format(first)), await shop.define("C", EVENTS)]
    job = await shop.job(*ids)
    assert (len(shop.read), shop.read_whole, unchanged(job)) == (16, 16, 0)
    assert unchanged(await shop.job(*ids)) == PEOPLE
    assert shop.read == []

    await shop.shoppers(7, points=1)
    await shop.event(7)
    job = await shop.job(*ids)
    ((_, people),) = shop.read
    assert (people, unchanged(job)) == (1, PEOPLE - 1)
    members = await results(shop.database, job.id)
    assert members[ids[0]][2] == {"REALIZED": 1, "EXISTING": members[ids[0]][1] - 1, "EXITED": 0}
    assert members[ids[2]][1:3] == (2, {"REALIZED": 1, "EXISTING": 1, "EXITED": 0})
    # Who entered in the run before is no longer new.
    job = await shop.job(*ids)
    assert (shop.read, unchanged(job)) == ([], PEOPLE)
    assert (await results(shop.database, job.id))[ids[2]][1:3] == (2, {"REALIZED": 0, "EXISTING": 2, "EXITED": 0})

    await shop.shoppers(*range(PEOPLE), points=2)
    job = await shop.job(*ids)
    assert (shop.read_whole, unchanged(job)) == (16, 0)


async def test_what_is_taken_away_is_not_there_for_the_next_run(shop: Shop) -> None:
    events = await shop.define("C", EVENTS)
    await shop.job(events)
    batch = await shop.event(7)
    job = await shop.job(events)
    assert (await results(shop.database, job.id))[events][1] == 2
    await delete_batch(shop.database, shop.lake, shop.clock, SCOPE, batch)
    job = await shop.job(events)
    assert shop.read_whole == 1
    assert (await results(shop.database, job.id))[events][1:3] == (1, {"REALIZED": 0, "EXISTING": 1, "EXITED": 1})


async def test_beside_one_that_depends_on_the_clock_the_others_are_taken_over(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting, clocked = await shop.define("A", LASTING), await shop.define("now", CLOCKED)
    first = await shop.job(lasting, clocked)
    assert (await results(shop.database, first.id))[clocked][1] == 1
    shop.clock.advance(timedelta(days=2))
    asked = []
    read = Snapshot.read

    def noted(snapshot: Snapshot, bucket: int, needs: Any, *others: Any) -> Any:
        asked.append(needs.profile)
        return read(snapshot, bucket, needs, *others)

    monkeypatch.setattr(Snapshot, "read", noted)
    job = await shop.job(lasting, clocked)
    assert unchanged(job) == 0
    assert asked == [frozenset()] * 16  # no attribute: the points are not looked at
    assert (await results(shop.database, job.id))[clocked][1:3] == (0, {"REALIZED": 0, "EXISTING": 0, "EXITED": 1})


async def _another_expression(shop: Shop, id_: str) -> None:
    await shop.redefine(id_, expression="points > 6")


async def _another_consent(shop: Shop, id_: str) -> None:
    await shop.redefine(id_, exclude_opt_out=False)


async def _another_time_zone(shop: Shop, id_: str) -> None:
    await sandboxes.update(shop.database, shop.lake, shop.clock, SCOPE, "Asia/Tokyo")


async def _another_type(shop: Shop, id_: str) -> None:
    await shop.shoppers(3, height=1.5)


async def _lost_members(shop: Shop, id_: str) -> None:
    for path in shop.lake.tenant(SCOPE.tenant).folder.glob("membership/*/*.parquet"):
        path.unlink()


@pytest.mark.parametrize(
    "change",
    [_another_expression, _another_consent, _another_time_zone, _another_type, _lost_members],
    ids=["expression", "consent", "time zone", "type", "lost members"],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_may_give_something_else_is_evaluated(shop: Shop, change: Callable[[Shop, str], Any]) -> None:
    id_ = await shop.define("A", LASTING)
    await shop.job(id_)
    await change(shop, id_)
    job = await shop.job(id_)
    assert (shop.read_whole, unchanged(job)) == (16, 0)
    assert unchanged(await shop.job(id_)) == PEOPLE


async def test_what_refers_to_members_of_another_run_is_evaluated(shop: Shop) -> None:
    first = await shop.define("A", LASTING)
    second = await shop.define("B", REFERRING.format(first))
    await shop.job(first, second)
    await shop.job(second)
    assert shop.read_whole == 16  # A is none of this job: its members are read
    await shop.job(first)
    assert shop.read == []
    await shop.job(first, second)
    assert shop.read_whole == 16  # B was found with an older A
    await shop.job(first, second)
    assert shop.read == []


def test_all_operations_that_depend_on_the_instant_are_known() -> None:
    reading = {name for name, kernel in KERNELS.rows.items() if ".instant" in inspect.getsource(kernel)}
    assert reading == CLOCKS
    assert not [name for name, kernel in KERNELS.binders.items() if "instant" in inspect.getsource(kernel)]


# The databases answer alike, as the tests above show: one is enough for what takes long.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_a_full_run_changes_nobody(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng, taken_over = Random(seed), list[int]()
    known = Unchanged.known

    def counted(self: Unchanged, ids: Collection[str], bucket: int) -> Any:
        groups = known(self, ids, bucket)
        taken_over.extend(len(group.definitions) for group in groups)
        return groups

    monkeypatch.setattr(Unchanged, "known", counted)
    first = await shop.define("A", LASTING)
    second = await shop.define("B", REFERRING.format(first))
    third = await shop.define("C", f'not inSegment("{second}") and {EVENTS}')
    ids = [first, second, third, await shop.define("now", CLOCKED)]
    await shop.job(*ids)
    for _ in range(6):
        match rng.randrange(4):
            case 0:
                await shop.shoppers(*rng.sample(range(PEOPLE + 5), 2), points=rng.randrange(12))
            case 1:
                await shop.event(rng.randrange(PEOPLE), rng.choice(["buy", "view"]))
            case 2:
                await shop.redefine(first, expression=f"points > {rng.randrange(9)}")
            case _:
                shop.clock.advance(timedelta(days=rng.randrange(4)))
        chosen = [id_ for id_ in ids if rng.random() < 0.8] or ids
        await shop.job(*chosen)
        if rng.random() < 0.5:
            continue
        await shop.job(*ids)
        with monkeypatch.context() as full:
            full.setattr(runs, "read_since", _nothing)
            shop.clock.advance(-timedelta(minutes=1))  # the job's own instant
            job = await shop.job(*ids)
        assert shop.read_whole == 16
        for id_, (_, count, statuses, error) in (await results(shop.database, job.id)).items():
            assert (id_, error, statuses) == (id_, None, {"REALIZED": 0, "EXISTING": count, "EXITED": 0})
    assert sum(taken_over) >= 16


async def _nothing(_database: Database, _run: Any) -> list[Since]:
    return []
