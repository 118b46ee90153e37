"""Traces of requests for an OpenTelemetry collector (OTLP over HTTP), where one is named.

Spans are made when the answer is out, from the request's record: one for the request and one for
each of its phases. So they hold what a log line holds, counts and words from closed lists, and a
service without a collector does not even import the library (extra `traces`).

A caller's `traceparent` is continued. Its `tracestate` is not: that is free text, and would go out
with every span. What else the SDK can be told (headers, sampling) are its own OTEL_* variables.
"""

from typing import Any

from service import __version__
from service.errors import SettingsInvalid
from service.record import Record

__all__ = ["Traces"]

# A collector that hangs must not hold up a stop for longer.
_TIMEOUT_S = 3


class Traces:
    """Sends spans in the background; what a collector does not take is dropped."""

    def __init__(self, endpoint: str) -> None:
        """Start the sender.

        Args:
            endpoint: URL of the collector's traces, path included.

        Raises:
            SettingsInvalid: the extra is not installed.
        """
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise SettingsInvalid(
                "ENDOCLIP_TRACES_ENDPOINT needs the extra: pip install 'endo-clip[traces]'"
            ) from error
        self._api = trace
        self._parent = TraceContextTextMapPropagator()
        resource = Resource({"service.name": "endo-clip", "service.version": __version__})
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_TIMEOUT_S)
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("endo-clip", __version__)

    def add(self, record: Record, traceparent: str) -> None:
        """Send the trace of a finished request.

        Args:
            record: of the request.
            traceparent: the header of that name; empty where there is none.
        """
        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=self._parent.extract({"traceparent": traceparent}),
            kind=self._api.SpanKind.SERVER,
            attributes=_attributes(record),
            start_time=record.wall_ns(record.began_ns),
        )
        if record.status >= 500:
            span.set_status(self._api.StatusCode.ERROR)
        inside = self._api.set_span_in_context(span)
        for name, (began_ns, ended_ns) in record.spans.items():
            child = self._tracer.start_span(
                name, context=inside, start_time=record.wall_ns(began_ns)
            )
            child.end(record.wall_ns(ended_ns))
        span.end(record.wall_ns(record.ended_ns))

    def close(self) -> None:
        """Send what is waiting, for a few seconds at most, and end the sender."""
        self._provider.shutdown()


def _attributes(record: Record) -> dict[str, Any]:
    told = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "http.request.body.size": record.bytes_in,
        "endoclip.request_id": record.request_id,
        "endoclip.outcome": record.outcome,
        "endoclip.task": record.task,
        "endoclip.frames": record.frames,
        "endoclip.client": record.client,
    }
    return {name: value for name, value in told.items() if value is not None}
