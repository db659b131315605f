"""Endpoints for load balancers, operators and Prometheus: liveness, readiness and metrics."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from app.api.context import ApiServices
from app.api.context.metrics import CONTENT_TYPE
from app.api.transport.callers import CHALLENGE, new_caller
from app.engine.maintenance.inspection import Usage
from app.errors import Refusal
from app.metrics import PROCESS, of_all_processes
from app.services.access.identity import Unauthenticated
from app.services.access.rates import RateExceeded
from app.services.maintenance.figures import Figures
from app.services.maintenance.readiness import engine_away, left_jobs, not_ready
from app.storage.columns import StoredValues
from app.storage.database import PoolState

log = logging.getLogger(__name__)

READY_SECONDS = 5.0
"""How long the database may take to respond before the process counts as not ready."""


def health_routes(services: ApiServices) -> list[BaseRoute]:
    return [
        Route("/health/live", live),
        Route("/health/ready", readiness(services)),
        Route("/metrics", prometheus(services)),
    ]


async def live(request: Request) -> Response:
    return PlainTextResponse("alive\n")


def readiness(services: ApiServices) -> Callable[[Request], Awaitable[Response]]:
    """Ready if the database has the current schema and the data folder is writable. Unclaimed jobs or an unavailable
    engine are warnings, since requests still succeed."""

    async def ready(request: Request) -> Response:
        if services.draining.is_set():
            return JSONResponse({"ready": False, "reason": "the server is stopping"}, status_code=503)
        if reason := await not_ready(services.database, services.lake, READY_SECONDS):
            log.warning("the server is not ready: %s", reason)
            return JSONResponse({"ready": False, "reason": reason}, status_code=503)
        answer: StoredValues = {"ready": True}
        async with services.database.session() as session:
            warnings = [await left_jobs(session, services.clock()), await engine_away(services.engine)]
        if warning := "; ".join(filter(None, warnings)):
            answer["warning"] = warning
        return JSONResponse(answer)

    return ready


def prometheus(services: ApiServices) -> Callable[[Request], Awaitable[Response]]:
    """Open to all if authentication is off; otherwise requires the permission `metrics:read`."""

    async def measured(request: Request) -> Response:
        caller = new_caller(services, request, "metrics")
        try:
            await caller.identify()
        except Unauthenticated as problem:
            return PlainTextResponse(f"{problem}\n", 401, headers={"www-authenticate": CHALLENGE})
        except RateExceeded as exceeded:
            services.metrics.refused(exceeded.limit.name)
            return PlainTextResponse(f"{exceeded}\n", 429, headers={"retry-after": str(exceeded.seconds)})
        except Refusal as refusal:
            return PlainTextResponse(f"{refusal.message}\n", 403)
        if caller.scope is None or not caller.scope.allows("metrics:read"):
            return PlainTextResponse("metrics need the permission metrics:read\n", 403)
        state = CollectorRegistry()
        state.register(await _read_state(services))
        together = of_all_processes()
        counted = (services.metrics.registry, PROCESS) if together is None else (together,)
        text = b"".join(generate_latest(registry) for registry in (*counted, state))
        return Response(text, headers={"content-type": CONTENT_TYPE})

    return measured


async def _read_state(services: ApiServices) -> "_State":
    """The metrics of database and lake; without them the scrape still succeeds."""
    figures = usage = None
    try:
        async with asyncio.timeout(READY_SECONDS):
            figures = await services.figures.figures()
            usage = await services.figures.usage()
    except Exception as error:
        log.warning("metrics without the state of the database or the lake: %r", error)
    return _State(figures, usage, services.database.pools())


class _State(Collector):
    """Metrics that are read on each scrape."""

    def __init__(self, figures: Figures | None, usage: Usage | None, pools: dict[str, PoolState]) -> None:
        self._figures, self._usage, self._pools = figures, usage, pools

    def collect(self) -> Iterator[Metric]:
        up = "1 if the database answered, else 0, and what it says is missing from this answer."
        yield GaugeMetricFamily("segmentation_database_up", up, float(self._figures is not None))
        limit = GaugeMetricFamily("segmentation_database_connections_limit", "Connections at most.", labels=["pool"])
        used = GaugeMetricFamily("segmentation_database_connections_used", "Connections in use.", labels=["pool"])
        for name, pool in self._pools.items():
            limit.add_metric([name], pool.limit)
            used.add_metric([name], pool.used)
        yield from (limit, used)
        if self._figures is not None:
            yield from _queue(self._figures)
        if self._usage is not None:
            yield GaugeMetricFamily("segmentation_lake_bytes", "Bytes of the lake's files.", self._usage.bytes)
            yield GaugeMetricFamily("segmentation_lake_files", "Files of the lake.", self._usage.files)
            yield GaugeMetricFamily("segmentation_lake_free_bytes", "Free bytes of its disk.", self._usage.free)


def _queue(figures: Figures) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "segmentation_jobs", "Jobs that have not ended, by kind and status.", labels=["kind", "status"]
    )
    for (kind, status), number in figures.jobs.items():
        jobs.add_metric([kind.value, status.value], number)
    oldest = GaugeMetricFamily(
        "segmentation_queue_age_seconds", "How long the oldest waiting job of a kind has waited.", labels=["kind"]
    )
    for kind, seconds in figures.oldest.items():
        oldest.add_metric([kind.value], seconds)
    yield from (jobs, oldest)
    yield GaugeMetricFamily("segmentation_workers", "Workers that are running.", figures.workers)
    batches = GaugeMetricFamily(
        "segmentation_batches_unsettled", "Batches being loaded or deleted; `lost` if silent.", labels=["state"]
    )
    batches.add_metric(["held"], figures.loading)
    batches.add_metric(["lost"], figures.lost)
    yield batches
    yield GaugeMetricFamily("segmentation_streaming_batches", "Batches that wait for streaming.", figures.streaming)
    age = "How long the oldest batch has waited for streaming."
    yield GaugeMetricFamily("segmentation_streaming_age_seconds", age, figures.streaming_oldest)
