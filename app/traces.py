"""OpenTelemetry traces of requests, SQL, jobs and buckets, if the package is installed and tracing is on; a leaf that
imports none of our modules. Attributes contain our own ids and names, never personal data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

Attribute = str | int | float | bool

_tracer: "Tracer | None" = None


class TracesUnavailable(Exception):
    """Tracing is on, but the packages that export traces are not installed."""


def configure(service: str, exporter: "SpanExporter | None" = None) -> None:
    """Turns tracing on, with `exporter` or else OTLP as configured by the `OTEL_EXPORTER_OTLP_…` environment variables.

    Raises `TracesUnavailable`.
    """
    global _tracer
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

        provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        else:
            provider.add_span_processor(SimpleSpanProcessor(exporter))
    except ImportError as error:
        raise TracesUnavailable(
            f"SEGMENTATION_TRACES=otlp needs packages that are not installed ({error.name}): run "
            "`pip install 'segmentation-gateway[traces]'`, or set SEGMENTATION_TRACES=off"
        ) from error
    _tracer = provider.get_tracer("segmentation")


def switch_off() -> None:
    global _tracer
    _tracer = None


def enabled() -> bool:
    return _tracer is not None


@contextmanager
def _spanning(name: str, parent: str | None, attributes: Mapping[str, Attribute]) -> Iterator[None]:
    assert _tracer is not None
    with _tracer.start_as_current_span(name, context=_context(parent), attributes=attributes):
        yield


def span(name: str, parent: str | None = None, **attributes: Attribute) -> Any:
    """A span around the block: a child of the current span, or of `parent`, a `present` value from another process."""
    return nullcontext() if _tracer is None else _spanning(name, parent, attributes)


def note(**attributes: Attribute) -> None:
    """Adds attributes to the current span."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(attributes)


def present() -> str | None:
    """The current span as a W3C `traceparent`, to continue the trace in another process."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def _context(parent: str | None) -> Any:
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent})


def begin(name: str, **attributes: Attribute) -> Any:
    """Starts a span that the caller ends with `span.end()`; None when tracing is off."""
    return None if _tracer is None else _tracer.start_span(name, attributes=attributes)
