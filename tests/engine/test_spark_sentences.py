"""What can be wrong with a Spark cluster is said in a sentence; none of this needs Spark."""

import socket
import sys
import threading
from pathlib import Path

import pytest

from app.engine.run import spark
from app.engine.run.spark import Order, SparkEngine
from app.engine.run.spark_session import missing, unreachable
from app.engine.store.lake import Lake
from app.errors import EngineAway, InvalidSettings, outage
from tests.support.spark import Held, result_of


def test_an_executor_with_the_lake_reads_the_order(tmp_path: Path) -> None:
    assert Order.written(tmp_path / "order.json", {"a": [1]}).read() == {"a": [1]}


def test_an_executor_without_the_folder_says_so(tmp_path: Path) -> None:
    order = Order.written(tmp_path / "order.json", {})
    (tmp_path / "order.json").unlink()
    with pytest.raises(EngineAway, match=rf"^it cannot read {tmp_path} \(No such file or directory\): every machine"):
        order.read()


def test_an_executor_with_another_folder_says_so(tmp_path: Path) -> None:
    order = Order.written(tmp_path / "order.json", {})
    (tmp_path / "order.json").write_text("{ }")
    with pytest.raises(EngineAway, match=r"^it has another folder at"):
        order.read()


def test_an_executor_with_another_program_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order.written(tmp_path / "order.json", {})
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.9")
    with pytest.raises(EngineAway, match=r"^it has segmentation-gateway 0\.0\.9 on Python 3\.\d+, and the gateway"):
        order.read()


def outcome(folder: Path, place: int) -> object:
    spark._opened.cache_clear()
    work = Held(folder)
    (folder / "order").mkdir(exist_ok=True)
    order = Order.written(folder / "order" / "order.json", {"work": work.as_json(), "buckets": [7, 8]})
    return spark._outcome(order, Held.from_json, place)


def test_a_task_that_is_tried_again_finds_what_the_first_try_did(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    first = outcome(tmp_path, 1)
    (tmp_path / "go").unlink()  # Once more it would wait for ever.
    assert outcome(tmp_path, 1) == first
    assert spark._done(first).file == result_of(8).file


def test_work_that_nobody_waits_for_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "STILL_SECONDS", 0)
    real = Held.bucket

    def withdrawn(held: Held, number: int, stopped: object) -> object:
        (tmp_path / "order" / "order.json").unlink()
        return real(held, number, stopped)  # type: ignore[arg-type]

    monkeypatch.setattr(Held, "bucket", withdrawn)
    assert outcome(tmp_path, 0) == {"refused": None}
    assert (tmp_path / "stopped-7").exists()


def test_the_sentence_of_an_executor_is_found_in_a_trace_of_spark() -> None:
    trace = RuntimeError(
        "Job aborted due to stage failure: Task 0 failed\n  File x\napp.errors.EngineAway: mount it\n\tat org.apache"
    )
    assert str(spark._away(trace)) == "mount it"
    assert outage(spark._away(trace)) == "mount it"
    assert str(spark._away(RuntimeError("\nno heartbeat\n\tat org.apache"))) == (
        "Spark gave up the work (no heartbeat): see its logs and fix the cluster"
    )


@pytest.mark.parametrize("master", ["local[2]", "sc://127.0.0.1:15002"])
def test_a_machine_without_pyspark_says_what_to_install(master: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyspark"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    assert missing(master) == ("Spark's Python packages are not installed: pip install 'segmentation-gateway[spark]'")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ('openjdk version "17.0.15" 2025-04-15', None),
        ('openjdk version "21" 2025-04-15', None),
        ('java version "1.8.0_401"', "is Java 1: set JAVA_HOME to another"),
        ('openjdk version "11.0.2"', "is Java 11: set JAVA_HOME to another"),
        (None, "Spark needs Java 17 or newer, and there is none: install it, or set JAVA_HOME"),
    ],
)
def test_a_machine_without_a_java_of_today_says_so(
    said: str | None, problem: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.engine.run.spark_session import _java_missing

    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if said is not None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(f"#!/bin/sh\necho '{said}' >&2\n")
        (tmp_path / "bin" / "java").chmod(0o755)
    answer = _java_missing()
    assert answer is None if problem is None else answer is not None and answer.endswith(problem)


def test_a_master_that_does_not_answer_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark, "missing", lambda master: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert unreachable(f"spark://127.0.0.1:{port}") is None
        assert unreachable(f"spark://127.0.0.1:1,127.0.0.1:{port}") is None
        assert unreachable(f"sc://127.0.0.1:{port}/;token=secret") is None
    assert unreachable("local[2]") is None
    engine = SparkEngine(f"sc://127.0.0.1:{port}/;token=secret", Lake(tmp_path))
    sentence = rf"^SEGMENTATION_SPARK_MASTER=sc://127\.0\.0\.1:{port}/: the Spark master does not answer: start it"
    with pytest.raises(InvalidSettings, match=sentence):
        engine.start()
    with pytest.raises(EngineAway, match="does not answer"):
        engine.run(Held(tmp_path), [1], lambda done: None, lambda: False)


def test_a_start_waits_for_so_long_and_no_longer() -> None:
    held = threading.Event()
    try:
        with pytest.raises(EngineAway, match=r"^no executor answered within 0 seconds: see whether"):
            spark._within(0.01, lambda: (held.wait(60), 1))
    finally:
        held.set()


def test_nothing_to_do_needs_no_cluster(tmp_path: Path) -> None:
    SparkEngine("spark://127.0.0.1:1", Lake(tmp_path)).run(Held(tmp_path), [], lambda done: None, lambda: False)
