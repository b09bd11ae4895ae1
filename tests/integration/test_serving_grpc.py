"""gRPC as clients meet it: a real server process, grpc's own client, KServe's messages."""

import asyncio
import contextlib
import time

import grpc
import httpx
import numpy as np
import pytest

from serving.local.processes import free_port
from serving.server import PORT_TAKEN
from serving.server import grpc as ours
from serving.server.core import Core
from serving.server.limits import Limits
from serving.server.messages import messages
from serving.server.repository import Repository
from tests.keys import write_certificate
from tests.open_inference_requests import FULL_ROW, KINDS, message
from tests.prometheus import eventually
from tests.serving_bundle import write_bundle
from tests.serving_process import ROW, Server

TOKEN = {"authorization": "Bearer secret"}
TYPES = messages()
Code = grpc.StatusCode
INFER = "/inference.GRPCInferenceService/ModelInfer"


@contextlib.contextmanager
def grpc_server(folder, *options, faults="", drain_seconds=1):
    port = free_port()
    options = ("--grpc-port", str(port), "--drain-seconds", str(drain_seconds), *options)
    server = Server(folder / "bundle", "r1", folder / "log", faults, options)
    server.start()
    try:
        server.wait()
        yield server, f"127.0.0.1:{port}"
    finally:
        server.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grpc")
    write_bundle(folder / "bundle")
    (folder / "tokens").write_text("secret\n")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with grpc_server(folder, "--tokens-file", str(folder / "tokens"), "--max-body-bytes", "100000") as started:
        yield started


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server[1]) as channel:
        yield channel


def call(channel, method, request=b"", **metadata):
    """The reply, parsed, and the trailing metadata."""
    encoded = request if isinstance(request, bytes) else request.SerializeToString()
    service = TYPES.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    kind = getattr(TYPES, service.methods_by_name[method].output_type.name)
    send = channel.unary_unary(f"/inference.GRPCInferenceService/{method}", response_deserializer=kind.FromString)
    sent = [(name.replace("_", "-"), value) for name, value in {**TOKEN, **metadata}.items() if value]
    reply, ended = send.with_call(encoded, metadata=sent, timeout=20)
    return reply, dict(ended.trailing_metadata())


def refused(channel, method, request=b"", **metadata):
    """The code and message of a failure."""
    with pytest.raises(grpc.RpcError) as failure:
        call(channel, method, request, **metadata)
    return failure.value.code(), failure.value.details()


def counted(server, code):
    """How many requests were answered with a status."""
    page = httpx.get(f"http://{server.address}/metrics").text
    name = f'sluiceway_requests_total{{code="{code}",model_name="ours",revision="r1"}}'
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))


def rest(server, row):
    reply = httpx.post(
        f"http://{server[0].address}/v1/models/ours:predict", json={"instances": [row]}, headers=TOKEN
    ).json()
    return reply["predictions"][0]


def test_typed_contents_are_answered_typed_as_rest_answers(server, channel):
    reply, _ = call(channel, "ModelInfer", message(TYPES, ROW, id="7", model_version="r1"))
    wanted = rest(server, ROW)
    assert (reply.model_name, reply.model_version, reply.id) == ("ours", "r1", "7")
    probabilities, label = reply.outputs
    assert (probabilities.datatype, list(probabilities.shape)) == ("FP64", [1, 2])
    assert list(probabilities.contents.fp64_contents) == list(wanted["probabilities"].values())
    assert (label.datatype, list(label.contents.bytes_contents)) == ("BYTES", [wanted["label"].encode()])
    assert not reply.raw_output_contents


def test_raw_contents_are_answered_raw(server, channel):
    reply, _ = call(channel, "ModelInfer", message(TYPES, ROW, is_raw=True))
    wanted = rest(server, ROW)
    probabilities, label = reply.raw_output_contents
    np.testing.assert_array_equal(np.frombuffer(probabilities), list(wanted["probabilities"].values()))
    assert label[4:] == wanted["label"].encode()
    assert not reply.outputs[0].HasField("contents")


@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [
        *(("INT" + bits, "int_contents", 20) for bits in ("8", "16", "32")),
        *(("UINT" + bits, "uint_contents", 20) for bits in ("8", "16", "32")),
        ("INT64", "int64_contents", 20),
        ("UINT64", "uint64_contents", 20),
        ("FP32", "fp32_contents", 20.0),
        ("BOOL", "bool_contents", True),
        ("BYTES", "bytes_contents", b"20"),
    ],
)
def test_every_datatype_is_read(server, channel, datatype, field, value):
    request = message(TYPES)
    tensor = request.inputs[1]
    tensor.ClearField("contents")
    tensor.datatype = datatype
    getattr(tensor.contents, field).append(value)
    reply, _ = call(channel, "ModelInfer", request)
    wanted = rest(server, {**FULL_ROW, "mean_texture": 1 if value is True else 20})
    assert list(reply.outputs[0].contents.fp64_contents) == list(wanted["probabilities"].values())


def test_only_the_outputs_asked_for_are_sent(channel):
    request = message(TYPES)
    request.outputs.add(name="label")
    assert [output.name for output in call(channel, "ModelInfer", request)[0].outputs] == ["label"]


def test_ids_and_trace_context_are_given_back(channel):
    sent = {"x_request_id": "abc", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    reply, trailing = call(channel, "ModelInfer", message(TYPES), **sent)
    assert reply.id == "abc"
    assert trailing["x-request-id"] == "abc"
    assert trailing["traceparent"] == sent["traceparent"]
    assert "traceparent" not in call(channel, "ModelInfer", message(TYPES), traceparent="none by W3C's rules")[1]


def test_a_wrong_request_is_an_invalid_argument_that_names_the_field(channel):
    unknown = message(TYPES)
    unknown.outputs.add(name="nothing")
    missing = message(TYPES)
    del missing.inputs[0]
    elsewhere = message(TYPES)
    elsewhere.inputs[0].contents.Clear()
    elsewhere.inputs[0].contents.fp32_contents.append(1)
    shape = message(TYPES)
    shape.inputs[0].shape[0] = 2
    kind = message(TYPES)
    kind.inputs[0].datatype = "FP16"
    both = message(TYPES, is_raw=True)
    both.inputs[0].contents.fp64_contents.append(1)
    few = message(TYPES, is_raw=True)
    del few.raw_input_contents[0]
    odd = message(TYPES, is_raw=True)
    odd.raw_input_contents[0] = b"123"
    text = message(TYPES)
    text.inputs[4].contents.bytes_contents[0] = b"\xff"
    for request, named in (
        (unknown, "outputs.0.name"),
        (missing, "mean_radius"),
        (elsewhere, "fp64_contents"),
        (shape, "mean_radius"),
        (kind, "raw_input_contents"),
        (both, "inputs.0.contents"),
        (few, "raw_input_contents"),
        (odd, "mean_radius"),
        (text, "'size', row 0"),
        (b"\xff\xff", "inference.ModelInferRequest"),
    ):
        code, details = refused(channel, "ModelInfer", request)
        assert code == Code.INVALID_ARGUMENT
        assert named in details


def test_unknown_models_and_versions_are_not_found(channel):
    assert refused(channel, "ModelInfer", TYPES.ModelInferRequest(model_name="x"))[0] == Code.NOT_FOUND
    assert refused(channel, "ModelInfer", message(TYPES, model_version="r2"))[0] == Code.NOT_FOUND
    assert refused(channel, "ModelReady", TYPES.ModelReadyRequest(name="x"))[0] == Code.NOT_FOUND


def test_a_token_is_needed_but_for_probes(channel):
    assert refused(channel, "ModelInfer", message(TYPES), authorization="")[0] == Code.UNAUTHENTICATED
    assert refused(channel, "ServerMetadata", authorization="Bearer other")[0] == Code.UNAUTHENTICATED
    assert call(channel, "ServerLive", authorization="")[0].live
    assert call(channel, "ServerReady", authorization="")[0].ready
    assert call(channel, "ModelReady", TYPES.ModelReadyRequest(name="ours", version="r1"), authorization="")[0].ready


def test_metadata_names_columns_and_versions(channel):
    server, _ = call(channel, "ServerMetadata")
    assert "model_repository" in server.extensions
    model, _ = call(channel, "ModelMetadata", TYPES.ModelMetadataRequest(name="ours"))
    assert [(tensor.name, tensor.datatype) for tensor in model.inputs] == list(KINDS.items())
    assert (list(model.versions), model.platform) == (["r1"], "sluiceway_onnxruntime")


def test_messages_beyond_the_limit_exhaust_resources(channel):
    request = message(TYPES)
    request.inputs.add(name="more", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"x" * 300_000)
    assert refused(channel, "ModelInfer", request)[0] == Code.RESOURCE_EXHAUSTED


def test_models_are_not_the_clients_to_load_unless_the_server_is_started_so(channel):
    load = TYPES.RepositoryModelLoadRequest(model_name="ours")
    code, details = refused(channel, "RepositoryModelLoad", load)
    assert code == Code.PERMISSION_DENIED
    assert "--model-control" in details


def test_calls_are_counted_with_the_requests_of_http(server, channel):
    before = counted(server[0], 200), counted(server[0], 400)
    call(channel, "ModelInfer", message(TYPES))
    refused(channel, "ModelInfer", TYPES.ModelInferRequest(model_name="ours"))
    assert (counted(server[0], 200), counted(server[0], 400)) == (before[0] + 1, before[1] + 1)


def test_a_deadline_that_passes_is_counted_and_a_call_in_flight_outlives_sigterm(folder):
    options = {"faults": "delay_ms=500", "drain_seconds": 0}
    with grpc_server(folder, **options) as (server, address), grpc.insecure_channel(address) as channel:
        send = channel.unary_unary(INFER)
        encoded = message(TYPES).SerializeToString()
        send(encoded, timeout=20)  # connects
        with pytest.raises(grpc.RpcError) as failure:
            send(encoded, timeout=0.3)
        assert failure.value.code() == Code.DEADLINE_EXCEEDED
        eventually(lambda: counted(server, 499) == 1, 10)
        futures = [send.future(encoded, timeout=20) for _ in range(16)]
        time.sleep(0.25)
        server.process.terminate()
        for future in futures:
            assert future.result()
        assert server.process.wait(20) == 0


def test_tls_takes_the_certificate_that_is_there_at_the_handshake(tmp_path):
    async def live(address, authority):
        trusted = grpc.ssl_channel_credentials(authority.read_bytes())
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(address, trusted, options) as channel:
            return await channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5)

    async def speak():
        port = free_port()
        paths, other = write_certificate(tmp_path, "server"), write_certificate(tmp_path, "other")
        server = ours.Server(Core(Limits(), Repository(Limits())), "1", [])
        await server.start("127.0.0.1", port, credentials=ours.credentials(*paths))
        address = f"127.0.0.1:{port}"
        known, new = tmp_path / "known", other[0]
        known.write_bytes(paths[0].read_bytes())
        assert TYPES.ServerLiveResponse.FromString(await live(address, known)).live
        with pytest.raises(grpc.RpcError):
            await live(address, new)
        for path, replacement in zip(paths, other, strict=True):
            path.write_bytes(replacement.read_bytes())
        assert TYPES.ServerLiveResponse.FromString(await live(address, new)).live
        await server.stop(0)

    asyncio.run(speak())


def test_workers_share_the_port_and_what_clients_load(folder):
    with grpc_server(folder, "--workers", "2", "--model-control", "explicit") as (server, address):
        local = [("grpc.use_local_subchannel_pool", 1)]  # else all channels to an address share a connection
        with contextlib.ExitStack() as stack:
            channels = [stack.enter_context(grpc.insecure_channel(address, options=local)) for _ in range(16)]
            for channel in channels:
                call(channel, "ModelInfer", message(TYPES))
            assert counted(server, 200) == 16
            unload = TYPES.RepositoryModelUnloadRequest(model_name="ours")
            assert call(channels[0], "RepositoryModelUnload", unload)[0].isUnloaded
            for channel in channels:
                assert refused(channel, "ModelInfer", message(TYPES))[0] == Code.UNAVAILABLE
            load = TYPES.RepositoryModelLoadRequest(model_name="ours")
            assert call(channels[0], "RepositoryModelLoad", load)[0].isLoaded
            for channel in channels:
                call(channel, "ModelInfer", message(TYPES))
        port = address.rpartition(":")[2]
        other = Server(folder / "bundle", "r1", folder / "log", options=("--grpc-port", port))
        other.start()
        assert other.process.wait(30) == PORT_TAKEN
