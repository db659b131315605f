"""What settings, doctor and health say of the engine of segment jobs."""

from pathlib import Path

import pytest

from app.engine.run.engine import LocalEngine
from app.errors import InvalidSettings
from app.services.maintenance.readiness import engine_away
from app.settings import load_settings
from app.wiring import examined, open_services, working

NOBODY = "spark://127.0.0.1:1"


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ({"engine": "spark"}, "SEGMENTATION_ENGINE=spark needs SEGMENTATION_SPARK_MASTER"),
        ({"spark_master": NOBODY}, "SEGMENTATION_SPARK_MASTER is set, and only SEGMENTATION_ENGINE=spark uses it"),
        ({"engine": "flink"}, "SEGMENTATION_ENGINE='flink': Input should be 'local' or 'spark'"),
        ({"engine": "spark", "spark_master": "local"}, "this is no Spark master: write spark://host:7077"),
        ({"engine": "spark", "spark_master": "local[0]"}, "this is no Spark master"),
        ({"engine": "spark", "spark_master": "http://host"}, "this is no Spark master"),
    ],
)
def test_settings_that_name_no_cluster_are_refused(chosen: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load_settings(**chosen)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    "master", ["local[2]", "local[*]", "local[2,4]", NOBODY, "spark://a:1,b:2", "sc://h:1/;token=x", "yarn"]
)
def test_masters_of_spark_are_taken(master: str) -> None:
    assert load_settings(engine="spark", spark_master=master).spark_master == master


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    monkeypatch.setattr("app.engine.run.spark.missing", lambda master: None)


@pytest.mark.usefixtures("no_java")
async def test_a_master_that_is_away_stops_a_worker_at_its_start_and_is_said(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, engine="spark", spark_master=NOBODY)
    async with open_services(settings) as services:
        with pytest.raises(InvalidSettings, match=rf"^SEGMENTATION_SPARK_MASTER={NOBODY}: the Spark master does not"):
            async with working(services):
                pass
        assert await engine_away(services.engine) == (
            "segment jobs fail: the Spark master does not answer: start it, or see the address and the network"
        )
    (finding,) = await examined(settings)
    assert (finding.check, finding.where, finding.problem.partition(":")[0]) == (
        "engine",
        "SEGMENTATION_ENGINE=spark",
        "the Spark master does not answer",
    )
    assert await examined(settings.model_copy(update={"engine": "local"})) == []


async def test_threads_are_never_away() -> None:
    assert await engine_away(LocalEngine(2)) is None
    assert await engine_away(None) is None
