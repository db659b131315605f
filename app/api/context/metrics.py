"""What the server counts about itself, for Prometheus."""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.operations = Counter(
            "segmentation_graphql_operations",
            "GraphQL operations that ended, by kind and outcome (ok, error).",
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
            registry=self.registry,
        )
        self.running = Gauge(
            "segmentation_graphql_running",
            "GraphQL operations in progress, by kind: subscriptions count for as long as they are open.",
            ["kind"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "segmentation_refusals",
            "Requests and operations that a limit rejected, by the limit's name.",
            ["limit"],
            registry=self.registry,
        )

    def refused(self, limit: str) -> None:
        """Counts what a limit rejected."""
        self.refusals.labels(limit).inc()


class Measured(SchemaExtension):
    """Counts one operation, in the metrics of its server."""

    def __init__(self) -> None:
        self._failed = False
        self._running: str | None = None

    async def on_operation(self) -> AsyncIterator[None]:
        began = time.perf_counter()
        metrics = self._metrics
        try:
            yield
        finally:
            if self._running is not None:
                metrics.running.labels(self._running).dec()
        kind, result = self._kind(), self.execution_context.result
        failed = self._failed or bool(self.execution_context.pre_execution_errors or getattr(result, "errors", None))
        metrics.operations.labels(kind, "error" if failed else "ok").inc()
        if kind in {"query", "mutation"}:
            metrics.seconds.labels(kind).observe(time.perf_counter() - began)

    def on_validate(self) -> Iterator[None]:
        self._running = self._kind()
        self._metrics.running.labels(self._running).inc()
        yield

    @property
    def _metrics(self) -> Metrics:
        metrics: Metrics = self.execution_context.context.services.metrics
        return metrics

    async def on_stream_result(self, result: Any) -> AsyncIterator[None]:
        self._failed = self._failed or bool(getattr(result, "errors", None))
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
