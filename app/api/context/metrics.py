"""What the server counts about itself, for Prometheus."""

import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from strawberry.extensions import SchemaExtension
from strawberry.types.graphql import OperationType

from app.api.context import request_log
from app.logs import Field, bind, event
from app.traces import span

log = logging.getLogger("segmentation.requests")

LONGEST_NAME = 100
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The counters of one application."""

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
    """Counts one operation, in the metrics of its server, logs it, and spans it in traces."""

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
            self._record(outcome, time.perf_counter() - began)

    def _record(self, outcome: str, seconds: float) -> None:
        metrics, kind = self._metrics, self._kind()
        if self._running is not None:
            metrics.running.labels(self._running).dec()
        metrics.operations.labels(kind, outcome).inc()
        if kind in {"query", "mutation"}:
            metrics.seconds.labels(kind).observe(seconds)
        context = self.execution_context
        name = context.operation_name[:LONGEST_NAME] if kind != "invalid" and context.operation_name else None
        fields: dict[str, Field] = {"operation": name, "kind": kind, "outcome": self._error or outcome}
        scope = context.context.scope
        if not request_log.add(**fields, organisation=scope.organisation, sandbox=scope.sandbox):
            event(log, "operation", logging.INFO, **fields, duration_ms=seconds * 1000)

    def _note(self, errors: Sequence[Any] | None) -> None:
        """Keeps the code of the first error."""
        if errors and self._error is None:
            self._error = str((errors[0].extensions or {}).get("code", "ERROR"))

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
