"""Prometheus metrics of a process's own work; a leaf that imports none of our modules."""

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

PROCESS = CollectorRegistry()
"""The metrics of this process, shared by all servers and workers that run in it."""

ProcessCollector(registry=PROCESS)
PlatformCollector(registry=PROCESS)
GCCollector(registry=PROCESS)

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

JOBS_ENDED = Counter(
    "segmentation_jobs_ended",
    "Jobs that this process ended, by kind and final status.",
    ["kind", "status"],
    registry=PROCESS,
)
JOB_SECONDS = Histogram(
    "segmentation_job_attempt_seconds",
    "How long this process worked on a job, from claiming it until it ended, failed or was handed back.",
    ["kind"],
    buckets=_SECONDS,
    registry=PROCESS,
)
BUCKET_SECONDS = Histogram(
    "segmentation_bucket_seconds",
    "How long the evaluation of one bucket of profiles took.",
    buckets=_SECONDS,
    registry=PROCESS,
)
LEASES_LOST = Counter(
    "segmentation_leases_lost",
    "Leases that this process held and lost to another one, by what was held (job, share, turn, batch).",
    ["held"],
    registry=PROCESS,
)
LEASES_TAKEN_OVER = Counter(
    "segmentation_leases_taken_over",
    "Leases of dead or frozen processes that this process took over, by what was held (job, share, turn, batch).",
    ["held"],
    registry=PROCESS,
)
BATCHES_LOADED = Counter(
    "segmentation_batches_loaded",
    "Batches that this process loaded, by outcome (active, failed).",
    ["outcome"],
    registry=PROCESS,
)
ROWS_LOADED = Counter(
    "segmentation_rows_loaded",
    "Rows of the batches that this process loaded, by outcome (stored, rejected, duplicate).",
    ["outcome"],
    registry=PROCESS,
)
BYTES_LOADED = Counter("segmentation_bytes_loaded", "Bytes that the loaded batches take in the lake.", registry=PROCESS)
BATCH_SECONDS = Histogram(
    "segmentation_batch_seconds", "How long loading a batch took.", buckets=_SECONDS, registry=PROCESS
)


def of_all_processes() -> CollectorRegistry | None:
    """The summed metrics of all processes of `serve --workers`; None for a single process."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return None
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    registry.register(_Processes(Path(folder)))
    return registry


class _Processes(Collector):
    """CPU time, memory and file descriptors per process, with its `pid`. Dead processes are omitted."""

    def __init__(self, folder: Path) -> None:
        self._pids = sorted({int(file.stem.rpartition("_")[2]) for file in folder.glob("*.db")})

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for pid in self._pids:
            for metric in ProcessCollector(pid=lambda: pid, registry=None).collect():  # noqa: B023, called at once
                family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                family.samples += [sample._replace(labels={"pid": str(pid)}) for sample in metric.samples]
        yield from families.values()
