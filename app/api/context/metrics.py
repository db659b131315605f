"""Prometheus metrics of the server."""

import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

from app.api.context import request_log
from app.logs import Field, bind, event
from app.scope import Scope
from app.traces import span

log = logging.getLogger("segmentation.requests")

LONGEST_NAME = 100
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.operations = Counter(
            "segmentation_graphql_operations",
            "GraphQL operations that ended, by kind and outcome (ok, error, cancelled).",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "segmentation_graphql_seconds",
            "How long queries and mutations took.",
            ["kind"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600),
            registry=self.registry,
        )
        self.streams = Gauge(
            "segmentation_graphql_streams",
            "Streams that are open: WebSockets, and subscriptions by server-sent events.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.running = Gauge(
            "segmentation_graphql_running",
            "GraphQL operations in progress, by kind: subscriptions count for as long as they are open.",
            ["kind"],
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        self.fallbacks = Counter(
            "segmentation_graphql_fallbacks",
            "GraphQL operations that were not executed by a plan of this server, but field by field by graphql-core.",
            registry=self.registry,
        )
        self.generated, self.one_by_one = map(_objects(self.registry).labels, ("generated", "one_by_one"))
        self.refusals = Counter(
            "segmentation_refusals",
            "Requests and operations that a limit rejected, by the limit's name.",
            ["limit"],
            registry=self.registry,
        )

    def refused(self, limit: str) -> None:
        """Counts a rejection by a limit."""
        self.refusals.labels(limit).inc()


def _objects(registry: CollectorRegistry) -> Counter:
    return Counter(
        "segmentation_graphql_objects",
        "Objects in responses: written by generated functions, or one by one because one of a level was unusual.",
        ["way"],
        registry=registry,
    )


def code_of(errors: Sequence[Any] | None) -> str | None:
    """The code of the first error."""
    return str((errors[0].extensions or {}).get("code", "ERROR")) if errors else None


def record(
    metrics: Metrics, scope: Scope, kind: str, name: str | None, outcome: str, error: str | None, seconds: float
) -> None:
    """Records that an operation has ended: how (ok, error, cancelled), and the code of its first error, if any."""
    metrics.operations.labels(kind, outcome).inc()
    if kind in {"query", "mutation"}:
        metrics.seconds.labels(kind).observe(seconds)
    name = name[:LONGEST_NAME] if name else None
    fields: dict[str, Field] = {"operation": name, "kind": kind, "outcome": error or outcome}
    if not request_log.add(**fields, organisation=scope.organisation, sandbox=scope.sandbox):
        event(log, "operation", logging.INFO, **fields, duration_ms=seconds * 1000)


class Measured(SchemaExtension):
    """Records one operation: counts it in the server's metrics, logs it, and traces it."""

    def __init__(self) -> None:
        self._error: str | None = None
        self._running: str | None = None

    async def on_operation(self) -> AsyncIterator[None]:
        began = time.perf_counter()
        operation = self.execution_context.context
        scope = operation.scope
        bind(request_id=operation.request_id, organisation=scope.organisation, sandbox=scope.sandbox)
        outcome = "cancelled"
        try:
            with span("GraphQL operation"):
                yield
            self._note(self.execution_context.pre_execution_errors)
            self._note(getattr(self.execution_context.result, "errors", None))
            outcome = "error" if self._error else "ok"
        finally:
            kind, metrics = self._kind(), self._metrics
            if self._running is not None:
                metrics.running.labels(self._running).dec()
            name = self.execution_context.operation_name if kind != "invalid" else None
            record(metrics, scope, kind, name, outcome, self._error, time.perf_counter() - began)

    def _note(self, errors: Sequence[Any] | None) -> None:
        self._error = self._error or code_of(errors)

    def on_validate(self) -> Iterator[None]:
        self._running = self._kind()
        self._metrics.running.labels(self._running).inc()
        yield

    @property
    def _metrics(self) -> Metrics:
        metrics: Metrics = self.execution_context.context.services.metrics
        return metrics

    async def on_stream_result(self, result: object) -> AsyncIterator[None]:
        self._note(getattr(result, "errors", None))
        yield

    def _kind(self) -> str:
        context = self.execution_context
        if context.graphql_document is None:
            return "invalid"
        try:
            kind: OperationType = context.operation_type
        except RuntimeError:
            return "invalid"
        return kind.value
