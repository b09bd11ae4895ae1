"""Spans against a real OTLP/HTTP receiver, decoded as OpenTelemetry's protocol has them."""

import gzip
import http.server
import threading
import time

import pytest

from components.errors import BadInput
from serving.tracing import Tracing, passed_on, trace_id

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
ROUTE = "/v1/models/ours:predict"


class Receiver(http.server.ThreadingHTTPServer):
    """Takes spans."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans = []
        self.resources = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.server.resources.append(attributes(resource.resource))
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def attributes(owner):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in owner.attributes}


@pytest.fixture
def receiver(monkeypatch):
    made = Receiver()
    threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    yield made
    made.shutdown()
    made.server_close()


def headers(flags="01", state=None):
    given = [(b"traceparent", f"00-{TRACE}-{CALLER}-{flags}".encode())]
    return given + ([(b"tracestate", state)] if state else [])


def test_a_span_is_the_callers_child_and_says_what_was_asked(receiver):
    tracing = Tracing.from_environment("ours", "r7")
    span = tracing.start(headers(state=b"vendor=x"), ROUTE)
    tracing.end(span, 200, 3)
    tracing.end(tracing.start([], "/v2/models/ours/infer"), 503, 0)
    tracing.close()

    child, root = receiver.spans
    assert (child.trace_id.hex(), child.parent_span_id.hex(), child.trace_state) == (TRACE, CALLER, "vendor=x")
    assert (child.name, child.kind) == ("POST /v1/models/{name}:predict", child.SPAN_KIND_SERVER)
    assert 0 <= child.end_time_unix_nano - child.start_time_unix_nano < 1e9
    assert attributes(child) == {
        "http.request.method": "POST",
        "http.route": "/v1/models/{name}:predict",
        "http.response.status_code": 200,
        "url.path": ROUTE,
        "url.scheme": "http",
        "sluiceway.model.name": "ours",
        "sluiceway.model.revision": "r7",
        "sluiceway.rows": 3,
    }
    assert (root.parent_span_id, root.name) == (b"", "POST /v2/models/{name}/infer")
    assert root.status.code == root.status.STATUS_CODE_ERROR
    assert attributes(root)["error.type"] == "503"
    assert receiver.resources[0]["service.name"] == "ours"
    assert receiver.resources[0]["service.version"] == "r7"


def test_a_call_of_grpc_is_told_in_grpcs_words(receiver):
    tracing = Tracing.from_environment("ours", "r7")
    method = "inference.GRPCInferenceService/ModelInfer"
    tracing.end(tracing.start(headers(), "/v2/models/ours/infer", method), 503, 0, 8)
    tracing.close()

    (span,) = receiver.spans
    assert (span.name, span.parent_span_id.hex()) == (method, CALLER)
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 8,
        "error.type": "8",
        "sluiceway.model.name": "ours",
        "sluiceway.model.revision": "r7",
        "sluiceway.rows": 0,
    }


def test_the_callers_decision_counts_and_then_the_samplers(receiver, monkeypatch):
    tracing = Tracing.from_environment("ours", "r7")
    assert tracing.start(headers(flags="00"), ROUTE) is None
    assert tracing.start(headers(flags="01"), ROUTE) is not None
    tracing.close()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    tracing = Tracing.from_environment("ours", "r7")
    assert tracing.start([], ROUTE) is None
    assert tracing.start(headers(flags="01"), ROUTE) is not None
    tracing.close()
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    tracing = Tracing.from_environment("ours", "r7")
    assert tracing.start(headers(flags="00"), ROUTE) is not None
    tracing.close()


@pytest.mark.parametrize(
    "wrong",
    [
        [(b"traceparent", b"00-nonsense-01")],
        [*headers(), *headers()],
        [(b"traceparent", f"00-{'0' * 32}-{CALLER}-01".encode())],
        [(b"traceparent", f"00-{TRACE.upper()}-{CALLER}-01".encode())],
    ],
)
def test_a_context_that_is_none_begins_a_trace_of_its_own(receiver, wrong):
    tracing = Tracing.from_environment("ours", "r7")
    tracing.end(tracing.start(wrong, ROUTE), 200, 1)
    tracing.close()
    (span,) = receiver.spans
    assert span.parent_span_id == b""
    assert span.trace_id.hex() != TRACE


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (f"00-{TRACE}-{CALLER}-01", True),
        (f"00-{TRACE}-{CALLER}-00", True),
        (f"42-{TRACE}-{CALLER}-01-what-will-come", True),
        (f"00-{TRACE}-{CALLER}-01-more", False),
        (f"42-{TRACE}-{CALLER}-01more", False),
        (f"ff-{TRACE}-{CALLER}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE}-{CALLER}-0g", False),
        (f"00-{TRACE}-{CALLER}", False),
        ("", False),
    ],
)
def test_a_traceparent_is_what_w3c_says(value, is_one):
    assert trace_id(value.encode()) == (TRACE if is_one else "")
    lines = f"traceparent: {value}\r\ntracestate: a=b\r\n" if is_one else ""
    assert passed_on(value.encode(), b"a=b") == lines.encode()


def test_a_receiver_that_is_down_costs_nothing_but_the_spans(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    tracing = Tracing.from_environment("ours", "r7")
    began = time.perf_counter()
    for _ in range(3_000):  # more than the processor keeps
        tracing.end(tracing.start([], ROUTE), 200, 1)
    assert time.perf_counter() - began < 10
    tracing.close()


def test_nothing_is_made_where_nobody_asks(monkeypatch):
    assert Tracing.from_environment("ours", "r7") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert Tracing.from_environment("ours", "r7") is None
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert Tracing.from_environment("ours", "r7") is None


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]
)
def test_what_is_not_there_is_said(monkeypatch, name, value):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=f"{name} is '{value}'"):
        Tracing.from_environment("ours", "r7")
