"""Payload logging and tracing through the real server, of two workers, over REST in every form and over gRPC."""

import contextlib
import json
import signal
import threading

import duckdb
import grpc
import httpx
import orjson
import psutil
import pytest

from serving.local.processes import free_port
from serving.server.messages import messages
from tests.integration.test_serving_tracing import Receiver, attributes
from tests.payload_sink import sink
from tests.payloads import binary
from tests.prometheus import eventually
from tests.serving_bundle import schema, write_bundle
from tests.serving_process import ROW, Server

FORMS = ("objects", "arrays", "tensors", "binary", "grpc")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("payloads") / "bundle"
    write_bundle(folder)
    return folder


def v2(value):
    columns = {column.name: ROW[column.name] for column in schema().inputs}
    kinds = {"number": "FP64", "string": "BYTES", "boolean": "BOOL"}
    return [
        (column.name, kinds[column.type], [1], [float("nan") if columns[column.name] is None else columns[column.name]])
        for column in schema().inputs
    ]


def written(text, what):
    """The sum over a server's workers of one of the counts."""
    lines = [line for line in text.splitlines() if line.startswith("sluiceway_payloads_total") and f'"{what}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_what_is_asked_of_a_server_and_answered_is_logged_and_traced(bundle, tmp_path, monkeypatch):
    receiver = Receiver()
    threading.Thread(target=receiver.serve_forever, args=(0.02,), daemon=True).start()
    store = tmp_path / "store"
    with sink() as http:
        for name, value in {
            "SLUICEWAY_PAYLOADS_URL": http.url,
            "SLUICEWAY_PAYLOADS_STORE": str(store),
            "SLUICEWAY_PAYLOADS_REDACT": "size",
            "SLUICEWAY_PAYLOADS_ROLL_SECONDS": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }.items():
            monkeypatch.setenv(name, value)
        port = free_port()
        options = ("--workers", "2", "--log", "json", "--grpc-port", str(port))
        server = Server(bundle, "r7", tmp_path / "log", options=options)
        server.start()
        try:
            server.wait()
            with httpx.Client(base_url=f"http://{server.address}", headers={"traceparent": TRACEPARENT}) as client:
                ask(client)
                ask_grpc(port)
                eventually(lambda: len(http.events) >= 11, 30)
                eventually(lambda: len(receiver.spans) >= 6, 30)
                eventually(lambda: written(client.get("/metrics").text, "written.store") == 6, 30)
                assert written(client.get("/metrics").text, "dropped.http.unreadable") == 0
            # Every worker has a writer; one that is killed comes back, and no prediction fails meanwhile.
            victims = writers(server)
            assert len(victims) == 2
            for victim in victims:
                victim.kill()
            assert server.send(50) == {200: 50}
            eventually(lambda: len({one.pid for one in writers(server)} - {one.pid for one in victims}) == 2, 30)
            server._process.send_signal(signal.SIGTERM)
            assert server._process.wait(30) == 0
        finally:
            server.kill()
            receiver.shutdown()
            receiver.server_close()

    table = duckdb.sql(f"FROM read_parquet('{store}/**/*.parquet', union_by_name=true)").df()
    table = table[table["id"].str.startswith("ask-")].set_index("id")
    assert sorted(table.index) == [f"ask-{name}" for name in sorted((*FORMS, "wrong"))]
    good = table.drop("ask-wrong")
    assert good["mean_radius"].tolist() == [14.2] * 5
    assert good["rough"].tolist() == [True] * 5
    assert table["size"].isna().all()
    assert good["label"].isin(["Yes", "No"]).all()
    assert (good["probability_No"] + good["probability_Yes"]).round(6).tolist() == [1.0] * 5
    assert table.loc["ask-wrong", "status"] == 400
    assert set(table["revision"]) == {"r7"}

    kinds = {(event["id"], event["type"].rpartition(".")[2]) for event, _, _ in http.events}
    assert {(f"ask-{name}", "response") for name in FORMS} <= kinds
    assert ("ask-wrong", "response") not in kinds
    assert [body for _, _, body in http.events if b"large" in body] == []

    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if line.startswith("{")]
    refusal = next(line for line in lines if line.get("request") == "ask-wrong")
    assert refusal["trace"] == TRACEPARENT.split("-")[1]

    asked = [span for span in receiver.spans if span.parent_span_id.hex() == TRACEPARENT.split("-")[2]]
    told = [attributes(span) for span in asked]
    assert sorted(one["http.response.status_code"] for one in told if "rpc.system" not in one) == [200] * 4 + [400]
    assert [one["rpc.grpc.status_code"] for one in told if "rpc.system" in one] == [0]


def ask(client):
    """One good request in every form, and a bad one."""
    url = {"v1": "/v1/models/ours:predict", "v2": "/v2/models/ours/infer"}
    body, head = binary(v2(ROW), {"parameters": {"binary_data_output": True}})
    kinds = {"number": "FP64", "string": "BYTES", "boolean": "BOOL"}
    tensors = [
        {"name": column.name, "datatype": kinds[column.type], "shape": [1], "data": [ROW[column.name]]}
        for column in schema().inputs
    ]
    asked = {
        "objects": (url["v1"], orjson.dumps({"instances": [ROW]}), {}),
        "arrays": (url["v1"], orjson.dumps({"instances": [list(ROW.values())]}), {}),
        "tensors": (url["v2"], orjson.dumps({"inputs": tensors}), {}),
        "binary": (url["v2"], body, {"inference-header-content-length": str(head)}),
        "wrong": (url["v1"], orjson.dumps({"instances": [{**ROW, "mean_radius": "wide"}]}), {}),
    }
    for name, (path, content, headers) in asked.items():
        reply = client.post(path, content=content, headers={"x-request-id": f"ask-{name}", **headers})
        assert reply.status_code == (400 if name == "wrong" else 200), reply.text
        assert (reply.headers["x-request-id"], reply.headers["traceparent"]) == (f"ask-{name}", TRACEPARENT)


def ask_grpc(port):
    """The same row over gRPC."""
    fields = {"FP64": "fp64_contents", "BYTES": "bytes_contents", "BOOL": "bool_contents"}
    request = messages().ModelInferRequest(model_name="ours")
    for name, datatype, shape, values in v2(ROW):
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        getattr(tensor.contents, fields[datatype]).extend(
            value.encode() if datatype == "BYTES" else value for value in values
        )
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        infer(request.SerializeToString(), metadata=[("x-request-id", "ask-grpc"), ("traceparent", TRACEPARENT)])


def writers(server):
    """The processes of a server that write payloads."""
    found = []
    for one in psutil.Process(server._process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if "serving.payloads.writer" in " ".join(one.cmdline()):
                found.append(one)
    return found


def test_a_column_to_redact_that_the_model_has_not_keeps_the_server_from_starting(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("SLUICEWAY_PAYLOADS_STORE", str(tmp_path))
    monkeypatch.setenv("SLUICEWAY_PAYLOADS_REDACT", "sise")
    log = tmp_path / "log"
    server = Server(bundle, "r7", log)
    server.start()
    try:
        assert server._process.wait(60) == 1
    finally:
        server.kill()
    assert "SLUICEWAY_PAYLOADS_REDACT names 'sise', but the inputs of model 'ours' are mean_radius" in log.read_text()
