"""Spans of predictions, for OpenTelemetry, as children of what W3C's trace context names.

Off, and free of cost, unless the environment asks as OpenTelemetry has it: ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or that of
``TRACES`` alone), or ``OTEL_TRACES_EXPORTER=otlp``. Spans go out over OTLP/HTTP, from a thread, in batches; what cannot
be sent is dropped. The sampler is that of ``OTEL_TRACES_SAMPLER``, by default the caller's decision, and all requests
that nobody decided on.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from components.errors import BadInput

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"
_SAMPLED = 1

# https://www.w3.org/TR/trace-context/#traceparent-header: versions to come may add fields, and ff is none.
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})((?<!^00.{53})-.*)?"
)


def trace_id(traceparent: bytes) -> str:
    """The trace that the value of a ``traceparent`` header names; empty where it is none by W3C's rules."""
    read = _TRACEPARENT.fullmatch(traceparent)
    return "" if read is None else read[1].decode()


def passed_on(traceparent: bytes, tracestate: bytes | None) -> bytes:
    """The lines of a reply's head that give the caller's context back; none where it is not one by W3C's rules."""
    if _TRACEPARENT.fullmatch(traceparent) is None:
        return b""
    state = b"" if tracestate is None else b"tracestate: %b\r\n" % tracestate
    return b"traceparent: %b\r\n%b" % (traceparent, state)


class Tracing:
    """Makes spans of predictions."""

    def __init__(self, name: str, revision: str, exporter: "SpanExporter") -> None:
        """Begin.

        Args:
            name: the service's, where ``OTEL_SERVICE_NAME`` does not say.
            revision: the service's version.
            exporter: takes the spans.
        """
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
        from opentelemetry.trace import SpanKind

        named: Mapping[str, str] = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": name}
        resource = Resource.create({**named, "service.version": revision})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("sluiceway.serving")
        self._kind = SpanKind.SERVER
        sampler = self._provider.sampler
        self._follows = isinstance(sampler, ParentBased) and sampler._remote_parent_not_sampled is ALWAYS_OFF
        self._revision = revision

    @classmethod
    def from_environment(cls, name: str, revision: str) -> "Tracing | None":
        """The tracing that OpenTelemetry's variables ask for; None where they ask for none.

        Raises:
            BadInput: they ask for what is not installed, or not there.
        """
        environment = os.environ
        exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
        if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
            return None
        if not exporter and not any(environment.get(endpoint) for endpoint in ENDPOINTS):
            return None
        if exporter not in ("", "otlp"):
            raise BadInput(f"OTEL_TRACES_EXPORTER is {exporter!r}; spans can be sent by otlp, or by none.")
        protocol = next((value for variable in PROTOCOLS if (value := environment.get(variable))), _HTTP)
        if protocol != _HTTP:
            raise BadInput(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}; spans are sent over {_HTTP} only.")
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise BadInput(
                "OpenTelemetry's variables ask for spans, but the libraries are not installed: "
                "pip install 'sluiceway[tracing]', or set OTEL_TRACES_EXPORTER=none."
            ) from error
        return cls(name, revision, OTLPSpanExporter())

    def start(self, headers: Iterable[tuple[bytes, bytes]], route: str, method: str = "") -> "Span | None":
        """Begin the span of a request; None where it is not sampled.

        Args:
            headers: of the request, names in lower case.
            route: the path, such as ``/v1/models/NAME:predict``.
            method: gRPC's, with its service, such as ``package.Service/Method``; empty for a request of HTTP.
        """
        traceparent, states = _context(headers)
        if traceparent is not None and self._follows and not int(traceparent[3], 16) & _SAMPLED:
            return None
        parent = None if traceparent is None else self._caller(traceparent, states)
        pattern, model = _pattern(route)
        attributes: dict[str, Any] = {"sluiceway.model.name": model, "sluiceway.model.revision": self._revision}
        if method:  # https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
            service, _, called = method.rpartition("/")
            attributes |= {"rpc.system": "grpc", "rpc.service": service, "rpc.method": called}
        else:
            attributes |= {
                "http.request.method": "POST",
                "http.route": pattern,
                "url.path": route,
                "url.scheme": "http",
            }
        span = self._tracer.start_span(method or f"POST {pattern}", parent, self._kind, attributes)
        return span if span.is_recording() else None

    def end(self, span: "Span", status: int, rows: int, code: int | None = None) -> None:
        """End the span of a request.

        Args:
            span: of ``start``.
            status: HTTP's, or what it would be over HTTP.
            rows: how many the request had.
            code: gRPC's; None for a request of HTTP.
        """
        from opentelemetry.trace import StatusCode

        if code is None:
            span.set_attribute("http.response.status_code", status)
        else:
            span.set_attribute("rpc.grpc.status_code", code)
        span.set_attribute("sluiceway.rows", rows)
        if status >= 500:
            span.set_attribute("error.type", str(status if code is None else code))
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Send what is left; call it from a thread, it waits for the receiver."""
        self._provider.shutdown()

    @staticmethod
    def _caller(traceparent: re.Match[bytes], states: list[str]) -> "Context":
        from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

        caller = SpanContext(
            int(traceparent[1], 16),
            int(traceparent[2], 16),
            is_remote=True,
            trace_flags=TraceFlags(int(traceparent[3], 16)),
            trace_state=TraceState.from_header(states) if states else None,
        )
        return set_span_in_context(NonRecordingSpan(caller))


def _context(headers: Iterable[tuple[bytes, bytes]]) -> tuple[re.Match[bytes] | None, list[str]]:
    """What the headers say of the caller's span; None where they say nothing, or not by W3C's rules."""
    parents = []
    states = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value.decode("latin-1"))
    return (_TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None), states


_NAMES = re.compile(r"/v[12]/models/([^/:]+)")


def _pattern(route: str) -> tuple[str, str]:
    """A route with a placeholder for the model's name, so that spans of all models have one name; and that name."""
    found = _NAMES.match(route)
    if found is None:
        return route, ""
    return f"{route[: found.start(1)]}{{name}}{route[found.end(1) :]}", found[1]
