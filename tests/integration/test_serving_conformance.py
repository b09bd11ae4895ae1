"""The protocols as others define them: KServe's clients, the published schemas, KServe's own server."""

import asyncio
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import jsonschema
import numpy as np
import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from serving.background import Background
from serving.bundle import digest_files, load
from serving.inputs import coerce, columns_of
from serving.local.processes import free_port
from serving.server.messages import messages
from tests.open_inference_requests import FULL_ROW, KINDS, binary, tensors
from tests.prometheus import eventually
from tests.serving_bundle import rows, schema, write_bundle
from tests.serving_process import ROOT, ROW, Server

SPECIFICATION = ROOT / "tests" / "open_inference"
UNKNOWN_TO_KSERVE = {
    "InferParameter.double_param",
    "InferParameter.uint64_param",
    "ModelMetadataResponse.PropertiesEntry.key",
    "ModelMetadataResponse.PropertiesEntry.value",
    "ModelMetadataResponse.properties",
}
"""What the protocol's text has gained and KServe 0.21's messages have not; protobuf passes over such fields."""
PREDICT, INFER = "/v1/models/ours:predict", "/v2/models/ours/infer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("conformance")


@pytest.fixture(scope="module")
def bundle(folder):
    """With background rows, so that it can be explained."""
    bundle = folder / "bundle"
    write_bundle(bundle)
    Background(coerce(columns_of(rows(20), schema()), schema())).write(bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"] = {name: digest.model_dump() for name, digest in digest_files(bundle).items()}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    return bundle


@pytest.fixture(scope="module")
def grpc_port():
    return free_port()


@pytest.fixture(scope="module")
def server(folder, bundle, grpc_port):
    server = Server(bundle, "r1", folder / "log", options=("--grpc-port", str(grpc_port)))
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=f"http://{server.address}", timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def kserve():
    arguments, sys.argv = sys.argv, ["test"]  # kserve parses them
    try:
        import kserve
    finally:
        sys.argv = arguments
    return kserve


@pytest.fixture(scope="module")
def wanted(bundle):
    """The probabilities of five rows."""
    return load(bundle).predict(rows(5))


def inputs_of(kserve, table, *, is_binary):
    made = []
    for name, kind in KINDS.items():
        tensor = kserve.InferInput(name, [len(table)], kind)
        values = table[name].to_numpy()
        dtype = {"FP64": float, "BOOL": bool, "BYTES": object}[kind]
        values = ["" if value is None else value for value in values] if kind == "BYTES" else values
        tensor.set_data_from_numpy(np.array(values, dtype=dtype), binary_data=is_binary)
        made.append(tensor)
    return made


def test_kserve_s_rest_client_speaks_v1(kserve, server, wanted):
    async def speak():
        base = f"http://{server.address}"
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v1", timeout=30)) as client:
            assert await client.is_server_live(base)
            assert await client.is_model_ready(base, "ours")
            table = rows(5)
            sent = {"instances": table.astype(object).where(table.notna(), None).to_dict("records")}
            return await client.infer(base, sent, "ours"), await client.explain(base, "ours", sent)

    predicted, explained = asyncio.run(speak())
    told = [list(row["probabilities"].values()) for row in predicted["predictions"]]
    np.testing.assert_allclose(told, wanted, atol=1e-12)
    for row, explanation in zip(wanted, explained["explanations"], strict=True):
        assert set(explanation["contributions"]) == set(KINDS)
        total = explanation["base_value"] + sum(explanation["contributions"].values())
        assert total == pytest.approx(row.max(), abs=1e-9)


@pytest.mark.parametrize("is_binary", [False, True], ids=["json", "binary"])
def test_kserve_s_rest_client_speaks_v2(kserve, server, wanted, is_binary):
    async def speak():
        base = f"http://{server.address}"
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2", timeout=30)) as client:
            assert await client.is_server_live(base)
            assert await client.is_server_ready(base)
            assert await client.is_model_ready(base, "ours")
            assert not await client.is_model_ready(base, "other")
            parameters = {"binary_data_output": True} if is_binary else {}
            inputs = inputs_of(kserve, rows(5), is_binary=is_binary)
            return await client.infer(base, kserve.InferRequest("ours", inputs, parameters=parameters), "ours")

    reply = asyncio.run(speak())
    probabilities, label = reply.outputs
    np.testing.assert_allclose(probabilities.as_numpy(), wanted, atol=1e-12)
    labels = [text.decode() if isinstance(text, bytes) else text for text in label.as_numpy()]
    assert labels == [("No", "Yes")[index] for index in wanted.argmax(axis=1)]
    assert reply.model_name == "ours"


@pytest.mark.parametrize("is_raw", [False, True], ids=["typed", "raw"])
def test_kserve_s_grpc_client_is_understood(kserve, server, grpc_port, wanted, is_raw):
    async def speak():
        async with kserve.InferenceGRPCClient(f"127.0.0.1:{grpc_port}") as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("ours")
            with pytest.raises(grpc.RpcError, match="does not exist"):
                await client.is_model_ready("other")
            inputs = inputs_of(kserve, rows(5), is_binary=is_raw)
            return await client.infer(kserve.InferRequest("ours", inputs))

    reply = asyncio.run(speak())
    np.testing.assert_allclose(reply.outputs[0].as_numpy(), wanted, atol=1e-12)


def published(name):
    """A schema of the published REST protocol."""
    document = yaml.safe_load((SPECIFICATION / "open_inference_rest.yaml").read_text())
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def test_an_explanation_is_of_the_class_and_within_the_time_that_the_request_names(client):
    def explain(rows=(FULL_ROW,), **parameters):
        body = {"instances": rows, "parameters": parameters}
        reply = client.post("/v1/models/ours:explain", json=body)
        return reply.status_code, reply.json()

    status, answer = explain(seconds=1, **{"class": "Yes"})
    assert status == 200
    assert answer["explanations"][0]["class"] == "Yes"
    for parameters, named in (
        ({"class": "Perhaps"}, "Perhaps"),
        ({"seconds": 0}, "parameters.seconds"),
        ({"seconds": 3600}, "parameters.seconds"),
        ({"depth": 1}, "parameters.depth"),
    ):
        status, answer = explain(**parameters)
        assert (status, named in answer["error"]) == (400, True)
    assert explain(rows=[FULL_ROW] * 65)[0] == 400
    assert explain(rows=[{**FULL_ROW, "mean_radius": "abc"}])[0] == 400
    assert "request_explain_seconds_count" in client.get("/metrics").text


def test_a_repository_lists_its_models(client):
    listed = [{"name": "ours", "version": "r1", "state": "READY", "reason": ""}]
    for body in (b"", b"{}", b'{"ready": true}'):
        assert client.post("/v2/repository/index", content=body).json() == listed
    for body in (b"[]", b'{"ready": 1}', b"{"):
        assert client.post("/v2/repository/index", content=body).status_code == 400
    refused = client.post("/v2/repository/models/ours/load", json={"parameters": {"config": "{}"}})
    assert (refused.status_code, "parameters" in refused.json()["error"]) == (400, True)


def test_every_reply_fits_the_published_schemas(client):
    for path in ("/v2", "/v2/"):
        jsonschema.validate(client.get(path).json(), published("metadata_server_response"))
    for path in ("/v2/models/ours", "/v2/models/ours/versions/r1"):
        jsonschema.validate(client.get(path).json(), published("metadata_model_response"))
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/ours/versions/r1/ready"):
        assert client.get(path).status_code == 200
    for row in (FULL_ROW, ROW):
        request = {"id": "1", "inputs": tensors(row), "outputs": [{"name": "label"}, {"name": "probabilities"}]}
        for path in (INFER, "/v2/models/ours/versions/r1/infer"):
            reply = client.post(path, json=request)
            assert reply.status_code == 200
            jsonschema.validate(reply.json(), published("inference_response"))
    jsonschema.validate(request | {"inputs": tensors()}, published("inference_request"))  # ours are ones, too
    for wrong in ({}, {"inputs": [{}]}, {"inputs": tensors(mean_radius=None)}):
        reply = client.post(INFER, json=wrong)
        assert reply.status_code == 400
        jsonschema.validate(reply.json(), published("inference_error_response"))
        assert reply.json()["error"]


def fields_of(messages, prefix=""):
    """Number, type and label of every field of every message, by its full name."""
    found = {}
    for message in messages:
        name = f"{prefix}{message.name}"
        for field in message.field:
            found[f"{name}.{field.name}"] = (field.number, field.type, field.label, field.type_name)
        found |= fields_of(message.nested_type, f"{name}.")
    return found


def test_the_grpc_messages_and_methods_are_the_published_ones(folder):
    compiled = folder / "published"
    options = [f"-I{SPECIFICATION}", f"--descriptor_set_out={compiled}", "open_inference_grpc.proto"]
    assert protoc.main(["protoc", *options]) == 0
    published = FileDescriptorSet.FromString(compiled.read_bytes()).file[0]
    ours = FileDescriptorProto()
    messages().DESCRIPTOR.CopyToProto(ours)
    have = fields_of(ours.message_type)
    missing = {name: field for name, field in fields_of(published.message_type).items() if have.get(name) != field}
    assert set(missing) <= UNKNOWN_TO_KSERVE
    methods = {method.name: (method.input_type, method.output_type) for method in ours.service[0].method}
    for method in published.service[0].method:
        assert methods[method.name] == (method.input_type, method.output_type)


def test_schemathesis_finds_nothing_wrong_with_our_own_document(server, folder):
    """But for what it takes beyond the document, and for what a schema cannot say.

    Text that reads as a number is taken for one. That a tensor's shape fits its data, or that a model overflows from
    numbers near the largest, is no schema's to tell.
    """
    command = ["run", f"http://{server.address}/openapi.json", "--phases", "examples,coverage,fuzzing"]
    command += [
        "--max-examples",
        "5",
        "--seed",
        "1",
        "--exclude-checks",
        "negative_data_rejection,positive_data_acceptance",
    ]
    command += ["--exclude-path-regex", "/versions/", "--no-color"]
    program = Path(sys.executable).with_name("schemathesis")
    done = subprocess.run([program, *command], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()
    assert "Tested: 17" in done.stdout.decode()


@pytest.fixture(scope="module")
def theirs(bundle, folder):
    """KServe's own server with the same model."""
    port = free_port()
    with (folder / "kserve.log").open("wb") as log:
        command = [sys.executable, "-m", "tests.kserve_server", str(bundle), str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def ready():
        assert process.poll() is None, (folder / "kserve.log").read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}/v2/models/ours/ready").status_code == 200

    try:
        eventually(ready, 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def post(path, **how):
    return ("POST", path, how)


def get(path):
    return ("GET", path, {})


def v1(*instances):
    return post(PREDICT, json={"instances": instances})


def v2(path=INFER, row=FULL_ROW, **changed):
    return post(path, json={"id": "7", "inputs": tensors(row, **changed)})


SAME = {
    "alive": get("/"),
    "V1 models": get("/v1/models"),
    "V1 readiness": get("/v1/models/ours"),
    "V1 readiness of an unknown model": get("/v1/models/x"),
    "live": get("/v2/health/live"),
    "ready": get("/v2/health/ready"),
    "V2 models": get("/v2/models"),
    "V2 readiness": get("/v2/models/ours/ready"),
    "V2 readiness of an unknown model": get("/v2/models/x/ready"),
    "V1 objects": v1(FULL_ROW),
    "V1 with a missing value": v1(ROW),
    "V1 arrays": v1(list(FULL_ROW.values())),
    "V1 with a column more": v1({**FULL_ROW, "more": 1}),
    "V1 with a number as text": v1({**FULL_ROW, "mean_radius": "14.2"}),
    "V1 without rows": v1(),
    "V1 of an unknown model": post("/v1/models/x:predict", json={"instances": []}),
    "V2 of an unknown model": v2("/v2/models/x/infer"),
}
"""Requests that are answered with the same JSON."""
SAME_STATUS = {
    "V1 that is not JSON": post(PREDICT, content=b"{"),
    "V1 with NaN": post(PREDICT, content=b'{"instances": [[NaN, 1, 1, 1, "large", true]]}'),
    "V2 of a datatype that is none": v2(mean_radius={"datatype": "F"}),
    "server metadata": get("/v2"),
    "model metadata": get("/v2/models/ours"),
    "a path that is none": get("/nowhere"),
    "a method that is none": get("/v2/repository/models/ours/load"),
    "metrics": get("/metrics"),
    "V2 binary": post(INFER, **binary(id="7")),
    "V2 binary with NaN for a missing value": post(INFER, **binary(ROW, id="7")),
    "V2 with integers": v2(mean_radius={"datatype": "INT64", "data": [14]}),
}
"""Requests that are answered with the same status, and other words."""
DIFFERENT = {
    "V1 without a column": (v1({"size": "large"}), 200, 400),
    "V1 with text that is no number": (v1({**FULL_ROW, "mean_radius": "abc"}), 500, 400),
    "V1 without instances": (post(PREDICT, json={"inputs": [FULL_ROW]}), 500, 400),
    "V1 that is a list": (post(PREDICT, json=[FULL_ROW]), 500, 400),
    "GET of a prediction": (get(PREDICT), 404, 405),
    "V2 without data": (post(INFER, json={"inputs": [{"name": "a", "shape": [1], "datatype": "FP64"}]}), 422, 400),
    "V2 that is not JSON": (post(INFER, content=b"{", headers={"content-type": "application/json"}), 422, 400),
    "V2 of another shape": (v2(mean_radius={"shape": [2]}), 500, 400),
    "V2 without a column": (v2(mean_radius=None), 500, 400),
    "V2 of an output that is none": (
        post(INFER, json={"id": "7", "inputs": tensors(), "outputs": [{"name": "x"}]}),
        200,
        400,
    ),
    "V2 of a version": (v2("/v2/models/ours/versions/r1/infer"), 501, 200),
    "V2 of a version that is none": (v2("/v2/models/ours/versions/r2/infer"), 501, 404),
    "metadata of a version": (get("/v2/models/ours/versions/r1"), 501, 200),
    "server metadata, as the protocol writes the path": (get("/v2/"), 307, 200),
    "explanation": (post("/v1/models/ours:explain", json={"instances": [FULL_ROW]}), 501, 200),
    "index of the repository": (post("/v2/repository/index"), 404, 200),
    "load": (post("/v2/repository/models/ours/load"), 200, 403),
}
"""Requests that are answered otherwise on purpose, with KServe's status and ours; docs/serving-protocol.md says why."""


def both(theirs, server, request):
    """KServe's reply and ours; on connections of their own, since KServe's ends one after a status of 500."""
    method, path, how = request
    return [httpx.request(method, base + path, timeout=20, **how) for base in (theirs, f"http://{server.address}")]


def test_kserve_s_server_answers_the_same(theirs, server):
    for name, request in SAME.items():
        kserves, ours = both(theirs, server, request)
        assert (name, ours.status_code, ours.json()) == (name, kserves.status_code, kserves.json())
    for name, request in SAME_STATUS.items():
        kserves, ours = both(theirs, server, request)
        assert (name, ours.status_code) == (name, kserves.status_code)


def test_a_v2_prediction_is_that_of_kserve_s_server(theirs, server):
    for request in (v2(), v2(row=ROW), post(INFER, **binary(ROW, id="7"))):
        kserves, ours = (reply.json() for reply in both(theirs, server, request))
        assert set(ours) >= {name for name, value in kserves.items() if value is not None}
        assert (ours["id"], ours["model_name"]) == (kserves["id"], kserves["model_name"])
        their_output, our_output = kserves["outputs"][0], ours["outputs"][0]
        assert our_output == {name: value for name, value in their_output.items() if value is not None}


def test_where_kserve_s_server_answers_otherwise_it_is_as_the_page_says(theirs, server):
    page = " ".join((ROOT / "docs" / "serving-protocol.md").read_text().split())
    for name, (request, kserve_status, our_status) in DIFFERENT.items():
        kserves, ours = both(theirs, server, request)
        assert (name, kserves.status_code, ours.status_code) == (name, kserve_status, our_status)
        assert f"| {name} | {kserve_status} | {our_status} |" in page
        if our_status >= 400:
            assert list(ours.json()) == ["error"]
