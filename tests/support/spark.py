"""A Spark cluster of two workers on this machine, from the jars of pyspark, and work for it that tests can hold up."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from app.engine.limits.pool import Cancelled, Stopped
from app.engine.run.engine import Done
from app.engine.store.lake import Lake, TenantLake
from app.errors import EngineAway, ErrorCode, Refusal
from app.json_values import JsonObject
from app.scope import Tenant

PATIENCE = 120
"""Seconds: Java starts slowly on a busy machine."""
ROOT = Path(__file__).parents[2]


def require_spark() -> None:
    """Skips where pyspark or Java is missing, unless SEGMENTATION_TEST_REQUIRE names `spark`."""
    missing = None if shutil.which("java") else "there is no Java"
    if not all(importlib.util.find_spec(name) for name in ("pyspark", "pandas")):
        missing = "there is no pyspark: pip install -e '.[spark]'"
    if missing is not None:
        if "spark" in os.environ.get("SEGMENTATION_TEST_REQUIRE", "").split(","):
            pytest.fail(missing)
        pytest.skip(missing)


@dataclass(frozen=True, slots=True)
class Cluster:
    master: str
    workers: tuple[subprocess.Popen[bytes], ...]
    folder: Path

    @contextmanager
    def connect_server(self) -> Iterator[str]:
        """The URL of a Spark Connect server whose executors are the cluster's."""
        java = ["org.apache.spark.deploy.SparkSubmit", "--master", self.master, "--conf", "spark.ui.enabled=false"]
        java += ["--conf", "spark.connect.grpc.binding.port=0"]
        java += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
        with _java(self.folder, "connect", *java) as (_, log):
            port = _said(log, r"Spark Connect server started at: \S*:(\d+)")
            yield f"sc://127.0.0.1:{port}"


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A master and two workers, on which each application has a core of either."""
    with ExitStack() as stack:
        master = ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        _, log = stack.enter_context(_java(folder, "master", *master))
        url = _said(log, r"Starting Spark master at (spark://\S+)")
        worker = ["org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--webui-port", "0"]
        worker += ["--cores", "2", "--memory", "2g", url]
        started = [stack.enter_context(_java(folder, f"worker-{at}", *worker)) for at in (1, 2)]
        for _, log in started:
            _said(log, r"(Successfully registered with master)")
        yield Cluster(url, tuple(process for process, _ in started), folder)


@contextmanager
def _java(folder: Path, name: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    import pyspark

    home = Path(pyspark.__file__).parent
    log = folder / f"{name}.log"
    (folder / "log4j2.properties").write_text(_LOGGING)
    # Applications are beside each other: none waits for the cores of another.
    (folder / "spark-defaults.conf").write_text("spark.deploy.defaultCores 2\nspark.executor.memory 1g\n")
    environment = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_CONF_DIR": str(folder),
        "SPARK_WORKER_DIR": str(folder / name),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [home / "bin" / "spark-class", *arguments], env=environment, stdout=output, stderr=output, cwd=folder
        )
    try:
        yield process, log
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_LOGGING = """rootLogger.level = info
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %p %c{1}: %m%n
"""


def _said(log: Path, pattern: str) -> str:
    """What a process wrote to its log, once it has."""
    for _ in range(PATIENCE * 10):
        if found := re.search(pattern, log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"{log.name} does not have {pattern!r}:\n{log.read_text(errors='replace')[-3000:]}")


@dataclass(frozen=True, slots=True)
class Held:
    """Work that tells in a folder what it has begun, and waits there for the file `go`, or `go-3` for bucket 3.

    Bucket `refused` is refused; a machine that is `unfit` cannot open it.
    """

    folder: Path
    refused: int | None = None
    unfit: bool = False

    @property
    def lake(self) -> TenantLake:
        return Lake(self.folder).tenant(Tenant("acme", "prod"))

    def bucket(self, number: int, stopped: Stopped) -> Done:
        if number == self.refused:
            raise Refusal(ErrorCode.INVALID_STATE, f"bucket {number} is lost")
        (self.folder / f"begun-{number}-{os.getpid()}").touch()
        while not any((self.folder / name).exists() for name in ("go", f"go-{number}")):
            if stopped():
                (self.folder / f"stopped-{number}").touch()
                raise Cancelled
            time.sleep(0.05)
        return result_of(number)

    def begun(self) -> set[int]:
        return {int(path.name.split("-")[1]) for path in self.folder.glob("begun-*")}

    def as_json(self) -> JsonObject:
        return {"folder": str(self.folder), "refused": self.refused, "unfit": self.unfit}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        if value["unfit"]:
            raise EngineAway("this machine has other buckets: mount one folder")
        return cls(Path(value["folder"]), value["refused"])


def result_of(number: int) -> Done:
    return Done(number, f"file {number}", number * 10, {"a": number})
