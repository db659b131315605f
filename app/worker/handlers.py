"""The handler of each kind of job, in one table."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from app.engine.run.engine import Engine
from app.engine.store.lake import Lake
from app.services.jobs.erasure.run import run_erasure_job
from app.services.jobs.export.run import run_export_job
from app.services.jobs.preview.run import run_preview
from app.services.jobs.segment.run import run_segment_job
from app.storage.queue.attempts import Attempt
from app.storage.tables.jobs import JobKind


@dataclass(frozen=True, slots=True)
class Tools:
    """What handlers use: the lake, the number of threads, and the engine that evaluates segment jobs."""

    lake: Lake
    threads: int
    engine: Engine


Handler = Callable[[Attempt, Tools], Awaitable[None]]
"""Runs a job and ends it with `finish`. May return without ending it only if it was interrupted."""


async def _segment_job(run: Attempt, tools: Tools) -> None:
    await run_segment_job(run, tools.lake, tools.threads, tools.engine)


async def _export_job(run: Attempt, tools: Tools) -> None:
    await run_export_job(run, tools.lake, tools.threads)


async def _erasure_job(run: Attempt, tools: Tools) -> None:
    await run_erasure_job(run, tools.lake, tools.threads)


async def _preview(run: Attempt, tools: Tools) -> None:
    await run_preview(run, tools.lake, tools.threads)


HANDLERS: Mapping[JobKind, Handler] = {
    JobKind.PREVIEW: _preview,
    JobKind.SEGMENT: _segment_job,
    JobKind.EXPORT: _export_job,
    JobKind.ERASURE: _erasure_job,
}
