"""Segment jobs on a Spark cluster of two workers: everything as the local engine does it.

One process, since each would start a cluster of its own:

    SEGMENTATION_TEST_REQUIRE=spark pytest -n0 tests/services/test_spark.py
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.clock import FixedClock, utc_now
from app.engine.limits.pool import Cancelled
from app.engine.run.engine import Done
from app.engine.run.spark import SparkEngine
from app.engine.store.lake import Lake
from app.errors import EngineAway, Refusal
from app.services.jobs.segment import requests as segment_jobs
from app.storage.database import Database
from app.storage.tables.jobs import FINAL
from tests.services.conftest import SCOPE, Gateway
from tests.services.test_corpus_job import corpus_job
from tests.services.test_engines import compared_jobs
from tests.support import processes
from tests.support.spark import PATIENCE, Cluster, Held, cluster, require_spark

pytestmark = [
    pytest.mark.usefixtures("real_buckets"),
    pytest.mark.timeout(600),
    # py4j leaves the sockets of threads that have ended to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def spark_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    require_spark()
    with cluster(tmp_path_factory.mktemp("spark")) as started:
        yield started


@pytest.fixture(scope="module")
def engine(spark_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkEngine]:
    engine = SparkEngine(spark_cluster.master, Lake(tmp_path_factory.mktemp("lake")))
    engine.start()
    assert engine.parallel == 2
    assert engine.problem() is None
    yield engine
    engine.stop()


def never() -> bool:
    return False


def until(what: Callable[[], bool]) -> None:
    for _ in range(PATIENCE * 20):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE} seconds")


class Running:
    """The engine at work in a thread of its own."""

    def __init__(self, engine: SparkEngine, work: Held, buckets: int) -> None:
        self.done: list[Done] = []
        self.error: BaseException | None = None
        self.cancelled = False
        self._thread = threading.Thread(target=self._run, args=(engine, work, range(buckets)))
        self._thread.start()

    def _run(self, engine: SparkEngine, work: Held, buckets: range) -> None:
        try:
            engine.run(work, buckets, self.done.append, lambda: self.cancelled)
        except BaseException as error:
            self.error = error

    def joined(self) -> "Running":
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self

    @property
    def numbers(self) -> list[int]:
        for done in self.done:
            assert (done.file, done.profiles, done.counts) == (
                f"file {done.bucket}",
                done.bucket * 10,
                {"a": done.bucket},
            )
        return sorted(done.bucket for done in self.done)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_jobs_leave_what_the_local_engine_leaves(engine: SparkEngine, gateway: Gateway) -> None:
    assert (await compared_jobs(gateway, engine)).buckets == 16 * (3 + 3 + 1)  # by passes


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_every_expression_of_the_corpus(
    engine: SparkEngine, database: Database, lake: Lake, clock: FixedClock, tmp_path: Path
) -> None:
    await corpus_job(database, lake, clock, tmp_path, engine)


def test_results_are_handed_over_while_others_are_awaited(engine: SparkEngine, tmp_path: Path) -> None:
    running = Running(engine, Held(tmp_path), 4)
    (tmp_path / "go-0").touch()
    until(lambda: len(running.done) == 1)
    assert running.numbers == [0]
    (tmp_path / "go").touch()
    assert running.joined().numbers == [0, 1, 2, 3]


def test_a_cancelled_job_lets_the_cluster_go(engine: SparkEngine, tmp_path: Path) -> None:
    held = Held(tmp_path)
    running = Running(engine, held, 6)
    until(lambda: len(held.begun()) == 2)
    running.cancelled = True
    assert isinstance(running.joined().error, Cancelled)
    assert running.done == []
    assert not list(held.lake.spool.glob("*/")), "nothing is left in the lake"
    (tmp_path / "go").touch()
    assert Running(engine, held, 6).joined().numbers == [0, 1, 2, 3, 4, 5]


def test_what_a_killed_executor_had_is_done_by_another(
    engine: SparkEngine, spark_cluster: Cluster, tmp_path: Path
) -> None:
    held = Held(tmp_path)
    running = Running(engine, held, 5)
    until(lambda: len(held.begun()) == 2)
    (executor, *_) = psutil.Process(spark_cluster.workers[0].pid).children()
    executor.kill()
    until(lambda: len(list(tmp_path.glob("begun-*"))) >= 3)
    (tmp_path / "go").touch()
    assert running.joined().error is None
    assert running.numbers == [0, 1, 2, 3, 4]


def test_a_refusal_in_a_bucket_ends_the_job_with_its_sentence(engine: SparkEngine, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    with pytest.raises(Refusal, match=r"^bucket 3 is lost$"):
        engine.run(Held(tmp_path, refused=3), range(5), lambda done: None, never)


def test_a_machine_that_is_unfit_says_why(engine: SparkEngine, tmp_path: Path) -> None:
    with pytest.raises(
        EngineAway, match=r"^the Spark executor on \S+: this machine has other buckets: mount one folder$"
    ):
        engine.run(Held(tmp_path, unfit=True), range(5), lambda done: None, never)
    (tmp_path / "go").touch()
    session = engine._session
    assert Running(engine, Held(tmp_path), 3).joined().numbers == [0, 1, 2]
    assert engine._session is session, "the cluster itself is well"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_worker_evaluates_by_spark_connect(
    spark_cluster: Cluster, database_url: str, database: Database, tmp_path: Path
) -> None:
    """All as users have it: a worker process, and a server that it knows by its URL."""
    clock = FixedClock(utc_now())
    gateway = Gateway(database, Lake(tmp_path / "lake"), clock, tmp_path)
    await gateway.people([{"id": f"{n:03}", "score": n} for n in range(100)])
    high = await gateway.define("high", "score >= 60", "BATCH")
    even = await gateway.define("even", f'inSegment("{high}") and score % 2 = 0', "BATCH")
    job = await segment_jobs.create(database, clock, SCOPE, all_definitions=True)
    with spark_cluster.connect_server() as url, (tmp_path / "log").open("wb") as log:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")},
            "SEGMENTATION_DATABASE_URL": database_url,
            "SEGMENTATION_DATA_DIR": str(tmp_path),
            "SEGMENTATION_ENGINE": "spark",
            "SEGMENTATION_SPARK_MASTER": url,
        }
        worker = processes.start(["worker"], tmp_path, environment, stdout=log, stderr=log)
        try:
            ended = await until_final(database, job.id)
            worker.terminate()
            assert worker.wait(30) == 0
        finally:
            worker.kill()
    assert (ended.status, ended.errors) == ("SUCCEEDED", [])
    assert [(await gateway.numbers(id_))[0] for id_ in (high, even)] == [40, 20]
    said = (tmp_path / "log").read_text()
    assert f"Spark at {url}: 2 parallel tasks" in said
    assert "Traceback" not in said


async def until_final(database: Database, job_id: str) -> Any:
    for _ in range(PATIENCE * 30):
        async with database.session() as session:
            job = (await segment_jobs.get_many(session, SCOPE, [job_id]))[job_id]
        if job.status in FINAL:
            return job
        await asyncio.sleep(0.1)
    raise AssertionError(f"the job is still {job.status}")
